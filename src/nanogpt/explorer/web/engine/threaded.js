/** The page's own engine, whose work is done in another thread: see worker.js. */

import { LocalEngine } from "./local.js";

/**
 * The methods and results of LocalEngine. This thread keeps the tokenizer, which answers at once.
 */
export class ThreadedEngine extends LocalEngine {
  /**
   * @param {() => Worker} start the thread
   * The others are those of LocalEngine.
   */
  constructor(start, ...rest) {
    super(...rest);
    this.waiting = new Map(); // number -> {resolve, reject, piece}
    this.number = 0;
    this.thread = start();
    this.thread.addEventListener("message", ({ data }) => this.answered(data));
    this.thread.addEventListener("error", (event) => {
      event.preventDefault();
      const error = new Error(event.message || "the engine's thread did not start");
      this.waiting.forEach(({ reject }) => reject(error));
      this.waiting.clear();
    });
    this.ready = this.call("open", this.info, rest[1]);
    this.ready.catch(() => {}); // whoever opens the engine waits for it and is told
  }

  async answered({ number, value, error, piece, asks }) {
    if (asks !== undefined) {
      const said = await this.fetchWeights(asks).then((file) => ({ file }),
        (problem) => ({ error: problem.message }));
      return this.thread.postMessage({ method: "weights file", step: asks, ...said },
        said.file ? [said.file] : []);
    }
    const waits = this.waiting.get(number);
    if (piece) return waits?.piece(piece);
    this.waiting.delete(number);
    return error ? waits?.reject(new Error(error)) : waits?.resolve(value);
  }

  call(method, ...args) {
    const number = ++this.number;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.thread.postMessage({ number, method, args });
    });
  }

  forward(ids, request = {}) {
    return this.call("forward", [...ids], request);
  }

  mean(name, request = {}) {
    return this.call("mean", name, request);
  }

  project(hidden, step = null) {
    return this.call("project", hidden, step);
  }

  weights(name, rows = {}) {
    return this.call("weights", name, rows);
  }

  async *generate(ids, settings = {}, signal = undefined) {
    const pieces = [];
    let wake = () => {};
    let [done, failed] = [false, null];
    const number = this.number + 1;
    const ending = this.call("generate", [...ids], settings);
    this.waiting.get(number).piece = (piece) => (pieces.push(piece), wake());
    ending.catch((error) => (failed = error)).finally(() => ((done = true), wake()));
    const stop = () => this.thread.postMessage({ number, method: "stop" });
    signal?.addEventListener("abort", stop);
    try {
      while (!done || pieces.length) {
        if (pieces.length) yield pieces.shift();
        else await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      if (!done) stop(); // whoever listened has gone
      signal?.removeEventListener("abort", stop);
    }
    if (failed) throw failed;
  }
}
