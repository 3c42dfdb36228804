/**
 * What if: parts of the model are switched off, averaged, or swapped for what they held in a
 * second text; and a map of which layer and position carry the difference between two texts.
 */

import { chip, h, label } from "../draw.js";
import { row } from "../engine/tensor.js";
import { divergence, logSoftmax, number, percent, signed, softmax, top } from "../numbers.js";
import { bars, breather, choice, partName, refill, sameEdit, tinted } from "./parts.js";
import { patch } from "./patching.js";

const WAYS = [["zero", "zero"], ["mean", "average"], ["swap", "swap"]];
const MOST_TOKENS = 64; // whose embeddings can be switched
const CLEAR = 0.05; // nats: a suggested text has to move the prediction by more
const GUESSES = 24; // of the model for each position, to find such a text

export const view = {
  id: "whatif",
  title: "What if",
  about: "Switch off, average or swap any part, and see what the model predicts without it.",
  state: { how: "zero", where: "all", map: "stream" },

  render(place, app) {
    const parts = Object.fromEntries(["switches", "outcome", "second", "patching"].map((name) =>
      [name, h("section", { class: `panel ${name}` })]));
    place.append(h("div", { class: "grid" },
      h("div", { class: "columns even" }, parts.switches, parts.outcome),
      parts.second, parts.patching));
    const memory = { key: "", base: null, effects: new Map(), other: [], map: null };
    let turn = 0;
    writeSecond(parts.second, app, memory);

    async function update(changed) {
      const mine = ++turn;
      const isNow = () => mine === turn && place.isConnected && app.result;
      if (!app.result) return;
      const { engine, state, result } = app;
      const ids = [...result.ids];
      const key = JSON.stringify([state.run, state.step, ids, state.other, app.token]);
      if (key !== memory.key) {
        let [other, unknown] = [[], ""];
        try {
          other = state.other ? await engine.tokenize(state.other) : [];
        } catch (error) {
          unknown = error.message; // a character that the vocabulary lacks
        }
        const base = app.edits.length ?
          await engine.forward(ids, { step: state.step }) : { logits: result.logits };
        if (!isNow()) return;
        Object.assign(memory, { key, base, other, unknown, asked: "" });
      }
      const asked = `${state.how} ${state.where}`;
      if (asked !== memory.asked) Object.assign(memory, { asked, effects: new Map() });
      memory.canSwap = memory.other.length === ids.length;
      sayOther(parts.second, app, memory);
      drawOutcome(parts.outcome, app, memory);
      drawSwitches(parts.switches, app, memory);
      if (changed.has("theme")) memory.map?.redraw?.();
      await sweep(parts.switches, app, memory, ids, isNow);
      await patch(parts.patching, app, memory, ids, isNow);
    }
    view.memory = memory; // what tests compare
    return { update };
  },
};

/** The token whose probability is followed: the likeliest one without edits. */
function followed(app, memory) {
  const logits = row(memory.base.logits, app.token);
  return top(logits, 1)[0];
}

/** What can be switched in each layer: rows of {key, name, at, head, positions}. */
function places(config) {
  const place = (name, at, head = null) =>
    ({ key: `${at}/${head ?? ""}`, name, at, head, positions: null });
  return Array.from({ length: config.n_layer }, (_, layer) => [
    ...Array.from({ length: config.n_head }, (_, head) =>
      place(`head ${layer}.${head}`, `h.${layer}.attn.kernel`, head)),
    place(`attention ${layer}`, `h.${layer}.attn`),
    place(`MLP ${layer}`, `h.${layer}.mlp`),
  ]);
}

/** The embeddings of the last tokens up to the chosen one: places like those of a layer. */
function positions(app) {
  const first = Math.max(0, app.token + 1 - MOST_TOKENS);
  return app.tokens.slice(first, app.token + 1).map((token, n) => ({
    key: `drop/${first + n}`, name: `token ${first + n} ${label(token)}`, token, at: "drop",
    head: null, positions: [first + n],
  }));
}

/** The edit of a place as the controls say it now. */
function editOf(app, { at, head, positions }) {
  const { how, where } = app.state;
  return { at, head, positions: positions ?? (where === "token" ? [app.token] : null), how };
}

/** An edit in words: "block 0's output at ·a, from the second text". */
function inWords({ at, head, positions: where, how }, tokens) {
  const [, layer, kind] = at.split(".");
  const name = at === "drop" ? "embeddings" : !kind ? `block ${layer}'s output` :
    partName({ kind: kind === "mlp" ? "mlp" : head === null ? "attention" : "head", layer, head });
  const spots = where?.map((t) => (tokens[t] ? label(tokens[t]) : t)).join(", ");
  const said = { zero: "zero", mean: "averaged", swap: "from the second text" }[how];
  return `${name}${where ? ` at ${spots}` : ""}, ${said}`;
}

