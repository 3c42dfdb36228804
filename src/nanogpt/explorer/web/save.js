/**
 * Any view as a picture. The browser draws a copy of its elements inside an SVG (foreignObject),
 * with the page's style sheet beside them, and what canvases show as images.
 */

/** The style rules of the page, as text. */
function styles() {
  return [...document.styleSheets]
    .flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText)).join("\n");
}

/** An element with everything in it as one SVG document. */
export function toSvg(element) {
  const { width, height } = element.getBoundingClientRect();
  const copy = element.cloneNode(true);
  const canvases = [...element.querySelectorAll("canvas")];
  [...copy.querySelectorAll("canvas")].forEach((canvas, n) => {
    const image = document.createElement("img");
    image.src = canvases[n].toDataURL();
    image.className = canvas.className;
    image.setAttribute("style", canvas.getAttribute("style") ?? "");
    const box = canvases[n].getBoundingClientRect();
    image.style.width = `${box.width}px`;
    image.style.height = `${box.height}px`;
    canvas.replaceWith(image);
  });
  const fields = [...element.querySelectorAll("input, select, textarea")];
  [...copy.querySelectorAll("input, select, textarea")].forEach((field, n) => {
    if (field.tagName === "INPUT") field.setAttribute("value", fields[n].value);
    if (field.tagName === "TEXTAREA") field.textContent = fields[n].value;
    if (field.tagName !== "SELECT") return;
    field.options[fields[n].selectedIndex]?.setAttribute("selected", "");
  });
  const root = document.createElement("div");
  root.className = "picture";
  root.dataset.theme = document.documentElement.dataset.theme;
  const style = document.createElement("style");
  style.textContent = styles();
  root.append(style, copy);
  const inside = new XMLSerializer().serializeToString(root);
  const [w, h] = [Math.ceil(width) + 32, Math.ceil(height) + 32];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}">` +
    `<foreignObject width="${w}" height="${h}">${inside}</foreignObject></svg>`;
}

/** An SVG document as a PNG of twice its size, for screens with fine pixels. */
export async function toPng(svg) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * image.width;
  canvas.height = 2 * image.height;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Offer a file for download. */
export function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
