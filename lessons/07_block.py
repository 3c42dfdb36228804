import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 7: the block")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    import torch.nn.functional as F
    from matplotlib import pyplot as plt

    from nanogpt.config import ModelConfig
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.learn.plain import gpt
    from nanogpt.model.gpt import GPT, Block
    from nanogpt.model.layers import MLP, MLPS, gelu, layer_norm, rms_norm
    from nanogpt.model.trace import record
    from nanogpt.text.tokenfiles import read_token_file
    from nanogpt.training.records import Step

    return (
        Block,
        F,
        GPT,
        MLP,
        MLPS,
        ModelConfig,
        Step,
        gelu,
        gpt,
        judged,
        layer_norm,
        math,
        mo,
        package_code,
        plt,
        predict,
        read_token_file,
        record,
        reply,
        rms_norm,
        self_test,
        short_run,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 7. Residuals, norms, the feed-forward layer, and life without each

    After this lesson you can say what residual connections are for, compute a layer norm by hand,
    count the weights of a block, explain why the norm stands before a layer and not after it, say why
    some matrices start smaller than others, and write a block and the whole GPT.

    Attention fetches what other tokens know. A block needs three more things: a layer that works on
    what was fetched, a way past every layer, and a size that stays under control. You build them one
    by one. Then you take each away, train what is left, and see what it was for.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Add, do not replace

    A layer could replace its input x by its result f(x). A block does something else: it adds the
    result to the input, x + f(x). Take a token with four channels:

    | channel | 1 | 2 | 3 | 4 |
    |:--|--:|--:|--:|--:|
    | x, what is known so far | 0.9 | -1.2 | 0.3 | 2.0 |
    | f(x), what the layer found | 0.0 | 0.1 | -0.4 | 0.0 |
    | x + f(x) | 0.9 | -1.1 | -0.1 | 2.0 |

    The layer has only to say what should change. What it says nothing about stays. This sum is called
    a **residual connection**, and the vector that all layers add to is the residual stream of lesson 1.

    The second reason is the way back. The chain rule of lesson 2 multiplies the slopes of all steps.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    vanishing = predict(
        """
        Twelve layers stand in a row, each replaces its input, and each has the slope 0.5. The loss
        sends a gradient of 1 into the last one. What comes out before the first? (Four decimals.)
        """,
        step=0.0001,
    )
    vanishing
    return (vanishing,)


@app.cell(hide_code=True)
def _(reply, vanishing):
    reply(
        vanishing,
        round(0.5**12, 5),
        """
        Slopes are multiplied: 0.5 to the power of 12 is 1/4,096. The first layer learns almost nothing.
        With slopes of 2 the gradient would be 4,096 instead: it explodes.
        """,
        wrong={
            0.0417: "That divides 0.5 by 12. The chain rule multiplies; it does not share out.",
            0.5: "That is one layer. Each of the twelve halves what the one after it hands back.",
        },
        tolerance=0.0001,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    With a residual connection the slope of one step is 1 + f'(x): the 1 is the way past the layer. Here
    are twelve layers with random slopes f'(x), some positive, some negative. Change 0.2 and 12, and run
    the cell again.
    """)
    return


@app.cell
def _(mo, torch):
    draw_slopes = torch.Generator().manual_seed(0)
    slopes = 0.2 * torch.randn(12, generator=draw_slopes)

    mo.plain_text(
        f"replace, f(x):  {slopes.abs().prod():.1e}\nadd, x + f(x):  {(1 + slopes).abs().prod():.2f}"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Twelve small slopes multiplied are almost zero. Twelve numbers near 1 give a product that is
    neither tiny nor huge. Networks
    with more than a hundred layers became trainable with such sums (He et al. 2015, 2016).

    ## 2. One size for every vector: layer norm

    In this lesson the *size* of a vector is the standard deviation of its channels: roughly, how far a
    channel lies from their mean. Every layer adds to the stream, so the stream grows, and its size
    changes while the model learns. A layer learns best if its input always has about the same size.
    **Layer norm** gives it that. For each token it takes the vector of this one token and

    1. subtracts the mean of its channels,
    2. divides by their standard deviation. The mean squared distance from the mean is called the
       *variance*; its root is the standard deviation,
    3. multiplies each channel by a learned gain and adds a learned shift. They start at 1 and 0.

    A tiny number, `eps`, is added under the root. It keeps a vector of equal numbers from being divided by
    zero.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    normed = predict(
        """
        A token has the vector [2, 4, 6, 8]. The gain is 1, the shift 0. What is the first number after
        the layer norm, to two decimals? (Pen and paper: mean 5; the squared distances are 9, 1, 1, 9.)
        """,
        step=0.01,
    )
    normed
    return (normed,)


@app.cell(hide_code=True)
def _(layer_norm, normed, reply, torch):
    reply(
        normed,
        round(layer_norm(torch.tensor([2.0, 4.0, 6.0, 8.0]), torch.ones(4))[0].item(), 2),
        "2 - 5 = -3. The mean of the squared distances is 20 / 4 = 5. So it is -3 / sqrt(5).",
        wrong={
            -3: "That only subtracts the mean. The second step divides by the standard deviation.",
            -0.6: "That divides by the variance, 5. Divide by its root: only then is the result's "
            "standard deviation 1.",
            -1.16: "That divides the sum by 3, as one does for a sample. The four channels are all "
            "there is, so the sum is divided by 4.",
        },
        tolerance=0.015,
    )
    return


@app.cell
def _(layer_norm, mo, torch):
    gain, shift = torch.ones(4), torch.zeros(4)
    vectors = torch.tensor([[2.0, 4, 6, 8], [200, 400, 600, 800], [3, 5, 7, 9]])

    mo.plain_text(f"{layer_norm(vectors, gain, shift)}")
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The three vectors give the same result. The size of the vector and its mean are gone; what is left is the
    pattern of the channels. The mean is taken over the channels of one token, never over tokens. So no
    token learns anything about another one from a norm, and the result does not depend on what else is
    in the batch.

    The numbers that a network computes for one text are its **activations**. The weights are the same
    for every text, the activations are not. A layer norm acts on activations.

    ## 3. The feed-forward layer

    Attention mixes vectors of different tokens, with weights that sum to 1. The feed-forward layer works
    on each token by itself. A *linear map* is a product with a matrix. A first linear map widens the
    vector from C to 4C channels. An activation function acts on each of them. A second linear map brings
    the vector back to C. Each linear map also adds a learned number to each of its outputs, its **bias**.

    Without the function between them, the two maps would be one map in two steps. The third result has
    a function between the maps: max(x, 0), called *ReLU*. It sets negative numbers to 0.
    """)
    return


@app.cell
def _(mo, torch):
    draw_maps = torch.Generator().manual_seed(0)
    widen, narrow = torch.randn(3, 12, generator=draw_maps), torch.randn(12, 3, generator=draw_maps)
    token = torch.tensor([1.0, -2.0, 0.5])

    mo.plain_text(
        f"two maps:\n{token @ widen @ narrow}\n"
        f"one 3 x 3 matrix:\n{token @ (widen @ narrow)}\n"
        f"max(x, 0) between them:\n{torch.relu(token @ widen) @ narrow}"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    input_value = mo.ui.slider(-4, 4, step=0.1, value=-0.7, label="x", show_value=True)
    mo.vstack([
        mo.md(
            """
            GPT-2's activation function is **GELU**. It is x times the probability that a number from the
            standard normal distribution (the bell curve) lies below x. A large x passes unchanged, a very
            negative x becomes 0, and the way between is smooth. For x = 1 the probability is 0.84, so
            GELU(1) = 0.84. GPT-2 does not compute this probability exactly. It uses an approximation of the
            probability, and multiplies x by it:

            (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2

            Move x:
            """
        ),
        input_value,
    ])  # fmt: skip
    return (input_value,)


@app.cell(hide_code=True)
def _(gelu, input_value, mo, plt, torch):
    xs = torch.linspace(-4, 4, 200)
    functions, (curve, slope) = plt.subplots(1, 2, figsize=(5.6, 2.7), layout="constrained")
    shapes = {"max(x, 0), ReLU": torch.relu, "GELU": gelu}
    at = torch.tensor(float(input_value.value))
    found = {}
    for (kind, f), hue in zip(shapes.items(), ("#888888", "#d1602b"), strict=True):
        grid = xs.clone().requires_grad_()
        f(grid).sum().backward()
        point = at.clone().requires_grad_()
        f(point).backward()
        found[kind] = f(at).item(), point.grad.item()
        curve.plot(xs, f(xs), color=hue, label=kind, lw=2)
        curve.plot([at], [f(at)], "o", color=hue)
        slope.plot(xs, grid.grad, color=hue, lw=2)
        slope.plot([at], [point.grad], "o", color=hue)
    curve.set(title="value", ylim=(-0.5, 4), xlabel="x")
    slope.set(title="slope", ylim=(-0.3, 1.3), xlabel="x")
    for panel in (curve, slope):
        panel.axvline(input_value.value, color="#cccccc", lw=1)
        panel.grid(alpha=0.25)
    curve.legend(frameon=False)
    mo.vstack(
        [
            functions,
            mo.md(
                f"At x = {input_value.value:.1f}: GELU is {found['GELU'][0]:.2f} with slope {found['GELU'][1]:.2f}; ReLU "
                f"is {found['max(x, 0), ReLU'][0]:.2f} with slope {found['max(x, 0), ReLU'][1]:.0f}. A ReLU channel "
                "that is off for every text has slope 0, gets no gradient, and can never come back. GELU "
                "still has a slope there."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(predict):
    share = predict(
        """
        With C channels, attention has four matrices of C x C: for queries, keys, values, and the way
        back into the stream. The feed-forward layer has C x 4C and 4C x C. What percentage of a block's
        weights is in the feed-forward layer? (Leave out biases, gains and shifts.)
        """,
        step=1,
    )
    share
    return (share,)


@app.cell(hide_code=True)
def _(Block, ModelConfig, reply, share):
    gpt2_block = Block(ModelConfig(n_head=12, n_embd=768))
    parts = {
        name: sum(p.numel() for p in getattr(gpt2_block, name).parameters())
        for name in ("attn", "mlp")
    }
    percent = 100 * parts["mlp"] / sum(parts.values())
    reply(
        share,
        round(percent, 1),
        f"""
        8 C² of 12 C², two thirds. In a block of GPT-2 the feed-forward layer has {parts["mlp"]:,}
        weights and attention {parts["attn"]:,}, biases included. Geva et al. (2021) read the layer as a
        memory: each of the 4C inner channels looks for a pattern, and where it finds one, adds its own
        row to the stream.
        """,
        wrong={
            50: "Attention has four matrices of C x C, so 4 C². The feed-forward layer has only two, but "
            "each of them is four times as large: 8 C².",
            80: "Four times as wide does not mean four times the weights of attention: attention has "
            "four matrices, and the feed-forward layer two.",
            33: "That is the share of attention.",
        },
        tolerance=1,
    )
    return


@app.cell(hide_code=True)
def _(MLP, gelu, layer_norm, mo, package_code):
    mo.vstack([
        mo.md(
            """
            The package's code follows, folded. You will write `layer_norm`, `gelu`, the block and the GPT
            yourself at the end, so try before you look, here and below.
            """
        ),
        package_code(layer_norm, gelu, MLP),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. Where does the norm stand?

    A block has two layers, attention and the feed-forward layer. Each has a norm and a residual
    connection. There are two orders. The first Transformer (Vaswani et al. 2017) added first and
    normalized the sum. GPT-2 normalizes only what goes into the layer. This is called **pre-norm**.
    """)
    return


@app.cell(hide_code=True)
def _(plt):
    blocks_drawn, orders = plt.subplots(2, 1, figsize=(5.6, 4.2), layout="constrained")

    def box(axes, x, y, words, color, width=1.9):
        axes.text(
            x, y, words, ha="center", va="center", fontsize=10, color="white", zorder=4,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "none"},
        )  # fmt: skip

    def arrow(axes, start, end, color="#888888", lw=1.6):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": lw})

    def plus(axes, x):
        axes.text(x, 0, "+", ha="center", va="center", fontsize=13, zorder=5,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#1f5a99"})  # fmt: skip

    for axes, pre in zip(orders, (True, False), strict=True):
        arrow(axes, (0, 0), (12.6, 0), "#1f5a99", 4)
        for start, layer in ((0.7, "attention"), (6.7, "feed-forward")):
            if pre:
                arrow(axes, (start, 0), (start, 1.35))
                box(axes, start + 0.75, 1.35, "norm", "#d1602b")
                box(axes, start + 2.85, 1.35, layer, "#7a9a3a")
                arrow(axes, (start + 4.6, 1.35), (start + 4.6, 0.25))
                axes.plot([start, start + 4.6], [1.35, 1.35], color="#888888", lw=1.6, zorder=0)
                plus(axes, start + 4.6)
            else:
                arrow(axes, (start - 0.3, 0), (start - 0.3, 1.35))
                box(axes, start + 1.5, 1.35, layer, "#7a9a3a")
                axes.plot(
                    [start - 0.3, start + 3.2], [1.35, 1.35], color="#888888", lw=1.6, zorder=0
                )
                arrow(axes, (start + 3.2, 1.35), (start + 3.2, 0.25))
                plus(axes, start + 3.2)
                box(axes, start + 4.6, 0, "norm", "#d1602b")
        axes.set(xlim=(-0.3, 13), ylim=(-0.6, 2.0))
        axes.axis("off")
    orders[0].set_title(
        "pre-norm, GPT-2: nothing stands in the stream (blue)", loc="left", fontsize=11
    )
    orders[1].set_title("post-norm, 2017: every norm stands in the stream", loc="left", fontsize=11)
    blocks_drawn
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Follow the blue line from right to left, as the gradient does. Above, it passes plus signs only, and a
    sum hands the gradient on unchanged. Below, it passes through every norm.

    ## 5. Life without each

    Now take things away. Five models of six blocks, trained for 60 steps on the same batches at the same learning
    rate: the whole block, and four in which one thing is missing or in another place. A
    feed-forward layer without an activation function is not in the package; three lines add it.
    """)
    return


@app.cell
def _(MLP, MLPS):
    class LinearMLP(MLP):
        def activation(self, x):
            return x

    MLPS["linear"] = LinearMLP

    ablations = {
        "the whole block": {},
        "no residuals": {"block": "no-residual"},
        "no norms": {"norm": "none"},
        "norms in the stream": {"block": "post-norm"},
        "no activation function": {"mlp": "linear"},
    }
    return (ablations,)


@app.cell(hide_code=True)
def _(ablations, predict):
    harmless = predict(
        """
        Which of the four does least harm in these 60 steps?
        """,
        choices=[name for name in ablations if name != "the whole block"],
    )
    harmless
    return (harmless,)


@app.cell(hide_code=True)
def _(ablations, mo, record, short_run, torch):
    WATCHED = (0, 5, 10, 20, 30, 40, 50, 60)

    def gradient_by_block(network, ids):
        """The length of the gradient of each block's weights."""
        loss = network.loss(network(ids[:, :-1]), ids[:, 1:])
        weights = [list(block.parameters()) for block in network.h]
        gradients = iter(torch.autograd.grad(loss, [w for block in weights for w in block]))
        return [
            sum(next(gradients).square().sum().item() for _ in block) ** 0.5 for block in weights
        ]

    def sizes_before_norms(network, ids):
        """Post-norm only: the standard deviation of each sum that a norm is given."""
        with torch.no_grad(), record(network, "drop", "h.*") as seen:
            network(ids)
        stream, sizes = seen["drop"], []
        for n in range(len(network.h)):
            for layer, norm in (("attn", "ln_1"), ("mlp", "ln_2")):
                sizes.append((stream + seen[f"h.{n}.{layer}"]).std(-1).mean().item())
                stream = seen[f"h.{n}.{norm}"]
        return sizes

    draw_ids = torch.Generator().manual_seed(0)
    curves, by_block, sums = {}, {}, {}
    with mo.status.spinner("training five small models"):
        for _name, _change in ablations.items():
            by_block[_name] = {}

            def look(network, step, name=_name):
                if step in WATCHED:
                    ids = torch.randint(256, 500, (4, 33), generator=draw_ids.manual_seed(0))
                    by_block[name][step] = gradient_by_block(network, ids)
                    if name == "norms in the stream":
                        sums[step] = sizes_before_norms(network, ids[:, :-1])

            curves[_name] = short_run(
                60,
                watch=look,
                model={"n_layer": 6, "n_embd": 64, "context_length": 32, **_change},
                train={"warmup_steps": 20},
            )
    return WATCHED, by_block, curves, sums


@app.cell(hide_code=True)
def _(curves, harmless, read_token_file, reply, torch):
    val_losses = {name: records[-1].val_loss for name, records in curves.items()}
    others = {name: loss for name, loss in val_losses.items() if name != "the whole block"}
    least = min(others, key=others.get)
    _train, _val = (
        torch.tensor(read_token_file(f"runs/lesson/data/{part}.bin").ids[:].astype("int64"))
        for part in ("train", "val")
    )
    _shares = (torch.bincount(_train, minlength=512) + 1) / (len(_train) + 512)
    frequent = -_shares[_val].log().mean().item()
    _poor = [name for name, loss in others.items() if abs(loss - frequent) < 0.15]
    _said = (
        f" A model that knows only how frequent each token is would have {frequent:.2f}. "
        f"Hardly more than that is learned in 60 steps with {', '.join(_poor)}."
        if _poor
        else ""
    )
    reasons = {
        "no residuals": "Then information and gradient have to pass through every layer, twelve in a row.",
        "no norms": "Then the layers see the tiny numbers of the fresh embeddings, and their gradients "
        "are tiny as well.",
        "norms in the stream": "It looks like a detail of the order. You are about to see that it is not.",
        "no activation function": "Attention is not linear, and the norms are not, so the network still "
        "is more than one linear map.",
    }
    reply(
        harmless,
        least,
        "Validation losses after 60 steps: "
        + ", ".join(f"{name} {loss:.2f}" for name, loss in val_losses.items())
        + f".{_said} Softmax and norms are not linear either, so a network without activation functions "
        "is not one linear map. Do not conclude that it is useless: 60 steps do not show what a long "
        "training would. Lesson 14 is about such conclusions.",
        wrong={name: reason for name, reason in reasons.items() if name != least},
    )
    return


@app.cell(hide_code=True)
def _(predict, sums):
    _sizes = sums[60][2:]
    how_far = predict(
        f"""
        Take the model with the norms in the stream, after 60 steps. The sums in front of the norms of blocks
        2 to 6 have sizes from {min(_sizes):.1f} to {max(_sizes):.1f}. Each norm divides its sum by this
        size, and it divides the gradient by the same number. Two norms stand in each block. How does the
        gradient of the first block's weights compare with that of the last block's?
        """,
        choices=["about as large", "some ten times smaller", "more than a thousand times smaller"],
    )
    how_far
    return (how_far,)


@app.cell(hide_code=True)
def _(by_block, how_far, reply):
    _last = by_block["norms in the stream"][60]
    ratio = _last[-1] / max(_last[0], 1e-30)
    whole_ratio = by_block["the whole block"][60][-1] / by_block["the whole block"][60][0]
    sort = (
        "about as large" if ratio < 3
        else "more than a thousand times smaller" if ratio > 300
        else "some ten times smaller"
    )  # fmt: skip
    _reasons = {
        "about as large": "That is so for fresh weights. It changes as soon as the layers have learned "
        "to write large vectors.",
        "some ten times smaller": "About so much is lost from one block to the next. The blocks multiply.",
        "more than a thousand times smaller": "It would be so if the sums had grown more.",
    }
    reply(
        how_far,
        sort,
        f"Ten norms stand between the two blocks, and their divisions multiply. The last block's gradient is {ratio:,.0f} times as large as the first block's. In the whole "
        f"model it is {whole_ratio:.2g} times as large.",
        wrong={name: reason for name, reason in _reasons.items() if name != sort},
    )
    return


@app.cell(hide_code=True)
def _(WATCHED, mo):
    after = mo.ui.slider(
        steps=list(WATCHED), value=60, label="after this many steps", show_value=True
    )
    mo.vstack([
        mo.md("Above: the training loss. Below: the gradient of each block's weights. Move the slider back to 0, and watch how it came to this."),
        after,
    ])  # fmt: skip
    return (after,)


@app.cell(hide_code=True)
def _(Step, after, by_block, curves, math, plt):
    race, (track, depth) = plt.subplots(2, 1, figsize=(5.6, 6.0), layout="constrained")
    inks = dict(zip(curves, ("#1f5a99", "#888888", "#222222", "#d1602b", "#7a9a3a"), strict=True))
    styles = dict(zip(curves, ("-", "--", ":", "-", "-."), strict=True))
    for title, records in curves.items():
        taken = [r for r in records if isinstance(r, Step)]
        kind_of_line = {"color": inks[title], "ls": styles[title], "lw": 2, "label": title}
        track.plot([r.step for r in taken], [r.loss for r in taken], **kind_of_line)
        heights = [max(g, 1e-12) for g in by_block[title][after.value]]
        depth.semilogy(range(1, 7), heights, marker="o", ms=4, **kind_of_line)
    track.axvline(after.value, color="#cccccc", lw=1)
    track.axhline(math.log(512), color="#cccccc", lw=1)
    track.text(60, math.log(512) + 0.03, "knowing nothing", color="#888888", ha="right", fontsize=9)
    track.set(xlabel="step", ylabel="training loss, nats", ylim=(4.6, 6.6))
    depth.legend(frameon=False, fontsize=9, loc="lower right")
    depth.set(
        xlabel="block", ylabel="length of the gradient", ylim=(1e-12, 30),
        title=f"after {after.value} steps: how much gradient does each block get?",
    )  # fmt: skip
    for panel_ in (track, depth):
        panel_.grid(alpha=0.25)
    race
    return


@app.cell(hide_code=True)
def _(by_block, math, mo, sums):
    _gradients, _sizes = by_block["norms in the stream"][60], sums[60]
    per_block = math.prod(_sizes[2:]) ** (1 / 5)
    lost = (_gradients[-1] / max(_gradients[0], 1e-30)) ** (1 / 5)
    mo.md(
        f"""
        ## 6. Why pre-norm trains more easily

        At step 0 no gradient shrinks on its way to block 1, not even with the norms in the stream. The
        difference arises while the layers learn to write into the stream. Look at one norm in the
        stream. The layer has learned to add large vectors, so the sum in front of the norm is large.
        The norm brings it back to size 1: it divides by the size s of the sum. A map that divides by s
        has the slope 1/s, and the chain rule multiplies by the slope. So on the way back, the gradient
        is divided by s, too. Measured after 60 steps, the sums in front of the norms
        of blocks 2 to 6 have sizes from {min(_sizes[2:]):.1f} to {max(_sizes[2:]):.1f}. Two norms stand in
        each block, so a block divides by the product of two such numbers, **{per_block:.0f}** on average.
        The measured gradient falls by a factor of **{lost:.0f}** from block to block.

        With pre-norm nothing divides the stream. The stream may grow; only what goes into a layer is
        brought to size 1. The gradient at the end arrives at every block along the blue line, whole, and
        each layer's own contribution is added to it. This is why deep pre-norm models train at learning
        rates at which post-norm models stand still. Post-norm models can be trained, with much smaller
        steps at the beginning (Xiong et al. 2020).

        Two other curves tell the same story. Without residuals the gradient has no way past the
        layers. Without norms the gradients are even in all blocks but small from the first step,
        because the fresh embeddings are small numbers, and no norm makes them larger.
        """
    )
    return


@app.cell(hide_code=True)
def _(Block, mo, package_code):
    mo.vstack([
        mo.md(
            """
            In the package, the other two orders differ from the block in one line for each layer:

            ```
            post-norm:     x = norm(x + layer(x))
            no residuals:  x = layer(norm(x))
            ```
            """
        ),
        package_code(Block),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 7. The last matrix of each layer starts smaller

    Two matrices of each block write into the stream: the last one of attention, and the last one of the
    feed-forward layer. In the package both are called `c_proj`. With 12 blocks the stream ends as a sum
    of 24 such parts, and the embeddings.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    summed = predict(
        """
        24 layers each add independent random numbers with standard deviation 1. What is the standard
        deviation of the sum, to one decimal?
        """,
        step=0.1,
    )
    summed
    return (summed,)


@app.cell(hide_code=True)
def _(math, reply, summed):
    reply(
        summed,
        round(math.sqrt(24), 1),
        "Variances of independent numbers add up: 24 times 1. The standard deviation is the root of it.",
        wrong={
            24: "That would be so if all parts had the same sign. Random parts partly cancel.",
            1: "They do not cancel completely. Each part adds its variance.",
        },
        tolerance=0.1,
    )
    return


@app.cell
def _(mo, torch):
    draw_parts = torch.Generator().manual_seed(0)
    layers = 24
    added = torch.randn(layers, 10_000, generator=draw_parts)

    mo.plain_text(
        f"as they are:             {added.sum(0).std():.2f}\n"
        f"each divided by sqrt({layers}): {(added / layers**0.5).sum(0).std():.2f}"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    scaled = mo.ui.switch(value=True, label="c_proj divided by the root of 2 x blocks")
    mo.vstack([
        mo.md(
            """
            So GPT-2 draws all matrices with standard deviation 0.02, but divides that of `c_proj` by the
            root of twice the number of blocks (Radford et al. 2019, section 2.3). Then the stream starts at
            the same size however deep the network is, and no depth needs other settings than another.
            Here is the stream of fresh networks, on its way through them:
            """
        ),
        scaled,
    ])  # fmt: skip
    return (scaled,)


@app.cell(hide_code=True)
def _(GPT, ModelConfig, math, mo, plt, record, scaled, torch):
    some_ids = torch.randint(500, (2, 32), generator=torch.Generator().manual_seed(1))
    growth, plot = plt.subplots(figsize=(5.6, 2.9), layout="constrained")
    ends = {}
    for count, shade in ((6, "#888888"), (12, "#7a9a3a"), (24, "#1f5a99"), (48, "#d1602b")):
        torch.manual_seed(0)
        fresh = GPT(
            ModelConfig(
                vocab_size=500, context_length=32, n_layer=count, n_head=4, n_embd=64, init_std=0.1
            )
        )
        with torch.no_grad():
            for matrix_name, matrix in fresh.named_parameters():
                if matrix_name.endswith("c_proj.weight") and not scaled.value:
                    matrix.mul_(math.sqrt(2 * count))
            with record(fresh, *(f"h.{n}" for n in range(count))) as streams:
                fresh(some_ids)
        stream_sizes = [x.std().item() for x in streams.values()]
        ends[count] = stream_sizes[-1]
        plot.plot([n / count for n in range(1, count + 1)], stream_sizes, color=shade, lw=2, label=f"{count} blocks")
    plot.legend(frameon=False, fontsize=9)
    plot.set(xlabel="share of the blocks passed", ylabel="size of the stream",
             ylim=(0, None), xlim=(0, 1.08))  # fmt: skip
    plot.grid(alpha=0.25)
    mo.vstack(
        [
            growth,
            mo.md(
                "Size after the last block: "
                + ", ".join(f"{end:.2f} ({count_} blocks)" for count_, end in ends.items())
                + ". Turn the switch off, and the size depends on the depth."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(GPT, mo, package_code):
    mo.vstack([
        mo.md(
            """
            Section 6 said: "The stream may grow." And a norm stands in front of every layer. So why does
            the size at the start matter? Each layer *reads* the stream at size 1, but what it *writes* is
            added to the stream as it is. If the stream starts large and random, the token's own vector is
            lost in the noise. Each later layer then changes little, for its part is small beside
            what is there already. Growth that training brings about is harmless. Growth at random is
            not.
            """
        ),
        package_code(GPT.initialize),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 8. Dropout

    **Dropout** sets a random share p of the activations to zero in training, new ones in every step. The
    model cannot rely on any single number, so it learns by heart less easily (Srivastava et al. 2014). The
    numbers that stay are divided by 1 - p. So their mean stays the same, and in evaluation dropout
    simply does nothing.
    """)
    return


@app.cell
def _(F, mo, torch):
    torch.manual_seed(0)
    ones = torch.ones(10_000)

    in_training = F.dropout(ones, p=0.25, training=True)
    in_evaluation = F.dropout(ones, p=0.25, training=False)
    mo.plain_text(
        f"in training:\n{in_training[:4]}\n"
        f"their mean: {in_training.mean():.2f}\n"
        f"in evaluation:\n{in_evaluation[:4]}"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    A block has it at the end of attention and at the end of the feed-forward layer, just before the sum.
    GPT-2 also has it after the embeddings and on the attention weights. If you forget to turn it off for
    evaluation, the same text gets another loss each time. It helps where a small text is used many times.
    A model that sees each text once hardly needs it.

    ## 9. The whole GPT, and newer parts

    Now nothing is missing. Token and position embeddings are added. The blocks follow one another. A last
    norm brings the stream to one size, and the head compares each vector with the row of every token. The
    exercise `gpt` asks you for exactly that.

    Models since 2020 have changed parts of the block, and the package has them as settings. Three of
    them, so that you recognise the names:

    | part | what it does |
    |:--|:--|
    | **RMS norm** (`model.norm=rms`) | divides by the root of the mean square; no mean, no shift |
    | **SwiGLU** (`model.mlp=swiglu`) | two maps up instead of one; the first result passes a smooth function, then it is multiplied with the second |
    | **QK norm** (`model.qk_norm=true`) | an RMS norm on each query and key, so that scores cannot explode |
    """)
    return


@app.cell
def _(mo, rms_norm, torch):
    example = torch.tensor([3.0, 4.0])  # mean square (9 + 16) / 2 = 12.5, its root 3.54
    mo.plain_text(f"{rms_norm(example)}")
    return


@app.cell(hide_code=True)
def _(gpt, package_code):
    package_code(gpt)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    A residual connection adds a layer's result to its input. Information and gradient then have a way past
    every layer. Layer norm gives the vector of each token mean 0 and standard deviation 1 over its
    channels, then a learned gain and shift. With pre-norm it stands in front of a layer, and nothing
    divides the stream or its gradient. The feed-forward layer widens each token's vector fourfold, applies
    an activation function and narrows it again; it holds two thirds of a block's weights. Without the
    activation function its two maps would be one. The matrices that write into the stream start smaller,
    so the sum of all parts does not grow with the depth. Dropout zeroes activations at random, in training
    only.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(7)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(7, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check layer-norm
    nanogpt exercise check gelu
    nanogpt exercise check block
    nanogpt exercise check gpt
    ```

    Two experiments. Add `"tiny": {"norm": "rms", "mlp": "swiglu"}` to the `ablations` above, give it a
    color in the picture, and run the cells again. Or give the runs with norms in the stream a smaller
    learning rate: add `"lr": 5e-4, "min_lr": 5e-5` to `train`. Does the gradient still vanish?

    `nanogpt lab run residuals-norms` trains longer, with several seeds, and says which differences are
    more than luck.

    **Papers.** He et al. 2015, "Deep Residual Learning for Image Recognition", and 2016, "Identity
    Mappings in Deep Residual Networks". Ba, Kiros & Hinton 2016, "Layer Normalization". Hendrycks &
    Gimpel 2016, "Gaussian Error Linear Units". Vaswani et al. 2017, section 3.1, for post-norm. Radford
    et al. 2019, section 2.3, which moved the norms and scaled the residuals. Xiong et al. 2020, "On Layer
    Normalization in the Transformer Architecture". Geva et al. 2021, "Transformer Feed-Forward Layers Are
    Key-Value Memories". Srivastava et al. 2014, "Dropout". Zhang & Sennrich 2019 on RMS norm, Shazeer
    2020 on SwiGLU, Henry et al. 2020 on QK norm.
    """)
    return


if __name__ == "__main__":
    app.run()
