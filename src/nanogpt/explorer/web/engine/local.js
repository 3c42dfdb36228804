/**
 * The engine that runs in the page: the same methods and results as remote.js, which asks Python.
 */

import { Cache, Model } from "./model.js";
import { readSafetensors } from "./safetensors.js";
import { choose, DEFAULTS, randomNumbers } from "./sampling.js";
import { tensor } from "./tensor.js";
import { tokenizerFrom } from "./tokenizer.js";
import { observe } from "./watch.js";

/** @typedef {import("./tensor.js").Tensor} Tensor */

const KEPT = 16; // models of snapshots, so that the slider of the replay goes back and forth
const FRAME = 12; // milliseconds of work, after which the page may draw

/**
 * How many of a text's first tokens the model no longer sees. Beyond the context length they are
 * forgotten in blocks of half a context: to drop a token shifts the positions of all others, so
 * everything has to be read again, and this way only once in half a context.
 */
function forgotten(length, contextLength) {
  const block = Math.max(1, Math.floor(contextLength / 2));
  return Math.max(0, Math.ceil((length - contextLength) / block)) * block;
}

export class LocalEngine {
  /**
   * @param {object} info of the run: {name, config, steps, ...}
   * @param {object} tokenizer what its tokenizer.json holds
   * @param {(step: number | null) => Promise<ArrayBuffer>} fetchWeights the safetensors file of a
   *   snapshot, or of the latest checkpoint; asked for when it is needed, once
   * Throws an Error for a tokenizer that cannot be used here.
   */
  constructor(info, tokenizer, fetchWeights) {
    this.info = info;
    this.tokenizer = tokenizerFrom(tokenizer);
    this.fetchWeights = fetchWeights;
    this.models = new Map(); // step -> a promise of its model
  }

  /** The model of a snapshot, or of the latest checkpoint. Throws if it cannot be fetched. */
  model(step = null) {
    const found = this.models.get(step) ?? this.fetchModel(step);
    this.models.delete(step);
    this.models.set(step, found); // the last used comes last
    if (this.models.size > KEPT) this.models.delete(this.models.keys().next().value);
    found.catch(() => this.models.delete(step)); // the next call tries again
    return found;
  }

  async fetchModel(step) {
    const weights = readSafetensors(await this.fetchWeights(step));
    return new Model(this.info.config, weights);
  }

  /** The tokens of a text: [{id, text, bytes, special, merges: [[left, right, made], ...]}]. */
  async tokenize(text) {
    return this.tokenizer.tokenize(text);
  }

  /** A token by its id: {id, text, bytes, special}. */
  token(id) {
    return this.tokenizer.token(id);
  }

  /**
   * Read a text: logits (T, V), and the activations whose names fit a pattern of `record`.
   * @param {number[]} ids
   * @param {{record?: string[], edits?: object[], other?: number[], step?: number}} [request]
   * @returns {Promise<{logits: Tensor, activations: Object<string, Tensor>}>}
   */
  async forward(ids, request = {}) {
    return observe(await this.model(request.step), ids, request);
  }

  /**
   * Continue a text token by token: {id, logits (V)}, the logits being the model's own. It ends
   * with the end-of-text token, or after max_new_tokens.
   * @param {number[]} ids at least one
   * @param {object} [settings] as in SampleConfig, and `step`
   * @param {AbortSignal} [signal] ends it
   */
  async *generate(ids, settings = {}, signal = undefined) {
    if (!ids.length) throw new Error("a text without a token cannot be continued: give one");
    const wanted = { ...DEFAULTS, ...settings };
    const model = await this.model(settings.step);
    const [text, random] = [[...ids], randomNumbers(wanted.seed)];
    let [cache, start, rested] = [null, -1, performance.now()];
    for (let n = 0; n < wanted.max_new_tokens && !signal?.aborted; n++) {
      const from = forgotten(text.length, model.config.context_length);
      if (from !== start) [cache, start] = [new Cache(model.config), from];
      const unread = text.slice(start + cache.length);
      const logits = model.forward(unread, { cache, last: true }).data;
      // A model may have more rows than the tokenizer has tokens.
      logits.forEach((_, id) => {
        if (!this.tokenizer.vocabulary.has(id)) logits[id] = -Infinity;
      });
      const id = choose(logits, wanted, text, random);
      text.push(id);
      yield { id, logits };
      if (id === this.tokenizer.special.get("<|endoftext|>")) return;
      if (performance.now() - rested < FRAME) continue;
      await new Promise((resolve) => setTimeout(resolve)); // or the page would freeze
      rested = performance.now();
    }
  }

  /** The mean of a parameter's rows, such as of all tokens: (C). Throws if there is none. */
  async mean(name, { step = null } = {}) {
    const { shape: [count, C], data } = await this.weights(name, { step });
    const sums = new Float64Array(C);
    for (let i = 0; i < data.length; i++) sums[i % C] += data[i];
    return tensor([C], Float32Array.from(sums, (sum) => sum / count));
  }

  /** The last step of the network alone: hidden states (T, C) -> logits (T, V). */
  async project(hidden, step = null) {
    return (await this.model(step)).head(hidden);
  }

  /** A parameter by its name, or its rows from `first` to `end`. Throws if there is none. */
  async weights(name, { first = 0, end = undefined, step = null } = {}) {
    const { weights } = await this.model(step);
    if (!Object.hasOwn(weights, name)) throw new Error(`there is no parameter '${name}'`);
    const { shape, data } = weights[name];
    const size = data.length / shape[0];
    const part = data.slice(first * size, (end ?? shape[0]) * size);
    return tensor([part.length / size, ...shape.slice(1)], part);
  }
}
