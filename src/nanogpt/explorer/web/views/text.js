/**
 * Text to next token: one token's journey through the parts of the network. Each part is a strip
 * of its numbers; a click on a number shows its arithmetic, and the line of the package.
 */

import { Arithmetic, parts, recorded } from "../arithmetic.js";
import { cellAt, chip, h, heat, label, tip, visible } from "../draw.js";
import { largest, number, percent, top } from "../numbers.js";

const FEW_BLOCKS = 4; // so many are open at first; of more, the first and the last
const TERMS = 8; // of a sum are shown, the largest first
const NEXT = 10; // tokens at the end of the journey
const FIRST = 3; // of them stand beside the token, too
const ROUNDING = 1e-3; // as a share of a number; 32 bits round by less

export const view = {
  id: "text",
  title: "Text to next token",
  about: "One token's journey through the network. Choose a token above, then any number below: " +
    "see how it is computed, and which line of the code does it.",
  state: { part: "", cell: 0 },
  render: (place, app) => new Journey(place, app),
};

class Journey {
  constructor(place, app) {
    this.app = app;
    this.strips = new Map(); // part -> its canvas, and what marks the chosen number
    this.opened = new Set(); // blocks whose inside is shown
    this.list = null; // the parts of the model
    this.built = null; // the parts whose rows are there
    this.answer = h("p", { class: "answer" });
    this.token = h("section", { class: "panel token-card", "aria-label": "The chosen token" });
    this.path = h("section", { class: "panel journey", "aria-label": "The journey" });
    this.cell = h("aside", {
      class: "panel cell", "aria-label": "One number", "aria-live": "polite",
    });
    place.append(h("div", { class: "text-view" },
      h("div", { class: "grid" }, this.token, this.path), this.cell));
    place.addEventListener("keydown", ({ key }) => key === "Escape" && this.choose("", 0));
    app.need((T, config) => this.prepare(config));
  }

  /** What has to be recorded of a model; its parts are those that will be drawn. */
  prepare(config) {
    if (this.config !== config) {
      const n = config.n_layer;
      const chosen = /^h\.(\d+)/.exec(this.app.state.part)?.[1];
      this.config = config;
      this.opened = new Set(n <= FEW_BLOCKS ? Array(n).keys() : [0, n - 1]);
      if (chosen && Number(chosen) < n) this.opened.add(Number(chosen));
      this.list = parts(config);
    }
    return recorded(this.visibleParts());
  }

  /** What changed decides what is drawn anew. */
  update(changed) {
    const { app } = this;
    if (this.list !== this.built) this.build();
    if (["result", "token", "theme", "engine"].some((name) => changed.has(name))) {
      this.arithmetic = new Arithmetic(app.engine, app.result, app.token, app.state.step);
      this.drawToken();
      this.drawStrips();
      this.drawNext();
    }
    this.drawCell();
  }

  /** The parts that are shown: of a closed block, only the stream after it. */
  visibleParts() {
    return this.list.filter(({ id, block }) =>
      block === null || this.opened.has(block) || id === `h.${block}`);
  }

  /** The rows of the diagram, without their numbers. */
  build() {
    this.strips.clear();
    this.built = this.list;
    const rows = [];
    let block = null;
    for (const part of this.visibleParts()) {
      if (part.block !== null && part.block !== block) rows.push(this.blockTitle(part.block));
      block = part.block;
      rows.push(this.row(part));
    }
    const { n_embd: C, n_head: nh } = this.config;
    this.next = h("div", { class: "next" });
    this.path.replaceChildren(h("p", { class: "soft small" }, "Each strip is the chosen token's " +
      `row. T: the tokens of the text. ${nh}, T, ${C / nh}: ${nh} heads of ${C / nh} numbers for ` +
      "each token. ± and ≤: the largest size in the row."), h("div", { class: "parts" }, rows),
      h("h3", { class: "next-title" }, "What comes next"), this.next);
  }

  blockTitle(block) {
    const open = this.opened.has(block);
    const toggle = () => {
      if (open) this.opened.delete(block);
      else this.opened.add(block);
      this.built = null;
      this.app.read();
    };
    return h("button", {
      class: "block-title", type: "button", "aria-expanded": open, onclick: toggle,
    }, h("span", { "aria-hidden": "true" }, open ? "▾" : "▸"), ` Block ${block}`);
  }

