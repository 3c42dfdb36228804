import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 20: beside Transformers")


@app.cell(hide_code=True)
def _():
    import copy
    import tempfile
    from inspect import getsource
    from pathlib import Path

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.compare import THEIRS_ONLY
    from nanogpt.errors import UserError
    from nanogpt.interop.compare import copy_of, differences, lines_on_both_sides, their_model
    from nanogpt.interop.names import to_hugging_face
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.attention import CausalSelfAttention

    return (
        CausalSelfAttention,
        Path,
        THEIRS_ONLY,
        UserError,
        copy,
        copy_of,
        differences,
        getsource,
        judged,
        lines_on_both_sides,
        mo,
        package_code,
        plt,
        predict,
        reply,
        self_test,
        small_model,
        tempfile,
        their_model,
        to_hugging_face,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 20. The same model in Hugging Face Transformers

    After this lesson you can carry a model to Transformers, prove that two implementations compute the
    same, and, where they do not, find the one place where they differ.

    Everything so far was one implementation, written to be understood. How do you know that it is GPT-2,
    and not something a little like it? You take the one that everybody uses, give both the same weights,
    and compare every number. Such a comparison finds mistakes that no loss curve shows. At the end, three
    models have been converted with one thing wrong each, and you find out what it is.
    """)
    return


@app.cell(hide_code=True)
def _(Path, UserError, mo, small_model, tempfile, their_model):
    with mo.status.spinner("training a small model, once, and opening it in Transformers"):
        model, tokenizer = small_model()
        folder = Path(tempfile.mkdtemp())
        try:
            theirs, their_tokenizer = their_model(model, tokenizer, folder)
        except UserError as error:
            mo.stop(True, mo.md(f"**{error}**"))
    mo.md(
        f"""
        ## 1. The same weights, the same ids

        The small model was written as a folder of files, and Transformers opened it as a
        `{type(theirs).__name__}`. The files are {", ".join(f"`{p.name}`" for p in sorted(folder.iterdir()))}.
        `nanogpt export RUN FOLDER` does that for any run.

        The names of the weights are the same on both sides, because both keep those of OpenAI's checkpoint.
        Transformers only puts `transformer.` before each name. One thing differs: how a matrix is stored.
        OpenAI's code stores a layer as inputs × outputs and computes x W. Torch stores it as outputs × inputs
        and computes x Wᵀ. Transformers has kept OpenAI's form, so four matrices of each block have to be
        transposed.
        """
    )
    return folder, model, their_tokenizer, theirs, tokenizer


@app.cell(hide_code=True)
def _(mo, model, theirs):
    _ours = dict(model.named_parameters())
    _rows = [
        f"| `{_name}` | {' x '.join(map(str, _weight.shape))} | {' x '.join(map(str, _ours[_name].shape))} |"
        for _name, _weight in (
            (n.removeprefix("transformer."), w) for n, w in theirs.named_parameters()
        )
        if _name.startswith("h.0.") and _weight.ndim == 2
    ]
    mo.md("| matrix | there | here |\n|:---|:---|:---|\n" + "\n".join(_rows))
    return


@app.cell(hide_code=True)
def _(predict):
    forgotten = predict(
        """
        You write your own conversion and forget to transpose `attn.c_proj.weight`. What happens when you
        load the file?
        """,
        choices=[
            "an error: the shapes do not fit",
            "no error, and wrong logits",
            "no error, and right logits",
        ],
    )
    forgotten
    return (forgotten,)


@app.cell(hide_code=True)
def _(forgotten, reply):
    reply(
        forgotten,
        "no error, and wrong logits",
        """
        This matrix is square. It fits either way, and the model runs and writes text, only worse. The other
        three would not fit. This is why one compares numbers.
        """,
        wrong={
            "an error: the shapes do not fit": "That is what happens to the other three matrices. Look at "
            "the shape of this one in the table.",
            "no error, and right logits": "A matrix and its transpose are the same only if the matrix "
            "is symmetric, and a learned one is not.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo, package_code, their_tokenizer, to_hugging_face, tokenizer, torch):
    text = "What, has this thing appeared again tonight?\nI have seen nothing."
    ids = torch.tensor([tokenizer.encode(text)])
    mo.vstack(
        [
            package_code(to_hugging_face),
            mo.md(
                f"The tokenizer is in the folder, too. It has to give the same ids, or nothing after it can be the "
                f"same. For the text that we use from here on, {ids.shape[1]} tokens long, both give the same "
                f"ids: **{their_tokenizer(text).input_ids == ids[0].tolist()}**."
            ),
        ]
    )
    return (ids,)


@app.cell(hide_code=True)
def _(predict):
    rounding = predict(
        """
        In float32 the logits of the two should differ by rounding only: about a millionth of the largest
        logit, as in lesson 13. Now Transformers computes with *bfloat16* numbers, as most large models do.
        Such a number takes 16 bits and keeps between two and three digits. How far are its logits from ours
        now, compared with the largest?
        """,
        choices=["still about a millionth", "a few thousandths", "as far as the logits are large"],
    )
    rounding
    return (rounding,)


@app.cell(hide_code=True)
def _(compared, copy, reply, rounding, theirs, torch):
    _full = compared(theirs)["lm_head"]
    _half = compared(copy.deepcopy(theirs).to(torch.bfloat16))["lm_head"]
    reply(
        rounding,
        "a few thousandths" if 2e-4 < _half < 0.1 else f"{_half:.0e}",
        f"""
        It is {_half:.0e} in bfloat16, and {_full:.0e} in float32. Each side rounds after each operation, so
        the last digit that it keeps differs. With two or three digits, rounding hides many small mistakes.
        This is why one compares in float32.
        """,
        wrong={
            "still about a millionth": "A number with three digits cannot agree with another in six.",
            "as far as the logits are large": "Each rounding is small, goes up or down, and many cancel.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. Station by station

    Equal logits prove that the models agree on this text. Different logits say only that something
    is wrong somewhere. To find out where, compare what each part gives, from the embeddings to the logits.
    Both sides use the same names for their parts, so one function can record both. Torch can call a
    function of yours whenever a part has computed something. Torch calls such a function a *hook*, too; it
    has nothing to do with the three hooks of a position encoding.
    """)
    return


