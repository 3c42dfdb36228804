/**
 * What the views that ask "why" and "what if" share: elements, words for the parts of a model, and
 * the token that is looked at.
 */

/** The names of the parts in words, as the views show them. */
export function partName({ kind, layer, head }) {
  const words = {
    token: "token embedding",
    position: "position embedding",
    head: `head ${layer}.${head}`,
    attention: `attention ${layer}`,
    mlp: `MLP ${layer}`,
    bias: `attention bias ${layer}`,
    edit: `your edit, block ${layer}`,
    norm: "shift of the final norm",
  };
  return words[kind];
}

/**
 * One HTML or SVG element: h("p", {class: "note", onclick: f}, "text", child, null, [more]).
 * Attributes that are null or false are left out; texts are always texts, never markup.
 */
export function h(tag, attributes = {}, ...children) {
  const svg = /^(svg|g|rect|line|path|text|title|tspan|circle)$/.test(tag);
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A number for people: as many digits as say something, with a real minus sign. */
export function number(value, digits = 2) {
  return value.toFixed(digits).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");
}

/** A signed number. */
export const signed = (value, digits = 2) => (value > 0 ? "+" : "") + number(value, digits);

/** A probability in percent. */
export function percent(p) {
  if (p > 0.9995) return p === 1 ? "100 %" : "> 99.9 %";
  if (p < 0.0005) return "< 0.1 %";
  return `${number(100 * p, p < 0.0995 ? 1 : 0)} %`;
}
