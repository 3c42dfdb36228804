/**
 * From logits to the next token. Pure functions: logits (V) in, new logits (V) out.
 *
 * `filters` composes them in this order: repetition penalty, temperature, top-k, top-p, min-p.
 * The last three only rule tokens out (-Infinity); the order decides what each of them sees.
 */

import { softmax } from "./tensor.js";

/** The defaults of SampleConfig. */
export const DEFAULTS = {
  max_new_tokens: 200, temperature: 0.8, top_k: 50, top_p: 1, min_p: 0, repetition_penalty: 1,
  seed: 1337,
};

/** The probability of each token: logits (V) -> (V). */
export const probabilities = (logits) => softmax(logits.slice());

/** Logits with those below a bound ruled out. */
const atLeast = (logits, bound) => logits.map((x) => (x < bound ? -Infinity : x));

/** Make tokens that are in the text already (Keskar et al. 2019) less likely. 1: no change. */
function penalizeRepeats(logits, seen, penalty) {
  const lower = logits.slice();
  for (const id of new Set(seen)) {
    lower[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  }
  return lower;
}

/** Divide by the temperature: below 1 the likely becomes likelier, above 1 the unlikely does. */
const applyTemperature = (logits, temperature) =>
  logits.map((x) => x / Math.fround(temperature));

/** Rule out all but the k likeliest (Fan et al. 2018) and those as likely as the last. 0: none. */
function keepTopK(logits, k) {
  if (k === 0 || k >= logits.length) return logits;
  return atLeast(logits, logits.slice().sort()[logits.length - k]);
}

/**
 * Keep the fewest likeliest tokens that together have probability p (Holtzman et al. 2020), and
 * those as likely as the last one kept. The likeliest always stays. 1: all.
 */
function keepTopP(logits, p) {
  if (p === 1) return logits;
  const ordered = logits.slice().sort().reverse();
  const weights = probabilities(ordered);
  let [kept, sum] = [0, 0];
  while (kept < weights.length && sum < p) sum += weights[kept++];
  return atLeast(logits, ordered[Math.max(kept, 1) - 1]);
}

/** Rule out tokens less than p times as likely as the likeliest (Nguyen et al. 2024). 0: none. */
function keepMinP(logits, p) {
  if (p === 0) return logits;
  return atLeast(logits, Math.fround(Math.max(...logits) + Math.fround(Math.log(p))));
}

/**
 * What each filter leaves: [{name, logits}], from the model's own logits to those of the draw.
 * `seen` holds the ids of the text. At temperature 0 only the likeliest stay.
 */
export function filters(logits, settings = {}, seen = []) {
  const { temperature, top_k, top_p, min_p, repetition_penalty } = { ...DEFAULTS, ...settings };
  const heated = (x) =>
    temperature === 0 ? atLeast(x, Math.max(...x)) : applyTemperature(x, temperature);
  const chain = {
    repetition_penalty: (x) => penalizeRepeats(x, seen, repetition_penalty),
    temperature: heated,
    top_k: (x) => keepTopK(x, top_k),
    top_p: (x) => keepTopP(x, top_p),
    min_p: (x) => keepMinP(x, min_p),
  };
  const steps = [{ name: "logits", logits }];
  for (const [name, filter] of Object.entries(chain)) {
    steps.push({ name, logits: filter(steps.at(-1).logits) });
  }
  return steps;
}

/**
 * A generator of random numbers in [0, 1) that a seed determines: a counter, scrambled so that
 * neighbours have nothing in common (SplitMix, Steele et al. 2014, with the 32-bit constants of
 * MurmurHash3). Its draws are not torch's.
 */
export function randomNumbers(seed) {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0; // 2 ** 32 over the golden ratio
    let x = Math.imul(counter ^ (counter >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** One token, as probable as softmax says: logits (V) and a number in [0, 1) -> id. */
export function draw(logits, random) {
  const weights = probabilities(logits);
  let last = 0;
  for (let id = 0; id < weights.length; id++) {
    if (weights[id] === 0) continue;
    last = id;
    random -= weights[id];
    if (random < 0) break;
  }
  return last; // rounding may leave a little of 1; then it is the last possible token
}

/** The next token by the settings; temperature 0 takes the likeliest, the first of equals. */
export function choose(logits, settings, seen, random) {
  const kept = filters(logits, settings, seen).at(-1).logits;
  return settings.temperature === 0 ? kept.findIndex((x) => x !== -Infinity) : draw(kept, random());
}
