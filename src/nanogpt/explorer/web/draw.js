/**
 * What the views draw with: elements, colours, strips and heat maps on canvas, tokens as chips.
 *
 * Colours are computed in OKLCH (Ottosson 2020), where equal steps look equally large. A scale
 * grows steadily lighter or darker, so that it reads without colour vision, too.
 */

import { largest } from "./numbers.js";

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(
  "svg g path line rect circle text tspan title polyline polygon".split(" "));

/**
 * An element: `h("button", {class: "x", onclick: f}, "text", child)`. Values that begin with "on"
 * are listeners, `style` may be an object, and true or false set or leave out an attribute. A
 * text is always a text, never markup.
 * @returns {Element}
 */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ?
    document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(
      ([key, text]) => element.style.setProperty(key, text ?? ""));
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** A colour of OKLCH as red, green and blue from 0 to 255. */
function oklch(L, C, degrees) {
  const [a, b] = [C * Math.cos((degrees * Math.PI) / 180), C * Math.sin((degrees * Math.PI) / 180)];
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((x) => {
    const light = x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, light)));
  });
}

/** 256 colours as the four bytes of a pixel, from a function of 0 to 1 -> [L, C, hue]. */
function scale(f) {
  const colours = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const [r, g, b] = oklch(...f(i / 255));
    colours[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian, as everywhere
  }
  return colours;
}

const diverging = (middle, end, C) => (x) => {
  const u = 2 * x - 1; // orange below zero, blue above
  const strength = Math.abs(u) ** 0.8;
  return [middle + (end - middle) * strength, C * strength, u < 0 ? 55 : 255];
};

/** Scales by theme: `amount` from nothing to much, `signed` from negative through 0 to positive. */
export const SCALES = {
  light: {
    amount: scale((x) => [0.985 - 0.7 * x, 0.015 + 0.3 * x * (1 - x) + 0.1 * x, 105 + 185 * x]),
    signed: scale(diverging(0.965, 0.5, 0.16)),
  },
  dark: {
    amount: scale((x) => [0.22 + 0.7 * x, 0.02 + 0.32 * x * (1 - x) + 0.12 * x, 290 - 185 * x]),
    signed: scale(diverging(0.25, 0.78, 0.15)),
  },
};

/** A colour of a scale as CSS says it; x from 0 to 1. */
export function colour(scaleOfColours, x) {
  const c = scaleOfColours[Math.round(255 * Math.min(1, Math.max(0, x || 0)))];
  return `rgb(${c & 255} ${(c >> 8) & 255} ${(c >> 16) & 255})`;
}

/**
 * Draw numbers as a heat map of one pixel each; CSS makes the pixels larger.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} data rows x columns
 * @param {{scale?: string, from?: number, to?: number, causal?: boolean, theme: string}} how
 *   `from` and `to` have the first and the last colour; by default -m to m, or 0 to m, of the
 *   largest number m. `causal` leaves out what is right of the diagonal: the future of a token
 */
export function heat(canvas, data, rows, columns, how) {
  const kind = how.scale ?? "signed";
  const colours = SCALES[how.theme][kind];
  const m = how.to ?? (largest(data) || 1);
  const from = how.from ?? (kind === "signed" ? -m : 0);
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const factor = 255 / (m - from);
  for (let i = 0; i < pixels.length; i++) {
    const x = (data[i] - from) * factor;
    // What is hidden (-Infinity) or not a number stays transparent.
    if (x === x && data[i] !== -Infinity) pixels[i] = colours[x < 0 ? 0 : x > 255 ? 255 : x | 0];
  }
  for (let r = 0; how.causal && r < rows; r++) {
    pixels.fill(0, r * columns + r + 1, (r + 1) * columns);
  }
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A text in which spaces and line ends can be seen. */
export function visible(text) {
  return text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, "␣");
}

/** What a token is called: its text, or its bytes where it is no whole character. */
export function label(token) {
  if (token.special) return token.text;
  if (!token.bytes?.length) return `#${token.id}`;
  return token.text.includes("\ufffd") ?
    token.bytes.map((byte) => "\\x" + byte.toString(16).padStart(2, "0")).join("") :
    visible(token.text);
}

/** A token as a chip: an element with its text. */
export function chip(token, attributes = {}) {
  const name = `chip${token.special ? " special" : ""} ${attributes.class ?? ""}`;
  return h("span", { ...attributes, class: name.trim() }, label(token));
}

/** Show a tip beside the pointer, or hide it if there is nothing to say. */
export function tip(text, event) {
  const box = document.getElementById("tip");
  if (!box) return;
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const { clientX: x, clientY: y } = event;
  const left = Math.min(x + 14, window.innerWidth - box.offsetWidth - 8);
  box.style.transform = `translate(${Math.max(8, left)}px, ${y + 18}px)`;
}

/**
 * Which cell of a canvas of rows x columns an event points at.
 * @returns {{row: number, column: number}}
 */
export function cellAt(canvas, event, rows, columns) {
  const box = canvas.getBoundingClientRect();
  const at = (x, size, n) => Math.min(n - 1, Math.max(0, Math.floor((x / size) * n)));
  return {
    row: at(event.clientY - box.top, box.height, rows),
    column: at(event.clientX - box.left, box.width, columns),
  };
}