/** A grid of switches: one for each head, attention layer and MLP. */
function drawSwitches(panel, app, memory) {
  const { state, engine } = app;
  const { config } = engine.info;
  const toggle = (place) => {
    const edit = editOf(app, place);
    const others = state.edits.filter((old) => !sameEdit(old, edit));
    app.set({ edits: others.length < state.edits.length ? others : [...others, edit] });
  };
  const isOn = (place) => state.edits.some((edit) => place.positions ? sameEdit(edit, place) :
    edit.at === place.at && (edit.head ?? null) === place.head);
  const control = (place, kind, ...inside) => h("button", {
    type: "button", class: kind, "data-key": place.key, "aria-label": place.name,
    "aria-pressed": String(isOn(place)), onclick: () => toggle(place),
  }, inside);
  const target = label(engine.token(followed(app, memory)));
  const ways = memory.canSwap ? WAYS : WAYS.filter(([way]) => way !== "swap");
  refill(panel,
    h("h3", {}, "Switches"),
    h("div", { class: "controls" },
      choice("How", ways, state.how, (how) => app.set({ how })),
      choice("Where", [["all", "whole text"], ["token", "chosen token"]], state.where,
        (where) => app.set({ where }))),
    h("div", { class: "switches-scroll" }, h("table", { class: "grid-of" },
      h("thead", {}, h("tr", {}, h("th", {}),
        Array.from({ length: config.n_head }, (_, head) =>
          h("th", { scope: "col" }, `head ${head}`)),
        h("th", { scope: "col" }, "all"), h("th", { scope: "col" }, "MLP"))),
      h("tbody", {}, places(config).map((line, layer) => h("tr", {},
        h("th", { scope: "row" }, `layer ${layer}`),
        line.map((place) => h("td", {}, control(place, "switch", "·")))))))),
    h("div", { class: "wrap", role: "group", "aria-label": "Embeddings of single tokens" },
      h("span", { class: "soft" }, "tokens"),
      positions(app).map((place) => control(place, "switch chip", label(place.token)))),
    h("p", { class: "note" }, "Click a part to change it. The number says by how much the " +
      "log-probability of ", h("code", {}, target), " changes when this part alone is changed, " +
      "in nats. Orange: it becomes less likely, so the part spoke for it."),
    h("div", { class: "controls" }, state.edits.map((edit, n) => h("button", {
      type: "button", class: "pick", title: "undo this change",
      onclick: () => app.set({ edits: state.edits.filter((_, i) => i !== n) }),
    }, `${inWords(edit, app.tokens)} ×`)),
    state.edits.length ? h("button", {
      type: "button", class: "button", onclick: () => app.set({ edits: [] }),
    }, "Undo all") : null));
  paint(panel, app, memory);
}

/** The effects that are known so far, as numbers and colours of the switches. */
function paint(panel, app, memory) {
  const most = Math.max(0.02, ...[...memory.effects.values()].map(Math.abs));
  for (const button of panel.querySelectorAll(".switch")) {
    const effect = memory.effects.get(button.dataset.key);
    if (effect === undefined) continue;
    if (button.classList.contains("chip")) button.title = `${signed(effect)} nats`;
    else button.textContent = signed(effect);
    button.style.background = tinted(effect / most, app.theme).background;
  }
}

/** Change each part alone and see what happens to the followed token, a few at a time. */
async function sweep(panel, app, memory, ids, isNow) {
  const { state, engine } = app;
  if (state.how === "swap" && !memory.canSwap) return;
  const target = followed(app, memory);
  const at = app.token;
  const before = logSoftmax(row(memory.base.logits, at))[target];
  const other = memory.canSwap ? memory.other.map((token) => token.id) : null;
  const rest = breather();
  for (const place of [...places(engine.info.config).flat(), ...positions(app)]) {
    if (memory.effects.has(place.key)) continue;
    const edits = [editOf(app, place)];
    const { logits } = await engine.forward(ids, { edits, other, step: state.step });
    if (!isNow()) return;
    memory.effects.set(place.key, logSoftmax(row(logits, at))[target] - before);
    await rest();
    if (!isNow()) return;
  }
  paint(panel, app, memory);
}

