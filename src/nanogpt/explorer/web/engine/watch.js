/**
 * Watching a model at work, and changing it: any activation by its name.
 *
 * An edit {at, head, positions, how} puts something else in an activation's place: "zero", the
 * "mean" over all positions of this text, or by "swap" what the same place held when the model
 * read another text of as many tokens, without edits.
 */

import { tensor } from "./tensor.js";

const EDITABLE = /^(drop|h\.\d+(\.attn\.kernel|\.attn|\.mlp)?)$/;

/** Everything that can be recorded, with Python's names, in the order of the network's parts. */
function activationNames(config) {
  const inside = [
    "ln_1", "attn.c_attn", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.weights",
    "attn.kernel", "attn.c_proj", "attn.dropout", "attn", "ln_2", "mlp.c_fc", "mlp.c_proj",
    "mlp.dropout", "mlp",
  ];
  const blocks = Array.from({ length: config.n_layer }, (_, layer) => `h.${layer}`);
  const names = blocks.flatMap((at) => [...inside.map((part) => `${at}.${part}`), at]);
  return ["wte", "drop", ...names, "ln_f", "lm_head"];
}

/** The names that fit a pattern, where * stands for anything. Throws an Error if none does. */
function matching(names, pattern) {
  const escaped = pattern.replace(/[.+^${}()|[\]\\?]/g, "\\$&").replaceAll("*", ".*");
  const found = names.filter((name) => new RegExp(`^${escaped}$`, "s").test(name));
  if (!found.length) {
    throw new Error(`'${pattern}' fits no activation; they are like ${names.at(-3)}`);
  }
  return found;
}

/**
 * Read a text, record what is asked for, and edit on the way.
 * @param {import("./model.js").Model} model
 * @param {number[]} ids
 * @param {{record?: string[], edits?: object[], other?: number[]}} [request]
 * @returns {{logits: Tensor, activations: Object<string, Tensor>}} logits (T, V)
 * What is recorded is what went on: after an edit, the edited. Throws an Error for a pattern that
 * fits nothing, and an edit of what is not there.
 */
export function observe(model, ids, { record = [], edits = [], other = null } = {}) {
  const names = activationNames(model.config);
  const wanted = new Set(record.flatMap((pattern) => matching(names, pattern)));
  const reason = edits.map((edit) => misfit(edit, model.config, ids, other)).find(Boolean);
  if (reason) throw new Error(reason);
  const swapped = edits.filter((edit) => edit.how === "swap").map((edit) => edit.at);
  const elsewhere = swapped.length ? observe(model, other, { record: swapped }).activations : {};
  const activations = {};
  const see = (name, x, prepare = (x) => x) => {
    for (const edit of edits) {
      if (edit.at === name) x = edited(x, edit, elsewhere[name]);
    }
    if (wanted.has(name)) activations[name] = prepare(x);
    return x;
  };
  return { logits: model.forward(ids, { see }), activations };
}

/** Why an edit cannot be made in this text and model, in one line; empty if it can. */
export function misfit({ at, head = null, positions = null, how = "zero" }, config, ids, other) {
  const known = EDITABLE.test(at) && activationNames(config).includes(at);
  if (!known) return `'${at}' cannot be edited: use drop, h.0, h.0.attn, h.0.attn.kernel`;
  if (!["zero", "mean", "swap"].includes(how)) {
    return `an edit by '${how}' is unknown: use zero, mean or swap`;
  }
  const within = (n, end) => Number.isInteger(n) && n >= 0 && n < end;
  if (head !== null && !(at.endsWith(".kernel") && within(head, config.n_head))) {
    return `${at} has no head ${head}: use h.0.attn.kernel and 0 to ${config.n_head - 1}`;
  }
  const missing = (positions ?? []).find((t) => !within(t, ids.length));
  if (missing !== undefined) return `position ${missing} at ${at}: use 0 to ${ids.length - 1}`;
  if (how === "swap" && other?.length !== ids.length) {
    return `swap needs another text of ${ids.length} tokens, not ${other?.length ?? 0}`;
  }
  return "";
}

/** A copy of an activation x, (T, C) or (nh, T, hs), with an edit made. */
function edited(x, { head = null, positions = null, how = "zero" }, elsewhere) {
  const [T, C] = x.shape.slice(-2);
  const y = tensor(x.shape, x.data.slice());
  const heads = x.data.length / (T * C);
  for (let h = 0; h < heads; h++) {
    if (head !== null && head !== h) continue;
    for (let c = 0; c < C; c++) {
      const place = (t) => (h * T + t) * C + c;
      let mean = 0;
      for (let t = 0; t < T; t++) mean += x.data[place(t)] / T;
      for (const t of positions ?? Array(T).keys()) {
        y.data[place(t)] = { zero: 0, mean, swap: elsewhere?.data[place(t)] }[how];
      }
    }
  }
  return y;
}
