/**
 * Attention: every head as a small picture, sorted by what it does; one of them large, with
 * scores, mask and softmax as layers; and what one token looks at, in the text itself.
 */

import { cellAt, chip, colour, h, heat, label, SCALES, tip } from "../draw.js";
import { firstVisible, POSITIONS } from "../engine/layers.js";
import { largest, number, percent, top } from "../numbers.js";
import { choice, HABITS, refill, strongest } from "./parts.js";

/** Why a text has no number for a habit. */
const NONE = {
  previous: "there is one token",
  first: "there is one token",
  induction: "no token has repeated yet",
};

const AT_ONCE = 30e6; // numbers: of more, one layer after the other is read
const LONGEST_SIDE = 160; // pixels of a small picture
const SHADES = 40; // of the text; more would only be slower
const LABELLED = 20; // tokens: of more, the names would not fit beside the large map
const SORTS = [["layer", "by layer"], ...Object.keys(HABITS).map((name) => [name, name])];
const LAYERS = [["scores", "Scores"], ["masked", "+ mask"], ["weights", "+ softmax"]];

/**
 * How much a head shows each habit in a text: the mean weight on the token that the habit means,
 * over all tokens where it means one. NaN where no token has such a place.
 * @param {Float32Array} weights (T, T) of one head
 * @param {number[]} ids of the text
 * @returns {Object<string, number>}
 */
function habits(weights, ids) {
  const T = ids.length;
  const sums = { previous: [0, 0], first: [0, 0], induction: [0, 0], self: [0, 0] };
  const after = new Map(); // token -> where its latest appearance so far was
  for (let t = 0; t < T; t++) {
    const seen = after.get(ids[t]);
    const aims = { self: t, previous: t - 1, first: t ? 0 : -1 };
    aims.induction = seen === undefined || seen + 1 >= t ? -1 : seen + 1;
    for (const [habit, s] of Object.entries(aims)) {
      if (s < 0) continue;
      sums[habit][0] += weights[t * T + s];
      sums[habit][1] += 1;
    }
    after.set(ids[t], t);
  }
  return Object.fromEntries(Object.entries(sums).map(([habit, [sum, n]]) => [habit, sum / n]));
}

/** A large square of numbers as a smaller one: the largest of each cell of n x n. */
function shrink(data, T, side) {
  if (T <= side) return { data, side: T };
  const small = new Float32Array(side * side);
  for (let t = 0; t < T; t++) {
    const row = Math.floor((t * side) / T) * side;
    for (let s = 0; s <= t; s++) {
      const cell = row + Math.floor((s * side) / T);
      if (data[t * T + s] > small[cell]) small[cell] = data[t * T + s];
    }
  }
  return { data: small, side };
}

export const view = {
  id: "attention",
  title: "Attention",
  about: "What each head of each layer looks at. Rows are tokens that look, columns the tokens " +
    "that they look at. Point at a token to see where its attention goes.",
  state: { sort: "layer", shows: "weights" },
  render: (place, app) => new Attention(place, app),
};

class Attention {
  constructor(place, app) {
    this.app = app;
    this.heads = []; // {layer, head, small, side, scores: {habit: share}}
    this.pointed = null; // the token whose attention is shown while the pointer is on it
    this.grid = h("div", { class: "heads", role: "listbox", "aria-label": "All heads" });
    this.canvas = h("canvas", { class: "pixels", tabindex: 0, role: "img" });
    this.lines = h("canvas", { class: "cross" });
    this.title = h("h3");
    this.says = h("p", { class: "soft says" });
    this.text = h("div", { class: "looks", role: "listbox", "aria-label": "The text, shaded" });
    this.arithmetic = h("p", { class: "mono soft arithmetic" });
    this.rows = h("div", { class: "rows", "aria-hidden": "true" });
    this.columns = h("div", { class: "columns-of", "aria-hidden": "true" });
    this.scale = h("p", { class: "soft scale" });
    this.sorts = h("div");
    this.shows = h("div");
    place.append(h("div", { class: "attention-view" },
      h("section", { class: "panel" },
        h("div", { class: "row" }, h("h3", {}, "All heads"), this.sorts), this.grid),
      h("section", { class: "panel large" },
        h("div", { class: "row" }, this.title, this.shows), this.says,
        h("div", { class: "labelled" }, this.rows,
          h("div", { class: "map" }, this.canvas, this.lines), this.columns, this.scale),
        this.arithmetic,
        h("p", { class: "soft small" }, "The outlined token looks at the shaded ones."),
        this.text)));
    this.listen();
    app.need((T, { n_layer, n_head }) => (n_layer * n_head * T * T < AT_ONCE ?
      ["h.*.attn.weights", "h.*.attn.scores"] : []));
  }

