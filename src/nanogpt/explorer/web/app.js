/**
 * The frame of the page: which model, which text, which view; reading, and telling the view.
 *
 * A view is {id, title, about, state, render(place, app)}. `state` holds its settings with their
 * defaults. `render` fills an element and returns {update(changed)}, which is called when what it
 * shows may have changed: `changed` is a Set of names of settings, and "result", "tokens",
 * "engine" or "theme". It is called once with all of them when the view appears. While the text has
 * no token, a view is hidden and not called, unless it says `textless: true`.
 */

import { chip, h, label, tip } from "./draw.js";
import { amount } from "./numbers.js";
import { download, toPng, toSvg } from "./save.js";
import { listRuns } from "./engine/remote.js";
import { misfit } from "./engine/watch.js";
import { openEngine } from "./engines.js";
import { FRAME, readHash, writeHash } from "./state.js";
import { explainWords } from "./words.js";
import { view as attention } from "./views/attention.js";
import { view as choosing } from "./views/choosing.js";
import { view as circuit } from "./views/circuit.js";
import { view as replay } from "./views/replay.js";
import { view as text } from "./views/text.js";
import { view as source } from "./views/source.js";
import { view as step } from "./views/step.js";
import { view as twins } from "./views/twins.js";
import { view as whatif } from "./views/whatif.js";
import { view as why } from "./views/why.js";

/** All views, in the order of their tabs. A new view is an import and a place in this list. */
const VIEWS = [
  text, attention, why, choosing, whatif, replay, twins, step, source, circuit,
];

const DEFAULTS = Object.assign({}, ...VIEWS.map((view) => view.state ?? {}), FRAME);
const READS = ["run", "step", "text", "other", "edits"]; // changes after which a text is read anew
const ALL = [...Object.keys(DEFAULTS), "engine", "theme"]; // that a view may have to draw

const at = (id) => document.getElementById(id);

/** The names of the settings in which two states differ. */
const differing = (a, b) =>
  Object.keys(b).filter((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]));

class App {
  constructor() {
    this.state = readHash(location.hash, DEFAULTS);
    this.runs = [];
    this.engines = new Map();
    this.engine = null;
    this.tokens = []; // of the text, as many as fit into the context
    this.earlier = []; // tokens of the text before those
    this.other = null; // ids of the second text, if an edit swaps with it
    this.edits = []; // those of the state that can be made in this text and model
    this.result = null; // {logits, activations, ids} of the text
    this.patterns = [];
    this.latest = 0; // the number of the newest reading; older ones are dropped
    this.shown = null; // the view that is shown: {view, place, rendered}
  }

  /** The chosen token's position: the last one, unless another was chosen. */
  get token() {
    const last = this.tokens.length - 1;
    const { token } = this.state;
    return Number.isInteger(token) && token >= 0 ? Math.min(last, token) : last;
  }

  /** "light" or "dark". */
  get theme() {
    return document.documentElement.dataset.theme;
  }

  /**
   * Name the activations that the view needs; what it needed before is forgotten. A function
   * (number of tokens, config) -> patterns decides anew for every text.
   */
  need(patterns) {
    this.patterns = patterns;
  }

  /** Open a run by its name, once: an engine. */
  open(name) {
    if (!this.engines.has(name)) {
      const opening = openEngine(name);
      this.engines.set(name, opening);
      opening.catch(() => this.engines.delete(name));
    }
    return this.engines.get(name);
  }

  /** Change settings: the address follows, and the view is told. */
  set(changes) {
    const changed = differing(this.state, changes);
    if (!changed.length) return;
    Object.assign(this.state, changes);
    const hash = writeHash(this.state, DEFAULTS);
    history[changed.includes("view") ? "pushState" : "replaceState"](null, "", hash);
    this.follow(new Set(changed));
  }

  /** Do what a change of these settings asks for. */
  async follow(changed) {
    if (changed.has("text") && at("text").value !== this.state.text) {
      at("text").value = this.state.text;
    }
    if (changed.has("view") && this.shown) return this.show();
    if (READS.some((name) => changed.has(name))) return this.read(changed);
    if (changed.has("token")) this.drawTokens();
    return this.tell(changed);
  }

