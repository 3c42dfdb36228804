import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 4: embeddings")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import ModelConfig
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT
    from nanogpt.model.position import Learned, RoPE, Sinusoidal
    from nanogpt.model.trace import record

    return (
        GPT,
        Learned,
        ModelConfig,
        RoPE,
        Sinusoidal,
        math,
        mo,
        plt,
        record,
        small_model,
        source,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 4. Embeddings: what a token is, and where it stands

    After this lesson you can say what an embedding is and why it is not a number, measure how
    similar two tokens are to a model, show that attention alone is blind to order, and compare
    three ways of telling it.

    A tokenizer gives ids, and ids are names: token 300 is not larger than token 200, nor closer
    to 301 than to 7. A network, though, computes with sizes and distances. So every id is
    exchanged for a **vector**, a row of a table that is learned with everything else. What is
    alike for the purpose of guessing the next token can then lie close together.
    """)
    return


@app.cell(hide_code=True)
def _(mo, small_model, torch):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    table = model.wte.weight.detach()
    merged = table[257:]
    with torch.no_grad():
        one_hot = torch.nn.functional.one_hot(torch.tensor(300), len(table)).float()
        same = torch.equal(one_hot @ table, model.wte(torch.tensor(300)))
    assert same
    mo.md(
        f"""
        ## A table

        Here is the one of a trained model, `wte`: {table.shape[0]:,} tokens by {table.shape[1]}
        channels, {table.numel():,} numbers of the {model.num_parameters():,} that the model has.
        Looking up row 300 is the same as multiplying the table by a vector that is 1 at place 300
        and 0 elsewhere (computed just now: {same}); so gradients flow into it as into any other matrix,
        and the look-up sends them into the rows that were read. The same table serves as the head
        (lesson 7), which at every step pushes all tokens that did not come away from what was read; so
        those that never occur, most single bytes among them, end up all in one direction. Below we
        look at the tokens that were made by merging, since those do occur.
        """
    )
    return merged, model, table, tokenizer


@app.cell(hide_code=True)
def _(mo, table):
    spread_guess = mo.ui.number(value=None, step=0.01, label="your prediction:").form()
    mo.md(
        f"""
        ## How alike are two tokens?

        The **cosine** of two vectors is their product after both have been brought to length 1: 1 if
        they point the same way, 0 if they have nothing in common, -1 if they are opposites.

        **Predict.** Two vectors of {table.shape[1]} random numbers have a cosine near 0, but not
        quite. What is its standard deviation, to two decimals? (A product of {table.shape[1]} terms
        that are each about 1 / {table.shape[1]} in size, with random signs.)

        {spread_guess}
        """
    )
    return (spread_guess,)


@app.cell(hide_code=True)
def _(math, merged, mo, plt, spread_guess, table, torch):
    def directions(vectors):
        return vectors / vectors.norm(dim=-1, keepdim=True)

    draw = torch.Generator().manual_seed(0)
    random_table = torch.randn(merged.shape, generator=draw)
    upper = torch.triu_indices(len(merged), len(merged), offset=1)
    between = {
        "random": (directions(random_table) @ directions(random_table).T)[upper[0], upper[1]],
        "learned": (directions(merged) @ directions(merged).T)[upper[0], upper[1]],
    }
    spread = between["random"].std().item()
    if spread_guess.value is None:
        shown = mo.md("Write a number first; there is nothing to lose.")
    else:
        histogram, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
        for name, paint in (("random", "#c9d9ea"), ("learned", "#d1602b")):
            axes.hist(
                between[name].tolist(), bins=100, range=(-0.6, 1), color=paint, alpha=0.7,
                label=f"{name} vectors", density=True,
            )
        axes.set_xlabel("cosine of two tokens")
        axes.set_yticks([])
        axes.legend(frameon=False)
        word = "Yes" if abs(spread_guess.value - spread) < 0.015 else "Not quite"
        shown = mo.vstack([
            mo.md(
                f"{word}: {spread:.3f}, and 1 / sqrt({table.shape[1]}) is "
                f"{1 / math.sqrt(table.shape[1]):.3f}. In many dimensions nearly everything is at "
                "right angles to everything else. Learning makes some tokens alike and some opposed: the "
                f"model's cosines have a standard deviation of {between['learned'].std():.3f}, and "
                f"the most alike pair has {between['learned'].max():.2f}."
            ),
            histogram,
        ])  # fmt: skip
    shown
    return (directions,)


@app.cell(hide_code=True)
def _(mo):
    word_wanted = mo.ui.text(value=" king", label="a token (a space in front belongs to it)")
    mo.vstack([
        mo.md(
            """
            ## Neighbours

            The model was never told what a word is. It saw what comes next, and tokens that are
            followed by alike things were pushed to alike places. With seconds of training that is
            grammar more than meaning; train longer, and look again.
            """
        ),
        word_wanted,
    ])  # fmt: skip
    return (word_wanted,)


@app.cell(hide_code=True)
def _(directions, merged, mo, table, tokenizer, visible, word_wanted):
    asked = tokenizer.encode(word_wanted.value or " ")[0]
    nearest = (directions(merged) @ directions(table)[asked]).topk(9)
    mo.md(
        f"Nearest to `{visible(tokenizer.decode_bytes([asked]))}` (token {asked}): "
        + ", ".join(
            f"`{visible(tokenizer.decode_bytes([i]))}` {value:.2f}"
            for i, value in zip((nearest.indices + 257).tolist(), nearest.values.tolist(), strict=True)
            if i != asked
        )
    )
    return


@app.cell(hide_code=True)
def _(mo, table):
    shown_tokens = mo.ui.slider(
        40, min(300, len(table) - 257), step=20, value=120, label="tokens", show_value=True
    )
    mo.vstack([
        mo.md(
            "All of them at once, seen from the two directions in which they differ most (principal "
            "components). Tokens that are letters of a word and tokens that begin one fall apart by "
            "themselves. The earliest merges come first; move the slider for rarer ones."
        ),
        shown_tokens,
    ])  # fmt: skip
    return (shown_tokens,)


@app.cell(hide_code=True)
def _(plt, shown_tokens, table, tokenizer, torch, visible):
    some = range(257, 257 + shown_tokens.value)
    centred = table[list(some)] - table[list(some)].mean(dim=0)
    flat = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T).tolist()
    sky, heaven = plt.subplots(figsize=(9, 6), layout="constrained")
    for number, (right, up) in zip(some, flat, strict=True):
        spelled = visible(tokenizer.decode_bytes([number])).replace("$", "\\$")
        begins = tokenizer.decode_bytes([number]).startswith(b" ")
        heaven.text(right, up, spelled, fontsize=8, color="#1f5a99" if begins else "#d1602b")
    heaven.set_xlim(min(x for x, _ in flat) * 1.1, max(x for x, _ in flat) * 1.1)
    heaven.set_ylim(min(y for _, y in flat) * 1.1, max(y for _, y in flat) * 1.1)
    heaven.set_title("blue: tokens that begin with a space; orange: all others", fontsize=10)
    heaven.set_xticks([])
    heaven.set_yticks([])
    sky
    return


@app.cell(hide_code=True)
def _(GPT, ModelConfig, mo, torch):
    def shuffling_matters(position):
        torch.manual_seed(0)
        fresh = GPT(ModelConfig(
            vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=32, position=position,
            init_std=0.2,
        )).eval()
        with torch.no_grad():
            one = fresh(torch.tensor([[11, 22, 33, 44, 5]]))[0, -1]
            other = fresh(torch.tensor([[44, 22, 11, 33, 5]]))[0, -1]
        return (one - other).abs().max().item()

    blind, ordered = shuffling_matters("none"), shuffling_matters("learned")
    mo.md(
        f"""
        ## Where a token stands

        Attention sums over what it looks at, and a sum does not know the order of its terms. Take a
        fresh network of one layer and shuffle what stands before the last token: without positions
        its logits move by **{blind:.0e}**, that is, not at all; with learned positions by
        **{ordered:.2f}**. *Dog bites man* and *man bites dog* would be the same to it. (With several
        layers the mask alone gives some sense of order, since the second token can see less than the
        third: Haviv et al. 2022.)

        So order has to be put in. GPT-2 **adds** to each token a second vector, one for each place,
        and learns those, too.
        """
    )
    return


@app.cell(hide_code=True)
def _(Learned, Sinusoidal, mo, source):
    mo.md(source(Learned) + "\n\nThe first Transformer did not learn them; it took waves of many "
          "lengths, a clock with many hands:\n\n" + source(Sinusoidal))
    return


@app.cell(hide_code=True)
def _(mo):
    where = mo.ui.slider(0, 63, value=20, label="position", show_value=True)
    mo.vstack([
        mo.md(
            """
            How alike is one position to all others? For the learned vectors that is their cosine, and
            so for the waves. RoPE adds nothing to the vectors: it rotates queries and keys, so the
            question is how a score falls when the key moves away. Move the slider, and see which of
            the three look the same from everywhere.
            """
        ),
        where,
    ])  # fmt: skip
    return (where,)


@app.cell(hide_code=True)
def _(ModelConfig, RoPE, Sinusoidal, directions, mo, model, plt, torch, where):
    pos = torch.arange(64)[None]
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=64, context_length=64)
    waves = Sinusoidal(shape).embed(torch.zeros(1, 64, 64), pos)[0]
    ones = torch.ones(1, 1, 64, 64)
    rotated, _ = RoPE(shape).rotate(ones, ones, pos)
    curves = {"waves": directions(waves), "RoPE: score of equal vectors": directions(rotated[0, 0])}
    if hasattr(model.wpe, "weight"):
        curves = {"learned by this model": directions(model.wpe.weight.detach()[:64])} | curves
    lines, panel = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for (title, vectors), color in zip(
        curves.items(), ("#d1602b", "#1f5a99", "#7a9a3a")[-len(curves):], strict=True
    ):
        similar = (vectors @ vectors[min(where.value, len(vectors) - 1)]).tolist()
        panel.plot(similar, "--" if "RoPE" in title else "-", lw=2, color=color, label=title)
    panel.axvline(where.value, color="#cccccc", lw=1)
    panel.set(xlabel="the other position", ylabel="cosine", ylim=(-1.05, 1.05))
    panel.grid(alpha=0.25)
    panel.legend(frameon=False, fontsize=8)
    mo.vstack([
        lines,
        mo.md(
            "The waves and RoPE depend on the distance alone: the curve moves and keeps its shape. It is "
            "even the same curve, since both rotate pairs of channels at the same speeds; but RoPE does it "
            "where the comparison is made, and leaves what a token is untouched. The learned vectors start as noise and take what form they need, place by place, and there "
            "are none beyond the context the model was trained with."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(RoPE, mo, source):
    mo.accordion({"RoPE, which you will write in lesson 10": mo.md(source(RoPE))})
    return


@app.cell(hide_code=True)
def _(mo):
    attempt = mo.ui.code_editor(
        value="def embed(ids, wte, wpe):\n"
        '    """ids (T,), wte (V, C), wpe (context, C) -> the start of the stream, (T, C)."""\n'
        "    return ...\n",
        language="python",
        label="change it, then submit",
    ).form()
    mo.vstack([
        mo.md(
            """
            ## Your turn

            Where GPT-2's stream begins, as a function. It is compared with what really went through
            the model:
            """
        ),
        attempt,
    ])  # fmt: skip
    return (attempt,)


@app.cell(hide_code=True)
def _(attempt, mo, model, record, torch):
    ids = torch.tensor([5, 300, 42, 300])
    with torch.no_grad(), record(model, "drop") as seen:
        model(ids[None])
    expected = seen["drop"][0]

    def opinion(code):
        tables = model.wte.weight.detach(), getattr(model.wpe, "weight", torch.zeros(64, 1)).detach()
        space = {"torch": torch}
        try:
            exec(code, space)
            if not callable(space.get("embed")):
                return "There is no function `embed` any more; keep its name."
            got = space["embed"](ids, *tables)
        except (Exception, SystemExit) as error:
            return f"It ends with {type(error).__name__}: {error}"
        if not isinstance(got, torch.Tensor):
            return f"It returns {got!r}; a tensor of shape (4, {expected.shape[1]}) is wanted."
        if got.shape != expected.shape:
            return f"The shape is {tuple(got.shape)}; wanted is {tuple(expected.shape)}."
        got = got.to(expected.dtype)
        if torch.allclose(got, expected, atol=1e-6):
            return "**Right**: this is what the first block reads."
        if torch.allclose(got, tables[0][ids], atol=1e-6):
            return "The tokens are there; their places are missing. Tokens 1 and 3 are alike now."
        if torch.allclose(got, tables[0][ids] + tables[1][ids], atol=1e-6):
            return "The second table is asked by id; it wants to be asked by place: 0, 1, 2, 3."
        return "The shape is right, the numbers are not: add a row of each table."

    mo.md(
        "Nothing was submitted yet." if attempt.value is None else opinion(attempt.value)
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The judge of the exercises answers in the same way; the whole forward pass, which begins with
    your line, is one of them:

    ```sh
    nanogpt exercise hint gpt
    nanogpt exercise check gpt     # after lesson 6, when you have the parts
    ```

    **Papers.** Bengio et al. 2003, "A Neural Probabilistic Language Model", where words became
    vectors that are learned. Mikolov et al. 2013, "Efficient Estimation of Word Representations in
    Vector Space". Vaswani et al. 2017, section 3.5, on the waves. Press & Wolf 2017, "Using the
    Output Embedding to Improve Language Models", on using the table twice. Su et al. 2021,
    "RoFormer", on rotation.
    """)
    return


if __name__ == "__main__":
    app.run()
