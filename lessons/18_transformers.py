import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 12: beside Transformers")


@app.cell(hide_code=True)
def _():
    import tempfile
    from pathlib import Path

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    import nanogpt
    from nanogpt.cli.compare import THEIRS_ONLY, written_report
    from nanogpt.errors import UserError
    from nanogpt.interop.compare import compare, copy_of, lines_run, their_model
    from nanogpt.interop.names import to_hugging_face
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.attention import CausalSelfAttention
    from nanogpt.model.trace import record

    return (
        CausalSelfAttention,
        Path,
        THEIRS_ONLY,
        UserError,
        compare,
        copy_of,
        lines_run,
        mo,
        nanogpt,
        plt,
        record,
        small_model,
        source,
        tempfile,
        their_model,
        to_hugging_face,
        torch,
        written_report,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 12. The same model in Hugging Face Transformers

    After this lesson you can carry a model from here to Transformers and back, prove that two
    implementations are one model, say what engineering adds to the mathematics, and what it costs
    to read.

    Everything so far was one implementation, written to be understood. How do you know that it is
    GPT-2, and not something a little like it? By taking the one that everybody uses, giving both
    the same weights, and comparing every number.
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
        ## The same weights

        The model was written as a folder of files and opened by Transformers, which found a
        `{type(theirs).__name__}` in it: {", ".join(f"`{p.name}`" for p in sorted(folder.iterdir()))}.
        `nanogpt export RUN FOLDER` does that for any run.
        """
    )
    return model, their_tokenizer, theirs, tokenizer


@app.cell(hide_code=True)
def _(mo, model, source, theirs, to_hugging_face):
    ours_by_name = dict(model.named_parameters())
    rows = [
        f"| `{name.removeprefix('transformer.')}` | {' x '.join(map(str, weight.shape))} | "
        + " x ".join(map(str, ours_by_name[name.removeprefix("transformer.")].shape))
        + " |"
        for name, weight in theirs.named_parameters()
        if name.removeprefix("transformer.") in ours_by_name and ".1." not in name
    ]
    mo.vstack([
        mo.md(
            "The names are the same, since both keep those of OpenAI's files. One thing differs: GPT-2's "
            "matrices were stored for a layer that multiplies from the other side, and Transformers has "
            "kept it so. They have to be transposed:\n\n| name | there | here |\n|:---|:---|:---|\n"
            + "\n".join(rows)
        ),
        mo.md(source(to_hugging_face)),
    ])
    return


@app.cell(hide_code=True)
def _(mo, their_tokenizer, tokenizer):
    text = "What, has this thing appeared again tonight?\nI have seen nothing. My lord, the king is not himself."
    ids = tokenizer.encode(text)
    mo.md(
        f"""
        ## The same ids

        The tokenizer travels as well, in the format of the library `tokenizers`. The sentence *{text.splitlines()[0]}* and
        the line after it become {len(ids)} tokens here, and the same there: **{their_tokenizer(text).input_ids == ids}**.
        """
    )
    return (ids,)


@app.cell(hide_code=True)
def _(mo):
    wrong = mo.ui.slider(
        steps=[0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2], value=0, label="an error in one weight",
        show_value=True,
    )  # fmt: skip
    mo.vstack([
        mo.md(
            """
            ## The same numbers

            Both read the sentence. After every block the two residual streams are compared, and at the
            end the logits. float32 keeps about seven digits, and sums taken in another order differ in
            the last; so two correct programs differ by about a millionth. How large would a
            mistake have to be for this picture to show it? Put one into the first block of ours: a
            single number of its first matrix, wrong by so much.
            """
        ),
        wrong,
    ])  # fmt: skip
    return (wrong,)


@app.cell(hide_code=True)
def _(copy_of, ids, mo, model, plt, record, theirs, torch, wrong):
    ours = copy_of(model)
    depth = model.config.n_layer
    with torch.no_grad():
        ours.h[0].attn.c_attn.weight[0, 0] += wrong.value
        with record(ours, "drop", *(f"h.{n}" for n in range(depth)), "ln_f") as seen:
            logits = ours(torch.tensor([ids]))
        reply = theirs(torch.tensor([ids]), output_hidden_states=True)
    # Their list: what goes into each block, and last of all what the final norm gives.
    stations = ["embeddings", *(f"block {n + 1}" for n in range(depth - 1)), "final norm", "logits"]
    mine = [seen["drop"], *(seen[f"h.{n}"] for n in range(depth - 1)), seen["ln_f"], logits]
    apart = [
        (a - b).abs().max().item()
        for a, b in zip(mine, [*reply.hidden_states, reply.logits], strict=True)
    ]
    bars, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    axes.bar(stations, [max(x, 1e-9) for x in apart], color="#1f5a99")
    axes.axhline(1e-4, color="#d1602b", lw=1)
    axes.set(yscale="log", ylim=(1e-9, 10), ylabel="largest difference")
    axes.text(0, 1.3e-4, "more than rounding", color="#d1602b", fontsize=8)
    mo.vstack([
        bars,
        mo.md(
            f"The logits reach up to {logits.abs().max():.1f} and differ by at most **{apart[-1]:.1e}**. "
            "An error shows after the block where it was made and in all later blocks, so the first bar "
            "that is too high says where to look. That is how such things are found."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(Path, ids, lines_run, mo, model, nanogpt, torch):
    our_lines, our_files = lines_run(
        lambda: model(torch.tensor([ids])), Path(nanogpt.__file__).parent
    )
    guess = mo.ui.number(value=None, step=10, label="your prediction:").form()
    mo.md(
        f"""
        ## What it costs to read

        A forward pass here runs through {our_lines} different lines of this package, in {our_files} files. (A line that
        runs often counts once; torch's own do not count.)

        **Predict.** How many lines of Transformers does the same forward pass run through there?

        {guess}
        """
    )
    return (guess,)


@app.cell(hide_code=True)
def _(THEIRS_ONLY, compare, guess, ids, mo, model, tokenizer, written_report):
    long_text = tokenizer.decode(ids) * 20
    with mo.status.spinner("comparing numbers, lines, start-up, training, generation"):
        found = compare(model, tokenizer, long_text, 20, None)
    report = written_report("this model", found, tokenizer)
    for left_out in ("![speed, memory and size](report.png)", "## What the library has that is not here", THEIRS_ONLY):
        report = report.replace(left_out, "")
    if guess.value is None:
        answer = mo.md("Write a number first; there is nothing to lose. The comparison appears then.")
    else:
        word = "About right" if abs(guess.value / found.lines.theirs - 1) < 0.25 else "Not quite"
        answer = mo.vstack([
            mo.md(
                f"{word}: {found.lines.theirs:,.0f} in {found.files.theirs:.0f} files; here it was "
                f"{found.lines.ours:,.0f} in {found.files.ours:.0f}. What the other lines do is real "
                "work: they look up which of a dozen attention kernels to take, check what kind of "
                "cache there is, gather what hooks have asked for, serve a hundred architectures at "
                "once. And everything else, side by side:"
            ),
            mo.md(report.replace("# ", "### ")),
        ])
    answer
    return


@app.cell(hide_code=True)
def _(CausalSelfAttention, mo, source, theirs):
    layer = next(m for name, m in theirs.named_modules() if name.endswith("h.0.attn"))
    mo.vstack([
        mo.md("See for yourself: the same layer, here and there."),
        mo.accordion({
            "Attention here": mo.md(source(CausalSelfAttention)),
            "Attention there": mo.md(source(type(layer))),
        }),
    ])
    return


@app.cell(hide_code=True)
def _(THEIRS_ONLY, mo):
    mo.md(
        "## What engineering adds\n\nNone of this is needed to understand a GPT. Each line is there because somebody "
        "needed it, and when you do, you will want that library and not this one.\n\n" + THEIRS_ONLY
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Your own run, compared in every number; and OpenAI's weights, once they have been fetched:

    ```sh
    nanogpt compare runs/demo
    nanogpt export runs/demo my-hf        # AutoModelForCausalLM.from_pretrained("my-hf")
    nanogpt generate gpt2 --prompt "The meaning of life is"
    nanogpt exercise check gpt            # is your forward pass that of everybody else?
    ```

    You have been all the way round. What is left is to try something that nobody has tried.

    **Papers.** Wolf et al. 2020, "Transformers: State-of-the-Art Natural Language Processing".
    Radford et al. 2019, whose weights and names both sides keep. Goldberg 1991, "What Every Computer
    Scientist Should Know About Floating-Point Arithmetic", on why equal is not equal.
    """)
    return


if __name__ == "__main__":
    app.run()
