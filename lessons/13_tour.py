import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 13: a tour of the code")


@app.cell(hide_code=True)
def _():
    import ast
    import inspect
    import sys
    from dataclasses import replace
    from functools import reduce
    from importlib import import_module

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import SampleConfig
    from nanogpt.generation.reader import Reader
    from nanogpt.generation.sampling import Sampler
    from nanogpt.learn.lesson import READING_PATH
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.attention import FusedAttention, attention
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import KERNELS, NORMS
    from nanogpt.training.start import Trainer
    from nanogpt.training.variants import TABLES

    return (
        FusedAttention,
        GPT,
        KERNELS,
        NORMS,
        READING_PATH,
        Reader,
        SampleConfig,
        Sampler,
        TABLES,
        Trainer,
        ast,
        attention,
        import_module,
        inspect,
        judged,
        mo,
        package_code,
        plt,
        predict,
        reduce,
        replace,
        reply,
        self_test,
        small_model,
        sys,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 13. A tour of the code, in reading order

    After this lesson you can say in which file each idea lives. You can read the package in an order
    in which no file uses a later one. You can exchange one part of the network without opening the
    others, and you can check that two versions of a computation are the same computation.

    You know all parts now: tokens, embeddings, attention, blocks, loss, optimizer, sampling. What you
    do not know yet is where they are written down. We start with the parts at work: one text goes in,
    one new token comes out, and we write down every function that is called on the way.

    ## One token, watched

    `model` is the lessons' small model with hand-written layers; a folded cell has made it. `trained`
    holds the same weights, as they came from training. `Reader` runs the model over a text and keeps
    the KV cache. `Sampler` chooses a token from the logits.
    """)
    return


@app.cell(hide_code=True)
def _(GPT, mo, replace, small_model):
    with mo.status.spinner("training a small model, once"):
        trained, tokenizer = small_model()
    model = GPT(replace(trained.config, kernels="plain")).eval()  # by hand, without fused kernels
    _ = model.load_state_dict(trained.state_dict())
    return model, tokenizer, trained


@app.cell
def _(Reader, SampleConfig, Sampler, model, tokenizer):
    def next_token(text):
        reader = Reader(model, [tokenizer.encode(text)])
        logits = reader.predict()  # of the last token: (1, V)
        token = Sampler(SampleConfig(temperature=0), rows=1)(logits)
        return tokenizer.decode(token.tolist())

    next_token("My lord, I")
    return (next_token,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Python can tell us about each call. `sys.setprofile` takes a function, and Python then calls that
    function whenever any other function begins or ends. We keep what belongs to the package. The
    *depth* of a call is the number of calls that are still open around it.
    """)
    return


@app.cell
def _(next_token, sys):
    calls, open_calls = [], []  # each call: [depth, file, function, number of calls inside it]

    def note(frame, event, _):
        file = frame.f_code.co_filename.rpartition("/nanogpt/")[2]
        name = frame.f_code.co_qualname
        if "<" in name or file.startswith("/") or "/" not in file:
            return  # not ours, or a nameless expression
        if event == "call":
            open_calls.append(len(calls))
            calls.append([len(open_calls) - 1, file, name, 0])
        elif event == "return" and open_calls:
            first = open_calls.pop()
            calls[first][3] = len(calls) - first - 1

    sys.setprofile(note)
    next_token("My lord, I")
    sys.setprofile(None)
    f"{len(calls)} calls, in {len({file for _, file, _, _ in calls})} files"
    return (calls,)


@app.cell(hide_code=True)
def _(predict):
    norm_guess = predict(
        """
        This model has 2 blocks. Predicting one token takes one pass through the network. How often
        is `layer_norm` called in that pass?
        """,
        step=1,
    )
    norm_guess
    return (norm_guess,)


@app.cell(hide_code=True)
def _(calls, mo):
    chosen = mo.ui.slider(
        1, len(calls),
        value=1 + next(n for n, call in enumerate(calls) if call[2] == "attention"),
        label="call", show_value=True, full_width=True,
    )  # fmt: skip
    mo.vstack([
        mo.md(
            """
            Here is the whole trip. Each bar is one call. It is as wide as all the calls that are made
            inside it, and those stand below it. From left to right the calls stand in the order in
            which they begin. A bar says nothing about seconds. Move the slider and walk through the
            calls one by one.
            """
        ),
        chosen,
    ])  # fmt: skip
    return (chosen,)


