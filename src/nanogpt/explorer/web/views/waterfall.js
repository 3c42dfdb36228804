/**
 * A sum, drawn: each part begins where the one before ended, and the last bar is what they make.
 */

import { h, number } from "../draw.js";
import { partName, signed } from "./parts.js";

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
 * An SVG of the rows and their sum. colors: {plus, minus, ink, faint}; total is the last row's
 * label; onlook(row) is called for the row under the mouse or the keyboard's focus.
 */
export function waterfall(rows, width, colors, total, onlook) {
  const narrow = width < 520;
  const left = narrow ? 134 : 168; // room for the labels
  const right = 62; // and for the numbers
  let sum = 0;
  const ends = rows.map((row) => [sum, (sum += row.value)]);
  const least = Math.min(0, ...ends.flat());
  const most = Math.max(0, ...ends.flat(), least + 1e-9);
  const x = (value) => left + ((value - least) / (most - least)) * (width - left - right);
  const height = (rows.length + 1) * ROW + 12;
  const drawn = rows.map((row, n) => line(row, n, ends[n]));

  function line(row, n, [start, end]) {
    const y = n * ROW + 4;
    const from = Math.min(x(start), x(end));
    const fill = row.value >= 0 ? colors.plus : colors.minus;
    const label = partName(row);
    return h("g", {
      class: "row", tabindex: 0, role: "img", "aria-label": `${label}: ${signed(row.value, 3)}`,
      onmouseenter: () => onlook(row), onfocus: () => onlook(row), onclick: () => onlook(row),
    },
      h("rect", { class: "hit", x: 0, y: y - 2, width, height: ROW, fill: "transparent" }),
      h("text", { x: left - 10, y: y + 13, "text-anchor": "end", fill: colors.ink }, label),
      h("rect", {
        x: from, y: y + 3, width: Math.max(1.5, Math.abs(x(end) - x(start))), height: ROW - 10,
        rx: 2, fill,
      }),
      h("line", {
        x1: x(end), x2: x(end), y1: y + 3, y2: y + ROW + 3, stroke: colors.faint,
      }),
      h("text", { x: width, y: y + 13, "text-anchor": "end", fill: colors.ink, class: "value" },
        signed(row.value)),
    );
  }

  const y = rows.length * ROW + 8;
  return h("svg", {
    xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`,
    class: "waterfall", role: "list", "aria-label": "What each part added",
    "font-family": "system-ui, sans-serif", "font-size": 13,
  },
    h("line", { x1: x(0), x2: x(0), y1: 0, y2: height, stroke: colors.faint }),
    drawn,
    h("text", {
      x: left - 10, y: y + 13, "text-anchor": "end", fill: colors.ink, "font-weight": 650,
    }, total),
    h("rect", {
      x: Math.min(x(0), x(sum)), y: y + 2, width: Math.max(1.5, Math.abs(x(sum) - x(0))),
      height: ROW - 8, rx: 2, fill: colors.ink,
    }),
    h("text", {
      x: width, y: y + 13, "text-anchor": "end", fill: colors.ink, "font-weight": 650,
      class: "value",
    }, number(sum, 2)),
  );
}
