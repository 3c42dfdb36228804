/**
 * A sum, drawn: each part begins where the one before ended, and the last bar is what they make.
 */

import { h } from "../draw.js";
import { number, signed } from "../numbers.js";
import { partName } from "./parts.js";

const ROW = 22; // pixels, so that a finger finds it
const MOST_ROWS = 44; // more parts are put together by layer

/** Parts put together by layer, where there are too many to see: [{kind, layer, value, parts}]. */
export function grouped(parts) {
  if (parts.length <= MOST_ROWS) return parts.map((part) => ({ ...part, parts: [part] }));
  const rows = [];
  for (const part of parts) {
    const attention = part.kind === "head" || part.kind === "bias";
    const last = rows[rows.length - 1];
    if (attention && last?.kind === "attention" && last.layer === part.layer) {
      last.value += part.value;
      last.parts.push(part);
    } else {
      rows.push({ ...part, kind: attention ? "attention" : part.kind, from: null, parts: [part] });
    }
  }
  return rows;
}

/**
 * An SVG of the rows and their sum, whose label is `total`; onlook(row) is called for the row under
 * the mouse or the keyboard's focus.
 */
export function waterfall(rows, width, total, onlook) {
  const left = width < 520 ? 134 : 168; // room for the labels
  const right = 62; // and for the numbers
  let sum = 0;
  const ends = rows.map((row) => [sum, (sum += row.value)]);
  const least = Math.min(0, ...ends.flat());
  const most = Math.max(0, ...ends.flat(), least + 1e-9);
  const x = (value) => left + ((value - least) / (most - least)) * (width - left - right);
  const height = (rows.length + 1) * ROW + 12;
  const line = (at, y1, y2) => h("line", { x1: x(at), x2: x(at), y1, y2 });
  const bar = (kind, y, height, [start, end], label, value) => [
    h("text", { x: left - 10, y: y + 13, class: "name" }, label),
    h("rect", {
      class: kind, x: Math.min(x(start), x(end)), y: y + 3, rx: 2, height,
      width: Math.max(1.5, Math.abs(x(end) - x(start))),
    }),
    h("text", { x: width, y: y + 13, class: "value" }, value),
  ];
  const drawn = rows.map((row, n) => {
    const y = n * ROW + 4;
    const look = () => onlook(row);
    return h("g", {
      class: "row", tabindex: 0, role: "img",
      "aria-label": `${partName(row)}: ${signed(row.value, 3)}`,
      onmouseenter: look, onfocus: look, onclick: look,
    },
    h("rect", { class: "hit", x: 0, y: y - 2, width, height: ROW }),
    bar(row.value < 0 ? "minus" : "plus", y, ROW - 10, ends[n], partName(row), signed(row.value)),
    line(ends[n][1], y + 3, y + ROW + 3));
  });
  return h("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, class: "waterfall", role: "list",
    "aria-label": "What each part added",
  }, line(0, 0, height), drawn, h("g", { class: "total" },
    bar("", rows.length * ROW + 8, ROW - 8, [0, sum], total, number(sum, 2))));
}