@app.cell(hide_code=True)
def _(calls, chosen, import_module, inspect, mo, plt, reduce):
    ink = {
        "text": "#7a9a3a", "model/gpt": "#1f5a99", "model/layers": "#7fa6cf",
        "model/attention": "#d1602b", "model/position": "#888888", "model/cache": "#bbbbbb",
        "generation": "#4b4b4b",
    }  # fmt: skip

    def color_of(file):
        return next(color for start, color in ink.items() if file.startswith(start))

    flame, sky = plt.subplots(figsize=(7, 4.3), layout="constrained")
    for _n, (_depth, _file, _name, _inside) in enumerate(calls):
        _here = _n == chosen.value - 1
        sky.broken_barh(
            [(_n, _inside + 0.9)], (_depth, 0.9), color=color_of(_file),
            edgecolor="black" if _here else "white", lw=2.5 if _here else 0.3, zorder=3 if _here else 2,
        )  # fmt: skip
        _short = _name.replace(".forward", "").replace(".__call__", "")
        if _inside + 1 >= 1.5 * len(_short):
            sky.text(
                _n + 0.5, _depth + 0.5, _short, color="white", fontsize=9, va="center", zorder=4
            )
    for _start, _color in ink.items():
        sky.plot([], [], "s", color=_color, label=_start)
    sky.set(xlim=(0, len(calls)), xlabel="calls, in the order in which they begin", ylabel="depth")
    sky.invert_yaxis()
    sky.spines[["top", "right"]].set_visible(False)
    sky.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    depth, file, name, _ = calls[chosen.value - 1]
    path_down, _want = [], depth
    for _call in reversed(calls[: chosen.value]):
        if _call[0] == _want:
            path_down.insert(0, f"`{_call[2]}`")
            _want -= 1
    _module = import_module("nanogpt." + file.removesuffix(".py").replace("/", "."))
    _doc = (
        inspect.getdoc(reduce(getattr, name.split("."), _module))
        or "(it has no docstring of its own)"
    )
    mo.vstack(
        [
            flame,
            mo.md(
                f"Call {chosen.value}: **{name}** in `{file}`. *{_doc.splitlines()[0]}*\n\n"
                f"Called through: {' → '.join(path_down)}"
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(calls, norm_guess, reply):
    reply(
        norm_guess,
        sum(_name == "layer_norm" for _, _, _name, _ in calls),
        f"""
        Each block has two norms, one before attention and one before the feed-forward layer. The
        final norm comes before the head. Move the slider to them: they are the calls
        {", ".join(str(_n) for _n, _call in enumerate(calls, 1) if _call[2] == "layer_norm")}.
        """,
        wrong={
            2: "One for each block forgets that a block has two layers, each with its own norm.",
            3: "Two blocks and the final norm: but each block normalises twice.",
            4: "The two norms of each block are right. The final norm, `ln_f`, is missing.",
            12: "Layer norm is called once for all tokens together, not once for each.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The picture is the architecture. On the left the tokenizer cuts the text into words and applies
    merges to each. In the middle `GPT.hidden_states` opens, and inside it two equal shapes follow each
    other: the two blocks. Each consists of a norm, attention, a norm and the feed-forward layer. Inside
    attention you find `softmax` at the very bottom: many calls deep, and a single short function. At the
    right end stand the head and the sampler.

    Note what is *not* there: no loss, no gradient, no optimizer. Those belong to training, and
    generation never calls them.
    """)
    return


@app.cell(hide_code=True)
def _(READING_PATH, ast, import_module, inspect):
    order = list(READING_PATH)
    texts = {_n: inspect.getsource(import_module(f"nanogpt.{_n}")) for _n in order}
    trees = {_n: ast.parse(_text) for _n, _text in texts.items()}
    sizes = {_n: sum(bool(_l.strip()) for _l in _t.splitlines()) for _n, _t in texts.items()}
    uses = {
        _n: {
            _node.module.removeprefix("nanogpt.")
            for _node in ast.walk(_tree)
            if isinstance(_node, ast.ImportFrom) and (_node.module or "").startswith("nanogpt.")
        }
        for _n, _tree in trees.items()
    }
    return order, sizes, trees, uses


@app.cell(hide_code=True)
def _(ast, mo, order, trees):
    _lessons = {
        "text.bpe": "3", "text.tokenizer": "3", "text.batches": "8", "model.layers": "5, 7",
        "model.position": "11", "model.cache": "12", "model.attention": "6", "model.gpt": "7",
        "generation.sampling": "5", "generation.reader": "12", "evaluation.loss": "5, 8",
        "training.optim": "9", "training.objective.next_token": "8, 9", "training.loop": "9",
    }  # fmt: skip
    _ideas = {
        _n: (ast.get_docstring(trees[_n]) or "").split("\n\n")[0].replace("\n", " ") for _n in order
    }
    _rows = "\n".join(
        f"| {_ideas[_n]} | `{_n.replace('.', '/')}.py` | {_lessons[_n]} |" for _n in order
    )
    _text = f"""
    ## The reading path

    A program that one learns from has to be read, and reading needs an order. The order of the calls
    is not a good one: it begins with `generation`, which uses everything. A better rule is this:
    *no file uses a later one.* Then you never meet a name that you have not read about.

    The **reading path** is the list of the files that someone reads to understand the package, in such
    an order. It has {len(order)} files. It stands in the package as `READING_PATH`, and a test checks
    that no file in it imports a later one. Here it is, with the sentence that begins each file:
    """
    mo.vstack([mo.md(_text), mo.md(f"| idea | file | lesson |\n|:---|:---|:---|\n{_rows}")])
    return


@app.cell(hide_code=True)
def _(predict):
    lines_guess = predict(
        """
        `model/gpt.py` holds GPT-2 itself: the block, the whole network, its initialisation. Attention
        and the other layers have files of their own. How many lines does it have, docstrings counted
        and blank lines not? You cannot know the number; guess its size.
        """,
        step=10,
    )
    lines_guess
    return (lines_guess,)


@app.cell(hide_code=True)
def _(mo, order):
    place = mo.ui.slider(
        1,
        len(order),
        value=order.index("model.gpt") + 1,
        label="file",
        show_value=True,
        full_width=True,
    )
    mo.vstack([
        mo.md(
            """
            Each row of the picture is a file, and each dot in it is another file that it uses. No dot
            lies above the diagonal: this is what makes the list an order. The bars on the right are the
            lengths. Move the slider through the files; the table below shows what each one holds.
            """
        ),
        place,
    ])  # fmt: skip
    return (place,)


@app.cell(hide_code=True)
def _(ast, mo, order, place, plt, sizes, trees, uses):
    at = order[place.value - 1]
    tour, (grid, bars) = plt.subplots(
        1, 2, figsize=(6, 5.4), width_ratios=[2.2, 1], sharey=True, layout="constrained"
    )
    for _row, _name in enumerate(order):
        _used = [order.index(_other) for _other in uses[_name] if _other in order]
        grid.plot(_used, [_row] * len(_used), "o", color="#d1602b" if _name == at else "#c9d9ea")
        if at in uses[_name]:
            grid.plot([order.index(at)], [_row], "o", color="#1f5a99")
    grid.plot([-0.5, len(order) - 0.5], [-0.5, len(order) - 0.5], color="#888888", lw=1)
    grid.set_xticks(range(len(order)), order, rotation=90, fontsize=9)
    grid.set_yticks(range(len(order)), order, fontsize=9)
    grid.set_title(f"orange: what {at} uses\nblue: what uses {at}", fontsize=10)
    grid.invert_yaxis()
    bars.barh(
        range(len(order)), [sizes[_n] for _n in order],
        color=["#d1602b" if _n == at else "#c9d9ea" for _n in order],
    )  # fmt: skip
    bars.set_title("lines that\nare not blank", fontsize=10)
    for _axes in (grid, bars):
        _axes.spines[["top", "right"]].set_visible(False)
    outline = [
        f"| `{_node.name}` | {(ast.get_docstring(_node) or '').splitlines()[0]} |"
        for _node in trees[at].body
        if isinstance(_node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(_node)
    ]
    about = (ast.get_docstring(trees[at]) or "").split("\n\n")[0].replace("\n", " ")
    mo.vstack(
        [
            tour,
            mo.accordion(
                {
                    f"What {at} holds: {len(outline)} functions and classes": mo.md(
                        f"{about}\n\n| here | in a sentence |\n|:---|:---|\n" + "\n".join(outline)
                    )
                }
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(lines_guess, reply, sizes):
    reply(
        lines_guess,
        sizes["model.gpt"],
        f"""
        A good part of them are docstrings. All {len(sizes)} files of the reading path have
        {sum(sizes.values()):,} such lines together: one afternoon.
        """,
        wrong={
            2000: "That is the size of the whole reading path. A network is mostly numbers; the text "
            "that describes them is short.",
            30: "The two lines of the block are short, but initialisation, positions, masks and the "
            "cache have to be said as well.",
        },
        tolerance=50,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A choice is an entry in a dictionary

    For many parts the field knows several ways. Norms: layer norm or RMS norm. Positions: learned
    vectors, RoPE, ALiBi. Each such form of a part is a **variant**: one of several forms of a part,
    chosen by a setting. In the package a variant is one class and one entry in a dictionary. The
    network asks the dictionary once, when it is built. Here is one such dictionary, and a network
    that is built with another entry. Change `"rms"` or add `position="rope"`, and run again.
    """)
    return


@app.cell
def _(GPT, NORMS, replace, trained):
    other = GPT(replace(trained.config, norm="rms"))
    {
        "entries": list(NORMS),
        "in each block": [type(other.h[0].ln_1), type(other.h[0].ln_2)],
        "weights": [trained.num_parameters(), other.num_parameters()],
    }
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The number of weights changed, because RMS norm has a gain but no shift. The text of `Block.forward`
    did not change at all.

    Your own class may stand in a file of yours. The file adds the entry, and the option `--plugin`
    loads the file before the command runs: `nanogpt train demo --plugin my_idea.py --model.position
    log`. Lesson 15 writes such a file.

    All position encodings stand in `model/position.py`.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    rope_guess = predict(
        """
        Learned positions add a vector to each embedding before the first block. RoPE adds nothing; it
        rotates queries and keys inside every block. How many lines of `model/gpt.py` and
        `model/attention.py` ask *which* of the two is in use, with an `if` on its name?
        """,
        step=1,
    )
    rope_guess
    return (rope_guess,)


@app.cell(hide_code=True)
def _(ast, reply, rope_guess, trees):
    asking = sum(
        isinstance(_node, ast.If | ast.IfExp) and '"rope"' in ast.unparse(_node.test)
        for _name in ("model.gpt", "model.attention")
        for _node in ast.walk(trees[_name])
    )
    reply(
        rope_guess,
        asking,
        """
        The network calls three methods of every position encoding, without asking which it is: `embed`
        adds to the embeddings, `rotate` changes queries and keys, `bias` adds to the scores. Such a method
        is called a *hook*: the network calls it at a fixed place, and a variant fills it or leaves it
        empty. In each encoding some hooks do nothing. You can see this in the first
        picture: `Position.rotate` is called although learned positions rotate nothing.
        """,
        wrong={
            1: "One `if` would do for two encodings. With five it is a chain, and every new idea has to "
            "open this file. Three hooks that may do nothing need no question.",
            2: "One place for the embedding, one for the rotation: so it is often written. The hooks "
            "are called in these two places, but nobody asks for a name there.",
        },
    )
    return


@app.cell(hide_code=True)
def _(KERNELS, TABLES, mo):
    _all = {**TABLES, "model.kernels": KERNELS}
    mo.vstack([
        mo.md(
            "Not only the network is built this way. These settings each have a dictionary, and all "
            "of them can be given on the command line, as in `nanogpt train demo --model.norm rms`:"
        ),
        mo.md(
            "| setting | its entries |\n|:---|:---|\n"
            + "\n".join(f"| `{_key}` | {', '.join(_table)} |" for _key, _table in _all.items())
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Everything twice, and proven equal

    Softmax, norms, attention, AdamW: each is written by hand, so that one can read it. Torch has the
    same computations as fused kernels: several steps in one routine. Training uses those, because they
    are faster. Two versions of one thing are a danger: they may differ without anybody noticing. So they
    have to be compared. The model that we watched uses `kernels="plain"`. The trained one uses `"fused"`. Both
    have the same weights.
    """)
    return


@app.cell(hide_code=True)
def _(FusedAttention, attention, package_code):
    package_code(attention, FusedAttention)
    return


@app.cell(hide_code=True)
def _(predict):
    apart_guess = predict(
        "Both read the same 40 tokens. By how much do their logits differ, at most?",
        choices=[
            "not at all: every bit is equal",
            "by about one part in a million",
            "by about one part in a hundred",
        ],
    )
    apart_guess
    return (apart_guess,)


@app.cell
def _(model, torch, trained):
    some_ids = torch.arange(40)[None]  # forty different tokens, in one row
    with torch.no_grad():
        by_hand, fused = model(some_ids), trained.eval()(some_ids)
    apart = (by_hand - fused).abs().max().item()
    f"largest logit {by_hand.abs().max():.2f}, largest difference {apart:.1e}"
    return apart, by_hand


@app.cell(hide_code=True)
def _(apart, apart_guess, by_hand, reply):
    _relative = apart / by_hand.abs().max().item()
    reply(
        apart_guess,
        "by about one part in a million"
        if 0 < _relative < 1e-4
        else "not at all: every bit is equal",
        """
        The computer keeps about seven decimal digits of a number (float32). After each addition it
        rounds. The two versions add the same numbers in another order, so they round differently. So
        they agree to about one part in a million. Most mistakes in a formula are far larger: they show
        in the first four or five digits.
        """,
        wrong={
            "not at all: every bit is equal": "On paper a + (b + c) is (a + b) + c. On a computer "
            "each sum is rounded, and the order of the sums matters for the last digit.",
            "by about one part in a hundred": "That would be a mistake, not rounding. Tests of the "
            "package fail at differences a thousand times smaller.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    This is how the package proves things. Whenever there are two ways to compute one thing, a test
    computes both and compares: plain and fused, with and without a cache, alone and in a batch. The
    gradients are compared as well. Lesson 20 does the same with another library in the place of the
    fused version.

    ## One training step, from above

    Training has its own place. This function is called some thousand times in a run. Read it aloud: set
    the learning rate, take the batches, compute the gradients, clip them, let the optimizer take one
    step. The gradients of the step before are set to zero at the start of `gradients`, which stands beside
    it. The lines with `scaler` and `overflow` matter only for training with 16-bit numbers: the scaler
    multiplies the loss so that small gradients do not round to 0. Lesson 9 taught the others.
    """)
    return


@app.cell(hide_code=True)
def _(Trainer, package_code):
    package_code(Trainer.train_step, Trainer.gradients)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Around the reading path

    The package has one folder for each subject. A folder imports only from folders above it in this
    list, so you can read each without those below.

    | folder | what lives there |
    |:---|:---|
    | `text` | from bytes to batches; knows nothing of the model |
    | `model` | from ids to logits; knows nothing of text |
    | `generation` | from logits to text |
    | `evaluation` | how good a model is |
    | `interop` | to and from other libraries |
    | `training` | how the weights are found |
    | `lab`, `learn` | experiments; these lessons |
    | `cli` | one thin file for each command |

    The library returns values, and only `cli` prints. If you look for an idea, the folder follows from
    the question. "Why does no token see a later one?" is about the model: `model/attention.py`. "Which
    tokens are in batch number 7?" is about text: `text/batches.py`.

    ## What you can say now

    The trip of one token is a tree of calls, and each call has one place in one file. The
    reading path lists the files so that none uses a later one. A variant is one class and one entry in a
    dictionary; the network calls the same hooks for all variants and never asks for a name. Two versions
    of a computation are compared by computing both; rounding explains differences of about one part in a
    million, and nothing much larger.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(13)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(13, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own, but two experiments.

    1. Change `next_token` above so that it takes ten tokens in a row: call `reader.append(0,
       token.tolist())` after each and predict again. Watch it. Are the nine later passes narrower than
       the first? Count the calls, then the numbers that each call works on.
    2. Choose a line of the picture that you do not understand, open its file in an editor, and read
       the file from the top. `python -c "import nanogpt; print(nanogpt.__file__)"` says where it lies.

    **Papers.** Knuth 1984, "Literate Programming", section A, asks for programs that explain to people
    what the computer is to do. Paszke et al. 2019, "PyTorch: An Imperative Style, High-Performance Deep
    Learning Library", section 4, describes the modules that the package is made of. Goldberg 1991, "What
    Every Computer Scientist Should Know About Floating-Point Arithmetic", explains the rounding.
    """)
    return


if __name__ == "__main__":
    app.run()
