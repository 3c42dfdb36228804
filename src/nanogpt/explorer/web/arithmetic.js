/**
 * Where each number comes from: the parts of a model in the order of the journey, the numbers of
 * one token there, and how any one of them is computed from those before it.
 *
 * It computes from what the engine recorded and from the weights. So it is a check, too: each
 * explanation says the value that it finds, and tests compare it with the recorded one.
 *
 * Axes: T time, C channels, M channels inside the MLP, nh heads, hs head size, V vocabulary.
 */

import { EPS, firstVisible, hasTaps, HEADS, innerWidths, MLPS, POSITIONS } from "./engine/layers.js";
import { row, tensor } from "./engine/tensor.js";
import { softmax } from "./numbers.js";

/**
 * The parts of a model, in the order in which a token passes them.
 * @param {object} config
 * @returns {{id: string, place: string, title: string, shape: string, lane: string,
 *   block: number | null, from: string[]}[]} `place` is a key of info.places, `lane` says whether
 *   it stands on the residual stream or beside it, `from` are the parts that it is made of
 */
export function parts(config) {
  const { n_layer, n_embd: C, vocab_size: V, position } = config;
  const blocks = Array.from({ length: n_layer }, (_, i) => blockParts(config, i));
  return [
    part("wte", "wte", "Token embedding", `T, ${C}`, "stream", []),
    POSITIONS[position]?.vector ? part("wpe", "wpe", "Position", `T, ${C}`, "side", []) : [],
    part("drop", "drop", "Residual stream", `T, ${C}`, "stream", ["wte", "wpe"]),
    blocks,
    part("ln_f", "ln_f", "Final norm", `T, ${C}`, "stream", [`h.${n_layer - 1}`]),
    part("lm_head", "lm_head", "Logits", `T, ${V}`, "stream", ["ln_f"]),
    part("softmax", "softmax", "Probabilities", `T, ${V}`, "stream", ["lm_head"]),
  ].flat(2);
}

/** One part; the number in its id says its block. */
function part(id, place, title, shape, lane, from) {
  const block = /^h\.(\d+)/.exec(id)?.[1] ?? null;
  return { id, place, title, shape: `(${shape})`, lane, block: block && Number(block), from };
}

/** The parts of one block, as its kind says. Each step gives the id of what comes out of it. */
function blockParts(config, i) {
  const [at, into] = [`h.${i}`, i ? `h.${i - 1}` : "drop"];
  const list = [];
  const add = (id, place, title, lane, from) => {
    list.push(part(id, place, title, `T, ${config.n_embd}`, lane, from));
    return id;
  };
  const inner = (name, make) => (from) => {
    list.push(...make(config, `${at}.${name}`, from));
    return `${at}.${name}`;
  };
  const [attention, mlp] = [inner("attn", attentionParts), inner("mlp", mlpParts)];
  const norm = (n, from, lane = "stream") =>
    (config.norm === "none" ? from : add(`${at}.ln_${n}`, `ln_${n}`, "Norm", lane, [from]));
  const mid = (attn) => add(`${at}.mid`, "mid", "Stream + attention", "stream", [into, attn]);
  const end = (title, from) => add(at, "block", title, "stream", from);
  if (config.block === "post-norm") {
    const x = norm(1, mid(attention(into)));
    const sum = add(`${at}.mid_2`, "block", "Stream + MLP", "stream", [x, mlp(x)]);
    end(`Stream after block ${i}`, [norm(2, sum)]);
  } else if (config.block === "no-residual") {
    end(`After block ${i}`, [mlp(norm(2, attention(norm(1, into))))]);
  } else {
    const x = mid(attention(norm(1, into, "attn")));
    end(`Stream after block ${i}`, [x, mlp(norm(2, x, "mlp"))]);
  }
  return list;
}

