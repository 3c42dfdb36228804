import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 8: training")


@app.cell(hide_code=True)
def _():
    import html
    import math
    from dataclasses import replace

    import marimo as mo
    import numpy as np
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import IGNORED, TrainConfig
    from nanogpt.learn.models import short_run, small_config, small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import cross_entropy
    from nanogpt.text.batches import padded_batch, sliding_windows
    from nanogpt.training.optim import SGD, AdamW, learning_rate
    from nanogpt.training.records import Step

    return (
        AdamW,
        GPT,
        IGNORED,
        SGD,
        Step,
        TrainConfig,
        cross_entropy,
        html,
        learning_rate,
        math,
        mo,
        np,
        padded_batch,
        plt,
        replace,
        short_run,
        sliding_windows,
        small_config,
        small_model,
        source,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 8. Training: from a text to a model that has read it

    After this lesson you can cut a text into batches and say what every row has to predict, know
    the loss of a model that knows nothing, explain each line of AdamW, say why the learning rate
    climbs before it falls, and read a loss curve.

    Training repeats four things: take a piece of text; let the model say, at every place, how
    likely it holds each token to come next; measure how surprised it was by what really came; and
    move every weight a little in the direction in which it would have been less surprised.
    """)
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    ids = tokenizer.encode("The king is dead, and all the court in tears; long live the king.")
    return ids, model, tokenizer


@app.cell(hide_code=True)
def _(mo):
    length = mo.ui.slider(4, 12, value=8, label="context length", show_value=True)
    stride = mo.ui.slider(1, 12, value=5, label="stride", show_value=True)
    mo.vstack([
        mo.md(
            """
            ## Windows

            A model reads only so many tokens at once, so a text is cut into windows. The target of
            each token is the next token: the same window, one token later. A window of T tokens is T
            exercises at once, because the mask lets each token see only itself and earlier ones.

            If windows overlap, some targets came before; they are set to -100, and the loss ignores
            them. (Training usually draws windows at random places; walking in order, as here, gives
            each target exactly once, and serves for measuring.)
            """
        ),
        mo.hstack([length, stride], justify="start"),
    ])  # fmt: skip
    return length, stride


@app.cell(hide_code=True)
def _(
    IGNORED,
    html,
    ids,
    length,
    mo,
    np,
    sliding_windows,
    stride,
    tokenizer,
    visible,
):
    step_size = min(stride.value, length.value)
    rows, seen = [], 0
    for x, y in sliding_windows(np.array(ids), length.value, step_size):
        cells = []
        for token, target in zip(x.tolist(), y.tolist(), strict=True):
            new = target != IGNORED
            seen += new
            below = visible(tokenizer.decode_bytes([target])) if new else "-100"
            cells.append(
                f'<td style="padding:2px 5px;background:{"#cfe3f5" if new else "#eeeeee"};color:#000">'
                f"{html.escape(visible(tokenizer.decode_bytes([token])))}<br>"
                f'<small style="color:#a04010">{html.escape(below)}</small></td>'
            )
        rows.append("<tr>" + "".join(cells) + "</tr>")
    mo.md(
        f"<table>{''.join(rows)}</table>\n\nAbove what is read, below what should be said. {len(ids)} "
        f"tokens became {len(rows)} windows with {seen} targets, each token but the first being one "
        "of them."
        + ("" if stride.value <= length.value else " (A stride beyond the window would skip targets.)")
    )
    return


@app.cell(hide_code=True)
def _(mo, sliding_windows, source):
    mo.md(source(sliding_windows))
    return


@app.cell(hide_code=True)
def _(mo, padded_batch, plt, tokenizer):
    poems = ["O King!", "Come, let us go to bed.", "Why?"]
    batch, wanted, documents = padded_batch([tokenizer.encode(p) for p in poems])
    arrays, panels = plt.subplots(1, 3, figsize=(10, 2.2), layout="constrained")
    tables = {"ids": batch, "targets: -100 is ignored": wanted, "documents: 0 is padding": documents}
    for panel, (name, table) in zip(panels, tables.items(), strict=True):
        panel.imshow(wanted != -100 if name.startswith("targets") else documents, cmap="Blues", vmax=1.6)
        panel.set_title(name, fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])
        for r, row in enumerate(table.tolist()):
            for c, value in enumerate(row):
                panel.text(c, r, str(value), ha="center", va="center", fontsize=7)
    mo.vstack([
        mo.md(
            """
            ## Texts of different length

            Shorter documents are padded to the length of the longest. **Padding** has the document
            number 0, so the attention mask hides it, and its targets are ignored. Without the mask,
            padding would change what a text means; with padding among the targets, the model would
            learn to predict padding.
            """
        ),
        arrays,
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    first_loss = mo.ui.number(value=None, step=0.01, label="your prediction:").form()
    probability = mo.ui.slider(
        steps=[0.001, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0], value=0.25,
        label="probability of what came", show_value=True,
    )  # fmt: skip
    mo.md(
        f"""
        ## Cross-entropy: how surprised?

        The loss of one prediction is minus the logarithm of the probability that the model gave to
        what really came. Probability 1 costs nothing; one half costs log 2, which is one bit. If the
        model gave the token probability 0, the loss is infinite, so a model learns not to.

        **Predict.** A fresh model knows nothing, and holds all 512 tokens about equally likely. What is
        its loss, in nats (the natural logarithm)?

        {first_loss}

        {probability}
        """
    )
    return first_loss, probability


@app.cell(hide_code=True)
def _(
    GPT,
    cross_entropy,
    first_loss,
    ids,
    math,
    mo,
    model,
    plt,
    probability,
    source,
    tokenizer,
    torch,
):
    p = probability.value
    surprise, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    ps = torch.linspace(0.001, 1, 400)
    axes.plot(ps, -ps.log(), color="#1f5a99")
    axes.plot([p], [-math.log(p)], "o", ms=9, color="#d1602b")
    axes.set(xlabel="probability of what came", ylabel="loss, nats", ylim=(-0.2, 7.2))
    axes.grid(alpha=0.25)

    text = torch.tensor([ids])
    torch.manual_seed(0)
    fresh = GPT(model.config).eval()
    with torch.no_grad():
        before = fresh.loss(fresh(text[:, :-1]), text[:, 1:]).item()
        after = model.loss(model(text[:, :-1]), text[:, 1:]).item()
    size = tokenizer.vocab_size
    if first_loss.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        word = "Yes" if abs(first_loss.value - math.log(512)) < 0.06 else "Not quite"
        reply = (
            f"{word}: log 512 = {math.log(512):.3f}. A fresh model of {size:,} tokens was just asked about "
            f"the sentence above: {before:.3f}, and log {size:,} is {math.log(size):.3f}. The trained "
            f"one: {after:.3f}. It is as unsure as if it had to choose among exp({after:.2f}) = "
            f"{math.exp(after):.0f} tokens each time; that number is called perplexity. A first loss far from the "
            "logarithm of the vocabulary is a sign that something is wrong before training begins."
        )
    mo.vstack([
        mo.md(f"A probability of {p} costs {abs(-math.log(p)):.2f} nats, {abs(-math.log2(p)):.2f} bits."),
        surprise,
        mo.md(reply),
        mo.md(source(cross_entropy)),
    ])
    return


@app.cell(hide_code=True)
def _(AdamW, mo, source):
    mo.vstack([
        mo.md(
            """
            ## AdamW: how far to move

            The gradient says in which direction a weight should move, and how much the loss would
            change; it does not say how far to go. Gradients of different weights differ by orders of
            magnitude, so one rate for all is too much for some and too little for others. **Adam**
            divides each gradient by its own typical size: every weight moves by about the learning
            rate, whatever the scale of its gradient. The **W** is for weight decay, which pulls the
            weights towards zero by itself instead of being mixed into those means.
            """
        ),
        mo.md(source(AdamW)),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    rate = mo.ui.slider(
        steps=[0.05, 0.06, 0.08, 0.1, 0.15], value=0.06, label="learning rate",
        show_value=True,
    )  # fmt: skip
    steep = mo.ui.slider(steps=[1, 5, 20, 50, 100], value=50, label="how narrow", show_value=True)
    mo.vstack([
        mo.md(
            "A narrow valley, steep across and flat along, with the lowest place in the middle. Forty "
            "steps of gradient descent with momentum, and of AdamW, at the same rate:"
        ),
        mo.hstack([rate, steep], justify="start"),
    ])  # fmt: skip
    return rate, steep


@app.cell(hide_code=True)
def _(AdamW, SGD, mo, plt, rate, steep, torch):
    def walk(kind, betas):
        place = torch.nn.Parameter(torch.tensor([-2.0, 0.8]))
        optimizer = kind([place], lr=rate.value, betas=betas, weight_decay=0.0)
        path = [place.tolist()]
        for _ in range(40):
            optimizer.zero_grad()
            (0.5 * (place[0] ** 2 + steep.value * place[1] ** 2)).backward()
            optimizer.step()
            path.append(place.tolist())
        return path

    valley, ground = plt.subplots(figsize=(9, 3.2), layout="constrained")
    east, north = torch.meshgrid(torch.linspace(-2.4, 2.4, 80), torch.linspace(-1.2, 1.2, 60), indexing="xy")
    ground.contour(east, north, 0.5 * (east**2 + steep.value * north**2), levels=15, colors="#dddddd")
    ends = {}
    for title, kind, color in (("SGD", SGD, "#1f5a99"), ("AdamW", AdamW, "#d1602b")):
        path = walk(kind, (0.9, 0.95))
        ends[title] = 0.5 * (path[-1][0] ** 2 + steep.value * path[-1][1] ** 2)
        ground.plot(*zip(*path, strict=True), "o-", ms=3, lw=1, color=color, label=title)
    ground.set(xlim=(-2.4, 2.4), ylim=(-1.2, 1.2))
    ground.legend(frameon=False)
    mo.vstack([
        valley,
        mo.md(
            "After forty steps SGD "
            + (f"is at a height of {ends['SGD']:.3g}" if ends["SGD"] < 100 else "has left the picture")
            + f", AdamW is at {ends['AdamW']:.3g}. "
            "Make the valley narrower: AdamW's path hardly changes, since it moves both coordinates by "
            "about the rate in each step. SGD is thrown from wall to wall, and out of the picture as soon "
            "as rate times steepness exceeds 3.8; so the steepest direction decides which rate all the "
            "others have to live with. A network has directions of every steepness."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    climb = mo.ui.slider(0, 100, step=10, value=20, label="warm-up steps", show_value=True)
    lowest = mo.ui.slider(
        steps=[0, 0.05, 0.1, 0.5], value=0.1, label="lowest rate, as a share", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## Warm-up and cosine

            In the first step Adam knows one gradient, and divides it by itself: every weight moves by
            the full rate, the right ones and those that saw noise. Only after some steps do its means
            say anything. So the rate **climbs** from near zero. At the end the model stands close to a
            good place and the steps of one batch disagree with those of the next; so the rate
            **falls**, and the noise averages out. Half a wave of the cosine is slow at both ends.
            """
        ),
        mo.hstack([climb, lowest], justify="start"),
    ])  # fmt: skip
    return climb, lowest


