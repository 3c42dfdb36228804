/**
 * The map of What if: which layer and position carry the difference between two texts.
 *
 * The model reads the second text, and one place at a time is given what it held in the first
 * (activation patching; Meng et al. 2022, Wang et al. 2023). 1: this place alone brings the first
 * text's answer back; 0: it changes nothing.
 */

import { cellAt, colour, h, heat, label, SCALES, tip } from "../draw.js";
import { row } from "../engine/tensor.js";
import { number, top } from "../numbers.js";
import { breather, choice, refill, sameEdit } from "./parts.js";

const MAPS = [["stream", "stream"], ["attn", "attention"], ["mlp", "MLP"], ["heads", "heads"]];
const MOST_COLUMNS = 192; // positions of a map; each cell is a forward pass

/**
 * Draw the map and measure its cells, unless it is there already.
 * @param {Element} panel
 * @param {object} app
 * @param {object} memory of the view: its `map` is replaced
 * @param {number[]} ids of the first text
 * @param {() => boolean} isNow whether the map is still wanted
 */
export async function patch(panel, app, memory, ids, isNow) {
  const { engine, state, tokens, token: end } = app;
  const key = memory.key + state.map;
  if (memory.map?.key === key) return measure(app, memory.map, ids, isNow);
  const title = h("h3", {}, "What carries the difference");
  const explain = (text) => {
    memory.map = { key, values: [], done: true };
    refill(panel, title, h("p", { class: "note" }, text));
  };
  if (!memory.canSwap || memory.other.every((token, t) => token.id === tokens[t].id)) {
    return explain("Write a second text above, or let the page suggest one. Then this map shows " +
      "which layer and position carry what differs.");
  }
  const other = memory.other.map((token) => token.id);
  const corrupted = await engine.forward(other, { step: state.step });
  if (!isNow()) return;
  const asked = difference(row(memory.base.logits, end), row(corrupted.logits, end));
  if (Math.abs(asked.high - asked.low) < 1e-4) {
    return explain("Both texts lead to the same prediction, so there is no difference to bring " +
      "back.");
  }
  const first = ids.findIndex((id, t) => id !== other[t]);
  const cells = cellsOf(engine.info.config, state.map, first, end);
  const values = new Float32Array(cells.rows * cells.columns).fill(-Infinity);
  memory.map = {
    ...asked, key, values, rows: cells.rows, columns: cells.columns, cells, other, done: false,
  };
  Object.assign(memory.map, draw(panel, title, app, memory, cells));
  return measure(app, memory.map, ids, isNow);
}

/** Measure the cells that are not known yet, and say what came out. */
async function measure({ engine, state, token: end }, map, ids, isNow) {
  if (map.done) return;
  const { cells, other, values, progress, said, nameOf } = map;
  const rest = breather(12);
  for (let n = values.indexOf(-Infinity); n >= 0; n = values.indexOf(-Infinity)) {
    const edit = cells.edit(Math.floor(n / cells.columns), n % cells.columns);
    const { logits } = await engine.forward(
      other, { edits: [edit], other: ids, step: state.step });
    if (!isNow()) return; // the next update goes on
    values[n] = map.share(row(logits, end));
    progress.value = n + 1;
    map.redraw();
    await rest();
    if (!isNow()) return;
  }
  map.done = true;
  progress.remove();
  const { trivial, columns } = cells;
  const fair = values.map((value, n) =>
    (trivial.includes(Math.floor(n / columns)) ? -Infinity : value));
  const best = top(fair, 1)[0];
  said.textContent = (trivial.length ?
    "By construction the first and the last row can bring everything back. " : "") +
    (fair[best] === -Infinity ? "" : `Of the ${trivial.length ? "rows between" : "cells"}, ` +
      `this one brings back most: ${nameOf(best)}. `) +
    "Click a cell for the reverse: your text is then given what the second text held there.";
}

/**
 * What the map asks: the first text's answer, the second's, and by how many logits the first
 * leads in the second text (low) and in the first (high).
 */
function difference(clean, corrupted) {
  const right = top(clean, 1)[0];
  const wrong = top(corrupted, 2).find((id) => id !== right);
  const lead = (logits) => logits[right] - logits[wrong];
  const [low, high] = [lead(corrupted), lead(clean)];
  return { right, wrong, low, high, share: (logits) => (lead(logits) - low) / (high - low) };
}

