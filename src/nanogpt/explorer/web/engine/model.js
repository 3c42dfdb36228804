/**
 * GPT-2 (Radford et al. 2019) in JavaScript: the whole network.
 *
 *   ids -- wte + wpe --> x --> block --> ... --> block --> ln_f --> x @ wte.T --> logits
 *
 * x is the residual stream: C numbers per token, to which every layer adds its part. This file
 * does what `model/` does in Python, without sharing a line with it: tests hold the two equal.
 * Weights and activations carry the same names. A text is a row; there is no batch axis.
 *
 * Axes: T time, S key time, C channels, nh heads, nkv heads of keys and values, hs head size,
 * V vocabulary.
 */

import {
  firstVisible, hasTaps, HEADS, headName, innerWidths, MLPS, NORMS, POSITIONS, REACH, rmsNorm,
} from "./layers.js";
import { add, each, linear, row, softmax, stack, tensor, width } from "./tensor.js";

/** Where the norms stand, and whether layers add to the stream. */
const BLOCKS = {
  "pre-norm": (x, { ln_1, attn, ln_2, mlp }) => {
    x = add(x, attn(ln_1(x)));
    return add(x, mlp(ln_2(x)));
  },
  "post-norm": (x, { ln_1, attn, ln_2, mlp }) => {
    x = ln_1(add(x, attn(x)));
    return ln_2(add(x, mlp(x)));
  },
  "no-residual": (x, { ln_1, attn, ln_2, mlp }) => mlp(ln_2(attn(ln_1(x)))),
};

/** Every weight of a model, and its shape; each linear map is (out, in). */
function weightShapes(config) {
  const { n_layer, n_head, n_embd: C, n_kv_head, vocab_size, context_length } = config;
  const [M, widened] = innerWidths(config);
  const qkv = C + (2 * C * (n_kv_head || n_head)) / n_head;
  const linears = [
    ["attn.c_attn", qkv, C], ["attn.c_proj", C, C],
    ["mlp.c_fc", widened, C], ["mlp.c_proj", C, M],
  ];
  const shapes = [["wte.weight", [vocab_size, C]]];
  if (config.position === "learned") shapes.push(["wpe.weight", [context_length, C]]);
  const norm = (name) => {
    if (config.norm !== "none") shapes.push([`${name}.weight`, [C]]);
    if (config.norm === "layer" && config.bias) shapes.push([`${name}.bias`, [C]]);
  };
  for (let layer = 0; layer < n_layer; layer++) {
    for (const [name, out, inputs] of linears) {
      shapes.push([`h.${layer}.${name}.weight`, [out, inputs]]);
      if (config.bias) shapes.push([`h.${layer}.${name}.bias`, [out]]);
    }
    if (hasTaps(config)) shapes.push([`h.${layer}.attn.kernel.taps`, [n_head, REACH, 1]]);
    norm(`h.${layer}.ln_1`);
    norm(`h.${layer}.ln_2`);
  }
  norm("ln_f");
  if (headName(config) !== "wte") shapes.push([`${headName(config)}.weight`, [vocab_size, C]]);
  return shapes;
}

const TABLES = { position: POSITIONS, norm: NORMS, mlp: MLPS, block: BLOCKS, head: HEADS };

/** The channels `from` to `from + hs` of each row: (T, C) -> (T, hs). */
function slice(x, from, hs) {
  const [T, C] = x.shape;
  const part = tensor([T, hs]);
  for (let t = 0; t < T; t++) {
    part.data.set(x.data.subarray(t * C + from, t * C + from + hs), t * hs);
  }
  return part;
}

/** The heads side by side again: (nh, T, hs) -> (T, C). */
function joinHeads(x) {
  const [nh, T, hs] = x.shape;
  const joined = tensor([T, nh * hs]);
  for (let h = 0; h < nh; h++) {
    for (let t = 0; t < T; t++) joined.data.set(row(x, h * T + t), t * nh * hs + h * hs);
  }
  return joined;
}

/** The values v (S, hs), mixed by weights (T, S): (T, hs). */
function mix(weights, v) {
  const [T, S] = weights.shape;
  const y = tensor([T, width(v)]);
  for (let t = 0; t < T; t++) {
    const into = row(y, t);
    for (let s = 0; s < S; s++) {
      const weight = weights.data[t * S + s];
      if (weight === 0) continue; // hidden by the mask
      const value = row(v, s);
      for (let c = 0; c < into.length; c++) into[c] += weight * value[c];
    }
  }
  return y;
}