  row(part) {
    const canvas = h("canvas", {
      class: "pixels", tabindex: 0, role: "slider", "aria-label": `${part.title} ${part.id}`,
      "aria-valuemin": 0, "data-part": part.id,
    });
    const mark = h("i", { class: "mark-cell", hidden: true });
    const size = h("span", { class: "size soft mono" });
    const strip = { part, canvas, mark, size };
    const pointed = (event) => {
      const { rows, columns } = this.arithmetic.numbers(part.id);
      const { row, column } = cellAt(canvas, event, rows, columns);
      return row * columns + column;
    };
    canvas.addEventListener("pointermove", (event) => {
      if (!this.arithmetic) return;
      const cell = pointed(event);
      tip(`${this.named(part, cell)}  ${number(this.arithmetic.numbers(part.id).data[cell], 4)}`,
        event);
    });
    canvas.addEventListener("pointerleave", () => tip(""));
    canvas.addEventListener("click", (event) => this.choose(part.id, pointed(event)));
    canvas.addEventListener("keydown", (event) => this.walk(event, part.id));
    this.strips.set(part.id, strip);
    return h("div", { class: `part ${part.lane}` },
      h("span", { class: "rail", "aria-hidden": "true" }),
      h("span", { class: "name" }, part.title, " ", h("code", { class: "soft" }, part.shape)), size,
      h("span", { class: "strip" }, canvas, mark));
  }

  /** What a number is called: its head, and its channel or its token. */
  named(part, cell) {
    const { columns, rows } = this.arithmetic.numbers(part.id);
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const head = rows > 1 ? `head ${row}, ` : "";
    if (/\.(scores|weights)$/.test(part.id)) {
      return `${head}token ${column} ${label(this.app.tokens[column])}`;
    }
    if (/^(lm_head|softmax)$/.test(part.id)) return label(this.app.engine.token(column));
    return `${head}channel ${column}`;
  }

  /** Arrow keys go from number to number. */
  walk(event, id) {
    const { columns, data } = this.arithmetic.numbers(id);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (!steps[event.key] && event.key !== "Enter") return;
    event.preventDefault();
    const now = this.app.state.part === id ? this.app.state.cell : 0;
    const cell = now + (this.app.state.part === id ? steps[event.key] ?? 0 : 0);
    if (cell >= 0 && cell < data.length) this.choose(id, cell);
  }

  choose(part, cell) {
    this.app.set({ part, cell });
  }

  drawStrips() {
    for (const { part, canvas, size } of this.strips.values()) {
      const { rows, columns, data } = this.arithmetic.numbers(part.id);
      const amount = /(weights|softmax)$/.test(part.id);
      const scale = amount ? "amount" : "signed";
      heat(canvas, data, rows, columns, { theme: this.app.theme, scale });
      canvas.style.height = `${rows > 1 ? Math.max(6, Math.min(10, 44 / rows)) * rows : 16}px`;
      canvas.setAttribute("aria-valuemax", data.length - 1);
      size.textContent = amount ? `≤ ${number(largest(data))}` : `± ${number(largest(data), 2)}`;
    }
  }

  /** The chosen token's bytes and id, and the merges of the word in which it stands. */
  drawToken() {
    const { app } = this;
    const token = app.tokens[app.token];
    const bytes = (token.bytes ?? []).map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const word = wordAround(app.tokens, app.token);
    const pairs = new Map(word.flatMap((each) => each.merges ?? [])
      .map((merge) => [merge[2], merge]));
    const inOrder = [...pairs.values()].sort((a, b) => a[2] - b[2]);
    const chipOf = (id, more = "") =>
      h("span", { class: `chip${more}` }, label(app.engine.token(id)));
    const merges = inOrder.map(([left, right, made]) => h("li", {},
      chipOf(left), h("span", { class: "soft" }, " + "), chipOf(right),
      h("span", { class: "soft" }, " → "), chipOf(made, " made"),
      // The first merge of the training is 1: ids up to 255 are the single bytes.
      h("span", { class: "soft" }, ` merge ${made - 255}`)));
    const name = visible(word.map((each) => each.text).join(""));
    const count = `${merges.length || "no"} merge${merges.length === 1 ? "" : "s"}`;
    this.token.replaceChildren(
      h("div", { class: "facts" },
        h("span", { class: "big chip" }, label(token)),
        h("dl", {}, fact("position", app.token), fact("id", token.id),
          fact(token.bytes?.length === 1 ? "byte" : "bytes", bytes || "–"))),
      h("div", { class: "merges" },
        h("h3", {}, `“${name}” is made by ${count}`),
        merges.length ? h("ol", {}, merges,
          h("li", {}, h("span", { class: "soft" }, "Result: "), word.map((each) => chip(each)))) :
          h("p", { class: "soft" },
          app.engine.info.tokenizer.kind === "char" ? "Each character is a token." :
            "It is in the vocabulary as it is.")),
      this.answer,
      this.codeLink("tokens", "How merges are applied"));
  }