/** The map without its values, and what a person can do with it. */
function draw(panel, title, app, memory, cells) {
  const { values, low, high, right, wrong } = memory.map;
  const canvas = h("canvas", {
    class: "pixels", role: "img", tabindex: 0,
    "aria-label": "Share of the difference that each layer and position brings back",
  });
  const progress = h("progress", { max: values.length, value: 0, "aria-label": "Progress" });
  const said = h("p", { class: "note", role: "status" });
  const nameOf = (cell) => {
    const [r, c] = [Math.floor(cell / cells.columns), cell % cells.columns];
    const place = `${cells.rowNames[r]}, ${cells.place(c, app.tokens)}`;
    return values[cell] === -Infinity ? place : `${place}: ${Math.round(100 * values[cell])} %`;
  };
  const token = (id) => h("code", {}, label(app.engine.token(id)));
  refill(panel, title,
    h("p", { class: "note" }, "The first text leads to ", token(right), ", the second to ",
      token(wrong), `. Their logits differ by ${number(high, 2)} in the first and ` +
      `${number(low, 2)} in the second. Each cell swaps one place of the second text for what it ` +
      "held in the first. The colour is the share of the difference that comes back " +
      "(activation patching; Meng et al. 2022, Wang et al. 2023). Tokens before the first that " +
      "differs are left out: there both texts are the same."),
    h("div", { class: "controls" }, choice("What is swapped", MAPS, app.state.map,
      (map) => app.set({ map })), progress),
    framed(canvas, cells, app, memory), said);
  listen(canvas, app, cells, nameOf, said);
  memory.map.redraw = () => heat(canvas, values, cells.rows, cells.columns,
    { from: -1, to: 1, theme: app.theme });
  memory.map.redraw();
  return { progress, said, nameOf };
}

/** Pointing at a cell names it; a click, or Enter after arrow keys, makes its swap in the text. */
function listen(canvas, app, cells, nameOf, said) {
  const { rows, columns } = cells;
  const swap = (cell) => {
    const edit = cells.edit(Math.floor(cell / columns), cell % columns);
    app.set({ edits: [...app.state.edits.filter((old) => !sameEdit(old, edit)), edit] });
  };
  const pointed = (event) => {
    const { row: r, column: c } = cellAt(canvas, event, rows, columns);
    return r * columns + c;
  };
  canvas.addEventListener("mousemove", (event) => tip(nameOf(pointed(event)), event));
  canvas.addEventListener("mouseleave", () => tip(""));
  canvas.addEventListener("click", (event) => swap(pointed(event)));
  let [r, c] = [0, 0];
  canvas.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1],
      ArrowLeft: [0, -1], Enter: [0, 0] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    r = Math.max(0, Math.min(rows - 1, r + down));
    c = Math.max(0, Math.min(columns - 1, c + right));
    said.textContent = nameOf(r * columns + c);
    if (event.key === "Enter") swap(r * columns + c);
  });
}

/** The cells of a map: its rows and columns, and the edit that each stands for. */
function cellsOf(config, kind, first, end) {
  const layers = Array.from({ length: config.n_layer }, (_, layer) => layer);
  if (kind === "heads") {
    const columns = config.n_head;
    return {
      rows: config.n_layer, columns, first: 0, trivial: [],
      rowNames: layers.map((layer) => `layer ${layer}`),
      columnNames: () => Array.from({ length: columns }, (_, head) => `head ${head}`),
      place: (c) => `head ${c}`,
      edit: (r, c) => ({ at: `h.${r}.attn.kernel`, head: c, positions: null, how: "swap" }),
    };
  }
  // No token before the first that differs sees a difference, and none after the chosen is seen.
  const start = Math.max(first, end + 1 - MOST_COLUMNS);
  const columns = Math.max(1, end + 1 - start);
  const names = kind === "stream" ? ["drop", ...layers.map((layer) => `h.${layer}`)] :
    layers.map((layer) => `h.${layer}.${kind}`);
  const words = { stream: "after block", attn: "attention", mlp: "MLP" };
  const rowNames = names.map((name) =>
    name === "drop" ? "embeddings" : `${words[kind]} ${name.split(".")[1]}`);
  return {
    rows: names.length, columns, first: start, rowNames,
    trivial: kind === "stream" ? [0, names.length - 1] : [], // all that differs goes through them
    columnNames: (tokens) => tokens.slice(start, end + 1).map(label),
    place: (c, tokens) => `token ${start + c} ${label(tokens[start + c])}`,
    edit: (r, c) => ({ at: names[r], head: null, positions: [start + c], how: "swap" }),
  };
}

/** A canvas with the names of its rows and columns around it, and the scale of its colours. */
function framed(canvas, cells, app, memory) {
  const { tokens } = app;
  const names = cells.columnNames(tokens);
  const wide = names.length > 48;
  const scale = [-1, -0.5, 0, 0.5, 1].map((x) => h("i", {
    style: { background: colour(SCALES[app.theme].signed, 0.5 + x / 2) },
  }));
  return h("div", { class: "map-frame" },
    h("div", { class: "map-rows" }, cells.rowNames.map((name) => h("span", {}, name))),
    h("div", { class: "map-canvas", style: { "--rows": cells.rows, "--columns": cells.columns } },
      canvas,
      wide ? null : h("div", { class: "map-columns" }, names.map((name, c) => {
        const t = cells.first + c;
        const differs = cells.edit(0, c).positions && memory.other[t]?.id !== tokens[t]?.id;
        return h("span", { class: differs ? "differs" : null }, name);
      }))),
    h("div", { class: "map-scale", "aria-hidden": "true" }, "−100 %", scale, "100 %"));
}
