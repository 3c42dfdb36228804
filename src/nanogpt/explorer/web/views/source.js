/**
 * Where it read this: the longest end of the text that stands in the training text, and what came
 * next there, beside what the model predicts.
 */

import { chip, h, label } from "../draw.js";
import { row } from "../engine/tensor.js";
import { percent, softmax, top } from "../numbers.js";
import { bars, choice, newest, pressed, pythonOf, refill, tinted } from "./parts.js";

export const view = {
  id: "source",
  title: "Where it read this",
  about: "The passages of the training text that end as your text does, and what came next there.",
  state: { ending: null },

  render(place, app) {
    const found = h("section", { class: "panel" });
    const counts = h("div", { class: "columns even" });
    const passages = h("section", { class: "panel passages" });
    const runs = h("section", { class: "panel" });
    place.append(h("div", { class: "grid" }, runs, found, counts, passages));
    const question = newest();
    const memory = { turn: 0, key: "", runs: [] };

    /** Find the longest copied run that ends at each token, one after another. */
    async function findRuns() {
      const mine = ++memory.turn;
      const { engine, state, result } = app;
      const key = JSON.stringify([state.run, [...result.ids]]);
      if (key !== memory.key) Object.assign(memory, { key, runs: [] });
      view.runs = memory.runs; // what tests compare
      while (memory.runs.length < result.ids.length) {
        const ids = result.ids.slice(0, memory.runs.length + 1);
        const { endings: [longest] } = await engine.python.nearest(ids, { context: 0, most: 1 });
        if (mine !== memory.turn) return;
        memory.runs.push(longest ?? { length: 0, count: 0 });
        drawRuns(runs, app, memory.runs);
      }
      drawRuns(runs, app, memory.runs);
    }

    async function update() {
      const { engine, state, result, token } = app;
      const ids = [...result.ids.slice(0, token + 1)];
      const answer = await question(JSON.stringify([state.run, ids]), async () =>
        pythonOf(engine, "This page does not carry the training text.").nearest(ids));
      if (!answer || !app.result) return;
      if (answer.error) {
        memory.turn++;
        [runs, counts, passages].forEach((each) => each.replaceChildren());
        found.replaceChildren(h("p", {}, answer.error));
        return;
      }
      view.answer = answer.value; // what tests compare
      write(found, counts, passages, app, answer.value);
      findRuns().catch((error) => app.say(error.message, true));
    }
    return { update };
  },
};

const times = (n) => (n === 1 ? "once" : `${n.toLocaleString("en")} times`);
const many = (n) => (n === 1 ? "1 token" : `${n} tokens`);

/** Every token, coloured by the longest run that ends there and stands in the training text. */
function drawRuns(panel, app, runs) {
  const best = runs.reduce((a, b) => (b.length > a.length ? b : a));
  const end = runs.indexOf(best);
  const title = (run) => run && `${many(run.length)} in the training text, ${times(run.count)}`;
  refill(panel,
    h("p", { class: "lead" }, "Longest copied run: ", h("button", {
      type: "button", class: "link", onclick: () => app.set({ token: end }),
    }, app.tokens.slice(end + 1 - best.length, end + 1).map(label).join("")),
    ` ${many(best.length)}, ${times(best.count)} in the training text.`),
    h("p", { class: "note" }, "The stronger a token's colour, the longer is the run that ends " +
      "there and stands in the training text. A run of 1 or 2 tokens says little. A long one, " +
      "predicted well, may be memory."),
    h("p", { class: "strip" }, app.tokens.map((token, t) => chip(token, {
      "data-t": t, title: title(runs[t]), ...pressed(() => app.set({ token: t })),
      style: tinted((runs[t]?.length ?? 0) / Math.max(4, best.length), app.theme),
    }))));
}

/** The sentence on top, the counts beside the model's own prediction, the passages. */
function write(found, counts, passages, app, answer) {
  const { engine, state, tokens, token, result } = app;
  const { endings, searched, total } = answer;
  const text = total > searched ? `the first ${searched.toLocaleString("en")} of ` : "the ";
  const where = `${text}${total.toLocaleString("en")} tokens of the training text`;
  if (!endings.length) {
    counts.replaceChildren();
    passages.replaceChildren();
    found.replaceChildren(h("p", { class: "lead" }, chip(tokens[token]),
      ` never stands before another token in ${where}.`));
    return;
  }
  const longest = endings[0];
  const chosen = endings.find((ending) => ending.length === state.ending) ?? longest;
  const start = token + 1 - chosen.length;
  const shownLengths = lengths(endings);
  refill(found,
    h("p", { class: "lead" }, `The last ${longest.length} ` +
      `${longest.length === 1 ? "token stands" : "tokens stand"} ${times(longest.count)} in ` +
      `${where}.`),
    h("p", { class: "strip" }, tokens.slice(0, token + 1).map((each, t) =>
      chip(each, { class: t >= start ? "target" : "" }))),
    h("div", { class: "controls" }, h("span", { class: "soft" }, "tokens that have to match"),
      choice("Tokens that have to match",
        shownLengths.map((length) => [length, String(length)]), chosen.length,
        (length) => app.set({ ending: length === longest.length ? null : length }))));
  const all = softmax(row(result.logits, token));
  const counted = new Map(chosen.following.map((each) => [each.id, each.count / chosen.count]));
  const read = chosen.following.slice(0, 10).map(({ id, count }) => ({
    token: engine.token(id), value: count / chosen.count, mark: id === top(all, 1)[0],
    text: percent(count / chosen.count),
  }));
  const model = top(all, 10).map((id) => ({
    token: engine.token(id), value: all[id], text: percent(all[id]), mark: counted.has(id),
  }));
  const copied = [...counted.keys()].reduce((sum, id) => sum + all[id], 0);
  refill(counts,
    h("section", { class: "panel" },
      h("h3", {}, `What came next in the training text, ${times(chosen.count)}`),
      h("p", { class: "note" }, `after these ${many(chosen.length)}`), bars(read)),
    h("section", { class: "panel" },
      h("h3", {}, "What the model predicts"),
      h("p", { class: "note" }, `${percent(copied)} of its prediction are tokens of the list ` +
        "beside it. They are marked here."), bars(model)));
  refill(passages,
    h("h3", {}, "Passages"),
    h("p", { class: "note" }, "Those with the longest match come first. The match is underlined; " +
      "the token after it is blue."),
    h("ol", {}, answer.passages.filter(({ length }) => length >= chosen.length).map((passage) =>
      h("li", {},
      h("span", { class: "badge", title: "tokens that match" }, String(passage.length)),
      h("blockquote", {},
        h("span", { class: "soft" }, oneLine(passage.before)),
        h("u", {}, oneLine(passage.match)),
        h("b", { class: "followed", title: label(engine.token(passage.next.id)) },
          oneLine(passage.next.text)),
        h("span", { class: "soft" }, oneLine(passage.after)))))));
}

/** Line ends as a sign that takes less room. */
const oneLine = (text) => text.replace(/\n/g, " ⏎ ");

/** At most nine lengths to choose from: the shortest, and the longest. */
function lengths(endings) {
  const all = endings.map((ending) => ending.length).toSorted((a, b) => a - b);
  return all.length <= 9 ? all : [...all.slice(0, 7), ...all.slice(-2)];
}
