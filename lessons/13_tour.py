import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 2: a tour of the code")


@app.cell(hide_code=True)
def _():
    import ast
    import inspect
    from importlib import import_module

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import ModelConfig
    from nanogpt.generation.sampling import SAMPLERS
    from nanogpt.learn.lesson import READING_PATH
    from nanogpt.learn.notebook import source
    from nanogpt.model.attention import ATTENTION_KERNELS, FusedAttention, attention
    from nanogpt.model.gpt import BLOCKS, GPT
    from nanogpt.model.layers import KERNELS, MLPS, NORMS
    from nanogpt.model.position import POSITIONS
    from nanogpt.text.batches import BATCHES
    from nanogpt.training.optim import OPTIMIZERS, SCHEDULES
    from nanogpt.training.start import Trainer

    return (
        ATTENTION_KERNELS,
        BATCHES,
        BLOCKS,
        FusedAttention,
        GPT,
        KERNELS,
        MLPS,
        ModelConfig,
        NORMS,
        OPTIMIZERS,
        POSITIONS,
        READING_PATH,
        SAMPLERS,
        SCHEDULES,
        Trainer,
        ast,
        attention,
        import_module,
        inspect,
        mo,
        plt,
        source,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 2. A tour of the code, in reading order

    After this lesson you can say in which file any idea of the package lives, what that file
    needs to know of the others, and how to exchange one part for another without opening it.

    A program that is to be learned from has to be read, and reading needs an order. The package
    has one folder for each subject: text, model, generation, evaluation, training. This is the
    reading path through them: each file uses only files before it. Read them from the first to
    the last and you never meet a name that has not been explained. Start in the middle, and
    everything that you may have to look up comes earlier.
    """)
    return


@app.cell
def _(READING_PATH):
    reading_order = list(READING_PATH)
    return (reading_order,)


@app.cell(hide_code=True)
def _(ast, import_module, inspect, reading_order):
    texts = {n: inspect.getsource(import_module(f"nanogpt.{n}")) for n in reading_order}
    trees = {n: ast.parse(text) for n, text in texts.items()}
    sizes = {n: sum(bool(line.strip()) for line in text.splitlines()) for n, text in texts.items()}
    uses = {
        n: {
            node.module.removeprefix("nanogpt.")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nanogpt.")
        }
        for n, tree in trees.items()
    }
    return sizes, trees, uses


@app.cell(hide_code=True)
def _(mo):
    lines_guess = mo.ui.number(value=None, label="your prediction:").form()
    mo.md(
        f"""
        **Predict.** `model/gpt.py` holds GPT-2 itself: the block, the whole network, its
        initialisation, and what it takes to use packed documents and a cache. Attention and the other
        layers have files of their own. How many lines does it have, blank ones not counted?

        {lines_guess}
        """
    )
    return (lines_guess,)


@app.cell(hide_code=True)
def _(lines_guess, mo, sizes):
    model_size, path_size = sizes["model.gpt"], sum(sizes.values())
    if lines_guess.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        near = abs(lines_guess.value - model_size) <= 40
        reply = (
            f"{'About right' if near else 'Not quite'}: {model_size}, a good part of them docstrings. "
            f"The {len(sizes)} files of the reading path have {path_size:,} together: an afternoon."
        )
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(mo, reading_order):
    place = mo.ui.slider(
        1, len(reading_order), value=reading_order.index("model.gpt") + 1, label="file", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## Who uses whom

            Each row is a file, each dot another file that it uses; the longer its bar, the longer
            the file. There is no dot above the diagonal: that is what makes it an order. Move the
            slider to walk through the files.
            """
        ),
        place,
    ])  # fmt: skip
    return (place,)


@app.cell(hide_code=True)
def _(ast, mo, place, plt, reading_order, sizes, trees, uses):
    here = reading_order[place.value - 1]
    count = len(reading_order)
    tour, (grid, bars) = plt.subplots(
        1, 2, figsize=(10, 6), width_ratios=[2, 1], sharey=True, layout="constrained"
    )
    for row, name in enumerate(reading_order):
        used = [reading_order.index(other) for other in uses[name] if other in reading_order]
        chosen = name == here
        grid.plot(used, [row] * len(used), "o", color="#d1602b" if chosen else "#9db8d2")
        if here in uses[name]:
            grid.plot([reading_order.index(here)], [row], "o", color="#1f5a99")
    grid.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color="#cccccc", lw=1)
    grid.set_xticks(range(count), reading_order, rotation=90, fontsize=8)
    grid.set_yticks(range(count), reading_order, fontsize=8)
    grid.set_title(f"orange: what {here} uses; blue: who uses {here}", fontsize=10)
    grid.invert_yaxis()
    bars.barh(
        range(count), [sizes[n] for n in reading_order],
        color=["#d1602b" if n == here else "#c9d9ea" for n in reading_order],
    )  # fmt: skip
    bars.set_title("lines that are not blank", fontsize=10)

    outline = [
        f"| `{node.name}` | {(ast.get_docstring(node) or '').splitlines()[0]} |"
        for node in trees[here].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
    ]
    about = (ast.get_docstring(trees[here]) or "").split("\n\n")[0].replace("\n", " ")
    mo.vstack([
        tour,
        mo.md(f"**{here}**: {about}\n\n| here | in a sentence |\n|:---|:---|\n" + "\n".join(outline)),
    ])
    return