  listen() {
    this.canvas.addEventListener("pointermove", (event) => {
      const T = this.app.tokens.length;
      if (!this.square) return;
      const { row, column } = cellAt(this.canvas, event, T, T);
      this.point(row, column);
      const [from, to] = [this.app.tokens[row], this.app.tokens[column]];
      tip(column > row ? "the future is hidden" : `${label(from)} → ${label(to)}  ` +
        number(this.square[row * T + column], 4), event);
    });
    this.canvas.addEventListener("pointerleave", () => (this.point(null), tip("")));
    this.canvas.addEventListener("click", () => {
      if (this.pointed !== null) this.app.set({ token: this.pointed });
    });
    this.canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const token = Math.min(this.app.tokens.length - 1, Math.max(0, this.app.token + move));
      this.app.set({ token });
    });
    this.text.addEventListener("pointerover", (event) => {
      const t = event.target.closest("[data-t]")?.dataset.t;
      if (t !== undefined) this.point(Number(t));
    });
    this.text.addEventListener("pointerleave", () => this.point(null));
    this.text.addEventListener("click", (event) => {
      const t = event.target.closest("[data-t]")?.dataset.t;
      if (t !== undefined) this.app.set({ token: Number(t) });
    });
  }

  async update(changed) {
    const { app } = this;
    const { result } = app;
    if (["result", "engine"].some((name) => changed.has(name))) await this.readAll();
    else if (["layer", "head"].some((name) => changed.has(name))) await this.readOne();
    if (result !== app.result || !this.large) return; // another text was typed meanwhile
    refill(this.sorts, choice("Sort", SORTS, app.state.sort, (sort) => {
      const { layer, head } = this.sorted(sort)[0];
      app.set({ sort, layer, head });
    }));
    refill(this.shows, choice("Layers", LAYERS, app.state.shows, (shows) => app.set({ shows })));
    if (["result", "engine", "sort", "theme"].some((x) => changed.has(x))) this.drawHeads();
    this.markHead();
    this.drawLarge();
  }

  /** The chosen head; one that this model does not have is its last. */
  get chosen() {
    const { n_layer, n_head } = this.app.engine.info.config;
    const { layer, head } = this.app.state;
    return { layer: Math.min(layer, n_layer - 1), head: Math.min(head, n_head - 1) };
  }

  /** Read the text for what the heads look at: all layers at once, or one by one if it is long. */
  async readAll() {
    const { app } = this;
    const { n_layer, n_head } = app.engine.info.config;
    const { result } = app;
    const T = result.ids.length;
    this.heads = [];
    this.large = null;
    for (let layer = 0; layer < n_layer; layer++) {
      if (T > LONGEST_SIDE) await new Promise((resolve) => setTimeout(resolve)); // let it draw
      const name = `h.${layer}.attn.weights`;
      const { data } = (await this.ask([name]))[name];
      if (result !== app.result) return; // another text was typed meanwhile
      for (let head = 0; head < n_head; head++) {
        const square = data.subarray(head * T * T, (head + 1) * T * T);
        const { data: small, side } = shrink(square, T, LONGEST_SIDE);
        this.heads.push({
          layer, head, small: small.slice(), side, scores: habits(square, result.ids),
        });
      }
    }
    await this.readOne();
  }

  /** Weights and scores of the chosen layer. */
  async readOne() {
    const { layer } = this.chosen;
    const { result } = this.app;
    const names = [`h.${layer}.attn.weights`, `h.${layer}.attn.scores`];
    const found = await this.ask(names);
    if (result !== this.app.result || layer !== this.chosen.layer) return;
    this.large = { layer, weights: found[names[0]], scores: found[names[1]] };
  }

  /** Activations of the text: those of its reading, or, if they were too many, by another one. */
  async ask(record) {
    const { engine, result, state, other, edits } = this.app;
    if (record.every((name) => result.activations[name])) return result.activations;
    const request = { record, edits, other, step: state.step };
    return (await engine.forward(result.ids, request)).activations;
  }

  /** All heads, by layer or those first that show a habit most. */
  sorted(sort) {
    const score = (head) => head.scores[sort] || 0; // 0 for NaN, and for all if it is by layer
    return this.heads.slice().sort((a, b) => score(b) - score(a));
  }

  drawHeads() {
    const { app } = this;
    const { sort } = app.state;
    this.grid.classList.toggle("by-layer", sort === "layer");
    this.grid.style.setProperty("--heads", app.engine.info.config.n_head);
    this.grid.replaceChildren(...this.sorted(sort).map((each) => {
      const { layer, head, small, side, scores } = each;
      const canvas = h("canvas", { class: "pixels" });
      heat(canvas, small, side, side, { theme: app.theme, scale: "amount", to: 1, causal: true });
      const habit = sort === "layer" ? strongest(scores)[0] : sort;
      const share = scores[habit];
      return h("button", {
        class: "head-button", type: "button", role: "option", "data-head": `${layer}.${head}`,
        "aria-label": `layer ${layer}, head ${head}: ${habit} ${percent(share)}`,
        onclick: () => app.set({ layer, head }),
      }, canvas, h("span", {}, `${layer}.${head}`),
      h("span", { class: "soft" },
        Number.isNaN(share) ? "–" : `${habit} ${Math.round(100 * share)} %`));
    }));
  }

  markHead() {
    const { layer, head } = this.chosen;
    for (const button of this.grid.children) {
      button.setAttribute("aria-selected", button.dataset.head === `${layer}.${head}`);
    }
  }

  /** The chosen head, as scores, masked scores, or weights. */
  drawLarge() {
    const { app } = this;
    const { layer, head } = this.chosen;
    if (this.large.layer !== layer) return; // that layer is still being read
    const T = app.tokens.length;
    const { shows } = app.state;
    this.weights = this.large.weights.data.subarray(head * T * T, (head + 1) * T * T);
    const scores = this.large.scores.data.subarray(head * T * T, (head + 1) * T * T);
    this.square = shows === "weights" ? this.weights :
      shows === "masked" ? masked(scores, this.weights, T, head, app.engine.info.config) : scores;
    const how = shows === "weights" ? { scale: "amount", to: 1, causal: true } :
      { scale: "signed", to: largest(this.square) || 1 };
    heat(this.canvas, this.square, T, T, { theme: app.theme, ...how });
    this.drawNames(how);
    const habit = this.heads.find((each) => each.layer === layer && each.head === head)?.scores;
    this.title.textContent = `Layer ${layer}, head ${head}`;
    this.says.replaceChildren("In this text:", ...Object.entries(HABITS).map(([name, title]) =>
      h("span", { title }, `${name} `, Number.isNaN(habit[name]) ?
        `– (${NONE[name]})` : h("b", { class: "mono" }, percent(habit[name])))));
    this.canvas.setAttribute("aria-label", `Layer ${layer}, head ${head}: ${T} by ${T} ${shows}`);
    this.text.replaceChildren(...app.tokens.map((token, t) =>
      chip(token, { "data-t": t, role: "option" })));
    this.shades = new Int16Array(T).fill(-2);
    this.size = this.canvas.clientWidth;
    this.point(null);
  }

  /** The tokens beside the large map, if there is room, and what its colours mean. */
  drawNames({ scale, to }) {
    const { tokens, theme } = this.app;
    const named = tokens.length > LABELLED ? [] : tokens;
    const names = named.map((token) => h("span", {}, label(token)));
    this.rows.replaceChildren(...names);
    this.columns.replaceChildren(...names.map((name) => name.cloneNode(true)));
    const colours = Array.from({ length: 9 }, (_, n) => colour(SCALES[theme][scale], n / 8));
    this.scale.replaceChildren(scale === "amount" ? "0 %" : number(-to),
      h("i", { style: { background: `linear-gradient(to right, ${colours})` } }),
      scale === "amount" ? "100 %" : number(to));
  }

  /** Show what one token looks at: the pointed one, or else the chosen one. */
  point(row, column = null) {
    this.pointed = row;
    this.drawCross(row ?? this.app.token, column, this.app.tokens.length);
    const t = row ?? this.app.token;
    const T = this.app.tokens.length;
    if (!this.weights || t >= T) return;
    const dark = this.app.theme === "dark";
    const chips = this.text.children;
    for (let s = 0; s < chips.length; s++) {
      const shade = s > t ? -1 :
        Math.max(0, Math.round(SHADES * this.weights[t * T + s])); // a fixed share may be below 0
      if (shade === this.shades[s]) continue; // in a long text, most stay as they are
      this.shades[s] = shade;
      const { style } = chips[s];
      style.backgroundColor = s > t ? "transparent" :
        colour(SCALES[this.app.theme].amount, shade / SHADES);
      style.color = shade < SHADES / 2 ? "" : dark ? "#10151e" : "#fff";
      style.opacity = s > t ? 0.35 : 1;
    }
    this.from?.classList.remove("from");
    this.from = chips[t];
    this.from?.classList.add("from");
    const best = column ?? top(this.weights.subarray(t * T, t * T + t + 1), 1)[0];
    this.arithmetic.textContent = best > t ? "hidden: this token comes later" :
      `${label(this.app.tokens[t])} → ${label(this.app.tokens[best])}: score ` +
      `${number(this.large.scores.data[this.chosen.head * T * T + t * T + best])}, weight ` +
      `${percent(this.weights[t * T + best])}`;
  }

  /** A frame around the row, and the column, that is pointed at. */
  drawCross(row, column, T) {
    const { size } = this;
    const { lines } = this;
    const scale = window.devicePixelRatio || 1;
    lines.width = lines.height = Math.max(1, Math.round(size * scale));
    const pen = lines.getContext("2d");
    pen.scale(scale, scale);
    pen.strokeStyle = this.app.theme === "dark" ? "#ffab5e" : "#b85400";
    pen.lineWidth = 1.5;
    const cell = size / T;
    pen.strokeRect(0.75, row * cell, (row + 1) * cell - 0.75, Math.max(cell, 2));
    if (column !== null && column <= row) {
      pen.strokeRect(column * cell, 0.75, Math.max(cell, 2), size - 1.5);
    }
  }
}

/** Scores as softmax gets them: with the bias of the distance, and -Infinity where it is hidden. */
function masked(scores, weights, T, head, config) {
  const bias = POSITIONS[config.position]?.bias;
  return scores.map((x, i) => {
    const [t, s] = [Math.floor(i / T), i % T];
    if (s > t || s < firstVisible(t, config)) return -Infinity;
    return x + (bias ? bias(head, config.n_head, t - s) : 0);
  });
}
