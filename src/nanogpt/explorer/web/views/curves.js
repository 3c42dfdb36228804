/** The curves of a training on a logarithmic axis of steps: losses above, head scores below. */

import { h } from "../draw.js";

const LEFT = 42;
const RIGHT = 14;
const TOP = 18;
const LOSS = 150; // the height of the part with the losses
const GAP = 30;
const SCORES = 70;
const FINE = 3; // pixels between points of the curve of training losses, which has one a step
export const SCORED = ["previous", "induction", "first"]; // habits, see lab/heads.py

/** The range of nice numbers for an axis from `least` to `most`: about n of them. */
function ticks(least, most, n = 4) {
  const rough = (most - least) / n || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(least / step - 1e-9); i * step <= most + 1e-9; i++) found.push(i * step);
  return found;
}

/**
 * Where a step and a loss are drawn: {width, height, x(step), y(loss), score(share)}.
 * Between step 0 and step 1 is as much room as between 1 and 3: the axis is that of log(1 + step).
 */
export function scaleOf(frames, metrics, width) {
  const last = Math.max(1, ...frames.map((frame) => frame.step),
    metrics[metrics.length - 1]?.step ?? 0);
  let [least, most] = [Infinity, -Infinity];
  for (const { loss, val_loss: held } of metrics) {
    for (const value of [loss, held]) {
      if (value === undefined) continue;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
  }
  if (least > most) [least, most] = [0, 1];
  const room = width - LEFT - RIGHT;
  return {
    width, last, least, most,
    height: TOP + LOSS + GAP + SCORES + 22,
    x: (step) => LEFT + (room * Math.log1p(step)) / Math.log1p(last),
    y: (loss) => TOP + (LOSS * (most - loss)) / (most - least || 1),
    score: (share) => TOP + LOSS + GAP + SCORES * (1 - share),
  };
}

/** The training losses as points: the mean of each piece of the axis. */
function smoothed(metrics, x) {
  const bins = new Map();
  for (const { step, loss } of metrics) {
    if (loss === undefined) continue;
    const bin = Math.round(x(step) / FINE);
    const sum = bins.get(bin) ?? { steps: 0, losses: 0, n: 0 };
    bins.set(bin, { steps: sum.steps + x(step), losses: sum.losses + loss, n: sum.n + 1 });
  }
  return [...bins.values()].map(({ steps, losses, n }) => [steps / n, losses / n]);
}

const path = (points) => points.map(([x, y], n) =>
  `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** The highest score of any head for a habit in a frame. */
const best = (frame, habit) => Math.max(0, ...(frame.scores[habit] ?? []).flat());

/** All of it as one SVG. */
export function curves(frames, metrics, found, scale) {
  const { width, height, x, y, score, last } = scale;
  const bottom = score(0);
  const validated = metrics.filter((row) => row.val_loss !== undefined);
  const powers = [0, 1, 10, 100, 1000, 10_000, 100_000, 1e6].filter((step) => step <= last);
  const bands = found.map(({ habit, from, to }) => h("rect", {
    class: `band ${habit}`, x: x(from), width: Math.max(2, x(to) - x(from)), y: TOP,
    height: bottom - TOP,
  }));
  const groups = []; // of jumps whose names would stand on each other
  for (const jump of found.map((each) => ({ ...each, middle: (x(each.from) + x(each.to)) / 2 }))
    .sort((a, b) => a.middle - b.middle)) {
    const group = groups[groups.length - 1];
    if (group && jump.middle - group[0].middle < 34 * group.length) group.push(jump);
    else groups.push([jump]);
  }
  const flags = groups.map((group) => {
    const middle = group.reduce((sum, jump) => sum + jump.middle, 0) / group.length;
    return h("text", { class: "flag", x: middle, y: TOP - 6,
      "text-anchor": middle > width - 20 - 17 * group.length ? "end" : "middle" },
    group.map(({ layer, head, habit }, n) =>
      h("tspan", { class: habit }, `${n ? "  " : ""}${layer}.${head}`)));
  });
  return h("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Losses and scores of heads against the step of the training",
  },
  bands, flags,
  ticks(scale.least, scale.most, 3).map((loss) => [
    h("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: y(loss), y2: y(loss) }),
    h("text", { class: "axis", x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" },
      String(+loss.toFixed(6)))]),
  [0, 0.5, 1].map((share) => [
    h("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: score(share), y2: score(share) }),
    h("text", { class: "axis", x: LEFT - 6, y: score(share) + 4, "text-anchor": "end" },
      `${100 * share} %`)]),
  powers.map((step) => h("text", { class: "axis", x: x(step), y: height - 4,
    "text-anchor": "middle" }, step >= 1000 ? `${step / 1000}k` : String(step))),
  h("text", { class: "title", x: LEFT, y: TOP + LOSS + GAP - 8 }, "strongest head: ",
    SCORED.map((habit, n) => h("tspan", { class: habit }, `${n ? " · " : ""}${habit}`))),
  h("text", { class: "title", x: LEFT + 6, y: TOP + LOSS - 8 },
    "loss: training · ", h("tspan", { class: "held" }, "● validation")),
  h("path", { class: "train", d: path(smoothed(metrics, x).map(([at, loss]) => [at, y(loss)])) }),
  // Points, not a line: on this axis a line between two far ones would tell of steps not measured.
  validated.map((row) =>
    h("circle", { class: "held", cx: x(row.step), cy: y(row.val_loss), r: 2.6 })),
  SCORED.map((habit) => h("path", { class: `score ${habit}`,
    d: path(frames.map((frame) => [x(frame.step), score(best(frame, habit))])) })),
  frames.map((frame) => h("circle", { class: "shot", cx: x(frame.step), cy: bottom, r: 3 })),
  h("g", { class: "now" }, h("line", { x1: 0, x2: 0, y1: TOP, y2: bottom }),
    h("circle", { cx: 0, cy: bottom, r: 6 })));
}
