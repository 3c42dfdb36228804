/**
 * Tensors: a shape, and the numbers one row after the other.
 *
 * Axes: T rows, I inputs, O outputs.
 */

/** @typedef {{shape: number[], data: Float32Array}} Tensor */

/**
 * A tensor over numbers that are there, or of zeros.
 * @param {number[]} shape
 * @param {Float32Array} [data] as many numbers as the shape says
 * @returns {Tensor}
 */
export function tensor(shape, data) {
  return { shape, data: data ?? new Float32Array(shape.reduce((a, b) => a * b, 1)) };
}

/** The last axis of a tensor: how long its rows are. */
export const width = (x) => x.shape[x.shape.length - 1];

/** Row t of a tensor, not copied. */
export const row = (x, t) => x.data.subarray(t * width(x), (t + 1) * width(x));

/** The sum of two tensors of one shape. */
export function add(a, b) {
  return tensor(a.shape, a.data.map((value, i) => value + b.data[i]));
}

/** A function of every number. */
export const each = (x, f) => tensor(x.shape, x.data.map((value) => f(value)));

/** Tensors of one shape (...) as one: (n, ...). */
export function stack(list) {
  const size = list[0].data.length;
  const all = tensor([list.length, ...list[0].shape]);
  list.forEach((x, n) => all.data.set(x.data, n * size));
  return all;
}

/**
 * x @ weight.T + bias: each output is the dot product of a row of x and a row of the weight.
 * x (..., I), weight (O, I), bias (O) or none -> (..., O). Throws an Error if the widths differ.
 */
export function linear(x, weight, bias) {
  const [O, I] = weight.shape;
  if (width(x) !== I) throw new Error(`rows of ${width(x)} do not fit a weight of ${O} x ${I}`);
  const y = tensor([...x.shape.slice(0, -1), O]);
  multiply(x.data, weight.data, y.data, O, I);
  if (bias) {
    for (let i = 0; i < y.data.length; i += O) {
      for (let o = 0; o < O; o++) y.data[i + o] += bias.data[o];
    }
  }
  return y;
}

/**
 * The inner loops of `linear`: x (T, I), w (O, I) -> y (T, O).
 *
 * Nearly all of the time is spent here. Two rows of x meet four rows of w: six numbers are fetched
 * for eight products, where one row with one row fetches two for one. That is three times as
 * fast. At an odd end the last row is simply computed twice.
 */
function multiply(x, w, y, O, I) {
  const T = x.length / I;
  for (let t0 = 0; t0 < T; t0 += 2) {
    const t1 = Math.min(t0 + 1, T - 1);
    for (let o0 = 0; o0 < O; o0 += 4) {
      const o1 = Math.min(o0 + 1, O - 1);
      const o2 = Math.min(o0 + 2, O - 1);
      const o3 = Math.min(o0 + 3, O - 1);
      const [x0, x1] = [t0 * I, t1 * I];
      const [w0, w1, w2, w3] = [o0 * I, o1 * I, o2 * I, o3 * I];
      let [a0, a1, a2, a3, b0, b1, b2, b3] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let i = 0; i < I; i++) {
        const a = x[x0 + i];
        const b = x[x1 + i];
        let v = w[w0 + i];
        a0 += a * v;
        b0 += b * v;
        v = w[w1 + i];
        a1 += a * v;
        b1 += b * v;
        v = w[w2 + i];
        a2 += a * v;
        b2 += b * v;
        v = w[w3 + i];
        a3 += a * v;
        b3 += b * v;
      }
      const [y0, y1] = [t0 * O, t1 * O];
      y[y0 + o0] = a0;
      y[y0 + o1] = a1;
      y[y0 + o2] = a2;
      y[y0 + o3] = a3;
      y[y1 + o0] = b0;
      y[y1 + o1] = b1;
      y[y1 + o2] = b2;
      y[y1 + o3] = b3;
    }
  }
}

/**
 * Turn scores into positive weights that sum to 1, in place: exp(x) over the sum of exp(x).
 * Subtracting the maximum changes nothing in the quotient and keeps exp from overflowing.
 * @param {Float32Array} scores changed, and returned
 */
export function softmax(scores) {
  let largest = -Infinity;
  for (let i = 0; i < scores.length; i++) largest = Math.max(largest, scores[i]);
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - largest);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
  return scores;
}
