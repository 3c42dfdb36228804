/**
 * A page that is one file. What Python would answer lies inside of it, and nothing is fetched.
 *
 * The answers stand in the element "published", by the addresses that the page asks: JSON, or the
 * bytes of a file as base64. Here `fetch` looks there, and so no view has to know where it is.
 */

const published = JSON.parse(document.getElementById("published").textContent);

const MISSING = "this page is one file and has no Python to ask: run `nanogpt explore` for this";

/** The bytes that a text of base64 stands for. */
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** What lies at an address of the page; an error of one line where nothing does. */
globalThis.fetch = async (path, { body } = {}) => {
  if (body !== undefined || !Object.hasOwn(published.answers, path)) {
    return new Response(JSON.stringify({ error: MISSING }), { status: 404 });
  }
  const answer = published.answers[path];
  return new Response(answer.base64 ? fromBase64(answer.base64) : JSON.stringify(answer.json));
};

/** A thread, whose script lies in the page, too. */
globalThis.Worker = class extends Worker {
  constructor(path) {
    const script = new Blob([published.threads[path]], { type: "text/javascript" });
    super(URL.createObjectURL(script));
  }
};

// The text of the replay is the one to begin with.
if (!location.hash) {
  history.replaceState(null, "", "#" + new URLSearchParams({ text: published.text }));
}
