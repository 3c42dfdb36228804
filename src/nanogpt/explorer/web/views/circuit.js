/**
 * Circuit: the fewest heads that still copy repeated text, found while one watches, and the paths
 * on which what they know travels. Python searches (lab/circuit.py); the page's engine then reads
 * the text with the circuit alone, so that each head can be seen at work.
 */

import { chip, h, label, tip } from "../draw.js";
import { lines, placeOf } from "../engine/remote.js";
import { row } from "../engine/tensor.js";
import { percent, softmax, top } from "../numbers.js";
import { bars, choice, HABITS, refill, strongest } from "./parts.js";
import { wiring } from "./wiring.js";

const KEEPS = [0.8, 0.9, 0.95, 0.99];
const MOST_HEADS = 32; // more than these are searched when asked to, not by themselves

/** What a head does, in words, where one habit has most of its attention. */
function doing(habits) {
  const [name, share] = strongest(habits);
  return share > 0.3 ? `${HABITS[name]} (${percent(share)})` : "has none of the three habits";
}

/** The edits that leave only these heads on: all others give their mean. */
function alone(heads, config) {
  const kept = new Set(heads.map(String));
  return Array.from({ length: config.n_layer * config.n_head }, (_, n) =>
    [Math.floor(n / config.n_head), n % config.n_head])
    .filter((head) => !kept.has(String(head)))
    .map(([layer, head]) =>
      ({ at: `h.${layer}.attn.kernel`, head, positions: null, how: "mean" }));
}

class CircuitView {
  constructor(place, app) {
    Object.assign(this, { place, app, removed: [], circuit: null });
    this.go = h("button", { type: "button", class: "button play", onclick: () => this.search() });
    this.keep = h("div");
    this.note = h("p", { class: "note", role: "status" });
    this.board = h("div", { class: "board", role: "img" });
    this.fall = h("div", { class: "fall" });
    this.figures = h("div", { class: "figures" });
    this.graph = h("div", { class: "graph" });
    this.reading = h("section", { class: "panel reading" });
    place.append(
      h("section", { class: "panel" },
        h("div", { class: "controls" }, this.go, h("span", { class: "soft" }, "keep at least"),
          this.keep),
        this.note,
        h("div", { class: "search" },
          h("div", {}, h("h3", {}, "Heads that are left"), this.board),
          h("div", {}, h("h3", {}, "What they keep"), this.fall), this.figures)),
      h("section", { class: "panel paths" }, h("h3", {}, "How it travels"),
        h("p", { class: "soft" }, "The thicker a path, the more of the behaviour is lost when it " +
          "alone is cut: the part at its end then reads a stream in which the part at its " +
          "beginning is the same everywhere. MLPs are always on. Heads read the stream as " +
          "queries (q), keys (k) and values (v)."), this.graph),
      this.reading);
    place.classList.add("unsearched");
  }

  /** Forget what was found; a search that goes on is stopped. */
  reset() {
    this.stop?.abort();
    this.stop = new AbortController();
    Object.assign(this, { removed: [], circuit: null, readings: null, token: null });
    this.place.classList.add("unsearched");
    this.place.classList.remove("failed");
    this.note.textContent = "";
    this.go.textContent = "Search";
    this.draw();
  }

  /** Search, and draw every step. */
  async search() {
    this.reset();
    const { stop } = this;
    const { info } = this.app.engine;
    this.go.parentElement.hidden = Boolean(info.circuit);
    try {
      if (info.circuit) { // of a page that is one file
        if (info.circuit.error) throw new Error(info.circuit.error);
        this.removed = info.circuit.removals;
        await this.found(info.circuit);
        return;
      }
      this.go.textContent = "Searching …";
      const body = { keep: this.app.state.keep };
      for await (const said of lines(`${placeOf(info.name)}/circuit`, body, stop.signal)) {
        if (!this.place.isConnected) stop.abort(); // another view was opened
        if (stop !== this.stop || stop.signal.aborted) return;
        if (said.removed) this.removed.push(said.removed);
        else await this.found(said.circuit);
        this.draw();
      }
    } catch (error) {
      if (stop !== this.stop) return;
      this.note.replaceChildren(h("b", {}, "No circuit: "), error.message);
      this.place.classList.add("failed");
    } finally {
      if (stop === this.stop) this.go.textContent = "Search again";
    }
  }

