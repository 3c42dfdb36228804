/**
 * Replay: one text through all snapshots of a training. All frames are here before the slider
 * moves, so that a move draws and asks nobody.
 */

import { ask, lines, placeOf } from "../engine/remote.js";
import { cellAt, chip, h, heat, label, tip } from "../draw.js";
import { percent } from "../numbers.js";
import { curves, scaleOf, SCORED } from "./curves.js";
import { bars, strongest } from "./parts.js";

const WHOLE = 65535; // an attention weight of 1; see explorer/replay.py
const JUMP = 0.2; // a head's score that grows by as much between two snapshots is marked
const MOST_JUMPS = 4;
const PLAY = 550; // milliseconds a frame
const POLL = [2000, 16000]; // milliseconds between looks at a training that goes on, or is over

/** The attention weights of a frame, decoded once: numbers from 0 to WHOLE (n_layer, nh, T, T). */
function attentionOf(frame) {
  if (!frame.numbers) {
    const bytes = Uint8Array.from(atob(frame.attention), (c) => c.charCodeAt(0));
    frame.numbers = new Uint16Array(bytes.buffer);
    frame.attention = null;
  }
  return frame.numbers;
}

/**
 * Where a head took up a habit: [{habit, layer, head, from, to, before, after}], the largest first.
 * For each head and habit the largest growth between two neighbouring frames, if it is a jump.
 */
export function jumps(frames) {
  const found = [];
  for (const habit of SCORED) {
    (frames[0]?.scores[habit] ?? []).forEach((heads, layer) => heads.forEach((_, head) => {
      let best = null;
      for (let n = 1; n < frames.length; n++) {
        const [before, after] = [n - 1, n].map((i) => frames[i].scores[habit]?.[layer][head] ?? 0);
        if (after - before > (best ? best.after - best.before : JUMP)) {
          const [from, to] = [frames[n - 1].step, frames[n].step];
          best = { habit, layer, head, from, to, before, after };
        }
      }
      if (best) found.push(best);
    }));
  }
  return found.sort((a, b) => b.after - b.before - (a.after - a.before)).slice(0, MOST_JUMPS);
}

/** What is shown, and what it is shown from. */
class Replay {
  constructor(place, app) {
    Object.assign(this, { place, app, frames: [], metrics: [], steps: [], wait: POLL[0] });
    this.note = h("p", { class: "note", role: "status" });
    this.play = h("button", { type: "button", class: "button play", onclick: () => this.toggle() });
    this.when = h("output", { class: "when" });
    this.live = h("span", { class: "live", hidden: true }, "live");
    this.pin = h("button", {
      type: "button", class: "button",
      title: "Let all views show the weights of this step",
      onclick: () => app.set({ step: this.pinned ? null : this.frame.step }),
    });
    this.chart = h("div", {
      class: "chart", role: "slider", tabindex: 0, "aria-label": "Step of the training",
      onkeydown: (event) => this.press(event),
      onpointerdown: (event) => this.drag(event), onpointermove: (event) => this.drag(event),
    });
    this.story = h("ul", { class: "jumps" });
    this.heads = h("div", { class: "heads", role: "group", "aria-label": "Attention heads" });
    this.large = h("canvas", {
      class: "pixels", role: "img", onmousemove: (event) => this.hover(event),
      onmouseleave: () => tip(""),
    });
    this.caption = h("h3", {});
    this.looks = h("div", { class: "chips" });
    this.guesses = h("div", {});
    this.after = h("h3", {});
    this.known = h("div", { class: "chips" });
    this.sample = h("p", { class: "sample" });
    place.append(
      h("section", { class: "panel film" },
        h("div", { class: "controls" }, this.play, this.when, this.live, this.pin),
        this.chart, this.story, this.note,
        h("p", { class: "soft small" }, "The lower curves: how much of its attention the " +
          "strongest head gives to the previous token, to what followed the same token last " +
          "time (induction), and to the first token. They are measured on random tokens that " +
          "are read twice. On your text, as in Attention, a head may do more or less of it.")),
      h("div", { class: "frame" },
        h("section", { class: "panel" }, h("h3", {}, "All heads"), this.heads),
        h("section", { class: "panel looking" }, this.caption, this.large, this.looks),
        h("section", { class: "panel" }, this.after, this.guesses),
        h("section", { class: "panel writes" }, h("h3", {}, "What it writes"), this.sample),
        h("section", { class: "panel" }, h("h3", {}, "How likely each token was"), this.known)));
  }

