/**
 * The engine in a thread of its own, so that a long text never freezes the page.
 *
 * Messages come as {number, method, args} and are answered by {number, value} or {number, error};
 * of a generation, each token by {number, piece} before the last. The weights are asked from the
 * page, which knows where they are.
 */

import { LocalEngine } from "./local.js";

let engine = null;
const stops = new Map(); // number of a generation -> what ends it
const weights = new Map(); // step -> what to do with the file

/** The buffers inside an answer: they are handed over and not copied. */
function buffers(value, found = new Set()) {
  if (value instanceof Float32Array) found.add(value.buffer);
  else if (value && typeof value === "object") {
    Object.values(value).forEach((each) => buffers(each, found));
  }
  return found;
}

const reply = (message, value) => postMessage(message, [...buffers(value)]);

const fetchWeights = (step) => new Promise((resolve, reject) => {
  weights.set(step ?? null, { resolve, reject });
  postMessage({ asks: step ?? null });
});

addEventListener("message", async ({ data: { number, method, args, step, file, error } }) => {
  if (method === "weights file") {
    return error ? weights.get(step).reject(new Error(error)) : weights.get(step).resolve(file);
  }
  if (method === "stop") return stops.get(number)?.abort();
  try {
    if (method === "open") engine = new LocalEngine(args[0], args[1], fetchWeights);
    else if (method === "generate") {
      stops.set(number, new AbortController());
      for await (const piece of engine.generate(...args, stops.get(number).signal)) {
        postMessage({ number, piece }); // copied: the engine may still need it
      }
      stops.delete(number);
    } else {
      const value = await engine[method](...args);
      return reply({ number, value }, value);
    }
    return postMessage({ number });
  } catch (problem) {
    return postMessage({ number, error: problem.message });
  }
});