  /** Read the text with the chosen model, then tell the view. */
  async read(changed = new Set()) {
    const number = ++this.latest;
    at("step").hidden = this.state.step === null;
    at("step").textContent = `weights of step ${this.state.step} ×`;
    at("run").value = this.state.run;
    try {
      const engine = await this.open(this.state.run);
      const tokens = await engine.tokenize(this.state.text);
      const longest = engine.info.config.context_length;
      const fitting = tokens.slice(-longest);
      const ids = fitting.map((token) => token.id);
      const { edits: asked, step } = this.state;
      const other = asked.some((edit) => edit.how === "swap") ?
        await engine.tokenize(this.state.other).then((found) => found.map((token) => token.id),
          () => []) : null; // What if says what is wrong with the second text
      const reasons = asked.map((edit) => misfit(edit, engine.info.config, ids, other));
      const edits = asked.filter((_, n) => !reasons[n]);
      const record = typeof this.patterns === "function" ?
        this.patterns(ids.length, engine.info.config) : [...this.patterns];
      const request = { record, edits, other, step };
      const result = ids.length ? { ...(await engine.forward(ids, request)), ids } : null;
      if (number !== this.latest) return;
      const isNew = engine !== this.engine;
      const isFirst = !this.result;
      const earlier = tokens.slice(0, tokens.length - fitting.length);
      Object.assign(this, { engine, tokens: fitting, earlier, other, edits, result });
      if (isNew) this.drawFacts();
      at("edits").hidden = !asked.length;
      at("edits").textContent = `${asked.length} change${asked.length > 1 ? "s" : ""} ×`;
      const left = reasons.find(Boolean);
      this.say(!ids.length ? "Type a text above: without a token there is nothing to read." : [
        earlier.length ? `The model sees the last ${longest} of ${tokens.length} tokens.` : "",
        left ? `A change of What if is left out here: ${left}.` : "",
      ].filter(Boolean).join(" "));
      this.drawTokens();
      this.tell(new Set([...(isFirst ? ALL : changed), "tokens", "result",
        ...(isNew ? ["engine"] : [])]));
    } catch (error) {
      if (number === this.latest) this.say(error.message, true);
    }
  }

  /** Tell the view what changed. */
  async tell(changed) {
    if (!this.shown || !this.engine) return;
    const { view, place, rendered } = this.shown;
    const { result } = this;
    place.hidden = !result && !view.textless;
    try {
      if (!place.hidden) await rendered.update(changed);
    } catch (error) {
      if (!place.isConnected || result !== this.result) return; // of a text that was left
      this.say(error.message, true);
      console.error(error); // a bug of the view
    }
  }

  /** One line to the person who looks: a fact, or what went wrong. */
  say(line, wrong = false) {
    at("notice").textContent = line;
    at("notice").classList.toggle("wrong", wrong);
  }

  /** Show the view that the state names. */
  async show() {
    const view = VIEWS.find((each) => each.id === this.state.view) ?? VIEWS[0];
    for (const tab of at("views").children) {
      const chosen = tab.id === `tab-${view.id}`;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    const place = h("div", { class: `view view-${view.id}` });
    at("place").setAttribute("aria-labelledby", `tab-${view.id}`);
    at("place").replaceChildren(h("div", { class: "head" },
      h("div", {}, h("h2", {}, view.title), h("p", {}, view.about)), tools(view, this)), place);
    place.hidden = !this.result && !view.textless;
    this.shown = null;
    this.patterns = [];
    this.shown = { view, place, rendered: view.render(place, this) };
    await this.read(new Set(ALL));
  }

  /** The tokens of the text, as chips to choose one. */
  drawTokens() {
    at("tokens").replaceChildren(...this.tokens.map((token, t) => chip(token, {
      role: "option", id: `token-${t}`, "aria-selected": t === this.token, "data-t": t,
      title: `token ${t}: id ${token.id}`,
    })));
    at("tokens").setAttribute("aria-activedescendant", `token-${this.token}`);
  }

  /** What the chosen model is, in a line. */
  drawFacts() {
    const { config, n_params: n } = this.engine.info;
    const where = this.engine.info.remote_only ? "computed in Python" : "computed in this page";
    at("facts").textContent = `${amount(n)} parameters · ${config.n_layer} layers × ` +
      `${config.n_head} heads · ${config.n_embd} channels · context ${config.context_length} · ` +
      where;
  }
}

/**
 * The buttons beside a view's title: save it as a picture, or copy its address. A picture holds
 * the title, the model and the text, too: without them nobody knows later what it shows.
 */
function tools(view, app) {
  const save = async (kind) => {
    const { step, text } = app.state;
    const buttons = at("place").querySelector(".head .tools");
    const caption = h("p", {}, app.engine.info.name, step === null ? "" : `, step ${step}`,
      app.result ? `: “${text}”` : "");
    buttons.replaceWith(caption);
    const svg = toSvg(at("place"));
    caption.replaceWith(buttons);
    const blob = kind === "png" ? await toPng(svg) : new Blob([svg], { type: "image/svg+xml" });
    download(`${app.engine.info.name}-${view.id}.${kind}`, blob);
  };
  const link = async (event) => {
    try {
      await navigator.clipboard.writeText(location.href);
      event.target.textContent = "Copied";
    } catch {
      window.prompt("The address of this view", location.href);
    }
    setTimeout(() => (event.target.textContent = "Link"), 1500);
  };
  const button = (name, title, onclick) => h("button", { type: "button", title, onclick }, name);
  return h("div", { class: "tools" },
    button("PNG", "Save this view as a PNG", () => save("png")),
    button("SVG", "Save this view as an SVG", () => save("svg")),
    button("Link", "Copy the address of this view", link));
}

/** Switch to a theme, and tell the view. */
function setTheme(theme, app) {
  document.documentElement.dataset.theme = theme;
  app.tell(new Set(["theme"]));
}

/** Arrow keys move within a list of n, from place i; the new place, or null for another key. */
function moved(key, i, n) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
  if (step) return Math.min(n - 1, Math.max(0, i + step));
  return { Home: 0, End: n - 1 }[key] ?? null;
}

