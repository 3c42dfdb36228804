/**
 * Why this token: its logit as a sum over the parts of the model, and the logit lens.
 */

import {
  attribute, parameterNames, PATTERNS, streamNames, streams, whyNoSum,
} from "../attribution.js";
import { chip, h, label, tip, visible } from "../draw.js";
import { headName } from "../engine/layers.js";
import { row } from "../engine/tensor.js";
import { number, percent, rankOf, signed, softmax, top } from "../numbers.js";
import { bars, choice, partName, refill, tinted } from "./parts.js";
import { grouped, waterfall } from "./waterfall.js";

const LENS_NUMBERS = 4e6; // logits that the lens computes at once

/**
 * The parameters of an engine's model at a step; fetched once. A model that Python computes may be
 * in training: its latest weights are fetched once for each result.
 */
const fetched = new WeakMap();
function parametersOf(engine, step, result) {
  const owner = step === null && engine.info.remote_only ? result : engine;
  const bySteps = fetched.get(owner) ?? fetched.set(owner, new Map()).get(owner);
  if (!bySteps.has(step)) {
    const { config } = engine.info;
    const wanted = parameterNames(config).filter((name) =>
      (config.bias || !name.endsWith("bias")) &&
      (config.norm === "layer" || name !== "ln_f.bias") &&
      (config.norm !== "none" || !name.startsWith("ln_f")));
    bySteps.set(step, Promise.all(wanted.map((name) => engine.weights(name, { step })))
      .then((found) => Object.fromEntries(wanted.map((name, n) => [name, found[n]]))));
    bySteps.get(step).catch(() => bySteps.delete(step));
  }
  return bySteps.get(step);
}

/** The row of the head for a token, minus that of another, or the mean of all. */
async function unembedding(engine, target, against, step) {
  const head = `${headName(engine.info.config)}.weight`;
  const of = async (id) => (await engine.weights(head, { first: id, end: id + 1, step })).data;
  const mine = Float64Array.from(await of(target));
  if (against === null) return mine;
  const other = against === "mean" ?
    (await engine.mean(head, { step })).data : await of(against);
  return mine.map((value, c) => value - other[c]);
}

export const view = {
  id: "why",
  title: "Why this token",
  about: "How much each embedding, head and MLP added to the logit of a token.",
  state: { target: null, against: null },

  render(place, app) {
    app.need((length, config) => [...PATTERNS, ...streamNames(config)]);
    const lead = h("p", { class: "lead", "aria-live": "polite" });
    const controls = h("div", { class: "controls" });
    const sum = h("figure", { class: "panel sum" });
    const aside = h("aside", { class: "panel details", "aria-live": "polite" });
    const lens = h("figure", { class: "panel lens" });
    place.append(h("div", { class: "why" },
      lead, controls, h("div", { class: "columns" }, sum, aside), lens));
    let turn = 0;
    let redraw = () => {};
    const resized = new ResizeObserver(() => redraw());
    resized.observe(sum);

    async function update() {
      const mine = ++turn;
      redraw = () => {}; // what was drawn belongs to the model and the text before
      const { engine, state, token: position, result } = app;
      const { config } = engine.info;
      if (!result) return;
      const logits = row(result.logits, position);
      const likeliest = top(logits, 8);
      const target = inside(state.target, logits) ?? likeliest[0];
      const against = state.against === "mean" ? "mean" :
        state.against === target ? null : inside(state.against, logits);
      const chosen = { engine, position, logits, likeliest, target, against };
      write(lead, controls, app, chosen);
      const reason = whyNoSum(config);
      if (reason) {
        sum.replaceChildren(h("p", { class: "note" }, reason));
        aside.replaceChildren();
        return drawLens(lens, app, chosen, () => mine === turn);
      }
      const { step } = state;
      const asking = Promise.all([
        parametersOf(engine, step, result), unembedding(engine, target, against, step),
      ]);
      drawLens(lens, app, chosen, () => mine === turn); // an engine answers in order
      const [parameters, direction] = await asking;
      if (mine !== turn) return;
      const found = attribute({
        config, activations: result.activations, parameters, position, unembedding: direction,
        edited: app.edits.length > 0,
      });
      const asked = logits[target] - (against === null ? 0 : against === "mean" ?
        logits.reduce((a, b) => a + b, 0) / logits.length : logits[against]);
      view.found = { ...found, asked, target, against, position }; // what tests compare
      redraw = () => drawSum(sum, aside, app, found, asked, chosen);
      redraw();
    }
    return { update };
  },
};

/** An id if the vocabulary has it, else null. */
const inside = (id, logits) => (Number.isInteger(id) && id >= 0 && id < logits.length ? id : null);

