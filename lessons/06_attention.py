import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 5: attention")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.generation.stream import prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.attention import (
        CausalSelfAttention,
        attention,
        attention_mask,
        attention_weights,
    )
    from nanogpt.model.layers import softmax
    from nanogpt.model.trace import record

    return (
        CausalSelfAttention,
        attention,
        attention_mask,
        attention_weights,
        math,
        mo,
        plt,
        prompt_ids,
        record,
        small_model,
        softmax,
        source,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 5. Attention: one head by hand, then many

    After this lesson you can compute attention on paper, say why the scores are divided by a
    square root and why the mask is minus infinity, read an attention map, and write the
    function yourself.

    A token knows itself and nothing else. To know what it means here, it has to look at
    others: in *the old king sees a fool who sings* the last word belongs to the fool, not to
    the king. Attention is how a token looks. Every token asks a question, the **query**;
    every token offers a label, the **key**, and a content, the **value**. A query is compared
    with all keys; the better a key fits, the more of its value is taken.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## One head by hand

    Four tokens, heads of two numbers, so that everything fits on a page. The rows of Q, K and
    V belong to the tokens. (Here they are made up; in a model, three learned matrices make
    them of what each token knows.)
    """)
    return


@app.cell
def _(torch):
    words = ["the", "king", "sees", "him"]
    Q = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [3.0, 0.0]])
    K = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    V = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    return K, Q, V, words


@app.cell(hide_code=True)
def _(mo):
    guess = mo.ui.number(value=None, step=0.1, label="your prediction:").form()
    mo.md(
        f"""
        **Predict** before you read on: the score of the query of *him* for the key of *king* is
        the product of the two rows, 3 times 2 plus 0 times 0, divided by the root of their
        length, 2. What is it, to one decimal?

        {guess}
        """
    )
    return (guess,)


@app.cell(hide_code=True)
def _(K, Q, guess, math, mo):
    score = (Q[3] @ K[1]).item() / math.sqrt(Q.shape[1])
    if guess.value is None:
        answer = "Write a number first; there is nothing to lose."
    elif abs(guess.value - score) < 0.06:
        answer = f"Yes: 6 / sqrt(2) = {score:.3f}."
    else:
        answer = f"It is 6 / sqrt(2) = {score:.3f}: the product of the rows is 3 * 2 + 0 * 0 = 6."
    mo.md(answer)
    return


@app.cell(hide_code=True)
def _(
    K,
    Q,
    V,
    attention_mask,
    attention_weights,
    math,
    mo,
    plt,
    softmax,
    torch,
    words,
):
    scores = Q @ K.T / math.sqrt(Q.shape[1])
    mask = attention_mask(4, 4)  # True where a token may look
    by_hand = softmax(scores.masked_fill(~mask, -math.inf))
    mixed = by_hand @ V
    assert torch.allclose(by_hand, attention_weights(Q[None, None], K[None, None], mask)[0, 0])

    steps, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    tables = {"scores: Q K^T / sqrt(2)": scores, "weights: softmax": by_hand, "mixed: weights V": mixed}
    for panel, (title, table) in zip(panels, tables.items(), strict=True):
        panel.imshow(table, cmap="Blues", vmin=0, vmax=max(1.0, table.max().item()))
        for r, row in enumerate(table.tolist()):
            for c, value in enumerate(row):
                ink = "white" if value > 0.6 * max(1.0, table.max().item()) else "black"
                panel.text(c, r, f"{value:.2f}", ha="center", va="center", color=ink)
        panel.set_title(title, fontsize=10)
        panel.set_yticks(range(4), words)
        panel.set_xticks(range(table.shape[1]), words if table.shape[1] == 4 else ["", ""])
    mo.vstack([
        steps,
        mo.md(
            f"""
            Left: the score of each query for each key. Middle: the **attention weights**. Later
            tokens are hidden, and each row sums to 1. Right: what each token takes along. *him* has
            a weight of {by_hand[3, 1]:.2f} for *king*, so most of what it takes is the king's value.
            """
        ),
    ])  # fmt: skip
    return (mask,)


@app.cell(hide_code=True)
def _(attention, attention_weights, mo, source):
    mo.md("That is all. This is the package's own function, the one GPT-2 runs with "
          "`--model.kernels plain`:\n\n" + source(attention_weights, attention))
    return


@app.cell(hide_code=True)
def _(mo):
    size = mo.ui.slider(
        steps=[2, 4, 8, 16, 32, 64, 128, 256], value=64, label="head size", show_value=True
    )
    scaled = mo.ui.switch(value=False, label="divide by sqrt(head size)")
    mo.md(
        f"""
        ## Why divide by the root of the head size?

        Take random queries and keys whose numbers have the standard deviation 1. Their product is
        a sum of as many terms as the head is long, and the standard deviation of a sum of
        independent terms grows with the root of their number. Large scores make softmax choose one
        key and ignore the rest: its gradient vanishes, and the head can hardly learn to look
        elsewhere.

        {size} {scaled}
        """
    )
    return scaled, size


@app.cell(hide_code=True)
def _(math, mo, plt, scaled, size, softmax, torch):
    draw = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(400, size.value, generator=draw) for _ in range(2))
    products = queries @ keys.T / (math.sqrt(size.value) if scaled.value else 1)
    largest = softmax(products[:, :16]).amax(-1)

    spread, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    left.hist(products.flatten().tolist(), bins=60, color="#1f5a99")
    left.set_title(f"scores: standard deviation {products.std():.2f}", fontsize=10)
    left.set_xlim(-50, 50)
    right.hist(largest.tolist(), bins=30, range=(0, 1), color="#d1602b")
    right.set_title(f"largest of 16 weights: {largest.mean():.2f} on average", fontsize=10)
    mo.vstack([
        spread,
        mo.md(
            f"Head size {size.value}: the scores have a standard deviation of {products.std():.2f}"
            + (", whatever the size of the head." if scaled.value else
               f"; the root of {size.value} is {math.sqrt(size.value):.2f}. Turn the switch.")
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    hidden = mo.ui.slider(
        steps=[0, -1, -2, -4, -8, -16, -32], value=-4, label="added to hidden scores",
        show_value=True,
    )  # fmt: skip
    strength = mo.ui.slider(1, 60, value=1, label="how sharply the head looks", show_value=True)
    mo.md(
        f"""
        ## Why minus infinity?

        A token must not see the tokens after it, because it has to predict them. If their weights
        were set to zero after softmax, the rest would not sum to 1. So the scores are lowered before
        softmax. How negative does a hidden score have to be?

        {hidden} {strength}
        """
    )
    return hidden, strength


@app.cell(hide_code=True)
def _(K, Q, hidden, mask, mo, plt, softmax, strength, torch, words):
    pushed = torch.where(mask, 0.0, float(hidden.value))
    leaking = softmax(strength.value * (Q @ K.T) / 2**0.5 + pushed)
    future = leaking.masked_fill(mask, 0).sum(-1).max().item()

    leak, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axes.imshow(leaking, cmap="Blues", vmin=0, vmax=1)
    for i, row_of_one in enumerate(leaking.tolist()):
        for j, share in enumerate(row_of_one):
            ink_here = "white" if share > 0.6 else "black"
            axes.text(j, i, f"{share:.3f}", ha="center", va="center", fontsize=8, color=ink_here)
    axes.set_xticks(range(4), words)
    axes.set_yticks(range(4), words)
    mo.vstack([
        leak,
        mo.md(
            f"With {hidden.value}, up to **{future:.4%}** of a token's attention leaks into the "
            "future. A model can learn to look more sharply, and then it outweighs any number. The "
            "package uses `-inf`: exp of that is exactly 0, whatever the scores are."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(attention_mask, mo, source):
    mo.md("The package's mask: the future, a window, and other documents:\n\n" + source(attention_mask))
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    mo.md(
        f"""
        ## Many heads, in a trained model

        One head asks one question. GPT-2 asks twelve in every layer, each in its own channels, and
        puts the answers side by side. Here is a model with {model.config.n_layer} layers of
        {model.config.n_head} heads: your `runs/demo` if you have one, else a small one that was
        just trained. Write a text, and look at what its heads look at.
        """
    )
    return model, tokenizer


@app.cell(hide_code=True)
def _(mo, model):
    layer = mo.ui.slider(0, model.config.n_layer - 1, label="layer", show_value=True)
    head = mo.ui.slider(0, model.config.n_head - 1, label="head", show_value=True)
    sentence = mo.ui.text(
        value="To be, or not to be: that is the question.", label="text", full_width=True
    )
    mo.vstack([sentence, mo.hstack([layer, head], justify="start")])
    return head, layer, sentence


@app.cell(hide_code=True)
def _(
    head,
    layer,
    mo,
    model,
    plt,
    prompt_ids,
    record,
    sentence,
    tokenizer,
    torch,
):
    ids = prompt_ids(tokenizer, sentence.value)[: model.config.context_length]
    with torch.no_grad(), record(model, "h.*.attn.weights") as seen:
        model(torch.tensor([ids]))
    weights = seen[f"h.{layer.value}.attn.weights"][0, head.value]
    pieces = [tokenizer.decode([i]).replace("\n", "\\n").replace("$", "\\$") for i in ids]

    attention_map, canvas = plt.subplots(figsize=(7, 6), layout="constrained")
    canvas.imshow(weights.sqrt(), cmap="Blues", vmin=0, vmax=1)
    canvas.set_xticks(range(len(ids)), pieces, rotation=90, fontsize=8)
    canvas.set_yticks(range(len(ids)), pieces, fontsize=8)
    canvas.set_title(f"layer {layer.value}, head {head.value}: each row looks at the columns")
    before = weights.diagonal(-1).mean() if len(ids) > 1 else torch.tensor(0.0)
    mo.vstack([
        attention_map,
        mo.md(
            f"This head spends {weights.diagonal().mean():.0%} of its attention on the token "
            f"itself, {before:.0%} on the one before, and {weights[:, 0].mean():.0%} on the first. "
            "`nanogpt lab heads RUN` scores all heads of a model for such habits."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(CausalSelfAttention, mo, source):
    mo.accordion({
        "The whole layer: cut into heads, attend, join the heads": mo.md(source(CausalSelfAttention)),
    })  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check attention     # one head, or many at once: the axes take care of it
    nanogpt exercise check mask
    nanogpt exercise check heads
    nanogpt exercise check gpt           # the whole network, once you have the parts
    ```

    Each says what is wrong, and `nanogpt exercise hint attention` helps a little.

    **Papers.** Vaswani et al. 2017, "Attention Is All You Need", sections 3.2.1 and 3.2.2.
    Bahdanau et al. 2015, where attention began. Elhage et al. 2021, "A Mathematical Framework
    for Transformer Circuits", on what heads do.
    """)
    return


if __name__ == "__main__":
    app.run()
