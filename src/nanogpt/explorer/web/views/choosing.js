/**
 * Choosing: how temperature and filters turn the model's probabilities into the draw, and the
 * tree of what could be written instead.
 */

import { chip, colour, h, label, SCALES } from "../draw.js";
import { DEFAULTS, filters } from "../engine/sampling.js";
import { row } from "../engine/tensor.js";
import { toText } from "../engine/tokenizer.js";
import { number, percent, softmax, top } from "../numbers.js";
import { pressed } from "./parts.js";

const SHOWN = 20; // tokens with a bar
const BRANCHES = 5; // of the chosen place in the tree are offered
const AHEAD = 8; // tokens that "write on" adds
const [COLUMN, ROW, BOX] = [118, 34, 96]; // pixels of the tree
const SURPRISED = 8; // bits from which on the shading is full

/** What can be set: its place in info.places has the same name. */
const SETTINGS = {
  temperature: ["Temperature", 0, 2, 0.05],
  top_k: ["Top-k (0: all)", 0, 100, 1],
  top_p: ["Top-p", 0.05, 1, 0.01],
  min_p: ["Min-p", 0, 0.5, 0.01],
  repetition_penalty: ["Repetition penalty", 1, 2, 0.05],
};
const NAMES = Object.keys(SETTINGS);
/** With these settings, the draw uses the model's own probabilities. */
const OWN = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1 };

export const view = {
  id: "choosing",
  title: "Choosing",
  about: "Wide, pale bars are the model's own probabilities, thin ones what the draw uses. " +
    "Click a bar to write that token, and grow a tree of what could have been written.",
  state: {
    ...Object.fromEntries(NAMES.map((name) => [name, DEFAULTS[name]])),
    path: [], // ids that were written after the text: the chosen place in the tree
    tree: [], // the ends of all branches, each as such a path
  },
  render: (place, app) => new Choosing(place, app),
};

/**
 * What each token's chance becomes.
 * @param {Float32Array} logits (V)
 * @param {object} settings as in SampleConfig
 * @param {number[]} seen ids of the text
 * @returns {{before: Float64Array, after: Float64Array, kept: Object<string, number>,
 *   ruledOut: (id: number) => string | null}} probabilities before and after, how many tokens each
 *   filter leaves, and which filter ruled a token out
 */
function chances(logits, settings, seen) {
  const steps = filters(logits, settings, seen);
  const count = (list) => list.reduce((n, x) => n + (x !== -Infinity), 0);
  return {
    before: softmax(logits),
    after: softmax(steps.at(-1).logits),
    kept: Object.fromEntries(steps.map((step) => [step.name, count(step.logits)])),
    ruledOut: (id) => steps.find((step) => step.logits[id] === -Infinity)?.name ?? null,
  };
}

const key = (path) => path.join(" ");

class Choosing {
  constructor(place, app) {
    this.app = app;
    this.logits = new Map(); // path -> logits after it
    this.sliders = Object.fromEntries(NAMES.map((name) => [name, this.slider(name)]));
    this.bars = h("div", { class: "choices" });
    this.summary = h("p", { class: "soft summary", "aria-live": "polite" });
    this.tree = h("div", {
      class: "tree-scroll", tabindex: 0, "aria-label": "Tree of continuations",
    });
    this.written = h("p", { class: "written" });
    this.about = h("p", { class: "soft" });
    const button = (text, title, onclick) =>
      h("button", { class: "button", type: "button", title, onclick }, text);
    place.append(h("div", { class: "choosing-view" },
      h("section", { class: "panel settings" }, Object.values(this.sliders).map((x) => x.element),
        button("The model's own probabilities", "Temperature 1 and no filter", () => app.set(OWN)),
        button("As the run's defaults", "Put all settings back", () => app.set(
          Object.fromEntries(NAMES.map((name) => [name, DEFAULTS[name]])))),
        this.summary),
      h("section", { class: "panel", "aria-label": "Probabilities" }, this.bars),
      h("section", { class: "panel wide" },
        h("div", { class: "row" }, h("h3", {}, "What could be written"),
          h("div", { class: "tools" },
            button("Write on", `Draw ${AHEAD} tokens with these settings`, () => this.writeOn()),
            button("Put into the text", "Make this continuation part of the text",
              () => this.keep()),
            button("Clear", "Remove all branches", () => app.set({ path: [], tree: [] })))),
        this.written, this.tree, this.about)));
  }

  slider(name) {
    const [title, min, max, step] = SETTINGS[name];
    const output = h("output");
    const input = h("input", {
      type: "range", min, max, step, "aria-label": title,
      oninput: () => this.app.set({ [name]: Number(input.value) }),
    });
    const show = (value) => {
      if (Number(input.value) !== value) input.value = value;
      output.textContent = number(value, step < 1 ? 2 : 0);
    };
    return { element: h("label", { class: "slider" }, h("span", {}, title), output, input), show };
  }

  /** The ids of the text up to the chosen token. */
  get start() {
    return this.app.result.ids.slice(0, this.app.token + 1);
  }

