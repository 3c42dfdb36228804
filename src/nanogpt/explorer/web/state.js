/**
 * What is shown now, kept in the address: each picture is a link.
 *
 * A setting has a default, and the default's type is its type. What differs from the default
 * stands in the part of the address after "#", texts as they are and other values as JSON.
 */

/** The settings of the frame; each view brings its own in `view.state`. */
export const FRAME = {
  run: "", // the model's name; empty: the first
  view: "text",
  text: "ROMEO: I have a",
  other: "", // a second text, for swaps
  token: null, // the position of the chosen token; null: the last
  layer: 0,
  head: 0,
  step: null, // a snapshot of the training; null: the latest weights
  edits: [], // see model/trace.py
};

const place = (value) => value === null || (Number.isInteger(value) && value >= 0);

/** What else a setting of the frame has to be: an address can say anything. */
const CHECKS = {
  token: place, layer: place, head: place, step: place,
  edits: (edits) => edits.every((edit) => typeof edit?.at === "string" &&
    Array.isArray(edit.positions ?? [])),
};

/** Whether a value can stand where this default stands. */
function fits(value, preset) {
  if (preset === null) return value === null || ["number", "string"].includes(typeof value);
  return typeof value === typeof preset && Array.isArray(value) === Array.isArray(preset) &&
    value !== null;
}

/**
 * The settings that an address says. What it says wrongly, or not at all, is the default.
 * @param {string} hash such as "#view=attention&layer=1"
 * @param {object} defaults
 */
export function readHash(hash, defaults) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = structuredClone(defaults);
  for (const [name, preset] of Object.entries(defaults)) {
    if (!given.has(name)) continue;
    let value = given.get(name);
    try {
      if (typeof preset !== "string") value = JSON.parse(value);
    } catch {
      continue;
    }
    if (fits(value, preset) && (CHECKS[name]?.(value) ?? true)) state[name] = value;
  }
  return state;
}

/** The address of a state: the inverse of readHash. */
export function writeHash(state, defaults) {
  const said = new URLSearchParams();
  for (const [name, preset] of Object.entries(defaults)) {
    const value = typeof preset === "string" ? state[name] : JSON.stringify(state[name]);
    const usual = typeof preset === "string" ? preset : JSON.stringify(preset);
    if (value !== usual) said.set(name, value);
  }
  return "#" + said;
}
