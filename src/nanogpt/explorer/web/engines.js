/** Which engine runs a model: the page's own, or Python's. */

import { listRuns, RemoteEngine } from "./engine/remote.js";

/** The runs that can be shown: [{name, config, n_params, steps, metrics, remote_only}]. */
export const runs = () => listRuns();

/** Open a run by its name: an engine. Throws an Error if there is none. */
export const openEngine = (name) => RemoteEngine.open(name);