@app.cell(hide_code=True)
def _(TrainConfig, climb, learning_rate, lowest, mo, plt, replace, source):
    plan = TrainConfig(lr=1.0, min_lr=lowest.value, warmup_steps=climb.value, max_steps=300)
    rates, sky = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for schedule, tint in (("cosine", "#d1602b"), ("trapezoidal", "#9db8d2"), ("constant", "#cccccc")):
        settings = replace(plan, schedule=schedule)
        sky.plot([learning_rate(n, settings) for n in range(301)], color=tint, label=schedule)
    sky.set(xlabel="step", ylabel="share of the rate", ylim=(0, 1.05))
    sky.grid(alpha=0.25)
    sky.legend(frameon=False)
    mo.vstack([rates, mo.md(source(learning_rate))])
    return


@app.cell(hide_code=True)
def _(mo):
    lr = mo.ui.slider(
        steps=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1], value=3e-2, label="learning rate",
        show_value=True,
    )  # fmt: skip
    warm = mo.ui.switch(value=False, label="warm-up of 20 steps")
    mo.vstack([
        mo.md(
            """
            ## Reading a loss curve

            The small model, 60 steps at the rate that you choose, trained as soon as you let the
            slider go (some five seconds). In grey, rates that are too low and about right, both with a
            warm-up.
            """
        ),
        mo.hstack([lr, warm], justify="start"),
    ])  # fmt: skip
    return lr, warm


