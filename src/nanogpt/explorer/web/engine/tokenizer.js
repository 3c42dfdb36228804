/**
 * From text to ids and back: byte-pair encoding (Sennrich et al. 2016; byte-level as in GPT-2),
 * and characters. Both are read from the package's tokenizer.json.
 */

import { splitter } from "./splitter.js";

/**
 * The UTF-8 bytes of a text, written by hand: the browser's TextEncoder would lose half a
 * character (a lone surrogate), which Python keeps. A code point of up to 7, 11, 16 or 21 bits
 * takes 1 to 4 bytes; each but the first holds six bits.
 * @returns {number[]}
 */
function toBytes(text) {
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    const more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    const first = more && (0xff00 >> (more + 1)) & 0xff; // 110xxxxx, 1110xxxx or 11110xxx
    bytes.push(first | (code >> (6 * more)));
    for (let n = more - 1; n >= 0; n--) bytes.push(0x80 | ((code >> (6 * n)) & 0x3f));
  }
  return bytes;
}

/** The text that bytes stand for; what is not UTF-8 becomes U+FFFD. */
export function toText(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

/** Two ids as one number, for a Map; ids are below 2 ** 24. */
const pairKey = (a, b) => a * 2 ** 24 + b;

/** What both kinds can do. Each brings `encode`, and `vocabulary`: id -> bytes. */
class BaseTokenizer {
  /** A token by its id: {id, text, bytes, special}. An id of no token has no bytes. */
  token(id) {
    const bytes = this.vocabulary.get(id) ?? [];
    return { id, text: toText(bytes), bytes, special: this.specialIds.has(id) };
  }

  /** The tokens of a text: {id, text, bytes, special, merges}, see `merges`. */
  tokenize(text) {
    return this.encode(text).map((id) => ({ ...this.token(id), merges: this.merges(id) }));
  }

  /** The merges that make a token, the oldest first: ids [left, right, made]. */
  merges() {
    return [];
  }
}

/** Byte-level byte-pair encoding. */
class Tokenizer extends BaseTokenizer {
  /**
   * @param {{pattern: string, special_tokens: Object<string, number>, byte_order: number[],
   *   merges: number[][]}} values as tokenizer.json holds them
   * Ids count up from 0, the bytes first and then one for each merge, and skip those of the
   * special tokens. Throws an Error for a pattern that splitter.js does not know.
   */
  constructor({ pattern, special_tokens, byte_order, merges }) {
    super();
    this.special = new Map(Object.entries(special_tokens));
    this.specialIds = new Set(this.special.values());
    this.vocabulary = new Map([...this.special].map(([text, id]) => [id, toBytes(text)]));
    let next = 0;
    const freeId = () => {
      while (this.specialIds.has(next)) next += 1;
      return next++;
    };
    this.byteIds = [];
    for (const byte of byte_order) {
      this.byteIds[byte] = freeId();
      this.vocabulary.set(this.byteIds[byte], [byte]);
    }
    this.ranks = new Map(); // a pair -> the id that it merges into
    this.pairs = new Map(); // and back
    for (const [a, b] of merges) {
      const id = freeId();
      this.ranks.set(pairKey(a, b), id);
      this.pairs.set(id, [a, b]);
      this.vocabulary.set(id, [...this.vocabulary.get(a), ...this.vocabulary.get(b)]);
    }
    this.split = splitter(pattern);
    this.words = new Map(); // the words that were encoded before
  }

  /** The ids of a text. The text of a special token is text: nobody can forge an end of text. */
  encode(text) {
    const ids = [];
    for (const word of this.split(text)) {
      if (!this.words.has(word)) {
        if (this.words.size > 50_000) this.words.clear();
        this.words.set(word, this.encodeWord(word));
      }
      for (const id of this.words.get(word)) ids.push(id);
    }
    return ids;
  }

  /** The definition of BPE: merge the oldest pair of neighbours, as long as there is one. */
  encodeWord(word) {
    let ids = toBytes(word).map((byte) => this.byteIds[byte]);
    for (;;) {
      let oldest = Infinity;
      for (let i = 0; i + 1 < ids.length; i++) {
        oldest = Math.min(oldest, this.ranks.get(pairKey(ids[i], ids[i + 1])) ?? Infinity);
      }
      if (oldest === Infinity) return ids;
      const [a, b] = this.pairs.get(oldest);
      const merged = [];
      for (let i = 0; i < ids.length; i++) {
        const found = ids[i] === a && ids[i + 1] === b;
        merged.push(found ? oldest : ids[i]);
        if (found) i += 1;
      }
      ids = merged;
    }
  }

  /** The pairs of texts that were merged to make a token, the oldest first. */
  merges(id) {
    const made = new Set();
    const visit = (i) => {
      if (!this.pairs.has(i) || made.has(i)) return;
      made.add(i);
      this.pairs.get(i).forEach(visit);
    };
    visit(id);
    return [...made].sort((a, b) => a - b).map((i) => [...this.pairs.get(i), i]);
  }
}

/** One id for each character. */
class CharTokenizer extends BaseTokenizer {
  /** @param {{characters: string[], special_tokens: string[]}} values as in tokenizer.json */
  constructor({ characters, special_tokens }) {
    super();
    this.ids = new Map(characters.map((character, id) => [character, id]));
    this.special = new Map(special_tokens.map((text, n) => [text, characters.length + n]));
    this.specialIds = new Set(this.special.values());
    const texts = [...characters, ...special_tokens];
    this.vocabulary = new Map(texts.map((text, id) => [id, toBytes(text)]));
  }

  /** Turn text into ids. Throws an Error for a character that training did not see. */
  encode(text) {
    return [...text].map((character) => {
      if (!this.ids.has(character)) {
        throw new Error(`the character '${character}' is not in this vocabulary`);
      }
      return this.ids.get(character);
    });
  }
}

/** The tokenizer of a tokenizer.json. Throws an Error for a kind that is unknown. */
export function tokenizerFrom(values) {
  if (values.type === "bpe") return new Tokenizer(values);
  if (values.type === "char") return new CharTokenizer(values);
  throw new Error(`a tokenizer of type '${values.type}' is unknown: use bpe or char`);
}