  codeLink(place, text) {
    const found = this.app.engine.info.places?.[place];
    if (!found) return null;
    return h("details", { class: "code" }, h("summary", {}, text), source(found));
  }

  /** The likeliest next tokens, as bars. */
  drawNext() {
    const { app } = this;
    const { data } = this.arithmetic.numbers("softmax");
    const likeliest = top(data, NEXT);
    const widest = data[likeliest[0]];
    this.answer.replaceChildren("Likeliest next: ", ...likeliest.slice(0, FIRST).map((id) =>
      h("span", {}, chip(app.engine.token(id), { class: "made" }), ` ${percent(data[id])}`)));
    this.next.replaceChildren(...likeliest.map((id) => h("button", {
      class: "bar", type: "button", onclick: () => this.choose("softmax", id),
      "aria-label": `${label(app.engine.token(id))}: ${percent(data[id])}`,
    }, chip(app.engine.token(id)), h("span", { class: "track" },
      h("i", { style: { width: `${(100 * data[id]) / widest}%` } })),
    h("span", { class: "mono" }, percent(data[id])))));
  }

  /** The chosen number: its arithmetic, its line of code, where one learns it. */
  async drawCell() {
    const { app, arithmetic } = this;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const shown = this.strips.has(app.state.part) ? app.state.part : "lm_head";
    const { data, columns, rows } = arithmetic.numbers(shown);
    const cell = shown === app.state.part && app.state.cell < data.length ? app.state.cell :
      top(data, 1)[0];
    for (const { part, mark, canvas } of this.strips.values()) {
      mark.hidden = part.id !== shown;
      canvas.setAttribute("aria-valuenow", part.id === shown ? cell : 0);
    }
    const { mark } = this.strips.get(shown);
    mark.style.left = `${(100 * ((cell % columns) + 0.5)) / columns}%`;
    mark.style.top = `${(100 * (Math.floor(cell / columns) + 0.5)) / rows}%`;
    const part = this.strips.get(shown).part;
    let found;
    try {
      found = await arithmetic.explain(shown, cell);
    } catch (error) {
      return app.say(error.message, true);
    }
    // The text has changed meanwhile, or another number was chosen.
    if (arithmetic !== this.arithmetic || turn !== this.turn) return;
    this.explained = found; // for tests
    this.cell.classList.toggle("unasked", shown !== app.state.part); // on a phone: hidden
    this.cell.replaceChildren(h("button", {
      class: "close", type: "button", "aria-label": "Close", onclick: () => this.choose("", 0),
    }, "×"), ...this.explanation(part, cell, found).filter(Boolean));
  }