/** Before and after, side by side: what comes next, and how much each position changed. */
function drawOutcome(panel, app, memory) {
  const { state, engine, tokens, result } = app;
  const [old, now] = [row(memory.base.logits, app.token), row(result.logits, app.token)];
  const [p, q] = [softmax(old), softmax(now)];
  const shown = [...new Set([...top(p, 7), ...top(q, 7)])].slice(0, 10)
    .toSorted((a, b) => p[b] - p[a]);
  const list = (values, order) => bars(order.map((id) => ({
    token: engine.token(id), value: values[id], text: percent(values[id]),
    mark: id === shown[0],
  })), { most: Math.max(p[shown[0]], q[top(q, 1)[0]]) });
  const order = shown.toSorted((a, b) => q[b] - q[a]);
  const shifts = tokens.map((_, t) =>
    divergence(row(memory.base.logits, t), row(result.logits, t)));
  const most = Math.max(0.1, ...shifts);
  const changed = app.edits.length > 0;
  view.shifts = shifts;
  panel.replaceChildren(
    h("h3", {}, "Before and after"),
    h("p", { class: "note" }, changed ?
      ["After ", chip(tokens[app.token]),
        ` the prediction moved by ${number(shifts[app.token], 3)} nats (KL divergence). `,
        h("code", {}, label(engine.token(shown[0]))),
        ` went from ${percent(p[shown[0]])} to ${percent(q[shown[0]])}.`] :
      "Nothing is changed yet: both sides are the same."),
    h("div", { class: "pair" },
      h("div", {}, h("h4", {}, "before"), list(p, shown)),
      h("div", {}, h("h4", {}, "after"), list(q, order))),
    h("p", { class: "note" }, "How much the prediction moved at each token:"),
    h("p", { class: "strip" }, tokens.map((token, t) => chip(token, {
      "data-t": t, title: `${number(shifts[t], 3)} nats`,
      onclick: () => app.set({ token: t }),
      style: tinted(-shifts[t] / most, app.theme),
    }))));
}

/** The box for the second text. */
function writeSecond(panel, app, memory) {
  panel.replaceChildren(
    h("h3", {}, "Second text"),
    h("p", { class: "note" }, "A corrupted copy of your text, of as many tokens. Swaps take from " +
      "it, and the map below finds where the two texts are told apart."),
    h("div", { class: "controls second-line" },
      h("textarea", {
        class: "field wide", rows: 1, spellcheck: "false",
        "aria-label": "The second text", placeholder: "the same text with one word exchanged",
        oninput: (event) => app.set({ other: event.target.value }),
      }, app.state.other),
      h("button", {
        type: "button", class: "button", onclick: async (event) => {
          event.target.disabled = true;
          const found = await suggest(app, memory.base.logits)
            .finally(() => (event.target.disabled = false));
          if (found === null) app.say("No such copy changes the prediction clearly: write one.");
          else {
            panel.querySelector("textarea").value = found;
            app.set({ other: found });
          }
        },
      }, "Suggest one")),
    h("p", { class: "strip", role: "status" }));
}

/** The tokens of the second text, with those marked that differ; or why it cannot be used. */
function sayOther(panel, app, memory) {
  const line = panel.querySelector(".strip");
  const { tokens } = app;
  if (memory.unknown) {
    return line.replaceChildren(h("span", { class: "minus" }, memory.unknown));
  }
  if (!memory.other.length) return line.replaceChildren();
  if (!memory.canSwap) {
    return line.replaceChildren(h("span", { class: "minus" },
      `It has ${memory.other.length} tokens and your text ${tokens.length}. ` +
      "A swap needs as many: exchange a word for one of as many tokens."));
  }
  return line.replaceChildren(...memory.other.map((token, t) => chip(token,
    { class: token.id === tokens[t].id ? "" : "target" })));
}

/**
 * A copy of the text with one token before the chosen one exchanged for a word, so that another
 * token becomes the likeliest and the prediction moves by more than CLEAR. The model's own guesses
 * for each position are tried, the likelier first. logits (T, V) are those without edits. null if
 * no such copy is found.
 */
async function suggest({ engine, tokens, state, token: last }, logits) {
  const before = row(logits, last);
  const first = Math.max(1, last - 8);
  const guesses = tokens.slice(first, last).map((_, n) => top(row(logits, first + n - 1), GUESSES));
  let best = { moved: CLEAR, text: null };
  const rest = breather();
  for (let rank = 0; rank < GUESSES && !best.text; rank++) {
    for (let t = first; t < last; t++) {
      const word = engine.token(guesses[t - first][rank]);
      if (word.id === tokens[t].id || !/^ ?\p{L}+$/u.test(word.text)) continue;
      const copy = tokens.with(t, word);
      const ids = copy.map((token) => token.id);
      const text = copy.map((token) => token.text).join("");
      const again = await engine.tokenize(text);
      if (again.map((token) => token.id).join() !== ids.join()) continue;
      const after = row((await engine.forward(ids, { step: state.step })).logits, last);
      const moved = divergence(before, after);
      if (moved > best.moved && top(before, 1)[0] !== top(after, 1)[0]) best = { moved, text };
      await rest();
    }
  }
  return best.text;
}