  /** The number of the frame that is shown: of the state's step, or the last. */
  get n() {
    const n = this.frames.findIndex((frame) => frame.step === this.app.state.moment);
    return n < 0 ? this.frames.length - 1 : n;
  }

  get frame() {
    return this.frames[this.n];
  }

  get pinned() {
    return this.app.state.step !== null && this.app.state.step === this.frame?.step;
  }

  /** Get the frames of the text that is read now; those of a text before are dropped. */
  async load() {
    this.stop?.abort();
    const { signal } = (this.stop = new AbortController());
    clearTimeout(this.timer);
    const { engine, result } = this.app;
    const kept = engine.info.replay; // of a page that is one file
    this.published = Boolean(kept);
    this.frames = [];
    this.wait = POLL[0];
    if (!result) return this.draw();
    try {
      if (kept) {
        this.frames = kept.frames.map((frame) => ({ ...frame }));
        this.metrics = engine.info.metrics ?? [];
        this.steps = this.frames.map((frame) => frame.step);
        const same = String(kept.frames[0]?.ids) === String(result.ids);
        this.note.textContent = same ? "" : "This page holds the replay of one text: " +
          kept.frames[0]?.ids.map((id) => engine.token(id).text).join("");
        return this.draw(true);
      }
      this.note.textContent = "Reading the text with every snapshot …";
      const place = placeOf(engine.info.name);
      const metrics = await (await ask(`${place}/metrics`)).json();
      if (signal.aborted) return null;
      this.metrics = metrics;
      await this.fetch(place, null);
      if (signal.aborted) return null;
      this.note.textContent = "";
      this.timer = setTimeout(() => this.poll(place), this.wait);
    } catch (error) {
      if (signal.aborted) return null;
      if (error.name !== "AbortError") this.note.textContent = error.message;
    }
    return this.draw(true);
  }

  /** Get frames as they are computed: of these steps, or of all. */
  async fetch(place, steps) {
    const { signal } = this.stop;
    const body = { ids: [...this.app.result.ids], steps };
    for await (const frame of lines(`${place}/replay`, body, signal)) {
      if (signal.aborted) return;
      this.frames.push(frame);
      this.draw(true);
    }
  }

  /** Look whether the training went on. The less happens, the longer until the next look. */
  async poll(place) {
    const { signal } = this.stop;
    if (!this.place.isConnected || signal.aborted) return;
    try {
      const [metrics, steps] = await Promise.all(
        ["metrics", "steps"].map(async (name) => (await ask(`${place}/${name}`)).json()));
      if (signal.aborted) return;
      const grown = metrics.length > this.metrics.length;
      const last = this.frames[this.frames.length - 1]?.step ?? -1;
      const fresh = steps.filter((step) => step > last);
      this.metrics = metrics;
      this.live.hidden = !grown && !fresh.length;
      if (fresh.length) await this.fetch(place, fresh);
      else if (grown) this.draw(true);
      this.wait = this.live.hidden ? Math.min(2 * this.wait, POLL[1]) : POLL[0];
    } catch {
      this.wait = POLL[1]; // the server is gone, or busy: what is here stays
    }
    if (!signal.aborted) this.timer = setTimeout(() => this.poll(place), this.wait);
  }

  /** Show the frame of a number. */
  go(n) {
    const frame = this.frames[Math.min(this.frames.length - 1, Math.max(0, n))];
    const last = frame === this.frames[this.frames.length - 1];
    if (frame) this.app.set({ moment: last ? null : frame.step });
  }