@app.cell
def _(torch):
    def activations(network, ids, names):
        """What each named part of a network gives, and what goes into each c_proj."""
        seen, hooks = {}, []

        def keep(name):
            def hook(part, given, made):
                if name.endswith("c_proj"):
                    seen["into " + name] = given[0]
                seen[name] = made[0] if isinstance(made, tuple) else made

            return hook

        for name, part in network.named_modules():
            if (short := name.removeprefix("transformer.")) in names:
                hooks.append(part.register_forward_hook(keep(short)))
        with torch.no_grad():
            network(ids)
        for hook in hooks:
            hook.remove()
        return seen

    return (activations,)


@app.cell(hide_code=True)
def _(activations, copy_of, ids, model, plt):
    PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    names = ["drop"]
    for _block in (0, 1):
        names += [*(f"h.{_block}.{part}" for part in PARTS), f"h.{_block}"]
    names += ["ln_f", "lm_head"]
    expected = activations(copy_of(model), ids, names)

    LABELS = {
        "drop": "embeddings", "ln_f": "last norm", "lm_head": "logits", "ln_1": "first norm",
        "attn.c_attn": "queries, keys, values", "into attn.c_proj": "mixed values",
        "attn.c_proj": "attention adds", "ln_2": "second norm", "mlp.c_fc": "4C channels",
        "into mlp.c_proj": "after GELU", "mlp.c_proj": "feed-forward adds", "": "the stream",
    }  # fmt: skip

    def label(name):
        """A station in words."""
        if ".0" not in name and ".1" not in name:
            return LABELS[name]
        number = 1 if "h.0" in name else 2
        part = name.replace("h.0.", "").replace("h.1.", "").replace("h.0", "").replace("h.1", "")
        return f"block {number}, {LABELS[part]}"

    def compared(network, other=None):
        """The largest difference at each station, as a share of the largest number there."""
        found = activations(network, ids, names)
        right = expected if other is None else activations(other, ids, names)
        return {
            name: ((found[name] - x).abs().max() / x.abs().max()).item()
            for name, x in right.items()
        }

    def stations_drawn(apart, title):
        """Bars, from the embeddings at the top to the logits at the bottom."""
        bars, axes = plt.subplots(figsize=(5.4, 5.8), layout="constrained")
        rows = range(len(apart))
        axes.barh(rows, [max(x, 1e-9) for x in apart.values()], color="#1f5a99", height=0.7)
        axes.axvline(1e-5, color="#d1602b", lw=1.5)
        axes.text(1.3e-5, -0.9, "more than rounding", color="#d1602b", fontsize=9)
        axes.set_yticks(rows, [label(name) for name in apart], fontsize=10)
        axes.set(xscale="log", xlim=(1e-9, 10), ylim=(len(apart) - 0.4, -1.6), title=title,
                 xlabel="largest difference, as a share")  # fmt: skip
        axes.grid(alpha=0.25, axis="x")
        return bars

    return compared, label, stations_drawn