/** The parts of an attention layer that reads the part `from`. */
function attentionParts({ n_embd: C, n_head: nh }, at, from) {
  const add = (name, place, title, width, names) =>
    part(`${at}.${name}`, place, title, `${nh}, T, ${width}`, "attn", names);
  return [
    add("q", "qkv", "Queries", C / nh, [from]),
    add("k", "qkv", "Keys", C / nh, [from]),
    add("v", "qkv", "Values", C / nh, [from]),
    add("scores", "scores", "Scores", "T", [`${at}.q`, `${at}.k`]),
    add("weights", "weights", "Attention weights", "T", [`${at}.scores`]),
    add("kernel", "kernel", "Mixed values", C / nh, [`${at}.weights`, `${at}.v`]),
    part(at, "attn", "Attention", `T, ${C}`, "attn", [`${at}.kernel`]),
  ];
}

/** The parts of a feed-forward layer that reads the part `from`. */
function mlpParts(config, at, from) {
  const [M, widened] = innerWidths(config);
  const act = part(`${at}.act`, "act", "MLP: activation", `T, ${M}`, "mlp", [`${at}.c_fc`]);
  return [
    part(`${at}.c_fc`, "c_fc", "MLP: widen", `T, ${widened}`, "mlp", [from]),
    ...(MLPS[config.mlp] ? [act] : []),
    part(at, "mlp", "MLP: narrow", `T, ${config.n_embd}`, "mlp", [`${at}.act`]),
  ];
}

/** The names that have to be recorded for these parts. */
export function recorded(list) {
  const computed = /^(wpe|softmax|lm_head)$|\.(mid|mid_2|act)$/;
  return list.map((part) => part.id).filter((id) => !computed.test(id));
}

/** Numbers of one token, and the explanation of each: everything about one text and position. */
export class Arithmetic {
  /**
   * @param {object} engine
   * @param {{logits: object, activations: object}} result of the text
   * @param {number} t the token's position
   * @param {number | null} step
   */
  constructor(engine, result, t, step = null) {
    Object.assign(this, { engine, result, t, step });
    this.config = engine.info.config;
    this.parts = new Map(parts(this.config).map((part) => [part.id, part]));
    this.known = new Map();
  }

  /** The numbers of a part: {rows, columns, data}; what the mask hides is -Infinity. */
  numbers(id) {
    if (!this.known.has(id)) this.known.set(id, this.find(id));
    return this.known.get(id);
  }

  find(id) {
    const single = (data) => ({ rows: 1, columns: data.length, data });
    const sum = (names) => {
      const lists = names.map((name) => this.numbers(name).data);
      return single(lists[0].map((_, c) => lists.reduce((all, list) => all + list[c], 0)));
    };
    if (id === "softmax") return single(softmax(this.numbers("lm_head").data));
    if (id === "wpe") {
      const [drop, wte] = [this.row("drop"), this.row("wte")];
      return drop && wte && single(drop.map((x, c) => x - wte[c]));
    }
    if (/\.(mid|mid_2)$/.test(id)) return sum(this.parts.get(id).from);
    if (id.endsWith(".mlp.act")) {
      const { data } = this.numbers(id.replace(/act$/, "c_fc"));
      return single(MLPS[this.config.mlp](tensor([1, data.length], data)).data);
    }
    if (id.includes(".attn.")) return this.heads(id);
    const data = this.row(id === "lm_head" ? "logits" : id);
    if (!data) throw new Error(`${id} was not recorded`);
    return single(data);
  }

  /** Row t of what was recorded as (T, C). */
  row(name) {
    const x = name === "logits" ? this.result.logits : this.result.activations[name];
    return x && row(x, this.t);
  }

  /** Row t of every head of what was recorded as (nh, T, width). */
  heads(name) {
    const [nh, , columns] = this.result.activations[name].shape;
    const data = new Float32Array(nh * columns);
    for (let head = 0; head < nh; head++) {
      data.set(this.head(name, head, this.t), head * columns);
    }
    if (/\.(scores|weights)$/.test(name)) {
      data.forEach((_, i) => i % columns > this.t && (data[i] = -Infinity)); // the future
    }
    return { rows: nh, columns, data };
  }