  async update(changed) {
    const { app } = this;
    if (["result", "token", "engine"].some((name) => changed.has(name))) {
      this.logits = new Map(); // what is still being read belongs to the old one
    }
    if (!this.logits.size && !app.edits.length) {
      this.logits.set("", row(app.result.logits, app.token));
    }
    if (!this.known(app.state.path) || !app.state.tree.every((path) => this.known(path))) {
      return app.set({ path: [], tree: [] }); // ids of another model
    }
    NAMES.forEach((name) => this.sliders[name].show(app.state[name]));
    const number = (this.latest = (this.latest ?? 0) + 1);
    await this.read();
    if (number !== this.latest) return;
    this.drawBars();
    this.drawTree();
  }

  known(path) {
    const { vocab_size: V } = this.app.engine.info.config;
    return Array.isArray(path) && path.every((id) => Number.isInteger(id) && id >= 0 && id < V);
  }

  /** The logits at every place of the tree. One pass over a branch gives those of all places. */
  async read() {
    const { app, start, logits: known } = this;
    const { engine, state: { step } } = app;
    const { context_length: longest } = engine.info.config;
    for (const path of [...app.state.tree, app.state.path]) {
      const found = new Map(); // kept when all of it is there
      let end = path.length; // of a path longer than the context, the end is read first
      while (end >= 0 && !known.has(key(path.slice(0, end)))) {
        const ids = [...start, ...path.slice(0, end)].slice(-longest);
        const { logits } = await engine.forward(ids, { step });
        const first = Math.max(0, end + 1 - ids.length);
        for (let n = first; n <= end; n++) {
          found.set(key(path.slice(0, n)), row(logits, ids.length - 1 - end + n));
        }
        end = first - 1;
      }
      found.forEach((logits, place) => known.has(place) || known.set(place, logits));
    }
  }

  /** Bits of surprise of each token of a path, by the model's own probabilities. */
  surprisals(path) {
    return path.map((id, n) => -Math.log2(softmax(this.logits.get(key(path.slice(0, n))))[id]));
  }

  get settings() {
    return Object.fromEntries(NAMES.map((name) => [name, this.app.state[name]]));
  }

  drawBars() {
    const { app } = this;
    const { path } = app.state;
    const seen = [...this.start, ...path];
    const found = (this.chances = chances(this.logits.get(key(path)), this.settings, seen));
    const order = top(found.before, SHOWN);
    const widest = Math.max(...order.map((id) => Math.max(found.before[id], found.after[id])));
    this.bars.replaceChildren(...order.map((id) => {
      const why = found.ruledOut(id);
      const [before, after] = [found.before[id], found.after[id]];
      const width = (x) => ({ width: `${(100 * x) / widest}%` });
      return h("button", {
        class: `choice${why ? " out" : ""}`, type: "button", "data-id": id,
        "aria-label": `${label(app.engine.token(id))}: ${percent(before)}, drawn ${percent(after)}`,
        onclick: () => this.branch(id),
      }, chip(app.engine.token(id)),
      h("span", { class: "track" }, h("i", { class: "before", style: width(before) }),
        h("i", { class: "after", style: width(after) })),
      h("span", { class: "mono soft" }, percent(before)),
      h("span", { class: "mono" }, why ? why.replace("_", "-") : percent(after)));
    }), h("p", { class: "legend soft" }, h("i", { class: "before" }), " the model's own ",
      h("i", { class: "after" }), " after temperature and filters"));
    const { kept } = found;
    const covered = found.before.reduce((all, p, id) => all + (found.after[id] > 0 ? p : 0), 0);
    this.summary.replaceChildren(
      `Of ${found.before.length} tokens, top-k leaves ${kept.top_k}, of those top-p leaves ` +
      `${kept.top_p}, and of those min-p leaves `, h("b", {}, String(kept.min_p)),
      `. Together the model gives them ${percent(covered)}.`,
      app.edits.length ? " Your changes from What if are left out here." : "");
  }

  /** Write a token at the chosen place: a branch of the tree. */
  branch(id) {
    this.grow([...this.app.state.path, id]);
  }

  grow(path) {
    const inside = (a, b) => key(a.slice(0, b.length)) === key(b);
    const tree = this.app.state.tree.filter((each) => !inside(path, each));
    if (!tree.some((each) => inside(each, path))) tree.push(path);
    this.app.set({ path, tree });
  }

  /** Draw some tokens with these settings. */
  async writeOn() {
    const { app } = this;
    const path = app.state.path.slice();
    const { result, token } = app;
    const seed = 1 + Math.floor(1e6 * Math.random());
    const settings = { ...this.settings, max_new_tokens: AHEAD, seed, step: app.state.step };
    try {
      for await (const { id } of app.engine.generate([...this.start, ...path], settings)) {
        path.push(id);
        if (app.result !== result || app.token !== token) return; // another text was typed
      }
      this.grow(path);
    } catch (error) {
      app.say(error.message, true);
    }
  }