  /** The circuit is there: read its text with all heads, with these alone, and with none. */
  async found(circuit) {
    this.circuit = circuit;
    this.place.classList.remove("unsearched");
    const { engine } = this.app;
    const { config } = engine.info;
    const record = ["h.*.attn.weights"];
    const settings = [[], alone(circuit.heads, config), alone([], config)];
    this.readings = [];
    for (const edits of settings) {
      this.readings.push(await engine.forward(circuit.ids, { record, edits }));
    }
    const [last] = circuit.heads.slice(-1);
    const { layer, head } = this.app.state;
    const known = circuit.heads.some(([l, n]) => l === layer && n === head);
    this.token = circuit.ids.length - Math.ceil(circuit.length / 2);
    if (!known && last) this.app.set({ layer: last[0], head: last[1] });
    this.draw();
  }

  draw() {
    const { keep } = this.app.state;
    this.place.classList.toggle("idle", !this.circuit && !this.removed.length);
    refill(this.keep, choice("Faithfulness to keep", KEEPS.map((share) =>
      [share, `${100 * share} %`]), keep, (share) => this.app.set({ keep: share })));
    this.drawBoard();
    this.drawFall(keep);
    if (!this.circuit) return;
    this.note.textContent = "";
    this.drawFigures();
    this.drawGraph();
    this.drawReading();
  }

  /** All heads as squares; those that were taken away fade, those of the circuit stay. */
  drawBoard() {
    const { n_layer: layers, n_head: heads } = this.app.engine.info.config;
    const gone = new Map(this.removed.map(({ layer, head }, n) => [`${layer},${head}`, n + 1]));
    const kept = new Set((this.circuit?.heads ?? []).map(String));
    this.board.style.setProperty("--columns", heads);
    const squares = [];
    for (let layer = layers - 1; layer >= 0; layer--) {
      for (let head = 0; head < heads; head++) {
        const key = `${layer},${head}`;
        const state = kept.has(key) ? "kept" : gone.has(key) || this.circuit ? "gone" : "";
        squares.push(h("span", {
          class: state, title: gone.has(key) ? `taken away as number ${gone.get(key)}` : "",
        }, `${layer}.${head}`));
      }
    }
    this.board.replaceChildren(...squares);
    this.board.setAttribute("aria-label", this.circuit ?
      `The circuit: heads ${this.circuit.heads.map((head) => head.join(".")).join(", ")}` :
      `${layers * heads - this.removed.length} heads are left`);
  }

