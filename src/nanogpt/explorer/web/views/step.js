/**
 * One step: train a copy of the model on this text, now, and see what it changes.
 */

import { chip, h, label } from "../draw.js";
import { number, percent, signed } from "../numbers.js";
import { bars, newest, pythonOf, refill, tinted } from "./parts.js";

const MOST_STEPS = 20;

export const view = {
  id: "step",
  title: "One step",
  about: "Train on this text, now: gradients by layer, and what the prediction becomes.",
  state: { steps: 0, lr: -3 }, // lr: the exponent of ten

  render(place, app) {
    const controls = h("section", { class: "panel" });
    const results = h("div", { class: "grid" });
    place.append(h("div", { class: "grid" }, controls, results));
    const question = newest();

    async function update() {
      const { engine, state, result } = app;
      controls.hidden = !engine.python;
      drawControls(controls, app);
      const ids = [...result.ids];
      results.classList.add("waiting");
      const answer = await question(
        JSON.stringify([state.run, state.step, ids, state.lr, state.steps]),
        async () => pythonOf(engine, "A published page cannot train.").trainStep(ids, {
          lr: 10 ** state.lr, step: state.step,
          // Without a step taken there is still a gradient to show: that of the first.
          steps: Math.max(1, Math.min(MOST_STEPS, state.steps)),
        }));
      if (!answer || !app.result) return;
      results.classList.remove("waiting");
      if (answer.error) {
        results.replaceChildren(h("p", { class: "panel" }, answer.error));
        return;
      }
      const done = (view.done = answer.value); // what tests compare
      refill(results,
        h("div", { class: "columns even" }, drawPrediction(app, done), drawLosses(app, done)),
        drawGradients(app, done));
    }
    return { update };
  },
};

/** How far to step, and back. */
function drawControls(panel, app) {
  const { state } = app;
  const go = (steps) => app.set({ steps: Math.max(0, Math.min(MOST_STEPS, steps)) });
  refill(panel,
    h("p", { class: "lead" }, state.steps === 0 ? "No step is taken. " :
      `${state.steps} ${state.steps === 1 ? "step is" : "steps are"} taken on this text alone. `,
    "A copy of the model is trained; your run stays as it is."),
    h("div", { class: "controls", style: { "margin-bottom": "0" } },
      h("button", {
        type: "button", class: "button primary", disabled: state.steps >= MOST_STEPS,
        onclick: () => go(state.steps + 1),
      }, state.steps ? "One more step" : "Take a step"),
      h("button", {
        type: "button", class: "button", disabled: state.steps === 0,
        onclick: () => go(state.steps - 1),
      }, "Undo"),
      h("label", { class: "slider", style: { flex: "0 1 260px" } }, "learning rate",
        h("output", {}, (10 ** state.lr).toPrecision(2)),
        h("input", {
          type: "range", min: -5, max: -1, step: 0.25, value: state.lr,
          "aria-label": "Learning rate, as a power of ten",
          onchange: (event) => app.set({ lr: Number(event.target.value) }),
        }))));
}

/** What the model predicts at the chosen token, before and after. */
function drawPrediction(app, done) {
  const { engine, tokens, token, state } = app;
  const taken = state.steps > 0;
  const rows = done.positions[token];
  const next = tokens[token + 1]?.id;
  const side = (which) => {
    const order = rows.toSorted((a, b) => b[which] - a[which]).slice(0, 8);
    return bars(order.map((each) => ({
      token: engine.token(each[0]), value: Math.exp(each[which]), mark: each[0] === next,
      text: percent(Math.exp(each[which])),
    })), { most: Math.exp(Math.max(...rows.flatMap(([, a, b]) => (taken ? [a, b] : a)))) });
  };
  return h("section", { class: "panel" },
    h("h3", {}, "After ", chip(tokens[token])),
    h("p", { class: "note" }, next === undefined ?
      "The text ends here, so no step trains this prediction. It moves all the same." :
      ["The text goes on with ", h("code", {}, label(engine.token(next))),
        ". That is what a step makes likelier."]),
    taken ? h("div", { class: "pair" },
      h("div", {}, h("h4", {}, "before"), side(1)),
      h("div", {}, h("h4", {}, "after"), side(2))) : side(1));
}

/** The loss of the text after each step, and of each token before and after. */
function drawLosses(app, done) {
  const { tokens, theme, state } = app;
  const losses = done.losses.slice(0, state.steps + 1);
  const changes = done.token_losses.map(([before, after]) => after - before);
  const largest = Math.max(0.1, ...changes.map(Math.abs));
  return h("section", { class: "panel" },
    h("h3", {}, "Loss of the text"),
    h("p", { class: "note" }, "In nats per token: how surprised the model is by each next token."),
    bars(losses.map((loss, n) => ({
      name: n ? `step ${n}` : "before", value: loss, text: number(loss, 3), minus: !n,
    }))),
    state.steps > 0 && h("p", { class: "note" }, "Blue tokens became less surprising:"),
    state.steps > 0 && h("p", { class: "strip" }, tokens.map((token, t) => {
      const change = t ? changes[t - 1] : 0;
      return chip(token, {
        "data-t": t, title: t ? `${signed(change)} nats` : "nothing comes before it",
        onclick: () => app.set({ token: Math.max(0, t - 1) }),
        style: tinted(-change / largest, theme),
      });
    })));
}

/** The size of the gradient of each part, layer by layer. */
function drawGradients(app, done) {
  const { config } = app.engine.info;
  const norms = done.norms[0];
  const all = Math.sqrt(Object.values(norms).reduce((sum, norm) => sum + norm ** 2, 0));
  const blocks = Array.from({ length: config.n_layer }, (_, n) => [
    [`h.${n}.ln_1`, `norm 1 of block ${n}`], [`h.${n}.attn`, `attention ${n}`],
    [`h.${n}.ln_2`, `norm 2 of block ${n}`], [`h.${n}.mlp`, `MLP ${n}`]]);
  const parts = [["wte", "token embedding"], ["wpe", "position"], ...blocks.flat(),
    ["ln_f", "final norm"], ["lm_head", "head"]].filter(([part]) => part in norms);
  const [[, strongest]] = parts.toSorted(([a], [b]) => norms[b] - norms[a]);
  const taken = app.state.steps > 0;
  return h("section", { class: "panel gradients" },
    h("h3", {}, "Gradients"),
    h("p", { class: "note" }, "How strongly the loss of this text pulls at each part before the " +
      `first step: the length of its gradient. The longest is that of ${strongest}. All ` +
      `parts as one gradient: ${number(all, 3)}, the root of the sum of the squares.`,
    taken && " On the right: by how much the part has moved, in percent of the length of its " +
      `weights (${done.optimizer}, as in training, with a fresh state).`),
    bars(parts.map(([part, name]) => ({
      name, value: norms[part], text: number(norms[part], 3),
      more: taken ? percent(done.moved[part] / (done.sizes[part] || 1)) : "",
      title: `${part}: its weights are ${number(done.sizes[part], 2)} long` +
        (taken ? ` and moved by ${number(done.moved[part], 4)}` : ""),
    }))));
}