@app.cell(hide_code=True)
def _(
    ATTENTION_KERNELS,
    BATCHES,
    BLOCKS,
    KERNELS,
    MLPS,
    NORMS,
    OPTIMIZERS,
    POSITIONS,
    SAMPLERS,
    SCHEDULES,
    mo,
):
    tables = {
        "model.position": POSITIONS, "model.norm": NORMS, "model.mlp": MLPS, "model.block": BLOCKS,
        "model.kernels": KERNELS, "model.attention": ATTENTION_KERNELS, "data.batches": BATCHES,
        "train.optimizer": OPTIMIZERS, "train.schedule": SCHEDULES, "sample.sampler": SAMPLERS,
    }  # fmt: skip
    mo.md(
        """
        ## A choice is a dictionary

        Wherever the field knows several ways, there is a dictionary, and a setting names the entry.
        The network asks it once, when it is built; nowhere is there a chain of `if`. So adding a way
        means writing one class and one line, and taking one away breaks nothing else.

        | setting | the entries of its dictionary, as they are now |
        |:---|:---|
        """
        + "\n".join(f"        | `{key}` | {', '.join(table)} |" for key, table in tables.items())
    )
    return


@app.cell(hide_code=True)
def _(Trainer, mo, source):
    mo.md(
        "## One step, from above\n\nThe command `nanogpt train` does this some thousand times: set the "
        "learning rate, load the batches, compute the gradients, limit their length, take a step. "
        "Everything else in the file is there so that a run can be watched, stopped and resumed.\n\n"
        + source(Trainer.train_step)
    )
    return


@app.cell(hide_code=True)
def _(FusedAttention, attention, mo, source):
    mo.md(
        "## Everything twice\n\nEvery computation is written by hand, so that it can be read. Torch has the "
        "same ones as kernels that go through memory once, and training uses those. Here is attention, "
        "first as one would explain it, then fast:\n\n" + source(attention, FusedAttention)
    )
    return


@app.cell(hide_code=True)
def _(GPT, ModelConfig, mo, torch):
    logits = {}
    for kernels in ("plain", "fused"):
        torch.manual_seed(0)
        twin = GPT(ModelConfig(vocab_size=500, n_layer=4, n_head=4, n_embd=64, kernels=kernels)).eval()
        with torch.no_grad():
            logits[kernels] = twin(torch.arange(100)[None])
    apart = (logits["plain"] - logits["fused"]).abs().max().item()
    mo.md(
        f"""
        How would one know that they are the same? By computing it. A fresh network with
        `--model.kernels plain` and one with `fused`, the same weights, the same hundred tokens:
        their logits differ by **{apart:.1e}** at most, which is what float32 leaves of a sum taken in
        another order. The test suite does this for every pair of twins, and for their gradients,
        and then with Transformers in place of the twin. That is what "proven equal" means here.
        """
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Around the reading path

    The packages `text`, `model`, `generation`, `evaluation` and `training` hold the reading path and
    what it takes to run it. Others use them: `interop` (in and out of Hugging Face), `lab` (studies),
    `learn` (these lessons), and `cli`, with a thin file for each command. A package imports only
    from packages below it.

    ## Your turn

    Every exercise is a function of the package, without its body: the signature and the docstring
    say all that you have to know. Begin with one that needs no network at all, only a list of ids,
    and read first how `text/batches.py` explains it:

    ```sh
    nanogpt exercise start
    nanogpt exercise check windows    # cut a text into inputs and targets
    ```

    **Papers.** There is none on reading code, but Knuth 1984, "Literate Programming", asks for
    programs that explain to people what the computer is to do. Paszke et al. 2019, "PyTorch: An
    Imperative Style, High-Performance Deep Learning Library", is what everything here stands on.
    """)
    return


if __name__ == "__main__":
    app.run()