@app.cell(hide_code=True)
def _(mo):
    mistake = mo.ui.slider(
        steps=[0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1], value=0, label="error in one weight",
        show_value=True,
    )  # fmt: skip
    mo.vstack([
        mo.md(
            """
            Here are both models side by side. How large must a mistake be to show? Make one: the slider
            changes a single number of the first matrix of block 1.
            """
        ),
        mistake,
    ])  # fmt: skip
    return (mistake,)


@app.cell(hide_code=True)
def _(compared, copy_of, label, mistake, mo, model, stations_drawn, theirs, torch):
    _changed = copy_of(model)
    with torch.no_grad():
        _changed.h[0].attn.c_attn.weight[0, 0] += mistake.value
    _apart = compared(_changed, theirs)
    _first = next((name for name, x in _apart.items() if x > 1e-5), None)
    mo.vstack(
        [
            stations_drawn(
                _apart, f"one weight of {model.num_parameters():,} wrong by {mistake.value:g}"
            ),
            mo.md(
                f"The first station beyond rounding: **{label(_first)}**. All later ones inherit the error."
                if _first
                else "No station is beyond rounding."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(compared, copy_of, differences, ids, mo, model, theirs, torch):
    _enough = None  # the smallest error of the slider that shows
    for _error in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        _wrong = copy_of(model)
        with torch.no_grad():
            _wrong.h[0].attn.c_attn.weight[0, 0] += _error
        if _enough is None and max(compared(_wrong, theirs).values()) > 1e-5:
            _enough = _error
    _shows = "In this weight no error of the slider shows."
    if _enough:
        _shows = (
            f"In this weight {_enough:g} is the smallest error of the slider that crosses the line. A smaller "
            "one cannot be told from rounding."
        )
    _logits, _loss, _gradients = differences(model, theirs, ids)
    mo.md(
        f"""
        {_shows}

        A mistake shows at the station where it is made, and at all later ones. So **look for the first
        station that differs**. Everything before it is proven right.

        One more check: the way back. Here and in Transformers the loss of this text differs by
        {_loss:.1g}, and the gradients of all {len(_gradients)} tensors by {max(_gradients.values()):.0e} at most. So
        the two models also learn alike.

        ## 3. Three models with one thing wrong

        Each of the next three was converted from our model and opened in Transformers without an error or
        a warning. In each, one thing is wrong. Find the first station that differs, and ask what lies
        between it and the station before. The size of the difference tells something, too.
        """
    )
    return


@app.cell(hide_code=True)
def _(folder, model, torch):
    from transformers import AutoModelForCausalLM

    def opened(**settings):
        """The exported model, opened with other settings."""
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings)
        return network.eval()

    heads_wrong = opened(n_head=model.config.n_head // 2)
    gelu_wrong = opened(activation_function="gelu")
    turned_wrong = opened()
    _weight = turned_wrong.transformer.h[1].attn.c_proj.weight
    _weight.data = _weight.data.T.contiguous()
    return gelu_wrong, heads_wrong, turned_wrong


@app.cell(hide_code=True)
def _(compared, heads_wrong, stations_drawn):
    stations_drawn(compared(heads_wrong), "model A")
    return


@app.cell(hide_code=True)
def _(predict):
    model_a = predict(
        """
        What is wrong with model A?
        """,
        choices=[
            "the queries, keys and values stand in another order in the matrix",
            "the matrix at the end of attention is not transposed",
            "the number of heads",
            "the epsilon of the norms",
        ],
    )
    model_a
    return (model_a,)


@app.cell(hide_code=True)
def _(model, model_a, reply):
    reply(
        model_a,
        "the number of heads",
        f"""
        Queries, keys and values are right, and what attention mixes from them is not. Between the two stand
        only the split into heads, the scores, the mask and the softmax. This model has {model.config.n_head // 2}
        heads instead of {model.config.n_head}. No weight depends on the number of heads, so nothing complains.
        A missing division by the root of the head size would begin at the same station. The stations say
        where to look. What it is, the settings say: compare `n_head` on both sides.
        """,
        wrong={
            "the queries, keys and values stand in another order in the matrix": "Then the station "
            "*queries, keys, values* would differ already.",
            "the matrix at the end of attention is not transposed": "Then the mixed values would still be "
            "right, and what attention adds would be the first to differ.",
            "the epsilon of the norms": "Then the first norm would be the first to differ.",
        },
    )
    return


@app.cell(hide_code=True)
def _(compared, gelu_wrong, stations_drawn):
    stations_drawn(compared(gelu_wrong), "model B")
    return


@app.cell(hide_code=True)
def _(predict):
    model_b = predict(
        """
        What is wrong with model B?
        """,
        choices=[
            "the second norm of block 1 has lost its gain",
            "GELU: the exact formula instead of the approximation",
            "ReLU instead of GELU",
            "the last matrix of the feed-forward layer has lost its bias",
        ],
    )
    model_b
    return (model_b,)


@app.cell(hide_code=True)
def _(compared, gelu_wrong, model_b, reply):
    _apart = compared(gelu_wrong)
    reply(
        model_b,
        "GELU: the exact formula instead of the approximation",
        f"""
        The 4C channels are right before the activation function and wrong after it. The difference is only
        {_apart["into h.0.mlp.c_proj"]:.0e}: another formula for the same curve. In the logits it is
        {_apart["lm_head"]:.0e}. No text that the model writes would show it.
        """,
        wrong={
            "the second norm of block 1 has lost its gain": "The second norm and the 4C channels after it "
            "are still right.",
            "ReLU instead of GELU": "The place is right. But ReLU differs from GELU by up to 0.17, a "
            "thousand times as much.",
            "the last matrix of the feed-forward layer has lost its bias": "What goes into this matrix "
            "differs already.",
        },
    )
    return


@app.cell(hide_code=True)
def _(compared, stations_drawn, turned_wrong):
    stations_drawn(compared(turned_wrong), "model C")
    return


@app.cell(hide_code=True)
def _(predict):
    model_c = predict(
        """
        What is wrong with model C?
        """,
        choices=[
            "the embeddings of the positions are shifted by one",
            "the number of heads in block 2",
            "the matrix at the end of attention in block 2 is not transposed",
            "the matrix at the end of attention is not transposed, in both blocks",
        ],
    )
    model_c
    return (model_c,)


@app.cell(hide_code=True)
def _(model_c, reply):
    reply(
        model_c,
        "the matrix at the end of attention in block 2 is not transposed",
        """
        All of block 1 is right. In block 2 the mixed values still are, and what attention adds is as far
        off as its own size. Between the two stands a single matrix.
        """,
        wrong={
            "the embeddings of the positions are shifted by one": "Then the first bar of all would be long.",
            "the number of heads in block 2": "Then the mixed values of block 2 would be the first to differ.",
            "the matrix at the end of attention is not transposed, in both blocks": "Block 1 is proven "
            "right: none of its stations differs.",
        },
    )
    return


@app.cell(hide_code=True)
def _(ids, lines_on_both_sides, model, predict, theirs):
    lines, files = lines_on_both_sides(model, theirs, ids)
    how_long = predict(
        f"""
        One more question, about reading. A forward pass here runs through {lines.ours:.0f} different lines of
        the package, in {files.ours:.0f} files. Through how many lines of Transformers does the same forward pass
        run there? (Lines of torch count on neither side.) You cannot know it; guess.
        """,
        step=10,
    )
    how_long
    return files, how_long, lines


@app.cell(hide_code=True)
def _(files, how_long, lines, reply):
    reply(
        how_long,
        lines.theirs,
        f"""
        In {files.theirs:.0f} files. These lines do real work: they choose one of several attention kernels, look
        which kind of cache there is, gather what hooks asked for, and serve hundreds of architectures.
        """,
        wrong={
            lines.ours: "That would be so if Transformers did only what is done here. It serves hundreds of "
            "architectures with the same code.",
            10_000: "The whole library is far larger than that. One forward pass runs through little of it.",
        },
        tolerance=0.3 * lines.theirs,
    )
    return


@app.cell(hide_code=True)
def _(CausalSelfAttention, THEIRS_ONLY, getsource, mo, theirs):
    _layer = next(m for name, m in theirs.named_modules() if name.endswith("h.0.attn"))
    _here, _there = (
        len(getsource(layer).splitlines()) for layer in (CausalSelfAttention, type(_layer))
    )
    mo.vstack(
        [
            mo.md(
                "## 4. What engineering adds\n\nNone of this is needed to understand a GPT. Each line is there because "
                "somebody needed it. When you need it, too, you will want that library and not this one.\n\n"
                + THEIRS_ONLY.replace("|---|---|", "|:---|:---|")
            ),
            mo.md(
                f"""
                Some of these words are new. *Beam search* keeps several beginnings of a text at once and
                goes on with the likeliest. In *assisted decoding* a small model proposes tokens, and the
                large one checks them together. *Constrained decoding* allows only tokens that fit a form,
                such as a valid program. A *paged* cache lies in memory in pieces; an *offloaded* one waits in
                the memory of the processor. *Adapters* are a few new weights that are trained while all others
                stay. *Callbacks* are functions of yours that the training calls.

                The layer of attention has {_here} lines here and {_there} there.
                """
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    Two implementations are one model if they give the same ids, the same logits up to rounding, and the same
    gradients, with the same weights. In float32, rounding means about a millionth. If the logits differ,
    compare station by station. The first station that differs says where the mistake is; everything before
    it is right. The size says what kind it is: another formula differs a little, another weight differs a
    lot. A model with such a mistake loads without an error and writes text, so only the comparison shows it.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(20)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(20, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Your own run beside Transformers, with speed, memory and start-up; and OpenAI's weights, once they have
    been fetched:

    ```sh
    nanogpt compare runs/demo
    nanogpt export runs/demo my-hf
    nanogpt generate gpt2 --prompt "Long live"
    ```

    `AutoModelForCausalLM.from_pretrained("my-hf")` opens the exported folder.

    In the notebook: open the cell that makes the three models, plant a mistake of your own, and let
    somebody else find it. Try `layer_norm_epsilon=1e-12`.

    You have been all the way round. What is left is to try something that nobody has tried.

    **Papers.** Wolf et al. 2020, "Transformers: State-of-the-Art Natural Language Processing". Radford et al.
    2019, whose weights and names both sides keep. Goldberg 1991, "What Every Computer Scientist Should Know
    About Floating-Point Arithmetic", on why equal is not equal.
    """)
    return


if __name__ == "__main__":
    app.run()