  /** Row s of one head. */
  head(name, head, s) {
    const x = this.result.activations[name];
    return row(x, head * x.shape[1] + s);
  }

  /** Rows of a parameter as one list; null if the model has no such parameter. */
  async weights(name, first, end) {
    const { bias, norm } = this.config;
    const missing = !bias || (name.includes("ln_") && norm !== "layer");
    if (name.endsWith(".bias") && missing) return null;
    return (await this.engine.weights(name, { first, end, step: this.step })).data;
  }

  /**
   * How one number is computed.
   * @param {string} id a part
   * @param {number} cell which of its numbers, row after row
   * @returns {Promise<{name: string, formula: string, value: number, recorded: number,
   *   terms: {label: string, a: number, b?: number, product: number}[],
   *   steps: {label: string, value: number}[]}>} the terms are summed, then the steps follow
   */
  async explain(id, cell) {
    const part = this.parts.get(id);
    const { columns, data } = this.numbers(id);
    const [head, c] = [Math.floor(cell / columns), cell % columns];
    const place = id.includes(".attn.") ? `${head}, ${this.t}, ${c}` : `${this.t}, ${c}`;
    const found = await this.rule(id, part, head, c);
    const sum = (found.terms ?? []).reduce((all, term) => all + term.product, 0);
    const steps = found.steps ?? [];
    const value = steps.length ? steps.at(-1).value : sum;
    return {
      name: `${id}[${place}]`, terms: [], ...found, steps, value, recorded: data[cell],
    };
  }

  /** Formula, terms and steps of a number; see `explain`. */
  rule(id, part, head, c) {
    const last = id.split(".").at(-1);
    if (id === "wte") return this.lookup(id, c);
    if (id === "wpe") return this.position(c);
    if (last.startsWith("ln_") && this.config.norm !== "none") {
      return this.norm(id, part.from[0], c);
    }
    if (["q", "k", "v"].includes(last)) return this.query(id, part.from[0], last, head, c);
    if (last === "scores") return this.score(id, head, c);
    if (last === "weights") return this.weight(id, head, c);
    if (last === "kernel") return this.mixed(id, head, c);
    if (last === "attn") return this.dense(`${id}.c_proj`, part.from[0], c);
    if (last === "c_fc") return this.dense(id, part.from[0], c);
    if (last === "act") return this.activation(id, c);
    if (last === "mlp") return this.dense(`${id}.c_proj`, part.from[0], c);
    if (id === "lm_head") return this.logit(c);
    if (id === "softmax") return this.probability(c);
    return this.sum(part, c);
  }

  logit(c) {
    const { head } = this.config;
    if (Object.hasOwn(HEADS, head)) return this.dense(HEADS[head], "ln_f", c);
    const value = this.numbers("lm_head").data[c];
    return { formula: `what the plugin's head ${head} gives`, steps: [{ label: "=", value }] };
  }

  lookup(id, c) {
    const value = this.numbers(id).data[c];
    const label = `row ${this.result.ids[this.t]} of wte, channel ${c}`;
    return { formula: "looked up in the table wte", steps: [{ label, value }] };
  }

  async position(c) {
    const { position, n_embd: C } = this.config;
    const learned = position === "learned";
    const weight = learned && tensor([1, C], await this.weights("wpe.weight", this.t, this.t + 1));
    const vector = POSITIONS[position].vector(learned ? 0 : this.t, C, weight);
    const label = learned ? `row ${this.t} of wpe, channel ${c}` :
      `wave ${c} at position ${this.t}`;
    const formula = learned ? "looked up in the table wpe" : "a wave of the position";
    return { formula, steps: [{ label, value: vector[c] }] };
  }

  sum(part, c) {
    const names = part.from.filter((name) => this.parts.has(name));
    const terms = names.map((name) => {
      const a = this.numbers(name).data[c];
      return { label: `${name}[${this.t}, ${c}]`, a, product: a };
    });
    return { formula: names.join(" + "), terms };
  }

