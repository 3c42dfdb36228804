/**
 * The engine that asks Python: for models that a page cannot run, because a plugin's variant is
 * in them or because they are too large. The contract is that of local.js.
 */

import { readSafetensors } from "./safetensors.js";

/**
 * What is at an address, or the answer to a body that is sent there.
 * @param {string} path
 * @param {object} [body]
 * @param {AbortSignal} [signal] ends the request
 * Throws an Error with the server's one line if there is nothing.
 */
export async function ask(path, body, signal) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST", signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `${path}: ${answer.status} ${answer.statusText}`);
}

/** An answer of one JSON value a line, as they come. Throws as `ask` does, later as well. */
export async function* lines(path, body, signal) {
  const answer = await ask(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let open = "";
  for (;;) {
    const { value = "", done } = await reader.read();
    const whole = (open + value).split("\n");
    open = whole.pop();
    for (const line of whole) {
      const said = JSON.parse(line);
      if (said.error) throw new Error(said.error);
      yield said;
    }
    if (done) return;
  }
}

/** The runs that the server shows: [{name, config, n_params, steps, metrics, remote_only}]. */
export const listRuns = async () => (await ask("api/runs")).json();

/** Where a run is on the server. */
export const placeOf = (name) => `api/runs/${encodeURIComponent(name)}`;

export class RemoteEngine {
  /** @param {object} info what the server says of the run; see Run.info in runs.py */
  constructor(info) {
    this.info = info;
    this.place = placeOf(info.name);
    this.vocabulary = [];
  }

  /** Open a run by its name; `load` makes it ready to answer. */
  static async open(name) {
    return new RemoteEngine(await (await ask(placeOf(name))).json());
  }

  /** Fetch the vocabulary, which `token` looks into. */
  async load() {
    this.vocabulary = await (await ask(`${this.place}/vocabulary`)).json();
    return this;
  }

  /** The tokens of a text: [{id, text, bytes, special, merges}]. */
  async tokenize(text) {
    return (await ask(`${this.place}/tokenize`, { text })).json();
  }

  /** A token by its id: {id, text, bytes, special}. */
  token(id) {
    return this.vocabulary[id] ?? { id, text: "", bytes: [], special: false };
  }

  /** Read a text: {logits: Tensor (T, V), activations: {name: Tensor}}. */
  async forward(ids, { record = [], edits = [], other = null, step = null } = {}) {
    const answer = await ask(`${this.place}/forward`, {
      ids: [...ids], record, edits, other: other && [...other], step,
    });
    const { logits, ...activations } = readSafetensors(await answer.arrayBuffer());
    return { logits, activations };
  }

  /**
   * A parameter, or its rows `first` to `end`.
   * @returns {Promise<import("./tensor.js").Tensor>}
   */
  async weights(name, { first = null, end = null, step = null } = {}) {
    const given = Object.entries({ first, end, step }).filter(([, value]) => value !== null);
    const answer = await ask(
      `${this.place}/weights/${encodeURIComponent(name)}?${new URLSearchParams(given)}`);
    return readSafetensors(await answer.arrayBuffer()).weights;
  }

  /** The mean of a parameter's rows, such as of all tokens: (C). */
  async mean(name, { step = null } = {}) {
    const query = step === null ? "" : `?step=${step}`;
    const answer = await ask(`${this.place}/mean/${encodeURIComponent(name)}${query}`);
    return readSafetensors(await answer.arrayBuffer()).weights;
  }

  /** The last step of the network alone: hidden states (N, C) -> logits (N, V). */
  async project({ shape, data }, step = null) {
    const hidden = Array.from({ length: shape[0] }, (_, n) =>
      Array.from(data.subarray(n * shape[1], (n + 1) * shape[1])));
    const answer = await ask(`${this.place}/project`, { hidden, step });
    return readSafetensors(await answer.arrayBuffer()).logits;
  }

  /** Passages of the training text that end as these tokens do; see passages.py. */
  async nearest(ids, { context = 24, most = 8 } = {}) {
    return (await ask(`${this.place}/nearest`, { ids: [...ids], context, most })).json();
  }

  /** What a few steps of training on a text would change; see step.py. */
  async trainStep(ids, { lr, steps = 1, step = null }) {
    return (await ask(`${this.place}/train-step`, { ids: [...ids], lr, steps, step })).json();
  }

  /** Who answers what only Python can: `nearest` and `trainStep`. A published page has nobody. */
  get python() {
    return this;
  }

  /** Continue a text, token by token: {id, logprob, likeliest: [[id, logprob], ...]}. */
  async *generate(ids, { step = null, ...rest } = {}, signal = undefined) {
    yield* lines(`${this.place}/generate`, { ids: [...ids], settings: rest, step }, signal);
  }
}
