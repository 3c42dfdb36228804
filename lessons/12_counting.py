import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 12: counting")


@app.cell(hide_code=True)
def _():
    import time
    from dataclasses import replace

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    from nanogpt.cli.plan import duration
    from nanogpt.config import PRESETS, ModelConfig
    from nanogpt.device import KNOWN_PEAKS, measured_flops, resolve
    from nanogpt.generation.reader import Reader
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.cache import KVCache
    from nanogpt.model.gpt import GPT
    from nanogpt.model.size import flops_per_token
    from nanogpt.training.plan import USUAL_SHARE, cache_bytes, count_parameters, kept_bytes
    from nanogpt.training.threads import limited_to

    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        BLUE,
        GPT,
        GREY,
        KNOWN_PEAKS,
        KVCache,
        LIGHT,
        ModelConfig,
        OLIVE,
        ORANGE,
        PRESETS,
        Reader,
        Rectangle,
        USUAL_SHARE,
        cache_bytes,
        count_parameters,
        duration,
        flops_per_token,
        judged,
        kept_bytes,
        limited_to,
        measured_flops,
        mo,
        package_code,
        plt,
        predict,
        replace,
        reply,
        resolve,
        self_test,
        small_model,
        time,
        torch,
    )


@app.cell(hide_code=True)
def _(mo, predict):
    table_size = predict(
        "In lesson 3 you saw the size of GPT-2's token embedding: a row for each of 50,257 tokens, with 768 "
        "numbers each. What percentage of all 124 million parameters is in this one table?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            # 12. Counting: parameters, bytes, operations, seconds

            After this lesson you can

            - count the parameters of GPT-2 by hand, and say where they are,
            - say how many bytes and operations a training needs, and how long it takes,
            - say why a cache speeds up generation and cannot speed up training,
            - compute the size of that cache, and what grouped heads save.

            All of this needs nothing but multiplication. It tells you before a training whether it fits
            into your machine, and whether it ends this week.

            ## Where are 124 million parameters?

            The smallest GPT-2 has four numbers that matter: V = 50,257 tokens, a context of T = 1,024,
            C = 768 channels, and L = 12 blocks.
            """
        ),
        table_size,
    ])  # fmt: skip
    return (table_size,)


@app.cell(hide_code=True)
def _(C, V, mo, reply, table_size, total):
    mo.vstack([
        reply(
            table_size,
            round(100 * V * C / total),
            f"50,257 · 768 = {V * C:,}, and the whole model has {total:,}. Almost a third of the model "
            "is this one table.",
            wrong={
                1: "This is about the share of the positions. They have 1,024 rows, the tokens 50,257.",
                5: "This is so in the largest GPT-2. Its blocks are much larger, and it has more of them.",
                62: "This counts the table twice. The head uses the same table (lesson 4), so it is there once.",
            },
            tolerance=1.5,
        ),
        mo.md(
            """
            Now the rest. A linear map from n to m channels has n · m weights and m biases. A block has
            four of them: C to 3C (queries, keys, values), C to C, C to 4C and 4C to C. A norm has a gain
            and a shift for each channel.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _():
    V, T, C, L = 50_257, 1_024, 768, 12
    parts = {
        "token embedding": V * C,
        "positions": T * C,
        "attention": L * ((C * 3 * C + 3 * C) + (C * C + C)),
        "feed-forward": L * ((C * 4 * C + 4 * C) + (4 * C * C + C)),
        "norms": (2 * L + 1) * 2 * C,
    }
    total = sum(parts.values())
    {name: f"{count:,}" for name, count in {**parts, "all": total}.items()}
    return C, L, T, V, parts, total


@app.cell(hide_code=True)
def _(GPT, PRESETS, count_parameters, mo, package_code, predict, torch, total):
    with torch.device("meta"):  # shapes without numbers, so it takes no memory
        gpt2 = GPT(PRESETS["gpt2"])
    untied = predict(
        "The head compares the last hidden state with every token. In GPT-2 it uses the token embedding "
        "for that (it is tied, lesson 4). How many million parameters would the model have with a head "
        "of its own?",
        step=0.1,
    )
    same = "the same number" if gpt2.num_parameters() == total else "another number"
    mo.vstack([
        mo.md(
            f"The package builds the real GPT-2 and counts {gpt2.num_parameters():,}: {same}. For a block "
            "there is a short rule. Its weights are 4 C² for attention and 8 C² for the feed-forward layer, "
            "together **12 C²**. Biases and norms hardly matter."
        ),
        package_code(count_parameters),
        untied,
    ])
    return gpt2, untied


@app.cell(hide_code=True)
def _(C, V, mo, reply, total, untied):
    layers = mo.ui.slider(1, 48, value=12, label="blocks", show_value=True)
    channels = mo.ui.slider(
        steps=[128, 256, 384, 512, 768, 1024, 1280, 1600], value=768, label="channels",
        show_value=True,
    )  # fmt: skip
    mo.vstack([
        reply(
            untied,
            round((total + V * C) / 1e6, 1),
            f"{total / 1e6:.1f} + {V * C / 1e6:.1f} million. Because the head uses the embedding, the table is there "
            "once and counts once. That saves a quarter of what there would be otherwise.",
            wrong={
                124.4: "That is the tied model. A head of its own has another V · C weights.",
                85.8: "This takes the embedding away. Untying adds a table.",
                162.2: "The head has V rows of C channels, exactly as the embedding.",
            },
            tolerance=0.15,
        ),
        mo.md(
            "In this picture each parameter has the same area. Move the sliders: when does the table "
            "stop being important?"
        ),
        mo.hstack([layers, channels], justify="start", wrap=True),
    ])
    return channels, layers


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    LIGHT,
    OLIVE,
    ORANGE,
    Rectangle,
    T,
    V,
    channels,
    layers,
    mo,
    plt,
):
    _c, _l = channels.value, layers.value
    _table, _places, _block = V * _c, T * _c, 12 * _c * _c + 13 * _c
    _sum = _table + _places + _l * _block + 2 * _c
    _figure, _axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    _x = 0.0

    def _tile(x, y, width, height, color):
        _axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="white", lw=0.8))

    _wide = _table / _sum
    _tile(0, 0, _wide, 1, BLUE)
    _tile(-_wide - 0.01, 0, _wide, 1, "white")
    _axes.add_patch(Rectangle((-_wide - 0.01, 0), _wide, 1, fill=False, edgecolor=GREY, ls="--"))
    _tile(_wide, 0, _places / _sum, 1, GREY)
    for _n in range(_l):
        _left, _step = _wide + (_places + _n * _block) / _sum, _block / _sum
        _tile(_left, 0, _step, 2 / 3, ORANGE)
        _tile(_left, 2 / 3, _step, 1 / 3, OLIVE)
    _labels = {"token\nembedding\n= head": (_wide / 2, 0.5, "white"),
               "saved by\ntying": (-_wide / 2 - 0.01, 0.5, GREY)}
    for _text, (_at, _y, _color) in _labels.items():
        if _wide > 0.13:
            _axes.text(_at, _y, _text, color=_color, ha="center", va="center", fontsize=12)
    _middle = 1 - (_l * _block / _sum) / 2
    if _l * _block / _sum > 0.2:
        _axes.text(_middle, 1 / 3, "feed-forward", color="white", ha="center", va="center")
        _axes.text(_middle, 5 / 6, "attention", color="white", ha="center", va="center")
    _axes.set(xlim=(-_wide - 0.02, 1.01), ylim=(-0.02, 1.02), xticks=[], yticks=[])
    _axes.spines[["left", "bottom"]].set_visible(False)
    _axes.set_title(f"{_l} blocks, {_c} channels: {_sum / 1e6:,.1f} million parameters", loc="left")
    mo.vstack([
        _figure,
        mo.md(
            f"The table has {_wide:.0%} of the parameters, the blocks have {_l * _block / _sum:.0%}. (The grey "
            "line at the border is the positions.) The table grows with C, a block with C². So the table "
            "matters in small models. In the largest GPT-2, with 48 blocks of 1,600 channels, it has 5 %."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, predict):
    gigabytes = predict(
        "GPT-2 has 124.4 million parameters, and a number takes 4 bytes. Training with AdamW: how many "
        "gigabytes (10⁹ bytes) for weights, gradients and optimizer together?",
        step=0.1,
    )
    mo.vstack([mo.md("## Bytes: what training keeps in memory"), gigabytes])
    return (gigabytes,)


@app.cell(hide_code=True)
def _(PRESETS, gigabytes, kept_bytes, mo, replace, reply, resolve, total):
    _short = replace(PRESETS["gpt2"], context_length=64)
    _cpu = resolve("cpu", "float32")
    _one, _two = (kept_bytes(replace(_short, n_layer=n), _cpu, masked=False)[1] for n in (1, 2))
    token_bytes = (_one + 11 * (_two - _one)) / 64  # what autograd keeps for a token
    sequences = mo.ui.slider(1, 16, value=4, label="sequences in a batch", show_value=True)
    mo.vstack([
        reply(
            gigabytes,
            round(16 * total / 1e9, 2),
            "Each weight needs 4 numbers of 4 bytes: the weight, its gradient, and the two running means "
            "of AdamW. That is **16 bytes a weight**, and 124.4 million · 16 = 1.99 billion.",
            wrong={
                0.5: "These are the weights alone. Training keeps three more numbers for each.",
                1.0: "These are weights and gradients. AdamW also keeps two running means.",
                1.5: "AdamW has two means, of the gradient and of its square.",
            },
            tolerance=0.06,
        ),
        mo.md(
            f"""
            That is not all. To go back, autograd needs what each operation stored on the way forward
            (lesson 2). These activations grow with the number of **tokens** in a batch. The package
            measures them: {token_bytes / 1e6:.1f} MB for each token of GPT-2, so
            {1024 * token_bytes / 1e9:.1f} GB for a sequence of 1,024.
            """
        ),
        sequences,
    ])
    return sequences, token_bytes


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    LIGHT,
    OLIVE,
    ORANGE,
    mo,
    plt,
    sequences,
    token_bytes,
    total,
):
    _figure, _axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    _bars = {
        "weights": (4 * total, BLUE),
        "gradients": (4 * total, LIGHT),
        "AdamW": (8 * total, OLIVE),
        "activations": (sequences.value * 1024 * token_bytes, ORANGE),
    }
    _left, _everything = 0.0, sum(size for size, _ in _bars.values()) / 1e9
    for _name, (_size, _color) in _bars.items():
        _axes.barh([0], [_size / 1e9], left=[_left], color=_color, height=0.5, label=_name)
        _left += _size / 1e9
    _axes.text(_left + 0.2, 0, f"{_everything:.1f} GB", va="center")
    _axes.set(xlim=(0, 16 * 1024 * token_bytes / 1e9 + 6), ylim=(-0.4, 0.9), yticks=[], xlabel="gigabytes")
    _axes.axvline(16, color=GREY, lw=1, ls="--")
    _axes.text(16, 0.34, " a card with 16 GB", color=GREY, fontsize=11)
    _axes.legend(frameon=False, ncols=4, fontsize=11, loc="upper left", handlelength=1, columnspacing=1)
    _axes.spines["left"].set_visible(False)
    mo.vstack([
        _figure,
        mo.md(
            """
            So the batch decides whether a training fits. This is why accumulation (lesson 9) helps: it
            keeps fewer sequences in memory at a time.

            Generation needs neither gradients nor means, and the weights may be coarser. With
            **int8** each weight takes 8 bits, one byte, and each row of a matrix has one scale that says
            how large its steps are. Take the row (0.5, -1.27, 0.02). With steps of 0.01 it becomes
            the three bytes 50, -127 and 2. Weights then take a quarter of the memory.
            """
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, predict):
    operations = predict(
        "Training multiplies and adds for each weight, once on the way forward and twice on the way "
        "back. How many million operations does one token take in GPT-2's 124 million weights?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            ## Operations: what a token costs

            A product of a row and a column multiplies each weight with a number and adds it to a sum:
            2 operations for a weight. On the way back each matrix is used twice: once for the gradient
            of its input, once for the gradient of its weights.
            """
        ),
        operations,
    ])  # fmt: skip
    return (operations,)


@app.cell(hide_code=True)
def _(
    C,
    L,
    T,
    flops_per_token,
    gpt2,
    mo,
    operations,
    package_code,
    predict,
    reply,
    total,
):
    each = flops_per_token(gpt2)
    hours = predict(
        f"An H100 does 989 million million operations a second at its peak (with numbers of 16 bits), and "
        f"training reaches about 40 % of that. One token takes {each / 1e6:.0f} million operations. How many "
        "hours do 10 billion tokens take?",
        step=0.1,
    )
    mo.vstack([
        reply(
            operations,
            round(6 * total / 1e6),
            "2 operations on the way forward and 4 on the way back are 6 for each weight: 6 · 124.4 "
            "million.",
            wrong={
                124: "Each weight is used more than once: multiply, add, and the way back.",
                249: "This is the way forward alone.",
                373: "A multiplication and an addition are two operations, three times.",
            },
            tolerance=12,
        ),
        mo.md(
            f"To be exact: the table of positions is looked up and not multiplied, so it does not count. "
            f"And attention compares tokens with each other, without weights. For each channel and each of "
            f"the T keys, a query costs 2 operations in the score and 2 in the weighted sum. The way back "
            f"takes twice as many, so 4 + 8 = 12. In all blocks this adds 12 · L · C · T = "
            f"{12 * L * C * T / 1e6:.0f} million. The sum is **{each / 1e6:.0f} million** operations a token. "
            "(The rule counts all T keys, even those that the mask hides.)"
        ),
        package_code(flops_per_token),
        hours,
    ])
    return each, hours


@app.cell(hide_code=True)
def _(KNOWN_PEAKS, USUAL_SHARE, each, hours, mo, reply):
    tokens = mo.ui.slider(
        steps=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100], value=10, label="billion tokens",
        show_value=True,
    )  # fmt: skip
    _seconds = each * 10e9 / (KNOWN_PEAKS["H100"] * USUAL_SHARE)
    mo.vstack([
        reply(
            hours,
            round(_seconds / 3600, 1),
            f"{each / 1e6:.0f} million · 10 billion = {each * 10e9:.2g} operations. Divide by "
            f"{KNOWN_PEAKS['H100'] * USUAL_SHARE:.2g} a second: {_seconds:,.0f} seconds.",
            wrong={
                2.4: "This is at the full peak. No training reaches it.",
                0.9: "This leaves out the factor 6, or 7 with attention.",
                360: "These are minutes.",
            },
            tolerance=0.3,
        ),
        mo.md("## Seconds: on a machine with a name"),
        tokens,
    ])
    return (tokens,)


@app.cell(hide_code=True)
def _(
    BLUE,
    KNOWN_PEAKS,
    LIGHT,
    ORANGE,
    USUAL_SHARE,
    duration,
    each,
    measured_flops,
    mo,
    plt,
    tokens,
    torch,
):
    here = measured_flops(torch.device("cpu"), torch.float32)
    _peaks = {"this machine": here} | {name: KNOWN_PEAKS[name] for name in ("T4", "A100", "H100")}
    _times = {n: each * tokens.value * 1e9 / (peak * USUAL_SHARE) for n, peak in _peaks.items()}
    _figure, _axes = plt.subplots(figsize=(8, 3), layout="constrained")
    _axes.barh(list(_times), [t / 3600 for t in _times.values()], left=1e-3, color=[ORANGE, BLUE, BLUE, BLUE])
    for _n, _time in enumerate(_times.values()):
        _years = _time / 3600 / 24 / 365
        _said = f"{_years:,.1f} years" if _years > 2 else duration(_time)
        _axes.text(
            _time / 3600 * 1.5, _n, _said, va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    _axes.set(xscale="log", xlim=(1e-3, 1e8), xlabel="hours at 40 % of the peak")
    for _hours, _name in ((24, "a day"), (24 * 365, "a year")):
        _axes.vlines(_hours, -0.6, 3.65, color=LIGHT, lw=1.5, zorder=0)
        _axes.text(_hours, 3.75, _name, ha="center", fontsize=11, color="#666666")
    mo.vstack([
        _figure,
        mo.md(
            f"GPT-2 with 124 million parameters and {tokens.value:g} billion tokens. The peak of this "
            f"machine was measured just now, with a product of two large matrices: {here / 1e9:,.0f} "
            "billion operations a second. This is why the lessons use a small model."
        ),
    ])
    return (here,)


@app.cell
def _(flops_per_token, limited_to, small_model, time, torch):
    model, tokenizer = small_model()
    texts = torch.randint(tokenizer.vocab_size, (16, 64))
    with limited_to(torch.get_num_threads()):
        model.loss(model(texts), texts).backward()  # the first time also pays for memory
        start = time.perf_counter()
        for _ in range(5):
            model.loss(model(texts), texts).backward()
        seconds = (time.perf_counter() - start) / 5
    model.zero_grad()
    done_per_second = flops_per_token(model) * texts.numel() / seconds
    return done_per_second, model, seconds, tokenizer


@app.cell(hide_code=True)
def _(done_per_second, here, mo, model, seconds):
    mo.md(f"""
    This trained the small model of the lessons ({model.num_parameters():,} parameters) on 1,024 tokens:
    {seconds * 1000:.0f} ms, which is {done_per_second / here:.0%} of this machine's peak. Why less than
    100 %? A peak counts arithmetic. But a norm or an activation function does little arithmetic, and
    must read all its numbers from memory and write them back. Small matrices also leave part of the
    processor idle. A **fused kernel** helps: one routine that does several operations in one pass over
    memory. The package has each layer twice, written by hand and as torch's fused kernel
    (`model.kernels`).
    """)
    return


@app.cell(hide_code=True)
def _(mo, predict):
    passes = predict(
        "The prompt is 1 token long. You generate until the text has 101 tokens, and each time the whole "
        "text so far goes through the model. How many tokens go through it in all?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            ## Generation: compute once, keep the keys and values

            A model generates one token at a time. To choose the next one it needs the logits of the
            last place only. But this place looks at all earlier tokens.
            """
        ),
        passes,
    ])  # fmt: skip
    return (passes,)


@app.cell(hide_code=True)
def _(KVCache, mo, package_code, passes, reply):
    at = mo.ui.slider(5, 16, value=13, label="tokens so far", show_value=True)
    mo.vstack([
        reply(
            passes,
            sum(range(1, 101)),
            "The first time 1 token goes through, then 2, then 3, at last 100: 100 · 101 / 2 = 5,050. For "
            "1,024 tokens it would be half a million.",
            wrong={
                100: "That is what goes through if nothing is computed twice. Here all earlier tokens go "
                "through again each time.",
                10000: "It is about half of 100 · 100, because the text is shorter at first.",
                5151: "The last token is chosen and no longer goes through the model.",
            },
            tolerance=1,
        ),
        mo.md(
            """
            Nearly all of this is done again and again. An earlier token cannot see later ones. So
            nothing about it changes when the text grows: neither its hidden states, nor its key, nor its
            value. The new token needs only these keys and values. The **KV cache** stores them. A new
            token then computes its own query, key and value, adds its key and value to the cache, and
            looks at all of them. Old queries are not kept: nobody asks with them again.

            This holds until the context is full. Then the oldest tokens are dropped and the positions
            start at 0 again. So all keys and values change, and the cache is computed anew.

            So generation has two phases. In the **prefill** the whole prompt goes through the model at
            once, and fills the cache. In the **decode** phase one token at a time goes through.

            The package's cache follows, folded. It is the solution of the exercise `cache`: try before
            you look.
            """
        ),
        package_code(KVCache),
        at,
    ])  # fmt: skip
    return (at,)


@app.cell(hide_code=True)
def _(BLUE, LIGHT, ORANGE, Rectangle, at, mo, plt):
    _prompt, _all = 5, 16
    _figure, _panels = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained", sharey=True)
    _work = {}
    for _axes, _cached in zip(_panels, (False, True), strict=True):
        _count = 0
        for _length in range(_prompt, max(at.value, _prompt) + 1):
            for _token in range(_length):
                _new = not _cached or _length == _prompt or _token == _length - 1
                _count += _new
                _color = (BLUE if _length == _prompt else ORANGE) if _new else LIGHT
                _axes.add_patch(Rectangle((_token, _length - _prompt), 0.88, 0.88, color=_color))
        _work[_cached] = _count
        _axes.set(xlim=(-0.2, _all), ylim=(_all - _prompt + 1, -0.2), xlabel="token of the text", aspect="equal")
        _axes.set_xticks([0, 5, 10, 15])
        _axes.set_title(f"{'with' if _cached else 'without'} a cache: {_count}", loc="left", fontsize=13)
    _panels[0].set_ylabel("prediction number")
    mo.vstack([
        _figure,
        mo.md(
            f"A prompt of {_prompt} tokens, then one more at a time. Blue: prefill. Orange: computed in "
            f"decode. Light: taken from the cache. Without the cache {_work[False]} tokens go through the "
            f"model, with it {_work[True]}. Below, the same is measured with a fresh model of 4 blocks:"
        ),
    ])
    return


@app.cell
def _(GPT, ModelConfig, Reader, limited_to, time, torch):
    def times(use_cache, length=180):
        """Milliseconds for each prediction, and the last logits."""
        torch.manual_seed(0)
        network = GPT(ModelConfig(vocab_size=512, context_length=256, n_layer=4, n_head=4, n_embd=128))
        reader = Reader(network, [[1, 2, 3]], use_cache)
        found = []
        for n in range(length):
            began = time.perf_counter()
            logits = reader.predict()
            found.append(1000 * (time.perf_counter() - began))
            reader.append(0, [n])
        return found, logits

    with limited_to(1):
        (slow, logits_slow), (fast, logits_fast) = times(False), times(True)
    return fast, logits_fast, logits_slow, slow


@app.cell(hide_code=True)
def _(
    BLUE,
    ORANGE,
    fast,
    logits_fast,
    logits_slow,
    mo,
    plt,
    predict,
    reply,
    slow,
    torch,
):
    _figure, _axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    _top = 1.3 * torch.tensor(slow[-20:]).median().item()
    for _times, _color, _name in ((slow, ORANGE, "without a cache"), (fast, BLUE, "with a cache")):
        _axes.plot(_times, ".", color=_color, ms=3, alpha=0.4)
        _middle = [torch.tensor(_times[n : n + 15]).median().item() for n in range(0, 180, 15)]
        _axes.plot(range(7, 180, 15), _middle, color=_color, lw=2)
        _axes.text(180, torch.tensor(_times[-20:]).median().item(), f" {_name}", color=_color, va="center", fontsize=12)
    _axes.set(xlabel="tokens generated", ylabel="ms for a prediction", ylim=(0, _top), xlim=(0, 245))
    cached_training = predict(
        "Could the same cache make training faster?",
        ["no: in training nothing is computed twice anyway", "yes, by the same factor",
         "yes, but only for long texts", "no: it would take too much memory"],
    )  # fmt: skip
    mo.vstack([
        _figure,
        mo.md(
            f"All {len(fast)} predictions took {sum(slow):,.0f} ms without the cache and {sum(fast):,.0f} ms "
            f"with it. The logits at the end differ by at most {(logits_slow - logits_fast).abs().max():.0e}. "
            "The cache changes the work, not the result. In decode the processor must read all weights from "
            "memory to compute a single token. In prefill one reading serves the whole prompt. So decode is "
            "limited by memory, prefill by arithmetic."
        ),
        cached_training,
    ])
    return (cached_training,)


@app.cell(hide_code=True)
def _(cached_training, mo, predict, reply):
    cache_size = predict(
        "How many megabytes (10⁶ bytes) does the cache of GPT-2 take for one full context? It stores what a "
        "new token needs from each earlier token, in every block. A number takes 4 bytes.",
        step=0.1,
    )
    mo.vstack([
        reply(
            cached_training,
            "no: in training nothing is computed twice anyway",
            "In training the whole text is known. One pass computes all places at once, and each gives a "
            "prediction. There is no second pass to save. And after each step the weights have moved, so "
            "old keys and values would be wrong.",
            wrong={
                "yes, by the same factor": "In generation the saving comes from repeated passes over the "
                "same tokens. Training passes over them once, then the weights change.",
                "yes, but only for long texts": "The length does not matter. Each token goes through once.",
                "no: it would take too much memory": "Memory is not the reason. There is nothing to "
                "save: no token goes through twice with the same weights.",
            },
        ),
        mo.md("## How large the cache is, and how heads can share it"),
        cache_size,
    ])
    return (cache_size,)


@app.cell(hide_code=True)
def _(PRESETS, cache_bytes, cache_size, mo, package_code, reply, total):
    key_heads = mo.ui.slider(
        steps=[1, 2, 3, 4, 6, 12], value=4, label="heads of keys and values", show_value=True
    )
    texts_at_once = mo.ui.slider(
        steps=[1, 4, 16, 64], value=16, label="texts at once", show_value=True
    )
    _size = cache_bytes(PRESETS["gpt2"]) / 1e6
    mo.vstack([
        reply(
            cache_size,
            round(_size, 1),
            f"2 · 12 · 1,024 · 768 · 4 bytes = {_size:.1f} MB, keys and values of all blocks. That is "
            f"{cache_bytes(PRESETS['gpt2']) / 1024 / 1000:.1f} kB a token. The weights take {4 * total / 1e6:.0f} MB, "
            "but they are there once, and each text needs a cache of its own.",
            wrong={
                37.7: "This is for the keys alone. Values are kept as well.",
                6.3: "This is one block. Each of the 12 blocks has its own keys and values.",
                906.0: "This counts 768 channels for each of the 12 heads. The heads share them: each has 64.",
            },
            tolerance=0.6,
        ),
        mo.md(
            """
            In **grouped-query attention** several query heads share one head of keys and values
            (Ainslie et al. 2023). With 12 query heads and 4 heads of keys and values, three questions
            search the same keys. The cache shrinks to 4/12. Quality suffers little, because the queries
            still differ. With a single shared head the saving is largest (Shazeer 2019).
            """
        ),
        mo.hstack([key_heads, texts_at_once], justify="start", wrap=True),
        package_code(cache_bytes),
    ])
    return key_heads, texts_at_once


@app.cell(hide_code=True)
def _(
    BLUE,
    LIGHT,
    ORANGE,
    PRESETS,
    cache_bytes,
    key_heads,
    mo,
    plt,
    replace,
    texts_at_once,
    total,
):
    _shared = replace(PRESETS["gpt2"], n_kv_head=key_heads.value)
    _bytes, _full = (cache_bytes(c, texts_at_once.value) for c in (_shared, PRESETS["gpt2"]))
    _figure, (_left, _right) = plt.subplots(
        1, 2, figsize=(8, 3.6), layout="constrained", width_ratios=[3, 2]
    )
    for _q in range(12):
        _k = _q * key_heads.value // 12
        _x = (_k + 0.5) * 12 / key_heads.value - 0.5
        _left.plot([_q, _x], [1, 0], color=LIGHT, lw=2, zorder=0)
        _left.plot([_q], [1], "o", color=BLUE, ms=11)
        _left.plot([_x], [0], "s", color=ORANGE, ms=12)
    _left.text(-0.5, 1.2, "12 query heads", color=BLUE, fontsize=12)
    _left.text(-0.5, -0.32, f"{key_heads.value} of keys and values", color=ORANGE, fontsize=12)
    _left.set(xlim=(-0.8, 11.8), ylim=(-0.5, 1.45))
    _left.axis("off")
    _right.bar(["weights", "cache"], [4 * total / 1e6, _bytes / 1e6], color=[BLUE, ORANGE])
    _right.bar(["cache"], [_full / 1e6], fill=False, edgecolor=ORANGE, ls="--")
    _right.set(ylabel="MB", ylim=(0, 1.15 * max(_full, 4 * total) / 1e6))
    mo.vstack([
        _figure,
        mo.md(
            f"{texts_at_once.value} full contexts need a cache of {_bytes / 1e6:,.0f} MB, "
            f"{_bytes / (4 * total):.1f} times the weights. With 12 heads it is {_full / 1e6:,.0f} MB "
            "(dashed)."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    - GPT-2 has 124.4 million parameters. 38.6 million are the token embedding, which the head uses as
      well. A block has 12 C² weights, two thirds of them in the feed-forward layer.
    - Training keeps 16 bytes a weight, and activations for each token of the batch. It takes about 6
      operations for each weight and token.
    - Operations, divided by 40 % of the machine's peak, give the time.
    - The KV cache stores the keys and values of earlier tokens, because they never change while the
      text grows. Training has nothing to gain from it: each token goes through once.
    - The cache has 2 · L · T · C numbers for each text. Grouped heads divide it.
    """)
    return


@app.cell(hide_code=True)
def _(mo, self_test):
    answers = self_test(12)
    mo.vstack([mo.md("## Questions"), answers])
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(12, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Three exercises, all optional. They add to what you wrote in lessons 6 and 7:

    ```sh
    nanogpt exercise check cache
    nanogpt exercise check grouped-heads
    nanogpt exercise check gpt-cached
    ```

    Then let the package count, and compare it with your own numbers:

    ```sh
    nanogpt plan configs/gpt2-124m.toml
    ```

    Run it again with `--train.batch_size 1`. How much memory does one sequence take? Which card would
    you rent for it, and for how long?

    **Papers.** Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2.
    Press & Wolf 2017, "Using the Output Embedding to Improve Language Models", for tying. Kaplan et al.
    2020, "Scaling Laws for Neural Language Models", section 2.1, and Chowdhery et al. 2022, "PaLM",
    appendix B, for operations. Pope et al. 2022, "Efficiently Scaling Transformer Inference", for
    prefill and decode. Shazeer 2019, "Fast Transformer Decoding"; Ainslie et al. 2023, "GQA". Dao et al.
    2022, "FlashAttention", for fused kernels. Dettmers et al. 2022, "LLM.int8()". Peaks: NVIDIA's data
    sheets of the H100, A100 and T4, dense, 16 bits.
    """)
    return


if __name__ == "__main__":
    app.run()
