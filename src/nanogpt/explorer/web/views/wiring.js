/** A circuit as a drawing: its parts, in the order in which they add to the stream, and paths. */

import { h, tip } from "../draw.js";
import { percent } from "../numbers.js";
import { pressed, strongest } from "./parts.js";

const LEAST = 0.03; // of the behaviour: thinner paths would cover what matters
const BOX = { width: 116, height: 62 };
const SMALL = { width: 96, height: 46 };
const WIDEST = 13; // pixels of a path without which everything is lost

const NAMES = { drop: "tokens", ln_f: "next token" };
const SHORT = { previous: "token before", induction: "what followed", first: "first token" };
const READS = { q: "queries", k: "keys", v: "values" };

/** The part that a path begins or ends at, by its name and head: one key for q, k and v. */
const partOf = (name, head) =>
  (head === null ? name : `${name.replace(/\.(kernel|q|k|v)$/, "")} ${head}`);

/** Layer and number of the head that a key means, and its place in the circuit; else null. */
function headOf(key, circuit) {
  const [layer, head] = /^h\.(\d+)\.attn (\d+)$/.exec(key)?.slice(1).map(Number) ?? [];
  if (head === undefined) return null;
  return { layer, head, at: circuit.heads.findIndex(([l, n]) => l === layer && n === head) };
}

/** The parts of a circuit as stages, from the tokens to the next token: [[key, ...], ...]. */
function stagesOf(circuit) {
  const layers = Math.max(...circuit.paths.map(({ source }) =>
    Number(/^h\.(\d+)/.exec(source)?.[1] ?? 0))) + 1;
  const stages = [["drop"]];
  for (let layer = 0; layer < layers; layer++) {
    const heads = circuit.heads.filter(([at]) => at === layer)
      .map(([, n]) => `h.${layer}.attn ${n}`);
    if (heads.length) stages.push(heads);
    stages.push([`h.${layer}.mlp`]);
  }
  return [...stages, ["ln_f"]];
}

/** What a part is called, and what is known of it. */
function words(key, circuit) {
  const found = headOf(key, circuit);
  if (!found) return [NAMES[key] ?? `MLP ${key.split(".")[1]}`, ""];
  const [habit, share] = strongest(circuit.habits[found.at]);
  return [`head ${found.layer}.${found.head}`, share > 0.3 ? SHORT[habit] : ""];
}

/**
 * Where each part is drawn: a Map of key -> {key, x, y, width, height}; x and y are the middle.
 * Heads have one lane, MLPs another beside it, so that a path past a part does not cross it.
 */
function layout(stages, width, across) {
  const places = new Map();
  const most = Math.max(...stages.map((stage) => stage.length));
  const lane = across ? Math.max(180, most * 92) : width - SMALL.width - 8;
  const length = across ? width : (stages.length - 1) * 108 + SMALL.height + 8;
  const margin = (across ? SMALL.width : SMALL.height) / 2 + 4;
  stages.forEach((stage, n) => stage.forEach((key, i) => {
    const along = margin + (n * (length - 2 * margin)) / (stages.length - 1);
    const aside = key.includes("mlp") ? lane + (across ? 44 : SMALL.width / 2 + 4) :
      (lane * (i + 0.5)) / stage.length;
    const size = { ...(key.includes("attn") ? BOX : SMALL) };
    if (!across) size.width = Math.min(size.width, lane / stage.length - 8);
    places.set(key, { key, ...size, x: across ? along : aside, y: across ? aside : along });
  }));
  return { places, height: across ? lane + 44 + SMALL.height / 2 + 4 : length };
}

/** Where a path ends at a part: the heads' queries, keys and values have a port each. */
function port(place, sink, across) {
  const which = { q: -1, k: 0, v: 1 }[/\.attn\.([qkv])$/.exec(sink)?.[1]] ?? 0;
  return across ?
    { x: place.x - place.width / 2, y: place.y + (which * place.height) / 3.2 } :
    { x: place.x + (which * place.width) / 3.2, y: place.y - place.height / 2 };
}

/** Where a path leaves a part. */
const exit = (place, across) => (across ? { x: place.x + place.width / 2, y: place.y } :
  { x: place.x, y: place.y + place.height / 2 });

/**
 * The drawing, from left to right where there is room and from top to bottom where there is none.
 * @param {object} circuit what lab/circuit.py found
 * @param {number} width in pixels
 * @param {{chosen: number[], onchoose: function(number[])}} how the head that is chosen
 */
export function wiring(circuit, width, { chosen, onchoose }) {
  const stages = stagesOf(circuit);
  const across = width > 760;
  const { places, height } = layout(stages, width, across);
  const paths = circuit.paths.filter(({ lost }) => Math.abs(lost) >= LEAST)
    .sort((a, b) => a.lost - b.lost);
  const drawn = paths.map((path) => {
    const [source, sink] = [[path.source, path.source_head], [path.sink, path.sink_head]].map(
      ([name, head]) => places.get(partOf(name, head)));
    const [a, b] = [exit(source, across), port(sink, path.sink, across)];
    const bend = (across ? b.x - a.x : b.y - a.y) * 0.45;
    const d = across ?
      `M${a.x} ${a.y}C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}` :
      `M${a.x} ${a.y}C${a.x} ${a.y + bend} ${b.x} ${b.y - bend} ${b.x} ${b.y}`;
    const reads = /\.([qkv])$/.exec(path.sink)?.[1] ?? "m";
    const [from] = words(source.key, circuit);
    const [to] = words(sink.key, circuit);
    const said = `${from} → ${READS[reads] ? `${READS[reads]} of ` : ""}${to}: without this path ` +
      `${percent(Math.abs(path.lost))} is ${path.lost < 0 ? "gained" : "lost"}`;
    return h("path", {
      class: `wire ${reads} ${path.lost < 0 ? "against" : ""}`, d, tabindex: 0, role: "img",
      "aria-label": said,
      "stroke-width": Math.max(1.2, Math.min(1.2, Math.abs(path.lost)) * WIDEST),
      onmousemove: (event) => tip(said, event), onmouseleave: () => tip(""),
    });
  });
  const boxes = [...places.values()].map((place) => {
    const [name, habit] = words(place.key, circuit);
    const found = headOf(place.key, circuit);
    const head = found && [found.layer, found.head];
    return h("g", {
      class: `part ${head ? "head" : ""} ${String(head) === String(chosen) ? "chosen" : ""}`,
      "aria-label": `${name} ${habit}`, ...(head ? pressed(() => onchoose(head)) : { role: "img" }),
    },
    h("rect", { x: place.x - place.width / 2, y: place.y - place.height / 2, rx: 10,
      width: place.width, height: place.height }),
    h("text", { class: "name", x: place.x, y: place.y + (head ? -8 : 5) }, name),
    head && h("text", { class: "habit", x: place.x, y: place.y + 8 }, habit),
    head && h("text", { class: "habit", x: place.x, y: place.y + 23 },
      `−${percent(circuit.lost[found.at])} without`),
    head && ["q", "k", "v"].map((letter) => {
      const { x, y } = port(place, `.attn.${letter}`, across);
      return [h("circle", { class: `port ${letter}`, cx: x, cy: y, r: 7 }),
        h("text", { class: "letter", x, y: y + 3.5 }, letter)];
    }));
  });
  return h("svg", { class: "wiring", width, height, viewBox: `0 0 ${width} ${height}`,
    role: "group", "aria-label": "The parts of the circuit and the paths between them" },
  drawn, boxes);
}