  /** Make the chosen continuation part of the text. */
  keep() {
    const { app } = this;
    const ids = [...app.earlier.map((token) => token.id), ...this.start, ...app.state.path];
    const text = toText(ids.flatMap((id) => app.engine.token(id).bytes));
    app.set({ text, token: null, path: [], tree: [] });
  }

  /** The tree: what was written, and what the chosen place offers. */
  layout() {
    const { path, tree } = this.app.state;
    const root = { path: [], children: [], kind: "root" };
    const at = (steps) => steps.reduce((node, id) => {
      let child = node.children.find((each) => each.path.at(-1) === id);
      if (!child) {
        child = { path: [...node.path, id], children: [], kind: "written" };
        node.children.push(child);
      }
      return child;
    }, root);
    tree.forEach(at);
    const chosen = at(path);
    const weights = softmax(this.logits.get(key(path)));
    for (const id of top(weights, BRANCHES)) {
      if (chosen.children.some((each) => each.path.at(-1) === id)) continue;
      chosen.children.push({ path: [...path, id], children: [], kind: "offered" });
    }
    let row = 0;
    const place = (node, depth) => {
      node.x = depth * COLUMN;
      node.children.forEach((child) => place(child, depth + 1));
      node.y = node.children.length ?
        (node.children[0].y + node.children.at(-1).y) / 2 : ROW * row++;
    };
    place(root, 0);
    return { root, rows: row };
  }

  drawTree() {
    const { app } = this;
    const { root, rows } = this.layout();
    const [edges, boxes] = [[], []];
    let depth = 0;
    const visit = (node, parent) => {
      depth = Math.max(depth, node.path.length);
      let share = 1;
      if (parent) {
        share = softmax(this.logits.get(key(parent.path)))[node.path.at(-1)];
        const [x1, y1, y2] = [parent.x + BOX, parent.y + 14, node.y + 14];
        edges.push(h("path", {
          d: `M${x1} ${y1} C${x1 + 14} ${y1} ${node.x - 14} ${y2} ${node.x} ${y2}`,
          class: `edge ${node.kind}`, "stroke-width": 1 + 7 * share,
        }));
      }
      boxes.push(this.box(node, share));
      node.children.forEach((child) => visit(child, node));
    };
    visit(root, null);
    const [width, height] = [depth * COLUMN + BOX + 8, Math.max(1, rows) * ROW + 6];
    this.tree.replaceChildren(h("svg", {
      width, height, viewBox: `-4 -3 ${width} ${height}`, role: "group", class: "tree",
    }, edges, boxes));
    const bits = this.surprisals(app.state.path);
    const sum = bits.reduce((a, b) => a + b, 0);
    this.written.hidden = !bits.length;
    this.written.replaceChildren(h("span", { class: "soft" }, "… "),
      ...app.state.path.map((id, n) => chip(app.engine.token(id), {
        style: shade(bits[n], app.theme), title: `${bits[n].toFixed(2)} bits`,
      })));
    this.about.textContent = app.state.path.length ?
      `Surprisal: ${sum.toFixed(1)} bits, ${(sum / bits.length).toFixed(2)} a token. The ` +
      "stronger a token's colour, the more it surprised the model." :
      "Click a token to write it. Its colour will say how much it surprised the model.";
  }

  /** A token of the tree: a button that makes it the chosen place. */
  box(node, share) {
    const { app } = this;
    const id = node.path.at(-1);
    const name = node.kind === "root" ? "the text" : label(app.engine.token(id));
    const bits = -Math.log2(share);
    const act = () =>
      (node.kind === "offered" ? this.grow(node.path) : app.set({ path: node.path }));
    const chosen = key(node.path) === key(app.state.path);
    const { background, color } = node.kind === "written" ? shade(bits, app.theme) : {};
    return h("g", {
      class: `node ${node.kind}${chosen ? " chosen" : ""}`, ...pressed(act),
      transform: `translate(${node.x} ${node.y})`, "data-path": key(node.path),
      "aria-label": node.path.length ? `${name}, ${percent(share)}` : name,
    },
    h("title", {}, node.path.length ? `${name}: ${percent(share)}, ${bits.toFixed(2)} bits` : name),
    h("rect", { width: BOX, height: 28, rx: 7, style: { fill: background } }),
    h("text", { x: 8, y: 18.5, style: { fill: color } },
      id !== undefined && name.length > 7 ? name.slice(0, 6) + "…" : name),
    node.path.length ? h("text", {
      x: BOX - 6, y: 18, class: "share", style: { fill: color },
    }, `${Math.round(100 * share)}%`) : null);
  }
}

/** The shading of a token that was so surprising, in bits, and a colour that is readable on it. */
function shade(bits, theme) {
  const x = Math.min(1, bits / SURPRISED) * 0.9;
  const [onWeak, onStrong] = theme === "dark" ? ["#e9edf4", "#10151e"] : ["#1b2330", "#fff"];
  return { background: colour(SCALES[theme].amount, x), color: x > 0.5 ? onStrong : onWeak };
}
