/**
 * How text is cut into words before byte-pair encoding: the patterns of text/splitter.py.
 *
 * They are from OpenAI's releases of GPT-2 and of tiktoken; the names are those of tokenizer.json.
 * JavaScript has no x++, which never gives back what it took, and needs none here: what follows
 * such a part never fits the characters that it took.
 */

// 's, 't and so on in any case. U+017F, the long s, is a case of s outside of ASCII.
const SUFFIX = String.raw`(?:[sSſtTmMdD]|[lL][lL]|[vV][eE]|[rR][eE])`;

const PATTERNS = {
  gpt2: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  cl100k:
    String.raw`'${SUFFIX}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*` +
    String.raw`|\s+(?=\n?$)|\s*[\r\n]|\s+(?!\S)|\s`,
  o200k:
    String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
    String.raw`(?:'${SUFFIX})?` +
    String.raw`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*` +
    String.raw`(?:'${SUFFIX})?` +
    String.raw`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
};

/**
 * A function that cuts a text into words: text -> [word]. What the pattern does not match is a
 * word, too, so nothing is lost. Throws an Error for a name that is unknown here.
 */
export function splitter(name) {
  if (!Object.hasOwn(PATTERNS, name)) {
    throw new Error(`the split pattern '${name}' is unknown here: only Python can use it`);
  }
  // JavaScript's own \s has U+FEFF and lacks U+0085.
  const expression = new RegExp(PATTERNS[name].replaceAll("\\s", "\\p{White_Space}")
    .replaceAll("\\S", "\\P{White_Space}"), "gu");
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
