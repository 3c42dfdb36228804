import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 6: the block")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import ModelConfig
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT, BareBlock, Block, PostNormBlock
    from nanogpt.model.layers import MLP, SquaredReLU, gelu, layer_norm
    from nanogpt.model.trace import record
    from nanogpt.training.records import Step

    return (
        BareBlock,
        Block,
        GPT,
        MLP,
        ModelConfig,
        PostNormBlock,
        SquaredReLU,
        Step,
        gelu,
        layer_norm,
        math,
        mo,
        plt,
        record,
        short_run,
        source,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 6. The block: the feed-forward layer, norms, and the residual stream

    After this lesson you can say what the feed-forward layer adds to attention, what a layer norm
    does and why it stands before the layers, why sums run through the whole network, why their
    parts are scaled down at the start, and what happens without each.

    Attention brings to every token what others know. It mixes; it hardly computes. The other half of
    a block works on what was brought together: a **feed-forward layer**, two linear maps with an
    **activation function** (also: nonlinearity) between them, applied to every token by itself.
    """)
    return


@app.cell(hide_code=True)
def _(MLP, mo, source):
    mo.md(source(MLP))
    return


@app.cell(hide_code=True)
def _(mo):
    share = mo.ui.number(value=None, step=1, label="your prediction, in percent:").form()
    mo.md(
        f"""
        **Predict.** With C channels, attention has four matrices of C x C: for queries, keys, values,
        and the way back. The feed-forward layer is four times as wide inside: C x 4C, and 4C x C.
        What percentage of a block's weights is in the feed-forward layer? (Leave out the few biases
        and gains.)

        {share}
        """
    )
    return (share,)


@app.cell(hide_code=True)
def _(Block, ModelConfig, mo, share):
    gpt2_block = Block(ModelConfig(n_head=12, n_embd=768))
    parts = {
        name: sum(p.numel() for p in getattr(gpt2_block, name).parameters())
        for name in ("ln_1", "attn", "ln_2", "mlp")
    }
    percent = 100 * parts["mlp"] / sum(parts.values())
    if share.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        word = "Yes" if abs(share.value - percent) < 2 else "Not quite"
        reply = (
            f"{word}: 8 of 12, {percent:.1f} % with everything counted. In a block of GPT-2 attention "
            f"has {parts['attn']:,} weights, the feed-forward layer {parts['mlp']:,}, and the two norms "
            f"{parts['ln_1'] + parts['ln_2']:,}. Much of what a model knows seems to be kept there (Geva et al. "
            "2021 read it as a memory: each of the 4C inner channels looks for a pattern and, where it "
            "finds one, adds its own row to the stream)."
        )
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(mo):
    input_value = mo.ui.slider(-4, 4, step=0.1, value=-0.7, label="x", show_value=True)
    mo.vstack([
        mo.md(
            """
            ## Why an activation function?

            Two linear maps in a row are one linear map: without a nonlinear function between them the
            second would be wasted. GPT-2 uses **GELU**: x times the share of a normal distribution
            below x. Large x pass unchanged, very negative x become 0, and between them GELU is smooth:
            a channel that is off still has a gradient that can switch it on.
            The newer squared ReLU is cheaper, and exactly off on the left.
            """
        ),
        input_value,
    ])  # fmt: skip
    return (input_value,)


@app.cell(hide_code=True)
def _(gelu, input_value, mo, plt, torch):
    xs = torch.linspace(-4, 4, 200)
    functions, (curve, slope) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    shapes = {"GELU": gelu, "ReLU": torch.relu, "squared ReLU": lambda x: torch.relu(x).square()}
    at = torch.tensor(float(input_value.value))
    slopes = {}
    for (kind, f), hue in zip(shapes.items(), ("#d1602b", "#9db8d2", "#7a9a3a"), strict=True):
        grid = xs.clone().requires_grad_()
        f(grid).sum().backward()
        point = at.clone().requires_grad_()
        f(point).backward()
        slopes[kind] = point.grad.item()
        curve.plot(xs, f(xs), color=hue, label=kind)
        slope.plot(xs, grid.grad, color=hue)
        slope.plot([at], [point.grad], "o", color=hue)
    curve.set(title="value", ylim=(-0.5, 4))
    slope.set(title="slope: what the gradient is multiplied by", ylim=(-0.3, 2))
    for panel in (curve, slope):
        panel.axvline(input_value.value, color="#cccccc", lw=1)
        panel.grid(alpha=0.25)
    curve.legend(frameon=False)
    mo.vstack([
        functions,
        mo.md(
            f"At {input_value.value} GELU's slope is {slopes['GELU']:.2f}, ReLU's {slopes['ReLU']:.0f}. GELU is "
            "lowest near -0.75; to the left of that its slope is negative, to the right positive."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(gelu, mo, source):
    mo.md(source(gelu))
    return


@app.cell(hide_code=True)
def _(mo):
    stretch = mo.ui.slider(
        steps=[0.01, 0.1, 0.5, 1, 2, 10, 100], value=2, label="size of the input", show_value=True
    )
    shift = mo.ui.slider(-10, 10, step=1, value=3, label="shift", show_value=True)
    mo.vstack([
        mo.md(
            """
            ## Layer norm: one size for all

            A layer learns best if its input has always about the same size. But the stream grows from
            block to block, and its size changes as the model learns. **Layer norm** brings every
            token's vector to mean 0 and variance 1, and then lets the model choose a gain and a shift
            for each channel. Nothing is mixed between tokens. The small `eps` under the root keeps a
            vector of equal numbers from being divided by zero; only very small inputs notice it.
            """
        ),
        mo.hstack([stretch, shift], justify="start"),
    ])  # fmt: skip
    return shift, stretch


@app.cell(hide_code=True)
def _(layer_norm, mo, plt, shift, source, stretch, torch):
    draw = torch.Generator().manual_seed(0)
    vector = stretch.value * torch.randn(768, generator=draw) + shift.value
    normed = layer_norm(vector, torch.ones(768), torch.zeros(768))
    norms, (before, after) = plt.subplots(1, 2, figsize=(10, 2.6), layout="constrained")
    before.hist(vector.tolist(), bins=40, color="#9db8d2")
    before.set_title(f"before: mean {vector.mean():.2f}, standard deviation {vector.std():.2f}", fontsize=10)
    before.set_xlim(-30, 30)
    after.hist(normed.tolist(), bins=40, color="#d1602b")
    after.set_title(f"after: mean {abs(normed.mean()):.2f}, standard deviation {normed.std():.2f}", fontsize=10)
    after.set_xlim(-4, 4)
    mo.vstack([norms, mo.md(source(layer_norm))])
    return


@app.cell(hide_code=True)
def _(Block, mo, source):
    mo.vstack([
        mo.md(
            """
            ## The residual stream

            A block does not replace what it is given, it **adds** to it. So there is a straight way
            from the embeddings to the head, past every layer, and on the way back the gradient has it
            as well: the derivative of x + f(x) is 1 plus something, and a product of such factors
            hardly vanishes (He et al. 2016). Such sums are what made very deep networks trainable
            (He et al. 2015).
            """
        ),
        mo.md(source(Block)),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    blocks = mo.ui.slider(2, 24, step=2, value=12, label="blocks", show_value=True)
    weight_size = mo.ui.slider(
        steps=[0.02, 0.05, 0.1, 0.2], value=0.02, label="size of fresh weights", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            Fresh networks of four kinds, with as many blocks as you choose. Left: the size of the
            gradient after each block. Right: how alike the vectors of different tokens are there. At 1
            they are all the same, and no later block can tell the tokens apart.
            """
        ),
        mo.hstack([blocks, weight_size], justify="start"),
    ])  # fmt: skip
    return blocks, weight_size


