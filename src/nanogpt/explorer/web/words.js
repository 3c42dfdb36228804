/** Words of the field that the page uses, each with its meaning where it stands. */

import { h } from "./draw.js";

/** What each word means, in a line. */
const MEANINGS = {
  logit: "The model's score for a token, before softmax makes it a probability",
  nat: "The unit of a loss with the natural logarithm: 1 nat is 1.44 bits",
  "residual stream": "The numbers that run through all blocks; each part adds to them",
  "log-probability": "The logarithm of a probability: 0 is certain, −∞ is impossible",
  "kl divergence": "How far one list of probabilities is from another; 0 if they are equal",
  surprisal: "How much a token surprised the model: minus the logarithm of its probability",
};
const WORDS = /\b(residual stream|log-probability|KL divergence|surprisal|logits?|nats?)\b/i;
const LEFT_ALONE = "abbr, button, select, svg, pre, code, .mono, .chip, blockquote, .sample";

/** Underline the first use of each word in each section inside an element. */
function explain(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) if (WORDS.test(walker.currentNode.data)) found.push(walker.currentNode);
  for (const node of found) {
    const parent = node.parentElement;
    if (!parent || parent.closest(LEFT_ALONE)) continue;
    const known = new Set([...(parent.closest("section, .panel, .head") ?? parent)
      .querySelectorAll("abbr")].map((abbr) => abbr.title));
    const parts = node.data.split(WORDS).map((text) => {
      const title = MEANINGS[text.toLowerCase()] ?? MEANINGS[text.toLowerCase().replace(/s$/, "")];
      if (!title || known.has(title)) return text;
      known.add(title);
      return h("abbr", { title }, text);
    });
    // Each replacement is a change that is looked at again: where nothing is new, it must end.
    if (parts.some((part) => part instanceof Element)) node.replaceWith(...parts);
  }
}

/** Explain the words that appear inside an element from now on. */
export function explainWords(element) {
  const added = (records) => records.flatMap((record) => [...record.addedNodes]);
  new MutationObserver((records) => {
    for (const node of new Set(added(records).map((each) => each.parentElement))) {
      if (node && element.contains(node)) explain(node);
    }
  }).observe(element, { childList: true, subtree: true });
}