/** What is added up: the logit of a token, or that minus another or the mean. */
const nameOf = (engine, target, against) => (against === null ? "logit" :
  `${label(engine.token(target))} minus ` +
  (against === "mean" ? "the mean of all tokens" : label(engine.token(against))));

/** What is asked, in a sentence, and the ways to ask something else. */
function write(lead, controls, app, { engine, position, logits, likeliest, target, against }) {
  const token = engine.token(target);
  const next = app.tokens[position + 1];
  lead.replaceChildren(
    "After ", chip(app.tokens[position]), " the model gave ", chip(token, { class: "target" }),
    ` the logit ${number(logits[target], 2)}: ${percent(softmax(logits)[target])}, ` +
    `rank ${rankOf(logits, target)} of ${logits.length.toLocaleString("en")}. ` +
    "These parts made it.");
  const shown = next && !likeliest.includes(next.id) ? [...likeliest, next.id] : likeliest;
  const probabilities = softmax(logits);
  const runnerUp = likeliest.find((id) => id !== target);
  const rival = typeof against === "number" ? against : runnerUp;
  const explain = (id) => app.set({ target: id === likeliest[0] ? null : id });
  const pick = (id, ...more) => h("button", {
    type: "button", class: "pick", "aria-pressed": String(id === target),
    title: id === next?.id ? "what the text goes on with" : null, onclick: () => explain(id),
  }, label(engine.token(id)), more);
  const hint = h("span", { class: "soft", role: "status" });
  const typed = async (text) => {
    const [found, spaced] = await Promise.all([text, ` ${text}`].map((s) => engine.tokenize(s)));
    if (found.length === 1) explain(found[0].id);
    else if (found.length) {
      hint.replaceChildren(`${visible(text)} is ${found.length} tokens: `,
        h("code", {}, found.map(label).join(" ")), ".",
        ...(spaced.length === 1 ? [" Did you mean ", pick(spaced[0].id), "?"] : []));
    }
  };
  refill(controls,
    h("div", { class: "wrap", role: "group", "aria-label": "Token to explain" },
      shown.map((id) => pick(id, h("small", {}, percent(probabilities[id])))),
      h("input", {
        class: "field", type: "text", size: 8, placeholder: "another",
        "aria-label": "Another token to explain",
        onchange: (event) => typed(event.target.value).catch(() => {}),
      }), hint),
    choice("What to add up", [
      [null, "the logit"],
      ...["mean", rival].map((other) => [other, nameOf(engine, target, other)]),
    ], against, (value) => app.set({ against: value })));
}

/** The waterfall, its sum against the model's own logit, and the part that is looked at. */
function drawSum(figure, aside, app, { parts, sum }, asked, chosen) {
  const rows = grouped(parts);
  const look = (part) => details(aside, app, part, chosen);
  const name = nameOf(chosen.engine, chosen.target, chosen.against);
  const gap = Math.abs(sum - asked);
  figure.replaceChildren(
    chosen.against === null ? "" : h("h3", {}, `The logit of ${name}`),
    waterfall(rows, Math.max(280, Math.floor(figure.clientWidth)),
      chosen.against === null ? name : "difference", look),
    h("figcaption", {},
      `The parts sum to ${number(sum, 4)}. The model itself says ${number(asked, 4)}. ` +
      `They differ by ${gap < 1e-3 ? "a rounding error of " : ""}${number(gap)}. ` +
      "The final norm divides by a number that depends on all parts together. " +
      "Here it is what it was for this text."));
  look(rows.reduce((a, b) => (Math.abs(b.value) > Math.abs(a.value) ? b : a)));
}

