/**
 * The safetensors format: 8 bytes that say how long the header is, the header as JSON (name ->
 * dtype, shape, first and last byte), then all numbers, little-endian.
 * https://huggingface.co/docs/safetensors
 */

import { tensor } from "./tensor.js";

/** The value of each number of 16 bits: a sign, 5 bits of exponent, 10 of fraction. */
const HALVES = new Float32Array(65536);
for (let bits = 0; bits < 65536; bits++) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  let value = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  if (exponent === 31) value = fraction ? NaN : Infinity;
  HALVES[bits] = bits >> 15 ? -value : value;
}

/** How each dtype becomes float32: the bytes of one number, and what reads them. */
const DTYPES = {
  F32: [4, (buffer) => new Float32Array(buffer)],
  F16: [2, (buffer) => Float32Array.from(new Uint16Array(buffer), (bits) => HALVES[bits])],
  // The upper half of a float32.
  BF16: [2, (buffer) => {
    const bits = Uint32Array.from(new Uint16Array(buffer), (upper) => upper << 16);
    return new Float32Array(bits.buffer);
  }],
};

/** Whether this is a list of whole numbers from 0 on. */
const natural = (list) =>
  Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0);

/**
 * Read a file of tensors.
 * @param {ArrayBuffer} buffer the whole file
 * @returns {Object<string, import("./tensor.js").Tensor>} float32 tensors by name
 * Throws an Error of one line for a file that is damaged or has another dtype.
 */
export function readSafetensors(buffer) {
  const bad = (what) => new Error(`not a usable safetensors file: ${what}`);
  if (buffer.byteLength < 8) throw bad(`it has ${buffer.byteLength} bytes`);
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  if (start > buffer.byteLength) throw bad("it ends inside its header");
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(
      new Uint8Array(buffer, 8, start - 8)));
  } catch {
    throw bad("its header is not JSON");
  }
  if (!header || typeof header !== "object") throw bad("its header is not an object");
  const tensors = Object.create(null); // a tensor may be called __proto__
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: ends } = entry ?? {};
    if (!Object.hasOwn(DTYPES, dtype)) throw bad(`${name} is ${dtype}, not F32, F16 or BF16`);
    const [bytes, decode] = DTYPES[dtype];
    if (!natural(shape) || !natural(ends)) throw bad(`${name} has no shape or no place`);
    const size = shape.reduce((a, b) => a * b, 1);
    const [from, to] = [start + ends[0], start + ends[1]];
    if (to - from !== size * bytes || to > buffer.byteLength) {
      throw bad(`${name} does not lie where the header says`);
    }
    tensors[name] = tensor(shape, decode(buffer.slice(from, to)));
  }
  return tensors;
}