  async norm(id, from, c) {
    const { norm } = this.config;
    const x = this.numbers(from).data;
    const [gain, shift] = [await this.weights(`${id}.weight`), await this.weights(`${id}.bias`)];
    const mean = norm === "layer" ? x.reduce((all, value) => all + value, 0) / x.length : 0;
    const variance = x.reduce((all, value) => all + (value - mean) ** 2, 0) / x.length;
    const size = Math.sqrt(variance + EPS);
    const one = (x[c] - mean) / size;
    const steps = [{ label: `${from}[${this.t}, ${c}]`, value: x[c] }];
    if (norm === "layer") steps.push({ label: `− mean of all ${x.length}`, value: mean });
    steps.push(
      { label: norm === "layer" ? "÷ standard deviation" : "÷ root mean square", value: size },
      { label: "=", value: one }, { label: `× gain weight[${c}]`, value: gain[c] });
    if (shift) steps.push({ label: `+ bias[${c}]`, value: shift[c] });
    steps.push({ label: "=", value: one * gain[c] + (shift?.[c] ?? 0) });
    const formula = (norm === "layer" ? "(x − mean) / std" : "x / rms") + " · weight" +
      (shift ? " + bias" : "");
    return { formula, steps };
  }

  /** A dot product of the numbers of a part with row c of a linear map, plus the bias. */
  async dense(name, from, c) {
    const inputs = this.parts.has(from) ? this.numbers(from).data : [];
    const [row, bias] = [
      await this.weights(`${name}.weight`, c, c + 1),
      ["wte", "lm_head"].includes(name) ? null : await this.weights(`${name}.bias`, c, c + 1),
    ];
    const terms = Array.from(inputs, (a, i) => (
      { label: String(i), a, b: row[i], product: a * row[i] }));
    if (bias) terms.push({ label: "bias", a: bias[0], product: bias[0] });
    return { formula: `Σ ${from}[i] · ${name}.weight[${c}, i]${bias ? " + bias" : ""}`, terms };
  }

  async query(id, from, kind, head, c) {
    const { n_head: nh, n_embd: C, n_kv_head, qk_norm, position } = this.config;
    const [hs, nkv] = [C / nh, n_kv_head || nh];
    const shared = Math.floor((head * nkv) / nh); // groups of queries share a head of keys
    const first = { q: head * hs, k: C + shared * hs, v: C + (nkv + shared) * hs }[kind];
    const name = id.replace(/\.[qkv]$/, ".c_attn");
    const rule = await this.dense(name, from, first + c);
    const rotated = POSITIONS[position]?.rotate;
    if (kind === "v" || !(qk_norm || rotated)) return rule;
    // The other channels of the head take part in the norm and in the rotation.
    const x = this.numbers(from).data;
    const rows = await this.weights(`${name}.weight`, first, first + hs);
    const bias = await this.weights(`${name}.bias`, first, first + hs);
    let raw = Float32Array.from({ length: hs }, (_, o) =>
      x.reduce((all, value, i) => all + value * rows[o * x.length + i], bias?.[o] ?? 0));
    const steps = [{ label: "the sum", value: raw[c] }];
    if (qk_norm) {
      const size = Math.sqrt(raw.reduce((all, v) => all + v * v, 0) / hs + EPS);
      raw = raw.map((v) => v / size);
      steps.push({ label: `÷ root mean square of the head's ${hs}`, value: size });
      steps.push({ label: "=", value: raw[c] });
    }
    if (rotated) {
      const partner = (c + hs / 2) % hs;
      steps.push({ label: `its partner, channel ${partner}`, value: raw[partner] });
      const value = rotated(tensor([1, hs], raw), this.t).data[c];
      steps.push({ label: `rotated by position ${this.t}`, value });
    }
    return { ...rule, steps };
  }

