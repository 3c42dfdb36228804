/** Which engine runs a model: the page's own, or Python's where the page's cannot. */

import { ask, placeOf, RemoteEngine } from "./engine/remote.js";
import { ThreadedEngine } from "./engine/threaded.js";

/** Open a run by its name: an engine. Throws an Error if there is none. */
export async function openEngine(name) {
  const remote = await RemoteEngine.open(name);
  if (remote.info.remote_only) return remote.load();
  const weights = async (step) => (await ask(
    `${placeOf(name)}/model.safetensors${step === null ? "" : `?step=${step}`}`)).arrayBuffer();
  const tokenizer = await (await ask(`${placeOf(name)}/tokenizer.json`)).json();
  const thread = () => new Worker("engine/worker.js", { type: "module" });
  try {
    const engine = new ThreadedEngine(thread, remote.info, tokenizer, weights);
    await engine.ready;
    // What only Python can answer; behind a page that is one file there is no Python.
    return Object.assign(engine, { python: document.getElementById("published") ? null : remote });
  } catch { // a tokenizer with a split pattern of its own
    remote.info.remote_only = true;
    return remote.load();
  }
}