/**
 * Keys and values of the tokens so far. They never change, because no token sees the ones after
 * it. For each layer and each of its nkv heads there are two tensors of room for a whole context.
 */
export class Cache {
  constructor(config) {
    const heads = config.n_kv_head || config.n_head;
    const room = () => tensor([config.context_length, config.n_embd / config.n_head]);
    const layer = () => Array.from({ length: heads }, () => ({ k: room(), v: room() }));
    this.layers = Array.from({ length: config.n_layer }, layer);
    this.length = 0; // tokens in the cache
  }

  /** Add a head's new keys or values x (T, hs); all so far: (S, hs). */
  update(layer, head, part, x) {
    const { data } = this.layers[layer][head][part];
    const [T, hs] = x.shape;
    data.set(x.data, this.length * hs);
    return tensor([this.length + T, hs], data.subarray(0, (this.length + T) * hs));
  }
}

export class Model {
  /**
   * @param {object} config the settings of ModelConfig
   * @param {Object<string, import("./tensor.js").Tensor>} weights as PyTorch keeps them
   * Throws an Error for a variant or a shape that this file does not know, and a missing weight.
   */
  constructor(config, weights) {
    config = { head: "tied", ...config }; // older pages do not say
    for (const [setting, table] of Object.entries(TABLES)) {
      if (!Object.hasOwn(table, config[setting])) {
        const known = Object.keys(table).join(", ");
        throw new Error(`model.${setting}=${config[setting]} is unknown: use one of ${known}`);
      }
    }
    for (const [name, shape] of weightShapes(config)) {
      if (String(weights[name]?.shape) === String(shape)) continue;
      throw new Error(`the weights have no ${name} of ${shape.join(" x ")}`);
    }
    this.config = config;
    this.weights = weights;
    this.headSize = config.n_embd / config.n_head;
    this.keyHeads = config.n_kv_head || config.n_head;
  }

  /** A layer's linear map, by its name: (T, in) -> (T, out). */
  linear(name, x) {
    return linear(x, this.weights[`${name}.weight`], this.weights[`${name}.bias`]);
  }

  /** A layer's norm, by its name: (T, C) -> (T, C). */
  norm(name, x) {
    const weights = [this.weights[`${name}.weight`], this.weights[`${name}.bias`]];
    return NORMS[this.config.norm](x, ...weights);
  }

  /**
   * Score every possible next token at every position: ids (T) -> logits (T, V).
   *
   * `see(name, x)` is given every activation as it is made, and what it returns goes on: see
   * watch.js. With a cache, ids continue the text that it holds and are added to it. With `last`
   * only the last row is scored. Throws an Error for ids that no embedding has, or too many.
   */
  forward(ids, { see = (name, x) => x, cache = null, last = false } = {}) {
    const first = cache?.length ?? 0;
    let x = this.embed(ids, first, see);
    for (let layer = 0; layer < this.config.n_layer; layer++) {
      const at = `h.${layer}`;
      const parts = {
        ln_1: (x) => see(`${at}.ln_1`, this.norm(`${at}.ln_1`, x)),
        attn: (x) => see(`${at}.attn`, this.attention(`${at}.attn`, layer, x, first, see, cache)),
        ln_2: (x) => see(`${at}.ln_2`, this.norm(`${at}.ln_2`, x)),
        mlp: (x) => see(`${at}.mlp`, this.mlp(`${at}.mlp`, x, see)),
      };
      x = see(at, BLOCKS[this.config.block](x, parts)); // (T, C)
    }
    if (cache) cache.length += ids.length;
    if (last) x = tensor([1, width(x)], row(x, ids.length - 1).slice());
    return this.head(x, see);
  }

  /** The end of the network: hidden states (T, C) -> logits (T, V). */
  head(x, see = (name, x) => x) {
    x = see("ln_f", this.norm("ln_f", x));
    return see("lm_head", linear(x, this.weights[`${headName(this.config)}.weight`]));
  }

