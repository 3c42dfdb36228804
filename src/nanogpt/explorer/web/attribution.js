/**
 * Why this token: its logit as a sum of what each part of the model added to it.
 *
 * The residual stream is a sum, and the head is linear. Only the final norm stands between them.
 * With the norm's scale held at what it is for this text, the logit is a sum, too: one number for
 * each embedding, attention head and MLP (direct logit attribution; Elhage et al. 2021, "A
 * Mathematical Framework for Transformer Circuits"). The logit lens (nostalgebraist 2020) asks
 * another question: what would the model predict if the blocks ended here?
 *
 * Everything here is a pure function of recorded activations and of weights.
 * Axes: T time, C channels, nh heads, hs head size, V vocabulary.
 */

import { EPS, HEADS } from "./engine/layers.js";
import { row } from "./engine/tensor.js";

/** What `attribute` and `streams` need to be recorded. */
export const PATTERNS = [
  "wte", "drop", "h.*.attn", "h.*.mlp", "h.*.attn.kernel", "h.*.attn.weights", "h.*.attn.v",
];

/** The names of the streams themselves: after the embeddings and after each block. */
export function streamNames(config) {
  return ["drop", ...layers(config).map((i) => `h.${i}`)];
}

/** The parameters that `attribute` needs, by name. Those that a variant lacks are left out. */
export function parameterNames(config) {
  const projections = layers(config).map((i) => `h.${i}.attn.c_proj`);
  return ["ln_f", ...projections].flatMap((name) => [`${name}.weight`, `${name}.bias`]);
}

const layers = (config) => [...Array(config.n_layer).keys()];

/** In one line, why the parts of this model do not add up to its logits; "" if they do. */
export function whyNoSum(config) {
  if (config.block === "post-norm") {
    return "This model has post-norm blocks: each norm rescales all that came before it, so the " +
      "parts do not add up to the logit. The logit lens below still works.";
  }
  if (config.block === "no-residual") {
    return "This model has no residual connections: each layer replaces the stream, so the " +
      "parts do not add up to the logit. The logit lens below still works.";
  }
  if (config.block !== "pre-norm" || !["layer", "rms", "none"].includes(config.norm)) {
    return "A sum over the parts is known for pre-norm blocks with the norms layer, rms, none; " +
      `this model has block=${config.block}, norm=${config.norm}.`;
  }
  if (config.head && !Object.hasOwn(HEADS, config.head)) {
    return "A sum over the parts is known for heads that are tied or untied; this model has " +
      `head=${config.head}.`;
  }
  return "";
}

/** The inner product of a row of `a` that begins at `i` and a row of `b` that begins at `j`. */
function dot(a, i, b, j, n) {
  let sum = 0;
  for (let c = 0; c < n; c++) sum += a[i + c] * b[j + c];
  return sum;
}

/**
 * The final norm and the head for one token, as one vector: logit = x . direction + constant.
 *
 * x (C) is the stream before the final norm at one position; its scale is frozen in the vector.
 * `unembedding` (C) is the token's row of the head, or a difference of rows.
 */
function direction(x, unembedding, config, gain, bias) {
  const n = x.length;
  let mean = 0;
  let square = 0;
  for (const value of x) mean += value / n;
  if (config.norm !== "layer") mean = 0;
  for (const value of x) square += (value - mean) ** 2 / n;
  const scale = config.norm === "none" ? 1 : 1 / Math.sqrt(square + EPS);
  const along = Float64Array.from(unembedding, (u, c) => u * scale * (gain ? gain[c] : 1));
  if (config.norm === "layer") { // it takes the mean away: so does the vector
    const middle = along.reduce((sum, value) => sum + value, 0) / n;
    for (let c = 0; c < n; c++) along[c] -= middle;
  }
  const constant = bias ? dot(bias, 0, unembedding, 0, n) : 0;
  return { along, constant };
}