  /** The faithfulness of what is left, from all heads to none. */
  drawFall(keep) {
    const { n_layer: layers, n_head: heads } = this.app.engine.info.config;
    const [width, height, left, foot] = [Math.max(240, this.fall.clientWidth), 190, 40, 22];
    const points = [[layers * heads, 1],
      ...this.removed.map(({ left: n, faithfulness }) => [n, faithfulness])];
    const most = Math.max(1.1, ...points.map(([, y]) => y));
    const least = Math.min(0, ...points.map(([, y]) => y));
    const x = (n) => left + ((layers * heads - n) / (layers * heads)) * (width - left - 12);
    const y = (share) => 8 + (height - foot - 16) * ((most - share) / (most - least));
    const at = this.circuit?.heads.length;
    const few = layers * heads <= 24;
    this.fall.replaceChildren(h("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `Faithfulness by number of heads: ${points.map(([n, share]) =>
        `${n}: ${percent(share)}`).join(", ")}`,
    },
    [0, 0.5, 1].map((share) => [
      h("line", { class: "rule", x1: left, x2: width - 12, y1: y(share), y2: y(share) }),
      h("text", { class: "axis", x: left - 6, y: y(share) + 4, "text-anchor": "end" },
        `${100 * share} %`)]),
    h("line", { class: "asked", x1: left, x2: width - 12, y1: y(keep), y2: y(keep) }),
    h("path", { class: "line", d: points.map(([n, share], i) =>
      `${i ? "L" : "M"}${x(n)} ${y(share)}`).join("") }),
    points.map(([n, share]) => h("circle", {
      class: n === at ? "dot best" : "dot", cx: x(n), cy: y(share), r: n === at ? 6 : 3.5,
      onmousemove: (event) => tip(`${n} heads keep ${percent(share)}`, event),
      onmouseleave: () => tip(""),
    })),
    points.filter(([n]) => few || n === at || !n).map(([n]) => h("text", {
      class: "axis", x: x(n), y: height - 4, "text-anchor": "middle" }, String(n)))));
  }

  drawFigures() {
    const { circuit } = this;
    const { right, heads } = circuit;
    const bar = (name, share) => ({ name, value: share, text: percent(share) });
    this.figures.replaceChildren(
      h("p", { class: "big" }, percent(circuit.faithfulness)),
      h("p", {}, `faithfulness of ${heads.length} of ${circuit.removals.length} heads, on texts ` +
        "that the search has not seen. All other heads together: " +
        `${percent(circuit.rest)}. ${circuit.smallest ? "No smaller set keeps as much: all were " +
        "tried." : "There are too many smaller sets to try them all."}`),
      h("p", { class: "soft" }, "Faithfulness of heads C: (m(C) − m(none)) / (m(all) − m(none)), ",
        "with m the mean log-probability of the right token. Heads that are off give their mean."),
      h("h3", {}, "Right guesses"),
      bars([bar("all heads", right.model), bar("circuit", right.circuit),
        bar("no heads", right.none)]));
  }

  drawGraph() {
    const { circuit, app } = this;
    this.graph.replaceChildren(circuit.paths.length ?
      wiring(circuit, Math.max(300, this.graph.clientWidth), {
        chosen: [app.state.layer, app.state.head],
        onchoose: ([layer, head]) => app.set({ layer, head }),
      }) : h("p", { class: "note" }, "The paths of this circuit were not measured: it has many " +
        "heads, or its blocks do not add to the stream."));
  }

  /** The text of the circuit, and what the chosen head makes of the token that is pointed at. */
  drawReading() {
    const { circuit, readings, app } = this;
    if (readings?.length !== 3) return;
    const { ids, length, heads } = circuit;
    const { engine, state } = app;
    const T = ids.length;
    const index = Math.max(0, heads.findIndex(([l, n]) => l === state.layer && n === state.head));
    if (!heads.length) return;
    const [layer, head] = heads[index];
    const t = this.token;
    const weights = readings[1].activations[`h.${layer}.attn.weights`].data;
    const share = (k) => (k <= t ? weights[(head * T + t) * T + k] : 0);
    const token = (k) => chip(engine.token(ids[k]), {
      class: `${k === t ? "now" : ""} ${share(k) > 0.3 ? "strong" : ""}`, tabindex: k ? 0 : -1,
      title: k <= t ? percent(share(k)) : "", style: {
        "--share": `${Math.round(100 * Math.sqrt(Math.max(0, share(k))))}%` },
      onmouseenter: () => this.point(k), onfocus: () => this.point(k), onclick: () => this.point(k),
    });
    const line = (from, to) => h("div", { class: "chips" },
      Array.from({ length: to - from }, (_, n) => token(from + n)));
    const first = T - 2 * length;
    const names = ["all heads", "circuit", "no heads"];
    const guesses = readings.map(({ logits }) => softmax(row(logits, t)));
    this.reading.replaceChildren(h("h3", {}, "At work"), h("div", { class: "halves" }, h("div", {},
      h("p", {}, `Head ${layer}.${head} ${doing(circuit.habits[index])}. From “`,
        h("b", {}, label(engine.token(ids[t]))), "” it looks at:"),
      h("div", { class: "rows" },
        first > 0 && h("span", { class: "soft" }, "start"), first > 0 && line(0, first),
        h("span", { class: "soft" }, "first time"), line(first, first + length),
        h("span", { class: "soft" }, "again"), line(first + length, T))), h("div", {},
      h("p", {}, `What comes next${t + 1 < T ? " (right: “" : ""}`,
        t + 1 < T && h("b", {}, label(engine.token(ids[t + 1]))), t + 1 < T ? "”):" : ":"),
      h("table", {}, guesses.map((shares, n) => h("tr", {}, h("th", { scope: "row" }, names[n]),
        top(shares, 3).map((id) => h("td", { class: id === ids[t + 1] ? "right" : "" },
          chip(engine.token(id)), ` ${percent(shares[id])}`))))))));
  }

  point(t) {
    if (t === this.token) return;
    this.token = t;
    const place = [...this.reading.querySelectorAll(".rows .chip")].indexOf(document.activeElement);
    this.drawReading();
    if (place >= 0) this.reading.querySelectorAll(".rows .chip")[place].focus();
  }
}

export const view = {
  id: "circuit",
  title: "Circuit",
  about: "A circuit is the part of a model that does one task. Here the task is to copy repeated " +
    "text: heads are taken away until only the needed ones are left. It reads a text of its own, " +
    "with the latest weights.",
  state: { keep: 0.9 },
  textless: true,
  render(place, app) {
    const circuit = new CircuitView(place, app);
    let width = 0;
    new ResizeObserver(() => {
      if (place.clientWidth === width || !circuit.circuit) return;
      width = place.clientWidth;
      circuit.draw();
    }).observe(place);
    return {
      update(changed) {
        const { config } = app.engine.info;
        const { keep } = app.state;
        const isNew = circuit.name !== app.engine.info.name;
        const isAsked = !isNew && circuit.kept !== keep; // another share was chosen
        if (isNew || isAsked) {
          Object.assign(circuit, { name: app.engine.info.name, kept: keep });
          if (isAsked || config.n_layer * config.n_head <= MOST_HEADS) circuit.search();
          else circuit.reset();
        } else if (["layer", "head", "theme"].some((name) => changed.has(name))) circuit.draw();
      },
    };
  },
};