@app.cell(hide_code=True)
def _(Step, mo, short_run, small_config):
    known = {}

    def curve(rate_of_run, warmup):
        key = rate_of_run, warmup
        if key not in known:
            changed = {"lr": rate_of_run, "min_lr": rate_of_run / 10, "warmup_steps": warmup}
            records = short_run(60, train=changed)
            known[key] = [r for r in records if isinstance(r, Step)], records[-1].val_loss
        return known[key]

    with mo.status.spinner("two runs to compare with"):
        for usual in (1e-4, 3e-3):
            curve(usual, 20)
    batch_tokens = small_config(60).tokens_per_step
    return batch_tokens, curve


@app.cell(hide_code=True)
def _(batch_tokens, curve, lr, math, mo, plt, warm):
    with mo.status.spinner("training"):
        taken, end = curve(lr.value, 20 if warm.value else 0)
    reading, (losses, norms) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for other, shade in ((1e-4, "#dddddd"), (3e-3, "#aaaaaa")):
        losses.plot([r.loss for r in curve(other, 20)[0]], color=shade, label=f"rate {other:g}")
        norms.semilogy([r.grad_norm for r in curve(other, 20)[0]], color=shade)
    losses.plot([r.loss for r in taken], color="#d1602b", label=f"rate {lr.value:g}")
    norms.semilogy([r.grad_norm for r in taken], color="#d1602b")
    losses.axhline(math.log(512), color="#9db8d2", lw=1)
    losses.set(xlabel="step", ylabel="training loss", ylim=(4.5, 9))
    norms.set(xlabel="step", ylabel="length of the gradient")
    losses.legend(frameon=False)
    for each in (losses, norms):
        each.grid(alpha=0.25)
    worst = max(r.loss for r in taken)
    mo.vstack([
        reading,
        mo.md(
            f"{len(taken)} steps of {batch_tokens:,} tokens end at a validation loss of **{end:.2f}**; the "
            f"highest on the way was {worst:.2f}, and log 512 is {math.log(512):.2f}. "
            "A straight, slow fall: the rate is too low. A fall in one sweep that flattens out: about "
            "right. A fall that comes early, perhaps after a jump, and then lies flat above the others: "
            "too high; the model knows how frequent tokens are, and each step throws away the finer things "
            "that the last one found. And a training loss that goes on falling while the validation loss "
            "rises, in longer runs than these: it learns the text by heart."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check cross-entropy
    nanogpt exercise check adamw
    nanogpt exercise check schedule
    nanogpt exercise play               # the reward: a model that trains on your own functions
    ```

    And `nanogpt data show` draws the batches of your own text.

    **Papers.** Kingma & Ba 2015, "Adam". Loshchilov & Hutter 2019, "Decoupled Weight Decay
    Regularization", and 2017, "SGDR", where the cosine comes from. Vaswani et al. 2017, section
    5.3, with a warm-up. Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 4.1,
    on windows of one long text. McCandlish et
    al. 2018, "An Empirical Model of Large-Batch Training", on how noisy a batch is.
    """)
    return


if __name__ == "__main__":
    app.run()