@app.cell(hide_code=True)
def _(GPT, ModelConfig, blocks, mo, plt, record, torch, weight_size):
    kinds = {
        "as it is": {},
        "no residuals": {"block": "no-residual"},
        "no norms": {"norm": "none"},
        "neither": {"block": "no-residual", "norm": "none"},
    }
    ids = torch.randint(500, (2, 32), generator=torch.Generator().manual_seed(1))

    def alike(stream):
        vectors = stream[0].double()
        lengths = vectors.norm(dim=-1, keepdim=True)
        cosines = (vectors / lengths) @ (vectors / lengths).T
        return ((cosines.sum() - len(cosines)) / (len(cosines) * (len(cosines) - 1))).item()

    def measured(settings, depth, std):
        torch.manual_seed(0)
        network = GPT(ModelConfig(
            vocab_size=500, context_length=32, n_layer=depth, n_head=4, n_embd=64, init_std=std,
            **settings,
        ))
        with record(network, "drop", *(f"h.{n}" for n in range(depth))) as seen:
            logits = network(ids[:, :-1])
        stations = [seen["drop"], *(seen[f"h.{n}"] for n in range(depth))]
        for station in stations:
            station.retain_grad()
        network.loss(logits, ids[:, 1:]).backward()
        gradients = [x.grad.norm().item() for x in stations]
        return [max(g, 1e-30) for g in gradients], [
            alike(x.detach()) if x.norm() > 1e-15 else float("nan") for x in stations
        ]

    depths, (backward, likeness) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    arriving, same = {}, {}
    for (label, change), tint in zip(
        kinds.items(), ("#d1602b", "#7a9a3a", "#888888", "#1f5a99"), strict=True
    ):
        gradient_sizes, cosines_of_tokens = measured(change, blocks.value, weight_size.value)
        arriving[label], same[label] = gradient_sizes[0] / gradient_sizes[-1], cosines_of_tokens[-1]
        backward.semilogy(gradient_sizes, color=tint, label=label)
        likeness.plot(cosines_of_tokens, color=tint)
    backward.set(title="size of the gradient", xlabel="after this many blocks")
    likeness.set(title="how alike the tokens are", xlabel="after this many blocks", ylim=(-0.05, 1.05))
    backward.legend(frameon=False, fontsize=8)
    for axes in (backward, likeness):
        axes.grid(alpha=0.25)
    mo.vstack([
        depths,
        mo.md(
            ("Without both, hardly anything of the gradient after the last block reaches the "
             "embeddings: " if arriving["neither"] < 0.1 else
             "With so few blocks even a network without both hands its gradient on: ")
            + (f"{arriving['neither']:.0e} times as much. " if arriving["neither"] > 1e-25
               else "too little for float32 to hold. ")
            + "The norms alone keep it alive, but without residuals every block hands on a mixture of "
            f"mixtures, and after the last one the tokens have a cosine of {same['no residuals']:.2f} "
            "(Dong et al. 2021: attention alone forgets who is who). Without norms the embeddings receive "
            f"{arriving['no norms']:.3g} times the gradient of the end, with them {arriving['as it is']:.3g} "
            "times. For small weights both are near 1; compare them for large weights and many blocks, where "
            "no single rate would fit a network without norms."
        ),
    ])
    return (ids,)