  score(id, head, s) {
    const [q, k] = [this.head(id.replace("scores", "q"), head, this.t),
      this.head(id.replace("scores", "k"), head, s)];
    const terms = Array.from(q, (a, i) => ({ label: String(i), a, b: k[i], product: a * k[i] }));
    const sum = terms.reduce((all, term) => all + term.product, 0);
    const root = Math.sqrt(q.length);
    return {
      formula: `q[${this.t}] · k[${s}] / √${q.length}`, terms,
      steps: [
        { label: "the sum", value: sum }, { label: `÷ √${q.length}`, value: root },
        { label: "=", value: sum / root },
      ],
    };
  }

  async weight(id, head, s) {
    const { n_head: nh, position } = this.config;
    const { data, columns } = this.numbers(id.replace("weights", "scores"));
    const bias = POSITIONS[position]?.bias;
    const from = firstVisible(this.t, this.config);
    const scores = [];
    for (let j = from; j <= this.t; j++) {
      scores.push(data[head * columns + j] + (bias ? bias(head, nh, this.t - j) : 0));
    }
    const most = Math.max(...scores);
    const powers = scores.map((x) => Math.exp(x - most));
    const all = powers.reduce((a, b) => a + b, 0);
    if (s < from || s > this.t) {
      const label = s > this.t ? "hidden: it comes later" : "hidden by the window";
      return { formula: "softmax gives 0 where the mask hides", steps: [{ label, value: 0 }] };
    }
    const steps = [{ label: "the score", value: data[head * columns + s] }];
    if (bias) steps.push({ label: "+ bias of the distance", value: bias(head, nh, this.t - s) });
    steps.push(
      { label: "− the largest score", value: most },
      { label: "exp of that", value: powers[s - from] },
      { label: `÷ sum over ${scores.length} visible tokens`, value: all },
      { label: "=", value: powers[s - from] / all });
    const formula = "exp(score − max) / Σ exp(score − max)";
    if (!hasTaps(this.config)) return { formula, steps };
    const taps = await this.weights(id.replace("weights", "kernel.taps"), head, head + 1);
    const fixed = taps[this.t - s] ?? 0;
    steps.push(
      { label: `+ the share of distance ${this.t - s}`, value: fixed },
      { label: "=", value: powers[s - from] / all + fixed });
    return { formula: `${formula} + share`, steps };
  }

  mixed(id, head, c) {
    const { data, columns } = this.numbers(id.replace("kernel", "weights"));
    const terms = [];
    for (let s = 0; s <= this.t; s++) {
      const [a, b] = [data[head * columns + s], this.head(id.replace("kernel", "v"), head, s)[c]];
      terms.push({ label: String(s), a, b, product: a * b, token: s });
    }
    return { formula: `Σ weights[${this.t}, s] · v[s, ${c}]`, terms };
  }

  activation(id, c) {
    const { mlp } = this.config;
    const x = this.numbers(id.replace("act", "c_fc")).data;
    const value = this.numbers(id).data[c];
    if (mlp === "swiglu") {
      return {
        formula: "gate · sigmoid(gate) · value",
        steps: [
          { label: `gate: c_fc[${c}]`, value: x[c] },
          { label: `value: c_fc[${c + x.length / 2}]`, value: x[c + x.length / 2] },
          { label: "=", value: (x[c] / (1 + Math.exp(-x[c]))) * x[c + x.length / 2] },
        ],
      };
    }
    const formula = mlp === "relu2" ? "max(x, 0)²" : "0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))";
    return { formula, steps: [{ label: `x = c_fc[${c}]`, value: x[c] }, { label: "=", value }] };
  }

  probability(c) {
    const logits = this.numbers("lm_head").data;
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const all = logits.reduce((sum, x) => sum + Math.exp(x - most), 0);
    const power = Math.exp(logits[c] - most);
    return {
      formula: "exp(logit − max) / Σ exp(logit − max)",
      steps: [
        { label: "the logit", value: logits[c] }, { label: "− the largest logit", value: most },
        { label: "exp of that", value: power },
        { label: `÷ sum over ${logits.length} tokens`, value: all },
        { label: "=", value: power / all },
      ],
    };
  }
}
