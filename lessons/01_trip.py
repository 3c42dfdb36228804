import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 1: the whole trip")


@app.cell(hide_code=True)
def _():
    import html

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.generation.stream import prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT, Block
    from nanogpt.model.layers import softmax
    from nanogpt.model.trace import record

    return (
        Block,
        GPT,
        html,
        mo,
        plt,
        prompt_ids,
        record,
        small_model,
        softmax,
        source,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 1. The whole trip: from a text to its next token

    After this lesson you can name every station between a text and the token that a GPT says
    next, with the shape of the data at each, and say what each station is for. The other
    lessons take the stations one by one.

    A language model does one thing: it reads a text and gives every token that it knows a
    probability of coming next. Draw one, append it, and do it again; that is all there is to
    generating text. So the whole trip is

        text ─► tokens ─► ids ─► vectors ─► blocks ─► logits ─► probabilities ─► the next token
    """)
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    config = model.config
    text = mo.ui.text(value="My lord, the king is", label="text", full_width=True)
    mo.vstack([
        mo.md(
            f"Here is a small GPT: {model.num_parameters():,} weights, a vocabulary of "
            f"{config.vocab_size:,} tokens, {config.n_layer} blocks, {config.n_embd} channels. GPT-2 "
            "is the same with 124 million. Write what it should read:"
        ),
        text,
    ])  # fmt: skip
    return config, model, text, tokenizer


@app.cell(hide_code=True)
def _(config, html, mo, prompt_ids, text, tokenizer, visible):
    ids = prompt_ids(tokenizer, text.value)[-config.context_length :]
    pieces = [visible(tokenizer.decode_bytes([i])) for i in ids]
    boxes = "".join(
        f'<span style="display:inline-block;margin:2px;padding:2px 6px;background:#cfe3f5;color:#000">'
        f"{html.escape(piece)}<br><small>{i}</small></span>"
        for piece, i in zip(pieces, ids, strict=True)
    )
    mo.vstack([
        mo.md(
            f"""
            ## Text to ids

            The tokenizer cuts the text into pieces of its vocabulary; a dot is a space. Each has a
            number, its id: {len(ids)} of them here. From now on there is no text, only numbers.
            """
        ),
        mo.Html(f"<div>{boxes}</div>"),
    ])  # fmt: skip
    return (ids,)


@app.cell(hide_code=True)
def _(config, ids, mo):
    how_many = mo.ui.number(value=None, label="your prediction:").form()
    mo.md(
        f"""
        ## Ids to vectors

        Every id picks a row of a table, the embedding: {config.n_embd} numbers that say what the
        token is. Others are added that say where it stands. These numbers, one row a token, are the
        **residual stream**; every block reads from it and adds to it, and its shape never changes.

        **Predict.** How many numbers are in the stream for these {len(ids)} tokens?

        {how_many}
        """
    )
    return (how_many,)


@app.cell(hide_code=True)
def _(config, how_many, ids, mo):
    total = len(ids) * config.n_embd
    if how_many.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        start = "Yes" if how_many.value == total else "Not quite"
        reply = f"{start}: {len(ids)} tokens of {config.n_embd} numbers are {total:,}."
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(config, ids, mo, model, record, torch):
    with torch.no_grad(), record(model) as seen:
        logits = model(torch.tensor([ids]))

    def shape(name):
        return " x ".join(map(str, seen[name].shape[1:]))

    stations = [("ids", str(len(ids)), "numbers of tokens"),
                ("wte", shape("wte"), "what each token is"),
                ("drop", shape("drop"), "and where it stands: the stream begins")]
    for n in range(config.n_layer):
        stations += [
            (f"h.{n}.ln_1", shape(f"h.{n}.ln_1"), "the stream, brought to one size"),
            (f"h.{n}.attn.weights", shape(f"h.{n}.attn.weights"),
             "attention weights (heads, tokens, tokens): who looks at whom"),
            (f"h.{n}.attn", shape(f"h.{n}.attn"), "what was found there, added to the stream"),
            (f"h.{n}.mlp.c_fc", shape(f"h.{n}.mlp.c_fc"), "four times as wide, for the activation function"),
            (f"h.{n}.mlp", shape(f"h.{n}.mlp"), "what the feed-forward layer computed, added to the stream"),
        ]
    stations += [("ln_f", shape("ln_f"), "brought to one size, for the last time"),
                 ("logits", " x ".join(map(str, logits.shape[1:])),
                  "a score for every token of the vocabulary, at every place")]
    mo.md(
        "## Every station\n\nThis is what really went through the model just now. The names are those "
        "of the code; those of weights are OpenAI's own.\n\n| station | shape | what it is |\n|---|---|---|\n"
        + "\n".join(f"| `{name}` | {size} | {what} |" for name, size, what in stations)
    )
    return (seen,)


@app.cell(hide_code=True)
def _(Block, mo, source):
    mo.md("A block is two lines. First each token looks at those before it, then it thinks about "
          "what it found; both **add** to the stream:\n\n" + source(Block))
    return


@app.cell(hide_code=True)
def _(config, mo):
    depth = mo.ui.slider(
        0, config.n_layer, value=config.n_layer, label="blocks", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## What if it stopped early?

            The stream has the same shape everywhere, so the head can read it at any station. After
            no block at all the model knows the last token and its place, and nothing else; with each block it
            knows more. Move the slider (nostalgebraist 2020 called this the logit lens).
            """
        ),
        depth,
    ])  # fmt: skip
    return (depth,)


@app.cell(hide_code=True)
def _(depth, mo, model, plt, seen, softmax, tokenizer, torch, visible):
    station = "drop" if depth.value == 0 else f"h.{depth.value - 1}"
    with torch.no_grad():
        chances = softmax(model.head(model.ln_f(seen[station][:, -1])))[0]
    best = chances.topk(12)
    names = [visible(tokenizer.decode_bytes([i])).replace("$", "\\$") for i in best.indices.tolist()]
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.bar(range(12), best.values.tolist(), color="#1f5a99")
    axes.set_xticks(range(12), names)
    axes.set_ylabel("probability of coming next")
    axes.set_ylim(0, 1.05 * max(0.2, best.values[0].item()))
    mo.vstack([
        figure,
        mo.md(f"After {depth.value} blocks the likeliest next token is `{names[0]}`, with "
              f"{best.values[0]:.0%}. (If `{names[0]}` is drawn, it is appended, and the trip starts again.)"),
    ])
    return


@app.cell(hide_code=True)
def _(GPT, mo, source):
    mo.accordion({"The whole network, as the package has it": mo.md(source(GPT))})
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    You will write these stations yourself, in the order in which they are needed:

    ```sh
    nanogpt exercise start          # eighteen files to fill in, in my_gpt/
    nanogpt exercise check merge    # the first: what a tokenizer does, again and again
    ```

    **Papers.** Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", is
    GPT-2. Vaswani et al. 2017, "Attention Is All You Need", is the Transformer it is made of.
    """)
    return


if __name__ == "__main__":
    app.run()