@app.cell(hide_code=True)
def _(mo):
    scaled = mo.ui.switch(value=True, label="divide by the root of the number of additions")
    mo.vstack([
        mo.md(
            """
            ## Why are residuals scaled at initialisation?

            Each block adds twice, so the stream after L blocks is a sum of 2L parts. The variances of
            independent parts add up: the sum's size grows with the root of 2L. GPT-2 therefore starts
            the 2L matrices that write into the stream smaller, by just that root; then the whole sum
            starts about as large as one part would be, however deep the network is.
            """
        ),
        scaled,
    ])  # fmt: skip
    return (scaled,)


@app.cell(hide_code=True)
def _(GPT, ModelConfig, ids, math, mo, plt, record, scaled, torch):
    growth, plot = plt.subplots(figsize=(7, 2.8), layout="constrained")
    ends = {}
    for layers, shade in ((6, "#c9d9ea"), (12, "#6f9bc6"), (24, "#1f5a99"), (48, "#d1602b")):
        torch.manual_seed(0)
        deep = GPT(ModelConfig(vocab_size=500, context_length=32, n_layer=layers, n_head=4, n_embd=64,
                                init_std=0.1))
        with torch.no_grad():
            for matrix_name, matrix in deep.named_parameters():
                if matrix_name.endswith("c_proj.weight") and not scaled.value:
                    matrix.mul_(math.sqrt(2 * layers))
            with record(deep, *(f"h.{n}" for n in range(layers))) as streams:
                deep(ids)
        heights = [x.std().item() for x in streams.values()]
        ends[layers] = heights[-1]
        plot.plot([n / layers for n in range(1, layers + 1)], heights, color=shade, label=f"{layers} blocks")
    plot.set(xlabel="share of the blocks", ylabel="size of the stream", ylim=(0, None))
    plot.grid(alpha=0.25)
    plot.legend(frameon=False, fontsize=8)
    mo.vstack([
        growth,
        mo.md(
            "After the last block the stream has the size "
            + ", ".join(f"{end:.2f} ({layers_} blocks)" for layers_, end in ends.items())
            + ". Turn the switch off and see it depend on the depth."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, short_run):
    tries = {
        "as it is": {},
        "no residuals": {"block": "no-residual"},
        "no norms": {"norm": "none"},
        "norms after the sums": {"block": "post-norm"},
    }
    with mo.status.spinner("training four small models"):
        trained = {
            name: short_run(50, model={"n_layer": 4, "n_embd": 64, **change})
            for name, change in tries.items()
        }
    return (trained,)


@app.cell(hide_code=True)
def _(Step, math, mo, plt, trained):
    race, track = plt.subplots(figsize=(8, 3.2), layout="constrained")
    final = {}
    for (title, records), ink in zip(
        trained.items(), ("#d1602b", "#7a9a3a", "#888888", "#1f5a99"), strict=True
    ):
        steps_taken = [r for r in records if isinstance(r, Step)]
        track.plot([r.step for r in steps_taken], [r.loss for r in steps_taken], color=ink, label=title)
        final[title] = records[-1].val_loss
    track.axhline(math.log(512), color="#cccccc", lw=1)
    track.set(xlabel="step", ylabel="training loss, nats per token")
    track.grid(alpha=0.25)
    track.legend(frameon=False)
    mo.vstack([
        mo.md(
            """
            ## What happens without each

            Four models of four blocks, trained just now for 50 steps with the same rate, on the same
            batches. The line is log 512: knowing nothing.
            """
        ),
        race,
        mo.md(
            "Validation losses: "
            + ", ".join(f"{kind_} {loss:.2f}" for kind_, loss in final.items())
            + ". So few steps show what learns at all; `nanogpt lab run residuals-norms` runs three "
            "hundred steps with several seeds, and says which differences are real."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(BareBlock, PostNormBlock, SquaredReLU, mo, source):
    mo.accordion({
        "The other blocks, and another activation function": mo.md(source(PostNormBlock, BareBlock, SquaredReLU)),
    })  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check layer-norm
    nanogpt exercise check gelu
    nanogpt exercise check block
    nanogpt exercise check gpt       # the forward pass, from the parts you have written
    ```

    **Papers.** He et al. 2015, "Deep Residual Learning for Image Recognition", and 2016, "Identity
    Mappings in Deep Residual Networks". Ba, Kiros & Hinton
    2016, "Layer Normalization". Hendrycks & Gimpel 2016, "Gaussian Error Linear Units". Radford et
    al. 2019, section 2.3, which moved the norms and scaled the residuals. Xiong et al. 2020, "On
    Layer Normalization in the Transformer Architecture". Dong et al. 2021, "Attention Is Not All
    You Need". Geva et al. 2021, "Transformer
    Feed-Forward Layers Are Key-Value Memories".
    """)
    return


if __name__ == "__main__":
    app.run()