  explanation(part, cell, found) {
    const { app } = this;
    const places = app.engine.info.places ?? {};
    const place = places[part.place];
    const bySize = found.terms.slice().sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
    const [shown, rest] = [bySize.slice(0, TERMS), bySize.slice(TERMS)];
    const widest = Math.abs(shown[0]?.product ?? 1) || 1;
    const sum = (terms) => terms.reduce((all, term) => all + term.product, 0);
    const named = (term) => (term.token === undefined ? term.label : label(app.tokens[term.token]));
    return [
      h("p", { class: "soft kicker" }, `${part.title} · ${this.named(part, cell)}`),
      h("p", { class: "value" }, number(found.recorded, 4)),
      h("p", { class: "mono soft name" }, found.name),
      h("p", { class: "mono formula" }, "= " + found.formula),
      shown.length ? h("table", { class: "terms" },
        h("thead", {}, h("tr", {}, h("th", {}, "i"),
          h("th", {}, shown.some((t) => t.b !== undefined) ? "product" : "number"),
          h("th", {}, ""), h("th", {}, "= term"))),
        h("tbody", {}, shown.map((term) => h("tr", {},
          h("td", {}, named(term)),
          h("td", {}, number(term.a) + (term.b === undefined ? "" : ` × ${number(term.b)}`)),
          h("td", { class: "size-bar" }, h("i", {
            class: term.product < 0 ? "minus" : "plus",
            style: { width: `${(100 * Math.abs(term.product)) / widest}%` },
          })),
          h("td", {}, number(term.product)))),
        rest.length ? h("tr", { class: "soft" }, h("td", {}, "…"),
          h("td", {}, `${rest.length} more`), h("td", {}, ""), h("td", {}, number(sum(rest)))) :
          null,
        found.steps.length ? null : h("tr", { class: "total" }, h("td", {}, "Σ"),
          h("td", {}, `${found.terms.length} terms`), h("td", {}, ""),
          h("td", {}, number(sum(found.terms)))))) : null,
      found.steps.length ? h("table", { class: "steps" }, h("tbody", {}, found.steps.map(
        ({ label: text, value }, n) => h("tr", { class: n === found.steps.length - 1 && "total" },
          h("td", {}, text), h("td", {}, number(value, 4)))))) : null,
      h("p", { class: "soft check" }, agreement(found)),
      place ? source(place) : null,
      place ? learning(place) : null,
    ];
  }
}

/** The tokens of the word in which token t stands; a token without letters stands alone. */
function wordAround(tokens, t) {
  const goesOn = (i) => i > 0 && i < tokens.length && /^\p{L}/u.test(tokens[i].text) &&
    /\p{L}$/u.test(tokens[i - 1].text);
  let [first, end] = [t, t + 1];
  while (goesOn(first)) first--;
  while (goesOn(end)) end++;
  return tokens.slice(first, end);
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", { class: "mono" }, value));

/** How well the arithmetic shown here agrees with what the engine computed. */
function agreement({ value, recorded: right }) {
  const error = Math.abs(value - right);
  if (!(error < ROUNDING * Math.max(1, Math.abs(right)))) {
    return `The model has ${number(right, 4)} here. It was changed in What if, or ` +
      "a plugin computes it.";
  }
  return error === 0 ? "This is exactly what the model computed." :
    `The model computed the same, up to ${error.toExponential(0)}: it rounds to 32 bits.`;
}

/** Lines of the package, with the one that is meant marked. */
function source({ file, first, line, source: text, function: name }) {
  const lines = text.split("\n");
  const body = h("pre", { tabindex: 0, "aria-label": `${name} in ${file}` },
    lines.map((code, n) => h("code", { class: first + n === line ? "meant" : "" },
      h("span", { class: "line-number" }, String(first + n).padStart(4)), ` ${code}\n`)));
  queueMicrotask(() => {
    const meant = body.querySelector(".meant");
    if (!meant) return;
    const middle = meant.offsetTop - body.clientHeight / 2;
    const from = [...body.children].findLast((code) => code.offsetTop <= Math.max(0, middle));
    body.scrollTop = from.offsetTop - body.firstChild.offsetHeight; // `def` stays above it
  });
  return h("figure", { class: "source" },
    h("figcaption", { class: "mono" }, `${file}:${line} `, h("span", { class: "soft" }, name)),
    body);
}

/** The lesson and the exercise on a line. */
function learning({ lesson, exercise }) {
  return h("div", { class: "learning" },
    h("p", {}, h("b", {}, `Lesson ${lesson.number}: `), `${lesson.title} `,
      h("code", { class: "command" }, `nanogpt learn ${lesson.number}`)),
    exercise ? h("p", {}, h("b", {}, "Write it yourself: "), `${exercise} `,
      h("code", { class: "command" }, `nanogpt exercise check ${exercise}`)) : null);
}
