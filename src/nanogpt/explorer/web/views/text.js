import { chip, h, percent, softmax, top } from "../draw.js";

/** Text to next token: what the model makes of the text, part by part. */
export const view = {
  id: "text",
  title: "Text to next token",
  about: "The journey of one token through the parts of the network.",
  render(place, app) {
    return {
      update() {
        if (!app.result) return place.replaceChildren();
        const { logits } = app.result;
        const [, V] = logits.shape;
        const row = softmax(logits.data.subarray(app.token * V, (app.token + 1) * V));
        return place.replaceChildren(h("ol", { class: "panel" }, top(row, 10).map((id) =>
          h("li", {}, chip(app.engine.token(id)), " ", percent(row[id])))));
      },
    };
  },
};