/** What people do: type, choose, switch, go back. */
function listen(app) {
  at("text").addEventListener("input", () => app.set({ text: at("text").value, token: null }));
  at("run").addEventListener("change", () => app.set({ run: at("run").value, step: null }));
  at("step").addEventListener("click", () => app.set({ step: null }));
  at("edits").addEventListener("click", () => app.set({ edits: [] }));
  at("theme").addEventListener("click", () => {
    const theme = app.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // A page that was opened from a file may have no storage; the choice is then not kept.
    }
    setTheme(theme, app);
  });
  at("tokens").addEventListener("click", (event) => {
    const t = event.target.closest("[data-t]")?.dataset.t;
    if (t !== undefined) app.set({ token: Number(t) });
  });
  at("tokens").addEventListener("keydown", (event) => {
    const t = moved(event.key, app.token, app.tokens.length);
    if (t === null) return;
    event.preventDefault();
    app.set({ token: t });
  });
  at("place").addEventListener("click", (event) => {
    tip(event.target.closest("abbr")?.title, event); // a finger cannot hover
  });
  explainWords(at("place"));
  at("views").addEventListener("keydown", (event) => {
    const i = VIEWS.findIndex((view) => view.id === app.shown?.view.id);
    const next = moved(event.key, i, VIEWS.length);
    if (next === null) return;
    event.preventDefault();
    app.set({ view: VIEWS[next].id });
    at(`tab-${VIEWS[next].id}`).focus();
  });
  addEventListener("popstate", () => {
    const before = app.state;
    app.state = readHash(location.hash, DEFAULTS);
    app.state.run ||= before.run;
    const changed = differing(before, app.state);
    if (changed.length) app.follow(new Set(changed));
  });
}

/** The theme that was chosen here before, or else the system's. */
function firstTheme() {
  try {
    const kept = localStorage.getItem("theme");
    if (kept === "dark" || kept === "light") return kept;
  } catch {
    // no storage: see above
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Begin: the list of runs, then the view that the address names. */
async function start() {
  const app = new App();
  setTheme(firstTheme(), app);
  at("views").replaceChildren(...VIEWS.map((view) => h("button", {
    role: "tab", type: "button", id: `tab-${view.id}`, "aria-controls": "place",
    onclick: () => app.set({ view: view.id }),
  }, view.title)));
  at("text").value = app.state.text;
  listen(app);
  try {
    app.runs = await listRuns();
    const open = app.runs.filter((run) => !run.error);
    if (!open.length) throw new Error(app.runs[0]?.error ?? "there is no run to show");
    if (!open.some((run) => run.name === app.state.run)) app.state.run = open[0].name;
    at("run").replaceChildren(...app.runs.map((run) => h("option", {
      value: run.name, selected: run.name === app.state.run, disabled: Boolean(run.error),
    }, run.name)));
    await app.show();
  } catch (error) {
    app.say(error.message, true);
  }
  return app;
}

/** For people at the console, and for tests: what is drawn, as data. */
window.explorer = { label, ready: start().then((app) => (window.explorer.app = app)) };
