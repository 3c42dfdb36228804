/**
 * What the views share: words for the parts of a model, bars, choices, and work that leaves the
 * page time to draw.
 */

import { colour, h, label, SCALES } from "../draw.js";

/** What heads do, as in lab/heads.py and beyond. */
export const HABITS = {
  previous: "looks at the token before",
  first: "looks at the first token",
  induction: "looks at what followed the same token earlier",
  self: "looks at itself",
};

/** The habit that a head shows most, and how much: of scores by habit, NaN where unknown. */
export const strongest = (scores) => Object.entries(scores)
  .filter(([, score]) => !Number.isNaN(score)).sort((a, b) => b[1] - a[1])[0];

/** A part of a model in words: {kind, layer, head}. */
export function partName({ kind, layer, head }) {
  return {
    token: "token embedding",
    position: "position",
    head: `head ${layer}.${head}`,
    attention: `attention ${layer}`,
    mlp: `MLP ${layer}`,
    bias: `attention bias ${layer}`,
    edit: `your edit, block ${layer}`,
    norm: "final norm's shift",
  }[kind];
}

/** Fill an element anew; whoever was there with the keyboard stays at the same control. */
export function refill(element, ...children) {
  const name = (control) => control.dataset.key ?? control.getAttribute("aria-label") ??
    control.textContent;
  const active = element.contains(document.activeElement) && name(document.activeElement);
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (!active) return;
  const controls = [...element.querySelectorAll("button, input, select, [tabindex]")];
  controls.find((control) => name(control) === active)?.focus();
}

/** Whether the page may go on after a few milliseconds of work; it lets the browser draw. */
export function breather(budget = 10) {
  let began = performance.now();
  return async () => {
    if (performance.now() - began < budget) return;
    await new Promise((resolve) => setTimeout(resolve));
    began = performance.now();
  };
}

/**
 * A bar for each item {token or name, value, text}, the longest as wide as it gets; what is longer
 * than `most` is cut. An item with `minus` is orange, one with `mark` stands out, `title` is its
 * tip, and `more` a second text.
 */
export function bars(items, { most = 0 } = {}) {
  const longest = most || Math.max(1e-12, ...items.map((item) => Math.abs(item.value)));
  return h("ul", { class: "bars" }, items.map(
    ({ token, name, value, text, minus, mark, title, more }) =>
      h("li", { class: mark ? "marked" : null, title },
        h("span", { class: "name" }, name ?? label(token)),
        h("span", { class: "track" }, h("span", {
          class: minus ? "fill minus" : "fill",
          style: { width: `${Math.min(100, (100 * Math.abs(value)) / longest)}%` },
        })),
        h("span", { class: "value" }, text),
        more === undefined ? null : h("span", { class: "value soft" }, more))));
}

/** The style of a token: orange for -1, blue for 1, nothing for 0. */
export const tinted = (x, theme) =>
  ({ background: colour(SCALES[theme].signed, 0.5 + 0.36 * x) });

/** What makes a drawn element a button: the mouse, Enter and the space bar do the same. */
export const pressed = (act) => ({
  role: "button", tabindex: 0, onclick: act,
  onkeydown: (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  },
});

/** Who answers what only Python can. Throws an Error that says what a page without it lacks. */
export function pythonOf(engine, lack) {
  if (engine.python) return engine.python;
  throw new Error(`${lack} Open the run with: nanogpt explore runs/${engine.info.name}`);
}

/**
 * A memory of the newest question: (key, ask) -> {value} or {error: a line} of ask(), which is
 * called when the key is another one than before; null if a newer question came meanwhile.
 */
export function newest() {
  let [turn, memory] = [0, {}];
  return async (key, ask) => {
    const mine = ++turn;
    if (key === memory.key) return memory;
    const answer = await ask().then(
      (value) => ({ key, value }), (error) => ({ error: error.message }));
    if (mine !== turn) return null;
    return (memory = answer);
  };
}

/** A choice of one among a few: buttons in a row. options: [[value, text], ...]. */
export function choice(name, options, chosen, onchoose) {
  return h("div", { class: "segments", role: "group", "aria-label": name },
    options.map(([value, text]) => h("button", {
      type: "button", "aria-pressed": String(value === chosen), onclick: () => onchoose(value),
    }, text)));
}

/** Whether two edits are of the same place. */
export const sameEdit = (a, b) => a.at === b.at && (a.head ?? null) === (b.head ?? null) &&
  JSON.stringify(a.positions ?? null) === JSON.stringify(b.positions ?? null);
