/**
 * Twins: two models on one text, side by side. What is pointed at on one side is shown on both.
 *
 * Two runs, two seeds, two variants, or one run at two moments. Their tokens may differ; then they
 * are linked by the bytes of the text.
 */

import { cellAt, chip, h, heat, label, tip } from "../draw.js";
import { row } from "../engine/tensor.js";
import { logSoftmax, number, percent, signed, softmax, top } from "../numbers.js";
import { bars, refill, tinted } from "./parts.js";

/** Settings that are worth a word where two models differ in them. */
const TELLING = [
  "n_layer", "n_head", "n_kv_head", "n_embd", "context_length", "vocab_size", "position", "block",
  "norm", "mlp", "head", "window", "qk_norm", "bias",
];

export const view = {
  id: "twins",
  title: "Twins",
  about: "Two runs, seeds, variants or moments on one text. Point at one, and both answer.",
  state: { twin: null, twinStep: null },

  render(place, app) {
    const top = h("section", { class: "panel" });
    const sides = [0, 1].map((n) => h("section", { class: `panel side side-${n}` }));
    const gap = h("section", { class: "panel" });
    place.append(h("div", { class: "grid" }, top, h("div", { class: "columns even" }, sides), gap));
    let turn = 0;
    let drawn = null;

    async function update(changed) {
      const mine = ++turn;
      const { state } = app;
      if (drawn && [...changed].every((name) => name === "token")) return drawn.point(app.token);
      const options = twinsOf(app);
      const chosen = options.find(({ run, step }) =>
        run === state.twin && step === state.twinStep) ?? options[0];
      if (!chosen) {
        top.replaceChildren(h("p", {}, app.engine.python ? "There is one model here, and it has " +
          "no snapshots. Train another run, or this one with --train.snapshots 12, and open both." :
          "A published page holds one set of weights. Open the run with: nanogpt explore runs/" +
          app.engine.info.name));
        return;
      }
      if (!drawn) top.replaceChildren(h("p", { class: "soft" }, "Both models read the text …"));
      try {
        const both = await Promise.all([
          read(app, state.run, state.step, state.text),
          read(app, chosen.run, chosen.step, state.text),
        ]);
        if (mine !== turn) return;
        drawn = draw(app, { top, sides, gap }, both, options, chosen);
        drawn.point(app.token);
      } catch (error) {
        if (mine === turn) app.say(error.message, true);
      }
    }
    return { update };
  },
};

/** What the current model can be compared with: other runs, and its own snapshots. */
function twinsOf(app) {
  const { run, step } = app.state;
  const open = app.runs.filter((each) => !each.error);
  const latest = open.map((each) => ({ run: each.name, step: null }));
  const own = (open.find((each) => each.name === run)?.steps ?? [])
    .map((at) => ({ run, step: at }));
  return [...latest, ...own].filter((each) => each.run !== run || each.step !== step);
}

/** Let a model read a text: its tokens, logits, surprisal of each token, one layer's weights. */
async function read(app, run, step, text) {
  const engine = await app.open(run);
  const { config } = engine.info;
  const layer = Math.min(app.state.layer, config.n_layer - 1);
  const head = Math.min(app.state.head, config.n_head - 1);
  const tokens = (await engine.tokenize(text)).slice(-config.context_length);
  const ids = tokens.map((token) => token.id);
  const name = `h.${layer}.attn.weights`;
  const { logits, activations } = await engine.forward(ids, { record: [name], step });
  const surprisal = ids.map((id, t) => (t ? -logSoftmax(row(logits, t - 1))[id] : null));
  const T = ids.length;
  const weights = activations[name].data.subarray(head * T * T, (head + 1) * T * T);
  let end = 0;
  const ends = tokens.map((token) => (end += token.bytes.length)); // where each ends, in bytes
  return { engine, run, step, tokens, ids, logits, surprisal, weights, layer, head, ends };
}

/** The token of `to` with the last byte of token t of `from`; the ends of both are aligned. */
function linked(from, to, t) {
  if (from === to) return t;
  const shift = to.ends.at(-1) - from.ends.at(-1); // the longer context begins earlier
  const place = from.ends[t] + shift;
  const found = to.ends.findIndex((end) => end >= place);
  return found < 0 ? to.tokens.length - 1 : found;
}

/** What a model is called here. */
const nameOf = ({ run, step }) => run + (step === null ? "" : ` at step ${step}`);

/** The sum of the surprisals, in bits per byte: it does not depend on how the text was cut. */
function bitsPerByte({ surprisal, tokens }) {
  const bits = surprisal.reduce((sum, value) => sum + (value ?? 0), 0) / Math.LN2;
  const bytes = tokens.slice(1).reduce((sum, token) => sum + token.bytes.length, 0);
  return bytes ? bits / bytes : NaN;
}