  /** What tokens and their positions look like going in: ids (T) -> (T, C). */
  embed(ids, first, see) {
    const { context_length: length, n_embd: C, position } = this.config;
    const wte = this.weights["wte.weight"];
    if (first + ids.length > length) {
      throw new Error(`${first + ids.length} tokens do not fit into model.context_length=` +
        `${length}: shorten the text`);
    }
    let x = tensor([ids.length, C]);
    ids.forEach((id, t) => {
      const known = Number.isInteger(id) && id >= 0 && id < wte.shape[0];
      if (!known) throw new Error(`there is no token ${id}: use 0 to ${wte.shape[0] - 1}`);
      row(x, t).set(row(wte, id));
    });
    x = see("wte", x);
    if (POSITIONS[position].vector) {
      x = tensor(x.shape, x.data.slice());
      for (let t = 0; t < ids.length; t++) {
        const vector = POSITIONS[position].vector(first + t, C, this.weights["wpe.weight"]);
        vector.forEach((value, c) => (x.data[t * C + c] += value));
      }
    }
    return see("drop", x);
  }

  /** The feed-forward layer: widen, apply the nonlinearity, narrow again: (T, C) -> (T, C). */
  mlp(at, x, see) {
    x = see(`${at}.c_fc`, this.linear(`${at}.c_fc`, x));
    x = MLPS[this.config.mlp](x);
    return see(`${at}.dropout`, see(`${at}.c_proj`, this.linear(`${at}.c_proj`, x)));
  }

  /** Every token asks a question of all tokens before it and mixes their answers. */
  attention(at, layer, x, first, see, cache) {
    const { n_head: nh, position, qk_norm: normed } = this.config;
    const [hs, nkv] = [this.headSize, this.keyHeads];
    const rotate = POSITIONS[position].rotate ?? ((x) => x);
    const stacked = see(`${at}.c_attn`, this.linear(`${at}.c_attn`, x)); // (T, (nh + 2 nkv) hs)
    const heads = (from, count) =>
      Array.from({ length: count }, (_, h) => slice(stacked, (from + h) * hs, hs)); // (T, hs) each
    let [q, k, v] = [heads(0, nh), heads(nh, nkv), heads(nh + nkv, nkv)];
    if (normed) [q, k] = [q.map((x) => rmsNorm(x)), k.map((x) => rmsNorm(x))];
    [q, k] = [q.map((x) => rotate(x, first)), k.map((x) => rotate(x, first))];
    if (cache) {
      k = k.map((x, head) => cache.update(layer, head, "k", x)); // (S, hs) each
      v = v.map((x, head) => cache.update(layer, head, "v", x));
    }
    // Groups of queries share a head of keys and values.
    [k, v] = [k, v].map((list) => q.map((_, head) => list[Math.floor((head * nkv) / nh)]));
    const scores = q.map((x, head) => each(linear(x, k[head]), (s) => s / Math.sqrt(hs)));
    const taps = this.weights[`${at}.kernel.taps`];
    const weights = scores.map((x, head) => this.weigh(x, head, first, taps)); // (T, S) each
    const parts = { q, k, v, scores, weights };
    for (const [part, list] of Object.entries(parts)) see(`${at}.${part}`, list, stack);
    const y = see(`${at}.kernel`, stack(weights.map((x, head) => mix(x, v[head])))); // (nh, T, hs)
    x = see(`${at}.c_proj`, this.linear(`${at}.c_proj`, joinHeads(y))); // (T, C)
    return see(`${at}.dropout`, x); // which does nothing outside of training
  }

  /** How much each query takes from each key, of one head: scores (T, S) -> weights (T, S). */
  weigh(scores, head, first, taps) {
    const { n_head: nh, position } = this.config;
    const { bias } = POSITIONS[position];
    const [T, S] = scores.shape;
    const weights = tensor([T, S]); // zero where a key is hidden
    for (let t = 0; t < T; t++) {
      const now = first + t; // no query sees a key after its own token
      const from = firstVisible(now, this.config);
      const visible = weights.data.subarray(t * S + from, t * S + now + 1);
      visible.set(scores.data.subarray(t * S + from, t * S + now + 1));
      if (bias) visible.forEach((_, i) => (visible[i] += bias(head, nh, now - from - i)));
      softmax(visible);
      for (let s = Math.max(from, now - REACH + 1); taps && s <= now; s++) {
        visible[s - from] += taps.data[head * REACH + now - s];
      }
    }
    return weights;
  }
}