/** One part in words, and for a head the tokens that it took its contribution from. */
function details(aside, app, part, { position }) {
  const name = partName(part);
  const at = { mlp: "mlp", head: "attn.kernel", attention: "attn" }[part.kind];
  const edit = at && {
    at: `h.${part.layer}.${at}`, head: part.kind === "head" ? part.head : null, positions: null,
    how: "zero",
  };
  const said = {
    token: "What the embedding of this token alone says about the next one.",
    position: "What the embedding of this position adds, whatever stands here.",
    mlp: "It works on this position alone, on what the parts before it wrote there.",
    bias: "A constant of the attention layer. It is the same for every text.",
    norm: "A constant of the final norm. It is the same for every text.",
    edit: "The difference between what you put there and the sum of the parts before.",
    attention: "All heads of this layer together.",
  }[part.kind];
  const from = part.from ? Array.from(part.from) : null;
  const largest = from && Math.max(1e-9, ...from.map(Math.abs));
  const order = from && top(from.map(Math.abs), Math.min(6, from.length));
  refill(aside, [
    h("h3", {}, name, " ", h("b", { class: part.value < 0 ? "minus" : "plus" },
      signed(part.value))),
    h("p", {}, said ?? "It looked back and took this from each token:"),
    from && h("p", { class: "strip" }, app.tokens.slice(0, position + 1).map((token, s) =>
      chip(token, {
        style: tinted(from[s] / largest, app.theme),
        onmousemove: (event) => tip(`${label(token)} ${signed(from[s], 3)}`, event),
        onmouseleave: () => tip(""),
      }))),
    from && bars(order.map((s) => ({
      token: app.tokens[s], value: from[s], text: signed(from[s]), minus: from[s] < 0,
    }))),
    from && from.length > order.length && h("p", { class: "note" },
      `The other ${from.length - order.length} together: `,
      signed(order.reduce((rest, s) => rest - from[s], from.reduce((a, b) => a + b, 0))), "."),
    part.kind === "attention" && bars(part.parts.map((each) => ({
      name: partName(each), value: each.value, text: signed(each.value), minus: each.value < 0,
    }))),
    edit && h("button", {
      type: "button", class: "link",
      onclick: () => app.set({ view: "whatif", edits: [edit] }),
    }, `What if ${name} were zero?`),
    part.kind === "head" && h("button", {
      type: "button", class: "link",
      onclick: () => app.set({ view: "attention", layer: part.layer, head: part.head }),
    }, "See this head in Attention"),
  ]);
}

/** The logit lens: what the head would predict after each part, at the last few positions. */
async function drawLens(figure, app, { engine, position, target }, isNow) {
  const { config } = engine.info;
  const all = streams(config, app.result.activations);
  const C = config.n_embd;
  const width = figure.parentElement.clientWidth; // an empty panel is hidden and has none
  const fits = Math.max(2, Math.floor((width - 250) / 78));
  const affordable = Math.max(1, Math.floor(LENS_NUMBERS / (all.length * config.vocab_size)));
  const count = Math.min(position + 1, 12, fits, affordable);
  const first = position + 1 - count;
  const hidden = new Float32Array(all.length * count * C);
  all.forEach(({ data }, n) =>
    hidden.set(data.subarray(first * C, (position + 1) * C), n * count * C));
  const logits = await engine.project(
    { shape: [all.length * count, C], data: hidden }, app.state.step);
  if (!isNow()) return;
  const ranks = [];
  const lines = all.map((stream, n) => {
    const last = row(logits, n * count + count - 1);
    ranks.push(rankOf(last, target));
    const cells = Array.from({ length: count }, (_, t) => {
      const here = row(logits, n * count + t);
      const best = top(here, 1)[0];
      const p = softmax(here)[best];
      const token = engine.token(best);
      return h("td", {
        class: best === target && t === count - 1 ? "target" : null,
        style: { "--p": `${Math.round(100 * p)}%` },
        onmousemove: (event) => tip(`${label(token)} ${percent(p)}`, event),
        onmouseleave: () => tip(""),
      }, label(token));
    });
    const name = stream.layer < 0 ? "embeddings" : `${stream.after} ${stream.layer}`;
    return h("tr", {}, h("th", { scope: "row" }, name), cells,
      h("td", { class: "rank" }, rankBar(ranks[n], logits.shape[1])),
      h("td", { class: "value" }, percent(softmax(last)[target])));
  });
  view.ranks = ranks;
  const name = label(engine.token(target));
  figure.replaceChildren(
    h("h3", {}, "Logit lens"),
    h("p", {}, "What the model would predict if it ended here: the final norm and the head, " +
      "applied after each part. The stronger the colour, the surer. The bar of a rank is " +
      "logarithmic: it is full at rank 1 and empty at the last."),
    h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "after"),
        app.tokens.slice(first, position + 1).map((token, t) => h("th", { scope: "col" },
          h("button", {
            type: "button", class: "link", title: "look at this position",
            onclick: () => app.set({ token: first + t }),
          }, label(token)))),
        h("th", { scope: "col", class: "rank", colspan: 2 },
          "rank and share of ", h("code", {}, name)))),
      h("tbody", {}, lines)));
}

/** A rank as a bar on a logarithmic scale: rank 1 fills it. */
function rankBar(rank, of) {
  const share = 1 - Math.log(rank) / Math.log(of);
  return [
    h("span", { class: "track" }, h("span", {
      class: "fill", style: { width: `${Math.max(2, 100 * share)}%` },
    })),
    h("span", { class: "number" }, rank.toLocaleString("en")),
  ];
}
