/** Which engine runs a model: the page's own, or Python's where the page's cannot. */

import { ask, listRuns, placeOf, RemoteEngine } from "./engine/remote.js";
import { ThreadedEngine } from "./engine/threaded.js";

/** The runs that can be shown: [{name, config, n_params, steps, metrics, remote_only}]. */
export const runs = () => listRuns();

/** Open a run by its name: an engine. Throws an Error if there is none. */
export async function openEngine(name) {
  const remote = await RemoteEngine.open(name);
  if (remote.info.remote_only) return remote.load();
  const weights = async (step) => (await ask(
    `${placeOf(name)}/model.safetensors${step === null ? "" : `?step=${step}`}`)).arrayBuffer();
  const tokenizer = await (await ask(`${placeOf(name)}/tokenizer.json`)).json();
  const thread = () => new Worker("engine/worker.js", { type: "module" });
  try {
    const engine = new ThreadedEngine(thread, remote.info, tokenizer,
      (step) => weights(step ?? null));
    await engine.ready;
    return Object.assign(engine, { python: remote }); // for what only Python can answer
  } catch { // a tokenizer with a pattern that JavaScript does not know
    remote.info.remote_only = true;
    return remote.load();
  }
}
