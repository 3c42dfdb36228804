/**
 * What a Transformer is made of, apart from attention: norms, nonlinearities, and the places where
 * the order of tokens can enter. Each table holds the variants by the names of the settings.
 *
 * Axes: T time, C channels, M channels inside the feed-forward layer, hs head size.
 */

import { each, row, tensor, width } from "./tensor.js";

export const EPS = 1e-5; // keeps a vector of zeros from being divided by zero

/** (x / root mean square of each row) * gain: (..., C) -> (..., C). */
export function rmsNorm(x, gain) {
  const y = tensor(x.shape);
  const C = width(x);
  for (let i = 0; i < x.data.length; i += C) {
    let squares = 0;
    for (let c = 0; c < C; c++) squares += x.data[i + c] ** 2;
    const scale = 1 / Math.sqrt(squares / C + EPS);
    for (let c = 0; c < C; c++) y.data[i + c] = x.data[i + c] * scale * (gain?.data[c] ?? 1);
  }
  return y;
}

/** The same after each row's mean was taken away, and then a shift: (..., C) -> (..., C). */
function layerNorm(x, gain, shift) {
  const centered = tensor(x.shape, x.data.slice());
  const C = width(x);
  for (let i = 0; i < x.data.length; i += C) {
    let sum = 0;
    for (let c = 0; c < C; c++) sum += x.data[i + c];
    for (let c = 0; c < C; c++) centered.data[i + c] -= sum / C;
  }
  const y = rmsNorm(centered, gain);
  return shift ? tensor(y.shape, y.data.map((value, i) => value + shift.data[i % C])) : y;
}

export const NORMS = { layer: layerNorm, rms: rmsNorm, none: (x) => x };

/** GPT-2's GELU, the approximation with tanh. */
function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}

/** The first half of each row gates the second half: (T, 2 M) -> (T, M). */
function swiglu(x) {
  const [T, M] = [x.shape[0], width(x) / 2];
  return tensor([T, M], Float32Array.from({ length: T * M }, (_, i) => {
    const gate = x.data[Math.floor(i / M) * 2 * M + (i % M)];
    return (gate / (1 + Math.exp(-gate))) * x.data[Math.floor(i / M) * 2 * M + M + (i % M)];
  }));
}

/** The nonlinearity of the feed-forward layer. */
export const MLPS = {
  gelu: (x) => each(x, gelu),
  relu2: (x) => each(x, (value) => Math.max(value, 0) ** 2),
  swiglu,
};

/** The channels M inside the feed-forward layer, and how many its first map gives. */
export function innerWidths({ mlp, n_embd: C }) {
  const M = mlp === "swiglu" ? 8 * Math.ceil(C / 3) : 4 * C;
  return [M, mlp === "swiglu" ? 2 * M : M];
}

/** How fast pair n of `size` channels rotates, in radians per token; in float32, as in Python. */
const speed = (n, size) => Math.fround(10000 ** Math.fround((-2 * n) / size));

/** Each waves at its own speed: a vector for position `pos`, 0.02 high. */
function sinusoidal(pos, C) {
  return Float32Array.from({ length: C }, (_, c) => {
    const angle = Math.fround(pos * speed(c >> 1, C));
    return 0.02 * (c % 2 ? Math.cos(angle) : Math.sin(angle));
  });
}

/** Rotate the pairs of channels (i, i + hs / 2) of one head by their positions: (T, hs). */
function rotary(x, first) {
  const [T, hs] = x.shape;
  const y = tensor(x.shape);
  for (let i = 0; i < hs / 2; i++) {
    for (let t = 0; t < T; t++) {
      const angle = Math.fround((first + t) * speed(i, hs));
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const [a, b] = [t * hs + i, t * hs + i + hs / 2];
      y.data[a] = x.data[a] * cos - x.data[b] * sin;
      y.data[b] = x.data[a] * sin + x.data[b] * cos;
    }
  }
  return y;
}

/**
 * The three places where the order of tokens can enter: a vector that is added to the embedding
 * of a token, a rotation of queries and keys, a number that is added to a score.
 */
export const POSITIONS = {
  learned: { vector: (pos, C, weight) => row(weight, pos) },
  sinusoidal: { vector: sinusoidal },
  rope: { rotate: rotary },
  alibi: { bias: (head, nh, distance) => -(2 ** ((-8 * (head + 1)) / nh)) * distance },
  none: {},
};

/** The first token that token t sees: 0, unless the model has a window. */
export const firstVisible = (t, { window, context_length: length }) =>
  (window && window < length ? Math.max(0, t - window + 1) : 0);

/** How far a short convolution reaches, in tokens, the token itself included. */
export const REACH = 8;

/** The layer whose weight scores tokens: the head's own, or the embedding, to which it is tied. */
export const HEADS = { tied: "wte", untied: "lm_head" };
export const headName = (config) => HEADS[config.head] ?? HEADS.tied;

/** Whether each head also takes a fixed share of the last values. */
export const hasTaps = (config) => config.attention === "short-conv";
