/** What a server tells piece by piece: one JSON value a line. */

/**
 * The values of an answer as they come. Throws an Error with the server's line if one says so.
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} [signal] ends the request
 */
export async function* lines(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST", signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error ?? `${path}: ${answer.status}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let open = "";
  for (;;) {
    const { value = "", done } = await reader.read();
    const whole = (open + value).split("\n");
    open = whole.pop();
    for (const line of whole) {
      const said = JSON.parse(line);
      if (said.error) throw new Error(said.error);
      yield said;
    }
    if (done) return;
  }
}
