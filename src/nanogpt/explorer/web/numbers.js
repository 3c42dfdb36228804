/** Numbers as the views need them: computed in 64 bits from lists, and written for people. */

/** log softmax of one row: (V) -> Float64Array (V). */
export function logSoftmax(logits) {
  let most = -Infinity;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  const shift = most + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - shift);
}

/** Softmax of a list of numbers, computed in 64 bits. */
export const softmax = (logits) => logSoftmax(logits).map(Math.exp);

/** KL(p || q) in nats, from two rows of logits: how much the second surprises the first. */
export function divergence(p, q) {
  const a = logSoftmax(p);
  const b = logSoftmax(q);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.exp(a[i]) * (a[i] - b[i]);
  return Math.max(0, sum);
}

/** The place of a token among all, 1 for the likeliest: how many logits are larger, and one. */
export function rankOf(logits, token) {
  let rank = 1;
  for (const logit of logits) if (logit > logits[token]) rank++;
  return rank;
}

/** The places of the n largest numbers, the largest first; of equal ones the first. */
export function top(data, n) {
  const best = [];
  for (let i = 0; i < data.length; i++) {
    if (best.length >= n && !(data[i] > data[best[n - 1]])) continue;
    let place = best.length;
    while (place > 0 && data[i] > data[best[place - 1]]) place--;
    best.splice(place, 0, i);
    if (best.length > n) best.pop();
  }
  return best;
}

/** The largest size of any number. */
export function largest(data) {
  let most = 0;
  for (let i = 0; i < data.length; i++) {
    const size = Math.abs(data[i]);
    if (size > most && size < Infinity) most = size;
  }
  return most;
}

/** A number as a person reads it: three digits that count, and a real minus. */
export function number(x, digits = 3) {
  if (!Number.isFinite(x)) return x === -Infinity ? "−∞" : x === Infinity ? "∞" : "–";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 0.001 || size >= 1e5) ?
    size.toExponential(1) : size.toFixed(size >= 100 ? 1 : digits);
  return (x < 0 ? "−" : "") + text;
}

/** A share as percent. */
export const percent = (x) => `${(100 * x).toFixed(x < 0.0995 ? 2 : 1)} %`;

/** How many, in words: 1.1 M. */
export function amount(n) {
  const [unit, name] = n >= 1e9 ? [1e9, " B"] : n >= 1e6 ? [1e6, " M"] : n >= 1e4 ? [1e3, " k"] :
    [1, ""];
  return (n / unit).toFixed(unit > 1 && n / unit < 100 ? 1 : 0) + name;
}

/** A number with its sign; zero has none. */
export function signed(x, digits = 2) {
  const text = Math.abs(x).toFixed(digits);
  return Number(text) === 0 ? text : (x > 0 ? "+" : "−") + text;
}