/**
 * What each part added to a logit at one position.
 *
 * activations: {name: Tensor} with PATTERNS and the last stream; parameters: {name: Tensor} as in
 * `parameterNames`; unembedding (C): the token's row of the head, minus another row (or the mean
 * row) to ask for a difference of logits; edited: whether edits were made, which replace a sum by
 * something else and then get a part of their own.
 *
 * Gives {parts: [{kind, layer, head, value, from}], sum}. kind is "token", "position", "head",
 * "mlp", "bias" (of attention's last linear layer), "edit" (what an edit of the stream changed) or
 * "norm" (the final norm's shift). `from` (T) splits a head's value by the token that it came from.
 */
export function attribute(asked) {
  const { config, activations, parameters, position, unembedding, edited = false } = asked;
  const n = config.n_embd;
  const last = row(activations[`h.${config.n_layer - 1}`], position);
  const { along, constant } = direction(
    last, unembedding, config, parameters["ln_f.weight"]?.data, parameters["ln_f.bias"]?.data,
  );
  const along_ = (name) => dot(row(activations[name], position), 0, along, 0, n);
  const parts = [];
  const add = (kind, value, more = {}) => parts.push({ kind, value, ...more });

  const token = along_("wte");
  add("token", token);
  const order = along_("drop") - token;
  if (order) add("position", order);
  let before = token + order;
  const explain = (name, explained, layer) => { // what an edit put there in the sum's place
    const here = along_(name);
    if (edited && Math.abs(here - explained) > 1e-3) add("edit", here - explained, { layer });
    return here;
  };
  for (const layer of layers(config)) {
    const name = `h.${layer}.attn`;
    const found = heads(config, activations, parameters, position, along, layer);
    parts.push(...found);
    const shift = parameters[`${name}.c_proj.bias`];
    const bias = shift ? dot(shift.data, 0, along, 0, n) : 0;
    if (bias) add("bias", bias, { layer });
    const attention = explain(name, found.reduce((sum, h) => sum + h.value, bias), layer);
    const mlp = along_(`h.${layer}.mlp`);
    add("mlp", mlp, { layer });
    before = explain(`h.${layer}`, before + attention + mlp, layer);
  }
  if (constant) add("norm", constant);
  return { parts, sum: parts.reduce((sum, part) => sum + part.value, 0) };
}

/** The parts of one layer's heads, each split by the tokens that it looked at. */
function heads(config, activations, parameters, position, along, layer) {
  const name = `h.${layer}.attn`;
  const kernel = activations[`${name}.kernel`];
  const weights = activations[`${name}.weights`];
  const values = activations[`${name}.v`];
  const weight = parameters[`${name}.c_proj.weight`].data; // (C, C), rows are outputs
  const n = config.n_embd;
  const [count, T, size] = kernel.shape;
  // Back through c_proj: what a head's own channels count for along the direction.
  const back = new Float64Array(n);
  for (let c = 0; c < n; c++) {
    for (let i = 0; i < n; i++) back[i] += along[c] * weight[c * n + i];
  }
  return Array.from({ length: count }, (_, head) => {
    const value = dot(kernel.data, (head * T + position) * size, back, head * size, size);
    const from = new Float64Array(position + 1);
    const group = Math.floor((head * values.shape[0]) / count); // grouped heads share values
    for (let s = 0; s <= position; s++) {
      from[s] = weights.data[(head * T + position) * T + s] *
        dot(values.data, (group * T + s) * size, back, head * size, size);
    }
    return { kind: "head", layer, head, value, from };
  });
}

/**
 * The stream at every point where the logit lens can look, in the order of the network.
 *
 * Pre-norm blocks have two, after attention and after the MLP; other blocks one. Gives
 * [{name, after, layer, data (T * C)}].
 */
export function streams(config, activations) {
  const found = [{ name: "drop", after: "embeddings", layer: -1, data: activations.drop.data }];
  for (const layer of layers(config)) {
    const whole = activations[`h.${layer}`].data;
    const mlp = activations[`h.${layer}.mlp`];
    if (config.block === "pre-norm" && mlp) {
      const middle = whole.map((value, i) => value - mlp.data[i]);
      found.push({ name: `h.${layer}.attn`, after: "attention", layer, data: middle });
    }
    const after = config.block === "pre-norm" ? "MLP" : "block";
    found.push({ name: `h.${layer}`, after, layer, data: whole });
  }
  return found;
}