  press(event) {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const end = { Home: 0, End: this.frames.length - 1 }[event.key];
    if (event.key === " ") this.toggle();
    else if (move) this.go(this.n + move);
    else if (end !== undefined) this.go(end);
    else return;
    event.preventDefault();
  }

  drag(event) {
    if (!(event.buttons & 1) || !this.frames.length || !this.scale) return;
    if (event.type === "pointerdown") this.chart.setPointerCapture(event.pointerId);
    const x = event.clientX - this.chart.getBoundingClientRect().left;
    const away = this.frames.map((frame) => Math.abs(this.scale.x(frame.step) - x));
    this.go(away.indexOf(Math.min(...away)));
  }

  /** Play from here, or from the beginning; or stop. */
  toggle() {
    if (this.playing) return this.halt();
    if (this.n === this.frames.length - 1) this.go(0);
    this.playing = setInterval(() => {
      if (!this.place.isConnected || this.n === this.frames.length - 1) return this.halt();
      return this.go(this.n + 1);
    }, PLAY);
    return this.drawControls();
  }

  halt() {
    clearInterval(this.playing);
    this.playing = null;
    this.drawControls();
  }

  /** Draw the frame; with `all`, the curves anew as well. */
  draw(all = false) {
    const { frame } = this;
    this.place.classList.toggle("empty", !frame);
    this.drawControls();
    if (!frame) return;
    if (all || !this.scale) this.drawChart();
    this.chart.querySelector(".now")?.setAttribute(
      "transform", `translate(${this.scale.x(frame.step)} 0)`);
    this.chart.setAttribute("aria-valuemin", this.frames[0].step);
    this.chart.setAttribute("aria-valuemax", this.frames[this.frames.length - 1].step);
    this.chart.setAttribute("aria-valuenow", frame.step);
    this.chart.setAttribute("aria-valuetext", `step ${frame.step}`);
    this.drawAttention(frame);
    this.drawGuesses(frame);
    const prompt = frame.ids.map((id) => this.app.engine.token(id).text).join("");
    this.sample.replaceChildren(h("span", { class: "soft" }, prompt), frame.sample);
  }

  drawControls() {
    this.play.textContent = this.playing ? "Pause" : "Play";
    this.play.disabled = this.frames.length < 2;
    this.pin.textContent = this.pinned ? "Latest weights in all views" : "Use in all views";
    this.pin.hidden = this.published || !this.frame;
    this.when.textContent = this.frame ? `step ${this.frame.step.toLocaleString("en")}` : "";
  }

  drawChart() {
    const width = Math.max(280, this.chart.clientWidth);
    const found = jumps(this.frames);
    this.scale = scaleOf(this.frames, this.metrics, width);
    this.chart.replaceChildren(curves(this.frames, this.metrics, found, this.scale));
    this.story.replaceChildren(...found.map(({ habit, layer, head, from, to, before, after }) =>
      h("li", {}, h("button", {
        type: "button", class: `link ${habit}`,
        onclick: () => this.app.set({ moment: to, layer, head }),
      }, `head ${layer}.${head}`), ` takes up “${habit}” between steps ${from} and ${to}: ` +
        `${percent(before)} → ${percent(after)}`)));
  }

