/**
 * How text is cut into words before byte-pair encoding.
 *
 * The patterns are regular expressions as Python's package `regex` reads them. JavaScript's differ
 * in a few signs, so `translate` writes each pattern anew. What it cannot write it refuses.
 */

/** From OpenAI's releases of GPT-2 and of tiktoken; the names are those of tokenizer.json. */
const PATTERNS = {
  gpt2: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  cl100k:
    String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+` +
    String.raw`| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`,
  o200k:
    String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
    String.raw`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*` +
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
    String.raw`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
};

// JavaScript's \s has U+FEFF and lacks U+0085; its \w and \d know ASCII alone.
const CLASSES = {
  s: String.raw`\p{White_Space}`,
  S: String.raw`\P{White_Space}`,
  d: String.raw`\p{Nd}`,
  D: String.raw`\P{Nd}`,
  w: String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d`,
};
const CONTROLS = { n: "\n", r: "\r", t: "\t", f: "\f", v: "\v" };
// Cases of ASCII letters that are outside of ASCII: dotted I, the sign for kelvin, the long s.
const OTHER_CASES = { i: "\u0130", k: "\u212a", s: "\u017f" };

/** Why a pattern cannot be used, in one line. */
const refusal = (what) => new Error(`the split pattern has ${what}, which cannot be translated`);

/** A character that stands for itself, inside or outside of [...]. */
function literal(c, inside) {
  return (inside ? /[\\\]^[-]/ : /[$^\\.*+?()[\]{}|/]/).test(c) ? `\\${c}` : c;
}

/** The characters of an ASCII character in all its cases, for [...]. */
function cases(c) {
  if (c.codePointAt(0) > 127) throw refusal(`${c} where case does not count`);
  const [lower, upper] = [c.toLowerCase(), c.toUpperCase()];
  return lower === upper ? literal(c, true) : lower + upper + (OTHER_CASES[lower] ?? "");
}

/** Reads a pattern from left to right and gives each part as JavaScript writes it. */
class Translation {
  constructor(pattern) {
    this.signs = [...pattern];
    this.at = 0;
    this.atomics = 0;
    this.behind = 0; // how many lookbehinds we are in
    this.anyCase = this.take(/^\(\?i\)/) !== null;
  }

  /** What a regular expression finds here, which is then behind us; null if nothing. */
  take(expected) {
    const found = expected.exec(this.signs.slice(this.at, this.at + 20).join(""))?.[0] ?? null;
    if (found) this.at += [...found].length;
    return found;
  }

  /** Alternatives, to the end of the group or the pattern. */
  alternatives() {
    let out = "";
    while (this.at < this.signs.length && this.signs[this.at] !== ")") {
      out += this.take(/^\|/) ?? this.repeated();
    }
    return out;
  }

  /** One part, and how often it comes. */
  repeated() {
    const part = this.part();
    const times = this.take(/^(?:[*+?]|\{\d+(?:,\d*)?\}|\{,\d+\})/)?.replace("{,", "{0,") ?? "";
    if (!times) return part;
    const kind = this.take(/^[+?]/) ?? "";
    if (/[*+?{]/.test(this.signs[this.at] ?? "")) throw refusal("a repeat of a repeat");
    return kind === "+" ? this.atomic(part + times) : part + times + kind;
  }

  /**
   * What never gives back a sign that it took: x++ or (?>x). JavaScript has neither, but what a
   * lookahead has found it does not look for again.
   */
  atomic(source) {
    if (this.behind) throw refusal("an atomic group in a lookbehind");
    const name = `a${this.atomics++}`;
    return `(?:(?=(?<${name}>${source}))\\k<${name}>)`;
  }

  /** A group, a set, an escape or a character. */
  part() {
    const c = this.signs[this.at++];
    if (c === "(") return this.group();
    if (c === "[") return this.set();
    if (c === ".") return "[^\\n]";
    if (c === "^") return "^";
    if (c === "$") return "(?=\\n?$)"; // also before a line break that ends the text
    if ("*+?{".includes(c)) throw refusal(`${c} without a part before it`);
    const found = c === "\\" ? this.escape() : { character: c };
    if (found.not) return `[^${found.not}]`;
    if (found.set) return `[${found.set}]`;
    return this.anyCase ? `[${cases(found.character)}]` : literal(found.character, false);
  }

  group() {
    const kind = this.take(/^\?(?:i:|:|>|=|!|<=|<!)/);
    if (!kind) throw refusal(`(${this.signs.slice(this.at, this.at + 3).join("")}`);
    const [anyCase, behind] = [this.anyCase, Number(kind.startsWith("?<"))];
    this.anyCase ||= kind === "?i:";
    this.behind += behind;
    const inner = this.alternatives();
    this.behind -= behind;
    this.anyCase = anyCase;
    if (!this.take(/^\)/)) throw refusal("a group without an end");
    if (kind === "?>") return this.atomic(inner);
    return `(${kind === "?i:" ? "?:" : kind}${inner})`;
  }

  /** After [. */
  set() {
    let out = this.take(/^\^/) ?? "";
    for (let first = true; first || this.signs[this.at] !== "]"; first = false) {
      if (this.at >= this.signs.length) throw refusal("a [ without an end");
      if (this.take(/^\[:/)) throw refusal("[:");
      const from = this.item();
      if (from.set) {
        out += from.set;
      } else if (this.take(/^-(?!\])/)) {
        out += this.range(from.character, this.item().character);
      } else {
        out += this.anyCase ? cases(from.character) : literal(from.character, true);
      }
    }
    this.at += 1;
    return `[${out}]`;
  }

  range(from, to) {
    if (to === undefined) throw refusal("a range that ends with a class");
    if (!this.anyCase) return `${literal(from, true)}-${literal(to, true)}`;
    const [first, last] = [from.codePointAt(0), to.codePointAt(0)];
    if (last > 127) throw refusal(`${to} where case does not count`);
    const length = Math.max(0, last - first + 1);
    return Array.from({ length }, (_, n) => cases(String.fromCodePoint(first + n))).join("");
  }

  item() {
    const c = this.signs[this.at++];
    const found = c === "\\" ? this.escape() : { character: c };
    if (found.not) throw refusal("\\W in a set");
    return found;
  }

  /** After a backslash: a {character}, a {set}, or a set of what does {not} count. */
  escape() {
    const property = this.take(/^[pP]\{\w+(?:=\w+)?\}/);
    if (property && !this.anyCase) return { set: `\\${property}` };
    const code = this.take(/^(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8})/);
    if (code) return { character: String.fromCodePoint(parseInt(code.slice(1), 16)) };
    const c = this.signs[this.at++];
    if (c === "W") return { not: CLASSES.w };
    if (Object.hasOwn(CLASSES, c)) return { set: CLASSES[c] };
    if (Object.hasOwn(CONTROLS, c)) return { character: CONTROLS[c] };
    if (c === undefined || /[\p{L}\p{N}]/u.test(c)) throw refusal(`\\${c ?? ""}`);
    return { character: c };
  }
}

/**
 * A pattern of Python's `regex` as a JavaScript RegExp.
 * Throws an Error of one line for what cannot be translated.
 */
function translate(pattern) {
  const translation = new Translation(pattern);
  const source = translation.alternatives();
  if (translation.at < translation.signs.length) throw refusal("a ) too many");
  try {
    return new RegExp(source, "gu");
  } catch (error) {
    throw new Error(`the split pattern cannot be used here (${error.message.slice(0, 80)})`);
  }
}

/**
 * A function that cuts a text into words: text -> [word]. `pattern` is a name of PATTERNS or a
 * regular expression. What it does not match is a word, too, so nothing is lost.
 */
export function splitter(pattern) {
  const expression = translate(Object.hasOwn(PATTERNS, pattern) ? PATTERNS[pattern] : pattern);
  return (text) => {
    const words = [];
    let end = 0;
    for (const { 0: word, index } of text.matchAll(expression)) {
      words.push(text.slice(end, index), word);
      end = index + word.length;
    }
    return [...words, text.slice(end)].filter((word) => word);
  };
}