/** Draw both sides; gives {point(t)}, which shows token t of the first side on both. */
function draw(app, { top: head, sides, gap }, both, options, chosen) {
  const [one, other] = both;
  const differing = TELLING.filter((name) =>
    one.engine.info.config[name] !== other.engine.info.config[name]);
  const key = (each) => JSON.stringify([each.run, each.step]);
  refill(head,
    h("div", { class: "controls", style: { "margin-bottom": "0" } },
      h("b", {}, nameOf(one)), h("span", { class: "soft" }, "and"),
      h("select", {
        "aria-label": "The twin",
        onchange: (event) => {
          const [twin, twinStep] = JSON.parse(event.target.value);
          app.set({ twin, twinStep });
        },
      }, options.map((each) => h("option", {
        value: key(each), selected: each === chosen,
      }, nameOf(each)))),
      pick("layer", one.layer, Math.max(...both.map((x) => x.engine.info.config.n_layer)), app),
      pick("head", one.head, Math.max(...both.map((x) => x.engine.info.config.n_head)), app)),
    h("p", { class: "note" }, differing.length ? "They differ in " + differing.map((name) =>
      `${name} (${one.engine.info.config[name]}, ${other.engine.info.config[name]})`).join(", ") +
      "." : "They have the same shape and differ in their weights alone.",
    app.state.edits.length ? " Your changes from What if are left out here." : ""));
  const panels = both.map((side, n) =>
    drawSide(app, sides[n], side, both, (t, s) => point(n, t, s)));
  drawGap(app, gap, both, (t) => point(0, t, null));

  function point(n, t, s) {
    const places = both.map((side) => linked(both[n], side, t));
    const shares = both.map((side, m) => softmax(row(side.logits, places[m])));
    const most = Math.max(...shares.map((p) => p[top(p, 1)[0]]));
    panels.forEach((panel, m) => panel.point(
      places[m], s === null ? null : linked(both[n], both[m], s), shares[m], most));
  }
  view.both = both; // what tests compare
  return { point: (t) => point(0, Math.min(t, one.tokens.length - 1), null) };
}

/** A choice of one of n. */
function pick(name, value, n, app) {
  return h("label", {}, h("span", { class: "soft" }, `${name} `), h("select", {
    "aria-label": name, onchange: (event) => app.set({ [name]: Number(event.target.value) }),
  }, Array.from({ length: n }, (_, i) => h("option", { value: i, selected: i === value }, i))));
}

/** One side: tokens shaded by surprisal, an attention map, and what comes next. */
function drawSide(app, panel, side, both, onpoint) {
  const { tokens, surprisal, weights, engine } = side;
  const T = tokens.length;
  const most = Math.max(1, ...both.flatMap((each) => each.surprisal));
  const chips = tokens.map((token, t) => chip(token, {
    "data-t": t, tabindex: 0,
    style: tinted(-(surprisal[t] ?? 0) / most, app.theme),
    onmouseenter: () => onpoint(t, null), onfocus: () => onpoint(t, null),
    onclick: () => onpoint(t, null),
  }));
  const canvas = h("canvas", {
    class: "pixels", role: "img",
    "aria-label": `Attention weights of layer ${side.layer}, head ${side.head}`,
  });
  const across = h("i", { class: "across" });
  const down = h("i", { class: "down" });
  heat(canvas, weights, T, T, { scale: "amount", to: 1, causal: true, theme: app.theme });
  canvas.addEventListener("mousemove", (event) => {
    const { row: t, column: s } = cellAt(canvas, event, T, T);
    onpoint(t, s);
    tip(`${label(tokens[t])} → ${label(tokens[s])}: ` + both.map((each) => {
      const [q, k] = [linked(side, each, t), linked(side, each, s)];
      return k > q ? "–" : percent(each.weights[q * each.tokens.length + k]);
    }).join(" and "), event);
  });
  canvas.addEventListener("mouseleave", () => tip(""));
  const next = h("div", { "aria-live": "polite" });
  const mean = surprisal.slice(1).reduce((a, b) => a + b, 0) / Math.max(1, T - 1);
  refill(panel,
    h("h3", {}, nameOf(side)),
    h("p", { class: "note" }, `Loss of this text: ${number(mean, 3)} nats per token, ` +
      `${number(bitsPerByte(side), 3)} bits per byte. The stronger a token's colour, the more it ` +
      "surprised."),
    h("p", { class: "strip" }, chips),
    h("h4", {}, `attention, layer ${side.layer}, head ${side.head}`),
    h("div", { class: "crossed" }, canvas, across, down), next);

  return {
    point(t, s, p, most) {
      chips.forEach((each, n) => {
        each.classList.toggle("pointed", n === t);
        each.classList.toggle("looked", n === s);
      });
      across.style.top = `${(100 * t) / T}%`;
      across.style.height = `${100 / T}%`;
      down.hidden = s === null;
      down.style.left = `${(100 * (s ?? 0)) / T}%`;
      down.style.width = `${100 / T}%`;
      const real = tokens[t + 1]?.id;
      next.replaceChildren(h("h4", {}, "after ", chip(tokens[t])),
        bars(top(p, 6).map((id) => ({
          token: engine.token(id), value: p[id], text: percent(p[id]), mark: id === real,
        })), { most }));
    },
  };
}

/** Which tokens one side knew better than the other, if both cut the text alike. */
function drawGap(app, panel, [one, other], onpoint) {
  const alike = String(one.ids) === String(other.ids);
  const title = h("h3", {}, "Where they differ");
  if (!alike) {
    const better = bitsPerByte(one) < bitsPerByte(other) ? one : other;
    refill(panel, title, h("p", { class: "note" }, "They cut the text into different tokens, so " +
      `single tokens cannot be compared. Per byte, ${nameOf(better)} is less surprised.`));
    return;
  }
  const gaps = one.surprisal.map((value, t) => (t ? value - other.surprisal[t] : 0));
  const most = Math.max(0.1, ...gaps.map(Math.abs));
  const all = gaps.reduce((a, b) => a + b, 0);
  const better = all < 0 ? one : other;
  refill(panel, title,
    h("p", { class: "note" }, `Over the whole text ${nameOf(better)} is ahead by ` +
      `${number(Math.abs(all), 2)} nats. Blue: ${nameOf(one)} knew the token better. Orange: ` +
      `${nameOf(other)} did.`),
    h("p", { class: "strip" }, one.tokens.map((token, t) => chip(token, {
      title: t ? `${signed(-gaps[t])} nats` : "nothing comes before it",
      style: tinted(-gaps[t] / most, app.theme),
      onmouseenter: () => onpoint(t),
    }))));
}