  drawAttention(frame) {
    const [layers, heads, T] = frame.shape;
    const numbers = attentionOf(frame);
    const cells = T * T;
    const { theme, state, token } = this.app;
    const layer = Math.min(state.layer, layers - 1);
    const head = Math.min(state.head, heads - 1);
    const map = (canvas, at) => {
      heat(canvas, numbers.subarray(at * cells, (at + 1) * cells), T, T,
        { scale: "amount", to: WHOLE, causal: true, theme });
    };
    if (this.heads.children.length !== layers * heads) {
      this.heads.style.setProperty("--columns", heads <= 6 ? heads : 6);
      this.heads.replaceChildren(...Array.from({ length: layers * heads }, (_, at) => h("button", {
        type: "button",
        onclick: () => this.app.set({ layer: Math.floor(at / heads), head: at % heads }),
      }, h("canvas", { class: "pixels" }), h("span", {}))));
    }
    [...this.heads.children].forEach((button, at) => {
      const [l, n] = [Math.floor(at / heads), at % heads];
      const [habit, score] = strongest(Object.fromEntries(
        SCORED.map((name) => [name, frame.scores[name]?.[l][n] ?? 0])));
      map(button.firstChild, at);
      const name = score > 0.2 ? `${habit} ${Math.round(100 * score)} %` : "";
      button.lastChild.replaceChildren(h("b", {}, `${l}.${n}`), ` ${name}`);
      button.className = `head-button ${score > 0.2 ? habit : ""}`;
      button.setAttribute("aria-pressed", l === layer && n === head);
      button.setAttribute("aria-label", `head ${l}.${n} ${name}`);
    });
    this.shown = { at: layer * heads + head, T, numbers, frame };
    map(this.large, this.shown.at);
    const t = Math.min(token, T - 1);
    const name = (id) => label(this.app.engine.token(id));
    this.caption.textContent = `Head ${layer}.${head}: what “${name(frame.ids[t])}” looks at`;
    this.large.setAttribute("aria-label", `Attention of head ${layer}.${head} at this step`);
    const row = this.shown.at * cells + t * T;
    this.looks.replaceChildren(...frame.ids.slice(0, t + 1).map((id, k) =>
      this.shaded(id, numbers[row + k] / WHOLE)));
  }

  /** A token as a chip, in a stronger colour the larger its share is. */
  shaded(id, share) {
    return chip(this.app.engine.token(id), {
      title: percent(share), class: share > 0.5 ? "strong" : "",
      style: { "--share": `${Math.round(100 * Math.sqrt(share))}%` },
    });
  }

  drawGuesses(frame) {
    const T = frame.ids.length;
    const { engine, token } = this.app;
    const t = Math.min(token, T - 1);
    this.after.textContent = `What comes after “${label(engine.token(frame.ids[t]))}”`;
    // The likeliest of all steps fills the track, so that one sees the model grow surer.
    const most = Math.max(...this.frames.map(({ likeliest }) => likeliest[t][0][1]));
    this.guesses.replaceChildren(bars(frame.likeliest[t].map(([id, value]) => ({
      token: engine.token(id), value, text: percent(value), mark: id === frame.ids[t + 1],
    })), { most }));
    const chances = [null, ...frame.next];
    this.known.replaceChildren(...frame.ids.map((id, n) =>
      n ? this.shaded(id, chances[n]) : chip(engine.token(id), { title: "the first token" })));
  }

  hover(event) {
    const { at, T, numbers, frame } = this.shown;
    const { row, column } = cellAt(this.large, event, T, T);
    if (column > row) return tip("");
    const name = (n) => label(this.app.engine.token(frame.ids[n]));
    const share = numbers[(at * T + row) * T + column] / WHOLE;
    return tip(`${name(row)} looks at ${name(column)}: ${percent(share)}`, event);
  }
}

export const view = {
  id: "replay",
  title: "Replay",
  about: "The training, watched again: what the model made of this text at each of its " +
    "snapshots. Drag the curve, use the arrow keys, or press Play.",
  state: { moment: null },
  render(place, app) {
    const replay = new Replay(place, app);
    new ResizeObserver(() => replay.frame && replay.draw(true)).observe(replay.chart);
    return {
      update(changed) {
        if (["result", "engine"].some((name) => changed.has(name))) {
          const key = `${app.engine.info.name} ${app.result?.ids}`;
          if (key !== replay.reads) {
            replay.reads = key;
            clearTimeout(replay.soon);
            replay.soon = setTimeout(() => replay.load(), replay.frames.length ? 250 : 0);
            return;
          }
        }
        replay.draw(changed.has("theme"));
      },
    };
  },
};
