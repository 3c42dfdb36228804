import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 18: many machines")


@app.cell(hide_code=True)
def _():
    import copy
    import math
    from dataclasses import replace

    import marimo as mo
    import torch
    import torch.nn.functional as F
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle
    from torch.func import functional_call
    from torch.utils.checkpoint import checkpoint

    from nanogpt.config import IGNORED, ModelConfig
    from nanogpt.learn import collectives, plain
    from nanogpt.learn.collectives import (
        all_gather,
        all_reduce,
        copied,
        gathered,
        reduce_scatter,
        summed,
    )
    from nanogpt.learn.machines import (
        average_gradients,
        bubble,
        parallel_mlp,
        pipeline_order,
        pipeline_times,
    )
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.learn.ranks import RankError, run_ranks
    from nanogpt.model.attention import AttentionContext, attention, attention_mask
    from nanogpt.model.gpt import GPT
    from nanogpt.text.batches import padded_batch
    from nanogpt.text.tokenizer import CharTokenizer
    from nanogpt.training.parallel.context import KeysOfOthers, cut_context
    from nanogpt.training.parallel.data import GradientSums
    from nanogpt.training.parallel.pipeline import Pipeline, Stage
    from nanogpt.training.parallel.shard import shard_model
    from nanogpt.training.parallel.tensor import cut_model

    torch.set_num_threads(1)
    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    INKS = (BLUE, ORANGE, OLIVE, "#e0b040")  # one for each of four ranks
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        AttentionContext,
        BLUE,
        CharTokenizer,
        F,
        GPT,
        GREY,
        GradientSums,
        IGNORED,
        INKS,
        KeysOfOthers,
        LIGHT,
        ModelConfig,
        OLIVE,
        ORANGE,
        Pipeline,
        RankError,
        Rectangle,
        Stage,
        all_gather,
        all_reduce,
        attention,
        attention_mask,
        average_gradients,
        bubble,
        checkpoint,
        collectives,
        copied,
        copy,
        cut_context,
        cut_model,
        functional_call,
        gathered,
        judged,
        math,
        mo,
        package_code,
        padded_batch,
        parallel_mlp,
        pipeline_order,
        pipeline_times,
        plain,
        plt,
        predict,
        reduce_scatter,
        replace,
        reply,
        run_ranks,
        self_test,
        shard_model,
        summed,
        torch,
    )


@app.cell(hide_code=True)
def _(mo, predict):
    cards_guess = predict(
        "A model has 70 billion weights. Lesson 12: training with AdamW keeps 16 bytes for each of them. A "
        "card has 80 GB of memory. How many cards does it take only to hold these numbers?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            # 18. Many machines: what they send each other, and what each saves

            After this lesson you can

            - say why a large model needs many machines, in bytes and in years,
            - say what all-reduce, all-gather and reduce-scatter do, and how many bytes they send,
            - divide a training in five ways, and prove each time that it is still the same training,
            - say what each way sends and saves, and choose one.

            You need lessons 4, 7, 9 and 12 for it, and one number from lesson 17. You need to know nothing about
            computer networks. All machines of this lesson live in
            this notebook.

            ## Why one machine is not enough
            """
        ),
        cards_guess,
    ])  # fmt: skip
    return (cards_guess,)


@app.cell(hide_code=True)
def _(cards_guess, math, mo, reply):
    _years = 6 * 70e9 * 1.4e12 / (0.4 * 989e12) / (365 * 24 * 3600)
    mo.vstack([
        reply(
            cards_guess,
            math.ceil(16 * 70e9 / 80e9),
            "16 · 70 billion bytes are 1,120 GB, and 1,120 / 80 = 14. No activations are counted yet.",
            wrong={
                4: "That holds the weights alone, 4 bytes each. Training keeps a gradient and two means, too.",
                7: "That is 8 bytes a weight: the weights and their gradients. AdamW needs two more numbers.",
                1: "70 billion numbers of one byte would fit. Each has 4 bytes, and each weight needs four of them.",
            },
        ),
        mo.md(
            f"""
            Time is the second reason. With twenty tokens for each weight (lesson 17) the model reads 1.4
            million million tokens. Each weight costs 6 operations for each token: 2 on the way forward, 4 on the way back. So it takes
            6 · 70 billion · 1.4 million million operations. A fast graphics card (GPU), NVIDIA's H100, can do 989
            million million in a second at its peak, and 40 % of that is a good run. One such card needs
            **{_years:.0f} years**. A thousand cards need
            {_years * 365 / 1000:.0f} days, if they hardly wait for each other.

            So one model is trained by many cards together. Often eight of them are in one machine. A program
            runs for each card. This program with its card is called a **rank**. (It has nothing to do with the rank of a merge in lesson 3.) It has a number, from 0 on, and a memory
            that no other rank can read. A rank can compute with what it has. It can send a tensor to another
            rank and receive one. Nothing else connects ranks. What carries the tensors is called a **link**; its speed is given in GB a
            second. So this lesson asks the same questions again and
            again: *what does a rank keep, what does it send, and how much is that?*

            ## Four ranks in a notebook

            Here four ranks are four threads of this notebook: pieces of one program that run at the same time. `run_ranks` calls a function once for each rank,
            all at the same time. Each gets a `rank`: its `number`, the number of all ranks (`size`), `send` and `receive`. `send` does
            not wait. `receive` waits until the tensor is there. `run_ranks` returns what each rank returned, and
            the bytes that each rank `sent`.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(run_ranks, torch):
    def pass_on(rank):
        mine = torch.tensor([10.0 * rank.number])
        rank.send(mine, to=(rank.number + 1) % rank.size)
        got = rank.receive(source=(rank.number - 1) % rank.size)
        return f"rank {rank.number} got {got.item():.0f}"

    run_ranks(4, pass_on)
    return


@app.cell(hide_code=True)
def _(mo, package_code, predict, run_ranks):
    wait_guess = predict(
        "Now swap the lines with send and receive: each rank first receives, then sends. What happens?",
        ["no rank ever goes on", "the same result, only later", "rank 0 starts, the others follow"],
    )
    mo.vstack([
        mo.md(
            "Each rank got the tensor of its left neighbour: rank 1 has the 0 of rank 0, rank 2 the 10 of rank 1. "
            "`sent` counts bytes: each rank sent one number of 4 bytes. Change the 4 in the last line to 6 and run it again."
        ),
        package_code(run_ranks),
        wait_guess,
    ])  # fmt: skip
    return (wait_guess,)


@app.cell(hide_code=True)
def _(RankError, mo, reply, run_ranks, wait_guess):
    def _waits(rank):
        x = rank.receive((rank.number - 1) % rank.size)
        rank.send(x, (rank.number + 1) % rank.size)

    try:
        run_ranks(4, _waits)
        _said = ""
    except RankError as _error:
        _said = str(_error)
    mo.vstack([
        reply(
            wait_guess,
            "no rank ever goes on",
            f"Everybody waits, and nobody sends. This is called a **deadlock**. On real machines the run just "
            f"stands still. Here it becomes an error: *{_said}*.",
            wrong={
                "the same result, only later": "Rank 1 could go on only after rank 0 has sent, rank 0 only after "
                "rank 3, and so on, all the way around.",
                "rank 0 starts, the others follow": "Rank 0 runs the same lines as all others, so it receives "
                "first, too.",
            },
        ),
        mo.md(
            """
            ## Three things that all ranks do together

            Apart from one case that comes later, real programs rarely send single messages. They use a few operations in which *all* ranks take part.
            Such an operation is called a **collective**. Three are enough for this lesson. In the picture each
            rank has four numbers. The digits tell you who gave them: ones come from rank 0, tens from rank 1,
            hundreds from rank 2, thousands from rank 3.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    LIGHT,
    OLIVE,
    ORANGE,
    Rectangle,
    all_gather,
    mo,
    plt,
    reduce_scatter,
    run_ranks,
    torch,
):
    def board_drawn(axes, cells, title):
        """A row for each rank, a column for each piece; a cell is (text, colour) or None."""
        for _row, _line in enumerate(cells):
            for _column, _cell in enumerate(_line):
                _text, _ink = _cell or ("", "white")
                axes.add_patch(
                    Rectangle((_column, -_row), 0.94, 0.86, facecolor=_ink, edgecolor=LIGHT)
                )
                _dark = _ink in (BLUE, ORANGE, OLIVE)
                axes.text(
                    _column + 0.47,
                    -_row + 0.43,
                    _text,
                    ha="center",
                    va="center",
                    fontsize=12,
                    color="white" if _dark else "black",
                )
        axes.set(xlim=(-0.05, len(cells[0])), ylim=(-len(cells) + 0.95, 1.45), xticks=[], yticks=[])
        axes.text(len(cells[0]) / 2 - 0.03, 1.12, title, ha="center", fontsize=13)
        axes.spines[["left", "bottom"]].set_visible(False)

    _starts = [[torch.tensor([10.0**r * (i + 1)]) for i in range(4)] for r in range(4)]
    _ran = run_ranks(4, lambda rank: reduce_scatter(_starts[rank.number], rank))
    _sums = [str(int(x)) for x in _ran.results]
    _all = run_ranks(4, lambda rank: all_gather(_ran.results[rank.number], rank)).results
    _boards, _axes = plt.subplots(
        1, 3, figsize=(8.6, 2.9), layout="constrained", width_ratios=[1.35, 1, 1]
    )
    board_drawn(_axes[0], [[(str(int(x)), LIGHT) for x in row] for row in _starts], "at first")
    board_drawn(
        _axes[1],
        [[(_sums[c], ORANGE) if c == r else None for c in range(4)] for r in range(4)],
        "after reduce-scatter",
    )
    board_drawn(
        _axes[2], [[(str(int(x)), ORANGE) for x in row] for row in _all], "after all-gather"
    )
    for _r in range(4):
        _axes[0].text(-0.15, -_r + 0.43, f"rank {_r}", ha="right", va="center", color=GREY)
    _axes[0].set_xlim(-1.5, 4)
    mo.vstack([
        _boards,
        mo.md(
            """
            - **Reduce-scatter**: the pieces are summed, and rank i gets the sum of all pieces i.
            - **All-gather**: each rank has one piece, and afterwards each rank has all of them.
            - **All-reduce**: each rank gets the sum of everything. It is both, one after the other: from the
              left of the picture to the right.

            ## Around the ring

            How do ranks do that? The simple way: each rank sends its whole tensor to every other rank. With n
            ranks a rank then sends n - 1 tensors. There is a better way. Each rank cuts its tensor into n pieces. The
            ranks stand in a ring, and in each round a rank sends *one piece* to its right neighbour.
            """
        ),
    ])  # fmt: skip
    return (board_drawn,)


@app.cell(hide_code=True)
def _(mo):
    ring_step = mo.ui.slider(0, 6, value=0, label="rounds", show_value=True)
    mo.vstack([
        mo.md(
            """
            Move the slider, round by round. In each round every rank sends one piece (bold frame) to its right neighbour: in the picture
            the rank below, and from the last one the first. It passes on the piece to which it has just added, so a piece
            travels around and collects one number from each rank. In rounds 1 to 3 what arrives is *added*; yellow
            is a sum that is not complete yet. After these, each rank has one finished sum (orange). In rounds 4 to 6 what arrives *replaces* the old piece.
            """
        ),
        ring_step,
    ])  # fmt: skip
    return (ring_step,)


@app.cell(hide_code=True)
def _(
    GREY,
    LIGHT,
    ORANGE,
    Rectangle,
    board_drawn,
    mo,
    plt,
    predict,
    ring_step,
):
    _now = [[10**r * (i + 1) for i in range(4)] for r in range(4)]
    for _round in range(ring_step.value):
        _first = _round < 3
        _sends = [(r, (r - _round - (1 if _first else -3)) % 4) for r in range(4)]
        _moved = [(r, i, _now[r][i]) for r, i in _sends]
        for _r, _i, _value in _moved:
            _now[(_r + 1) % 4][_i] = _value + (_now[(_r + 1) % 4][_i] if _first else 0)
    _done = [1111 * (i + 1) for i in range(4)]
    _cells = [
        [
            (str(v), ORANGE if v == _done[i] else LIGHT if v == 10**r * (i + 1) else "#f3d9a4")
            for i, v in enumerate(row)
        ]
        for r, row in enumerate(_now)
    ]
    _board, _axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    _said = f"after {ring_step.value} of 6 rounds" if ring_step.value else "at first"
    board_drawn(_axes, _cells, _said)
    for _r in range(4):
        _axes.text(-0.15, -_r + 0.43, f"rank {_r}", ha="right", va="center", color=GREY)
    if ring_step.value < 6:
        _first = ring_step.value < 3
        for _r in range(4):
            _i = (_r - ring_step.value - (1 if _first else -3)) % 4
            _axes.add_patch(Rectangle((_i, -_r), 0.94, 0.86, fill=False, edgecolor="black", lw=2.5))
    _axes.set_xlim(-1.5, 4)
    ring_guess = predict(
        "1,000 ranks have a tensor of 1 MB each, and they add them up around a ring, until every rank has the "
        "whole sum. How many MB does each rank send in all?",
        step=0.1,
    )
    mo.vstack([_board, ring_guess])
    return (ring_guess,)


@app.cell(hide_code=True)
def _(
    all_gather,
    all_reduce,
    mo,
    package_code,
    reduce_scatter,
    reply,
    ring_guess,
    run_ranks,
    torch,
):
    _x = torch.zeros(4000)
    _naive = run_ranks(4, lambda rank: [rank.send(_x, r) for r in range(4) if r != rank.number]
                       and [rank.receive(r) for r in range(4) if r != rank.number])  # fmt: skip
    _ring = run_ranks(4, lambda rank: all_reduce(_x, rank))
    _halves = [
        run_ranks(4, lambda rank: reduce_scatter(_x.tensor_split(4), rank)).sent[0],
        run_ranks(4, lambda rank: all_gather(_x.tensor_split(4)[rank.number], rank)).sent[0],
    ]
    mo.vstack([
        reply(
            ring_guess,
            round(2 * 999 / 1000, 1),
            "In each round a rank sends a piece of 1/1,000 MB. There are 999 rounds in each half, so nearly 1 MB "
            "in each. More ranks cut the pieces smaller, so the bytes of a rank hardly grow.",
            wrong={
                999: "That is the simple way, in which each rank sends everything to everybody.",
                1: "That is one half of the way. After it each rank has only its own piece of the sum.",
                0.5: "Each rank sends all pieces but one, in each of two halves.",
                1000: "A rank sends in nearly 2,000 rounds, but each time only a thousandth of the tensor.",
            },
            tolerance=0.05,
        ),
        mo.md(
            f"""
            Here four ranks add up a tensor of 16,000 bytes, and the bytes are counted:

            | | each rank sends | with n ranks | 1,000 ranks |
            |:--|--:|:--|--:|
            | everything to everybody | {_naive.sent[0]:,} bytes | n - 1 times the tensor | 999 |
            | reduce-scatter, ring | {_halves[0]:,} bytes | (n - 1) / n | 0.999 |
            | all-gather, ring | {_halves[1]:,} bytes | (n - 1) / n | 0.999 |
            | all-reduce, ring | {_ring.sent[0]:,} bytes | 2 (n - 1) / n | 1.998 |

            Remember three numbers: **1, 1 and 2** times the tensor. The rest of the lesson is counted in them.
            All-reduce is an exercise of this lesson: you write it from `send` and `receive`. The solution follows,
            folded: try before you look. The other two stand beside it in `collectives.py`.
            """
        ),
        package_code(all_reduce),
        mo.md(
            """
            ## Five ways to divide a training

            What can be divided? The model and the batch, each in several directions. The upper row shows the
            model with four blocks, the lower row the batch with four texts. A colour is a rank. What is grey is
            there on every rank. (In FSDP every rank has a part of each tensor, so all colours are in each block.)
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(GREY, INKS, Rectangle, mo, plt):
    _five, _axes = plt.subplots(
        2, 5, figsize=(8.6, 4), layout="constrained", height_ratios=[1.5, 1]
    )
    _names = ("data", "FSDP", "tensor", "pipeline", "context")

    def _tiles(axes, rows, columns, inks):
        for r in range(rows):
            for c in range(columns):
                axes.add_patch(
                    Rectangle(
                        (c / columns, 1 - (r + 1) / rows),
                        1 / columns,
                        1 / rows,
                        facecolor=inks(r, c),
                        edgecolor="white",
                        lw=1.5,
                    )
                )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)

    _whole = "#dddddd"
    _models = [
        lambda r, c: _whole,
        lambda r, c: INKS[(r + c) % 4],
        lambda r, c: INKS[c],
        lambda r, c: INKS[r],
        lambda r, c: _whole,
    ]
    _batches = [
        lambda r, c: INKS[r],
        lambda r, c: INKS[r],
        lambda r, c: _whole,
        lambda r, c: _whole,
        lambda r, c: INKS[c],
    ]
    for _n in range(5):
        _tiles(_axes[0, _n], 4, 4, _models[_n])
        _tiles(_axes[1, _n], 4, 4, _batches[_n])
        _axes[0, _n].set_title(_names[_n], fontsize=13)
    _axes[0, 0].set_ylabel("model:\nblocks", fontsize=12)
    _axes[1, 0].set_ylabel("batch:\ntexts", fontsize=12)
    for _n in range(5):
        _axes[0, _n].set_xlabel("channels", fontsize=11, color=GREY)
        _axes[1, _n].set_xlabel("tokens", fontsize=11, color=GREY)
    mo.vstack([
        _five,
        mo.md(
            """
            We try all five on a real GPT of the package: four blocks, four heads, 32 channels. The batch is
            eight lines of Shakespeare, padded to one length. Their lengths differ on purpose. First one
            rank alone computes the gradients of the mean loss over all targets. **Whatever we divide, the
            gradients must stay these.** Then the training is still the same training.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(CharTokenizer, GPT, IGNORED, ModelConfig, padded_batch, torch):
    lines = [
        "To be, or not to be, that is the question.", "What a piece of work is a man!",
        "The lady doth protest too much, methinks.", "Brevity is the soul of wit.",
        "Who is there?", "O, I die, Horatio.", "Words, words, words.", "Speak.",
    ]  # fmt: skip
    letters = CharTokenizer("".join(lines))
    ids, targets, _ = map(torch.from_numpy, padded_batch([letters.encode(line) for line in lines]))
    torch.manual_seed(0)
    model = GPT(
        ModelConfig(
            vocab_size=letters.vocab_size, context_length=48, n_layer=4, n_head=4, n_embd=32
        )
    )
    model.loss(model(ids), targets).backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    total = int((targets != IGNORED).sum())
    f"ids {tuple(ids.shape)}, {total} real targets, {model.num_parameters():,} weights"
    return expected, ids, model, targets, total


@app.cell(hide_code=True)
def _(expected, mo, model, predict):
    def largest_difference(found):
        """The largest difference from one rank's gradients, as a share of the largest gradient of a tensor."""
        assert set(found) == set(expected)
        return max(
            ((found[n] - expected[n]).abs().max() / expected[n].abs().max()).item()
            for n in expected
        )

    def compared_with_one(found, ran, theory):
        """What is said below each of the five experiments."""
        share = largest_difference(found)
        said = "**the same**" if share < 1e-4 else "**not the same**"
        return mo.md(
            f"The gradients are {said} as those of one rank: they differ by {share:.0e} of the largest one, "
            f"which is {'rounding: the same numbers, added up in another order' if share < 1e-4 else 'more than rounding'}. "
            f"Each rank sent up to "
            f"{max(ran.sent):,} bytes. {theory}"
        )

    weights_in_all = model.num_parameters()
    own_guess = predict(
        "Rank A has 1 real target, and the gradient of its loss is 2. Rank B has 3 real targets, and the "
        "gradient of its mean loss is 6. What is the gradient of the mean loss over all four targets?",
        step=0.1,
    )
    mo.vstack([
        mo.md(
            """
            ## Data parallelism: each rank has a part of the batch

            The oldest way, and the first to try: **data parallelism**. Every rank has a copy of the whole model
            and two of the eight texts. Each computes the gradients for its own texts. Then the ranks average
            their gradients, and all make the same step, so the copies stay equal.

            The average needs care. Some ranks have long texts, others short ones.
            """
        ),
        own_guess,
    ])  # fmt: skip
    return compared_with_one, own_guess, weights_in_all


@app.cell(hide_code=True)
def _(mo, own_guess, reply):
    mo.vstack([
        reply(
            own_guess,
            (1 * 2 + 3 * 6) / 4,
            "Rank B speaks for three targets and rank A for one: (1 · 2 + 3 · 6) / 4.",
            wrong={
                4: "That is the mean of two means. The one target of rank A then counts three times as much as "
                "each target of rank B. It is the error of lesson 9, now between ranks.",
                8: "That is their sum. Each is a mean over other targets.",
                20: "That is the sum over all targets. The loss is a mean over four.",
            },
        ),
        mo.md(
            "So each rank multiplies its gradients by its number of real targets. It writes them all into one long row, "
            "with the number of targets as the last entry. One all-reduce sums both, and each rank divides the row by its last entry. "
            "`average_gradients` does this. It is the second exercise, so try before you look at the code below."
        ),
    ])  # fmt: skip
    return


@app.cell
def _(IGNORED, average_gradients, copy, ids, model, run_ranks, targets):
    def with_data(rank):
        mine = copy.deepcopy(model)  # every rank has the whole model
        mine.zero_grad()
        rows = slice(2 * rank.number, 2 * rank.number + 2)  # and two of the eight texts
        mine.loss(mine(ids[rows]), targets[rows]).backward()
        gradients = [weight.grad for weight in mine.parameters()]
        real = int((targets[rows] != IGNORED).sum())
        return average_gradients(gradients, real, rank)

    dp = run_ranks(4, with_data)
    return (dp,)


@app.cell(hide_code=True)
def _(
    GradientSums,
    IGNORED,
    all_reduce,
    average_gradients,
    compared_with_one,
    copy,
    dp,
    expected,
    ids,
    mo,
    model,
    package_code,
    predict,
    run_ranks,
    targets,
    torch,
    weights_in_all,
):
    def _naive(rank):
        mine = copy.deepcopy(model)
        mine.zero_grad()
        rows = slice(2 * rank.number, 2 * rank.number + 2)
        mine.loss(mine(ids[rows]), targets[rows]).backward()
        return [all_reduce(w.grad, rank) / rank.size for w in mine.parameters()]

    _right = dict(zip(expected, dp.results[3], strict=True))
    _wrong = dict(zip(expected, run_ranks(4, _naive).results[0], strict=True))
    _flat = [torch.cat([g[n].flatten() for n in expected]) for g in (_wrong, expected)]
    _off = ((_flat[0] - _flat[1]).norm() / _flat[1].norm()).item()
    _counts = [int((targets[2 * r : 2 * r + 2] != IGNORED).sum()) for r in range(4)]
    fsdp_guess = predict(
        "In FSDP the weights are gathered twice, and the gradients summed once. How many times as many bytes as in "
        "data parallelism are sent?",
        step=0.1,
    )
    mo.vstack([
        compared_with_one(
            _right, dp,
            f"Theory: an all-reduce of {weights_in_all:,} gradients and one number, of 4 bytes each, is 2 · 3/4 · "
            f"{4 * (weights_in_all + 1):,} = {2 * 3 * (weights_in_all + 1):,}. (The four pieces are not quite equal.)",
        ),
        mo.md(
            f"""
            This is how you prove a divided training right: one step's gradients, compared with those of one
            rank. The four ranks have {", ".join(map(str, _counts))} real targets. A plain mean of their four
            means would be off by {_off:.0%}, and no error message would say so.

            - **It sends** 2 (n - 1) / n gradients for each weight and step. The size of the batch does not matter.
            - **It saves** time, and memory for activations. It saves nothing of the 16 bytes a weight.

            The sending need not take extra time. The gradient of the last block is finished first, so it can
            be sent while the blocks before it still compute.

            And a rank whose texts are all padding? It has no targets, so its mean loss would be 0 / 0. It hands in
            zeros instead of gradients, and takes part all the same. A collective waits for every rank. If one leaves it out, all others wait for ever.

            Each section ends with the code of this notebook, and then with what the package does on real
            machines (`training/parallel`). Here that is `GradientSums`.
            """
        ),
        package_code(average_gradients, GradientSums),
        mo.md(
            """
            ## Fully sharded data parallelism (FSDP): each rank keeps a part of every weight

            In data parallelism every rank still keeps all weights, all gradients and AdamW's two running means of them. Now let each
            rank keep only a quarter of every tensor, with its gradient and its means. Before a block computes,
            its weights are gathered from all ranks. When the block has finished, they are
            thrown away. On the way back they are
            gathered once more. Then the gradients are summed, and each rank gets the sum for its own quarter.

            From here on, where the targets are divided, each rank divides the sum of its losses by the number of
            targets of *all* ranks. To know it, the ranks first add up their numbers: an all-reduce of one number.
            (The notebook has counted them already: `total`.) Then gradients need only be added up, and adding up is all that `gathered` can do. A mean over ranks would
            make them n times too small.
            """
        ),
        fsdp_guess,
    ])  # fmt: skip
    return (fsdp_guess,)


@app.cell(hide_code=True)
def _(fsdp_guess, mo, reply):
    mo.vstack([
        reply(
            fsdp_guess,
            1.5,
            "Gather on the way forward, gather on the way back, reduce-scatter of the gradients: 1 + 1 + 1 = 3 "
            "times the weights. The all-reduce of data parallelism is 2 times.",
            wrong={
                3: "Three times the weights, yes. But data parallelism already sends two times.",
                1: "The gradients alone are a reduce-scatter, half of an all-reduce. The weights move, too, twice.",
                2: "Each gather moves the weights once, and the reduce-scatter is once more: 3 against 2.",
                4: "The number of ranks hardly matters in a ring.",
            },
        ),
        mo.md(
            """
            This is **FSDP**, **fully sharded data parallelism**. *Sharded* means cut into pieces. The idea is also known as ZeRO. The batch is
            divided as before. Only the copies are gone: no rank has the whole model at any time.

            In the code, `gathered(piece, rank)` is an all-gather through which gradients can go back. It works
            out by itself what has to happen then: every rank has used the piece, so the gradients of all ranks
            are added up, and each rank needs those of its own piece. That is a reduce-scatter.

            Three more names: `functional_call` calls a layer with weights that it is given. `checkpoint` keeps only the
            input of a function, forgets what it computed, and computes it again on the way back. This is **activation
            checkpointing**: it saves memory for activations, and costs one more forward pass, about a third more
            computing. Here the function begins by gathering weights, so these are forgotten, too. FSDP itself only has to
            gather the weights again, and not to compute the block again. (It has nothing to do with the files of lesson 9.) `gpt` is the forward pass that you wrote in lesson 7.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(
    checkpoint,
    copy,
    expected,
    functional_call,
    gathered,
    ids,
    model,
    plain,
    run_ranks,
    targets,
    total,
):
    def with_fsdp(rank):
        def piece(weight):  # a quarter of a tensor, as a row of numbers
            pieces = weight.detach().flatten().tensor_split(rank.size)
            return pieces[rank.number].requires_grad_()

        kept = {name: piece(weight) for name, weight in model.named_parameters()}
        empty = copy.deepcopy(model).to("meta")  # the layers, without any numbers

        def whole(part):
            """The weights of a part of the model, gathered from all ranks."""
            names = [name for name in kept if name.startswith(part)]
            return {
                name[len(part) :]: gathered(kept[name], rank).view(expected[name].shape)
                for name in names
            }

        def block(number):
            def through(x):
                weights = whole(f"h.{number}.")
                return functional_call(empty.h[number], weights, (x, context))

            return lambda x: checkpoint(through, x, use_reentrant=False)

        rows = slice(2 * rank.number, 2 * rank.number + 2)
        context = empty.context(ids[rows])  # which token sees which
        wte, wpe = whole("wte.")["weight"], whole("wpe.")["weight"]
        norm = whole("ln_f.")
        blocks = map(block, range(4))
        logits = plain.gpt(
            ids[rows], wte, wpe, blocks, lambda x: functional_call(empty.ln_f, norm, x)
        )
        loss = model.loss(logits, targets[rows], "sum") / total  # of all ranks
        loss.backward()
        return {name: piece.grad for name, piece in kept.items()}

    fsdp = run_ranks(4, with_fsdp)
    return (fsdp,)


@app.cell(hide_code=True)
def _(
    collectives,
    compared_with_one,
    expected,
    fsdp,
    gathered,
    mo,
    model,
    package_code,
    shard_model,
    torch,
    weights_in_all,
):
    _found = {n: torch.cat([g[n] for g in fsdp.results]).view(expected[n].shape) for n in expected}
    _blocks = sum(w.numel() for n, w in model.named_parameters() if n.startswith("h."))
    _rest = weights_in_all - _blocks
    _one = _blocks // 4
    mo.vstack([
        compared_with_one(
            _found, fsdp,
            f"Theory: 3/4 · 4 bytes for {_blocks:,} weights in blocks, three times. The {_rest:,} others are gathered "
            f"once and kept to the end, so theirs is sent twice: {3 * (3 * _blocks + 2 * _rest):,}.",
        ),
        mo.md(
            f"""
            - **It sends** 3 (n - 1) / n numbers for each weight and step, half as much again as data parallelism.
            - **It saves** what data parallelism saves, and memory for weights: a rank keeps 16 / n bytes a weight. While a block computes, the rank also has
              all weights of this one block, here {_one:,} of {weights_in_all:,}, and on the way back its whole gradient.

            The next weights can be fetched while a block computes. So FSDP, too, costs little time if the
            batch is large and the links are fast enough.
            """
        ),
        package_code(gathered, collectives.Gathered, shard_model),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, predict):
    cut_guess = predict(
        "The feed-forward layer is: first matrix, GELU, second matrix. Two ranks share it. Which cut of the "
        "*first* matrix lets each rank go on to GELU without sending anything?",
        [
            "by outputs: each rank computes half of the hidden channels",
            "by inputs: each rank reads half of the channels of x",
            "either: GELU works on each number alone",
        ],
    )
    mo.vstack([
        mo.md(
            """
            ## Tensor parallelism: each rank has a part of every matrix

            In FSDP every rank still computes every block in full, for its own texts. For that moment it holds all weights of
            the block. If a single block is too large or too slow for that, the matrices themselves are divided: **tensor parallelism**. Now all ranks
            work on the *same* tokens, each with its part of every matrix.

            An example: x has two channels, 3 and -2, and both weights of a hidden channel are 1. The channel is
            GELU(1 · 3 + 1 · (-2)) = GELU(1) = 0.84.
            """
        ),
        cut_guess,
    ])  # fmt: skip
    return (cut_guess,)


@app.cell(hide_code=True)
def _(
    F,
    INKS,
    Rectangle,
    copied,
    cut_guess,
    mo,
    package_code,
    parallel_mlp,
    plt,
    reply,
    summed,
    torch,
):
    _gelu = lambda x: F.gelu(torch.tensor(float(x)), approximate="tanh").item()  # noqa: E731
    _mlp, _axes = plt.subplots(figsize=(8.4, 3), layout="constrained")

    def _cells(x, y, width, height, rows, columns, inks):
        for r in range(rows):
            for c in range(columns):
                _axes.add_patch(
                    Rectangle(
                        (x + c * width / columns, y + (rows - 1 - r) * height / rows),
                        width / columns,
                        height / rows,
                        facecolor=inks(r, c),
                        edgecolor="white",
                    )
                )

    _cells(0.0, 1.0, 0.7, 1.2, 1, 1, lambda r, c: "#dddddd")
    _cells(1.3, 0.4, 2.2, 2.4, 1, 4, lambda r, c: INKS[c])
    _cells(4.2, 1.0, 2.2, 1.2, 1, 4, lambda r, c: INKS[c])
    _cells(7.0, 0.5, 1.0, 2.2, 4, 1, lambda r, c: INKS[r])
    for _n in range(4):
        _cells(8.75, 0.5 + (3 - _n) * 0.55, 0.7, 0.5, 1, 1, lambda r, c, n=_n: INKS[n])
    _cells(10.6, 1.0, 0.7, 1.2, 1, 1, lambda r, c: "#dddddd")
    for _x, _y, _text in (
        (0.35, 0.1, "x"),
        (2.4, 0.1, "first matrix:\ncut by outputs"),
        (5.3, 0.1, "hidden channels,\nafter GELU"),
        (7.5, 0.1, "second matrix:\ncut by inputs"),
        (9.1, 0.1, "four\nterms"),
        (10.95, 0.1, "result"),
    ):
        _axes.text(_x, _y, _text, ha="center", va="top", fontsize=11)
    for _x, _text in ((1.0, "·"), (3.85, "→"), (6.7, "·"), (8.4, "→"), (10.05, "sum\n→")):
        _axes.text(_x, 1.6, _text, ha="center", va="center", fontsize=13)
    _axes.set(xlim=(-0.1, 11.5), ylim=(-0.9, 3), xticks=[], yticks=[])
    _axes.spines[["left", "bottom"]].set_visible(False)
    mo.vstack([
        reply(
            cut_guess,
            "by outputs: each rank computes half of the hidden channels",
            f"A hidden channel needs all channels of x. A rank that has these and all weights of the hidden channel can "
            f"finish it alone. Cut by inputs, one rank would have 3 and the other -2, and GELU(3) + GELU(-2) = "
            f"{_gelu(3) + _gelu(-2):.2f} is not GELU(1) = {_gelu(1):.2f}.",
            wrong={
                "by inputs: each rank reads half of the channels of x": "Then each rank has only a part of "
                "each sum. GELU(a) + GELU(b) is not GELU(a + b), so the ranks would have to add up before GELU.",
                "either: GELU works on each number alone": "It does, but it needs the whole number. Half of a sum "
                "is another number.",
            },
        ),
        _mlp,
        mo.md(
            """
            The second matrix is cut the other way, by inputs. A rank has just the hidden channels that its part
            reads. Its result is one term of a sum. So the layer needs a single all-reduce, at its end. The last
            bias is added once, after the sum. In GPT the first matrix is `c_fc` and the second `c_proj`. PyTorch
            stores a weight with a row for each output and a column for each input (`F.linear`). So in the code
            `c_fc` is cut by rows and `c_proj` by columns. The picture shows the matrices the other way round:
            there a column is an output.

            Attention is easier still: a head works alone, so each rank takes one head. The last matrix of
            attention is again cut by inputs, with one all-reduce.

            On the way back the two ends swap. x went to all ranks, so its gradient is the sum of what all ranks
            send back: an all-reduce. The result was a sum, so each term has the gradient of the sum: nothing
            moves. The package calls these two ends `copied` and `summed`. The code follows, folded. `parallel_mlp` is
            the third exercise: try before you look.
            """
        ),
        package_code(copied, summed, parallel_mlp),
    ])  # fmt: skip
    return


@app.cell
def _(
    F,
    attention,
    copied,
    copy,
    ids,
    model,
    parallel_mlp,
    plain,
    run_ranks,
    summed,
    targets,
):
    def with_tensor(rank):
        mine = copy.deepcopy(model)  # it uses only its own part of each matrix
        mine.zero_grad()
        head = slice(8 * rank.number, 8 * rank.number + 8)  # 32 channels, four heads

        def attended(x, layer):
            x = copied(x, rank)  # once, for queries, keys and values
            parts = zip(layer.c_attn.weight.chunk(3), layer.c_attn.bias.chunk(3), strict=True)
            q, k, v = (F.linear(x, w[head], b[head])[:, None] for w, b in parts)
            # each (B, 1, T, 8): one head
            y = attention(q, k, v, causal=True)[:, 0]  # (B, T, 8)
            return summed(F.linear(y, layer.c_proj.weight[:, head]), rank) + layer.c_proj.bias

        def block(part):
            def through(x):
                x = x + attended(part.ln_1(x), part.attn)
                fc, proj = part.mlp.c_fc, part.mlp.c_proj
                weights = fc.weight, fc.bias, proj.weight, proj.bias
                return x + parallel_mlp(part.ln_2(x), *weights, rank)

            return through

        tables = mine.wte.weight, mine.wpe.weight
        logits = plain.gpt(ids, *tables, map(block, mine.h), mine.ln_f)
        mine.loss(logits, targets).backward()
        return {name: weight.grad for name, weight in mine.named_parameters()}

    tp = run_ranks(4, with_tensor)
    return (tp,)


@app.cell(hide_code=True)
def _(compared_with_one, cut_model, expected, ids, mo, package_code, tp):
    def _divided(name):
        return "c_attn" in name or "c_fc" in name or name.endswith("c_proj.weight")

    _found = {
        n: sum(g[n] for g in tp.results) if _divided(n) else tp.results[2][n] for n in expected
    }
    _b, _t = ids.shape
    mo.vstack([
        compared_with_one(
            _found, tp,
            f"Theory: four all-reduces in each of 4 blocks, each of {_b} · {_t} tokens · 32 channels · 4 bytes: "
            f"{4 * 4 * 2 * 3 * _b * _t * 32 * 4 // 4:,}.",
        ),
        mo.md(
            """
            - **It sends**: four all-reduces of the vectors of all tokens in every block, two on the way forward and
              two on the way back. An all-reduce sends twice its tensor, so that is 8 times the vectors. Each
              time everybody has to wait for it. The number of weights does not matter.
            - **It saves** memory for weights, gradients and means (1 / n is left of what is in the matrices), for most activations, and time.

            Because it sends so much and waits each time, it is used where links are fastest: among the cards of
            one machine. Norms and embeddings are whole on every rank here. All
            ranks compute them for the same tokens, and `copied` has added up what comes back, so every rank has the same,
            whole gradient. Larger programs divide these as well: the norms by tokens (**sequence parallelism**, not the
            context parallelism below), and the table of tokens by rows. The package does both.
            """
        ),
        package_code(cut_model),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, predict):
    idle_guess = predict(
        "Four ranks, each with one block. The batch goes through in four parts, one after the other: all four "
        "forward, then all four back. Going back takes twice as long as going forward. For what percentage of "
        "the time does a rank have nothing to do?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            ## Pipeline parallelism: each rank has some of the blocks

            The model can also be cut between its blocks: **pipeline parallelism**. Rank 0 has the embeddings
            and the first blocks, rank 1 the next ones, and so on. A rank computes its blocks and sends the
            result to the next rank. On the way back the gradient of this result comes back.

            But rank 1 cannot start before rank 0 has finished. So that all ranks have something to do, the batch is
            cut into **microbatches** that go through one after the other, as in lesson 9's accumulation. Some
            waiting remains, at the start and at the end. It is called the **bubble**.
            """
        ),
        idle_guess,
    ])  # fmt: skip
    return (idle_guess,)


@app.cell(hide_code=True)
def _(bubble, idle_guess, mo, pipeline_times, reply):
    stages = mo.ui.slider(2, 8, value=4, label="ranks", show_value=True)
    parts = mo.ui.slider(1, 24, value=8, label="microbatches", show_value=True)
    mo.vstack([
        reply(
            idle_guess,
            round(100 * bubble(pipeline_times(4, 4, "gpipe"))),
            "The first part reaches the last rank after three steps. So the way forward takes 7 steps, and each "
            "rank works in 4 of them. The way back takes 7 longer steps, with work in 4. So 3 of 7 are waiting: "
            "(n - 1) / (m + n - 1) with n ranks and m parts.",
            wrong={
                0: "Rank 3 has to wait until the first part has passed three ranks.",
                75: "This is one part alone: then one rank works at a time. Four parts overlap.",
                25: "One rank of four would be idle. But each rank waits for three steps out of seven.",
                50: "Count the steps: 4 parts need 4 + 3 steps, and 3 of these 7 are waiting.",
            },
            tolerance=1,
        ),
        mo.md(
            """
            Each row is a rank, time goes to the right. A number is a microbatch, blue on its way forward,
            orange on its way back. White is the bubble. There are two usual orders. **GPipe** takes all forward,
            then all back. **1F1B** (one forward, one back) goes back with a microbatch as soon as it can. Raise
            the number of microbatches. Watch the bubble, and the memory.
            """
        ),
        mo.hstack([stages, parts], justify="start", wrap=True),
    ])  # fmt: skip
    return parts, stages


@app.cell(hide_code=True)
def _(
    BLUE,
    ORANGE,
    Rectangle,
    bubble,
    mo,
    package_code,
    parts,
    pipeline_order,
    pipeline_times,
    plt,
    stages,
):
    def _kept(jobs):
        """The most microbatches that a rank has taken forward and not yet back."""
        now = most = 0
        for job in sorted(jobs, key=lambda j: j.start):
            now += -1 if job.back else 1
            most = max(most, now)
        return most

    _times = {
        name: pipeline_times(stages.value, parts.value, key)
        for name, key in (("GPipe", "gpipe"), ("1F1B", "1f1b"))
    }
    _long = max(job.end for jobs in _times["GPipe"] for job in jobs)
    _gantt, _panels = plt.subplots(2, 1, figsize=(8.6, 5), layout="constrained", sharex=True)
    for _axes, (_name, _jobs) in zip(_panels, _times.items(), strict=True):
        for _r, _line in enumerate(_jobs):
            for _job in _line:
                _axes.add_patch(
                    Rectangle(
                        (_job.start, -_r - 0.45),
                        _job.end - _job.start,
                        0.9,
                        edgecolor="white",
                        facecolor=ORANGE if _job.back else BLUE,
                        lw=0.8,
                    )
                )
                if _long < 45 or (_job.back and _long < 80):
                    _axes.text(
                        (_job.start + _job.end) / 2,
                        -_r,
                        str(_job.microbatch + 1),
                        color="white",
                        ha="center",
                        va="center",
                        fontsize=9,
                    )
        _axes.set(xlim=(0, _long), ylim=(-stages.value + 0.45, 0.55))
        _axes.set_yticks(
            [-_r for _r in range(stages.value)],
            [f"rank {_r}" for _r in range(stages.value)],
            fontsize=11,
        )
        _axes.set_title(
            f"{_name}: rank 0 keeps the activations of up to {_kept(_jobs[0])} microbatches",
            loc="left",
            fontsize=12,
        )
        _axes.spines[["left", "bottom"]].set_visible(False)
    _panels[1].xaxis.get_major_locator().set_params(integer=True)
    _panels[1].set_xlabel("time, in steps of one microbatch forward")
    mo.vstack([
        _gantt,
        mo.md(
            f"The bubble is **{bubble(_times['1F1B']):.0%}** of the time in both. 1F1B only changes the order of a "
            "rank's work: the first microbatch still has to reach the last rank, and the last gradient the first "
            "rank. With n ranks and m microbatches the bubble is (n - 1) / (m + n - 1). With more microbatches it "
            "shrinks. But GPipe then keeps the activations of all of them. 1F1B never keeps more microbatches "
            "than the number of ranks, even if the batch has many more. So it can afford many microbatches, and "
            "a small bubble."
        ),
        package_code(pipeline_order, pipeline_times),
        mo.md(
            """
            Now with the model: four ranks with one block each, four microbatches of two texts. One weight needs
            care. The head uses the table of the token embedding (lesson 4). The embedding is on the first rank
            and the head on the last. So both ranks keep a copy of the table, and each gets a part of its
            gradient: the first from looking up, the last from the head. If each made its step with its own part,
            the two copies would differ after one step, and the head would no longer be tied. No error would say
            so. So the two ranks send each other their parts and add them. This costs a second table in memory,
            and a table sent in each step.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(copy, ids, model, pipeline_order, run_ranks, targets, total):
    def with_pipeline(rank):
        me, last = rank.number, rank.size - 1
        mine = copy.deepcopy(model)  # it uses only block number `me`
        mine.zero_grad()
        kept = {}
        for back, number in pipeline_order(me, rank.size, microbatches=4, schedule="1f1b"):
            rows = slice(2 * number, 2 * number + 2)
            if not back:
                context = mine.context(ids[rows])
                if me == 0:
                    came = mine.wpe.embed(mine.wte(ids[rows]), context.pos)
                else:
                    came = rank.receive(me - 1).requires_grad_()
                result = mine.h[me](came, context)
                if me < last:
                    rank.send(result, me + 1)
                else:
                    logits = mine.head(mine.ln_f(result))
                    result = mine.loss(logits, targets[rows], "sum") / total
                kept[number] = came, result  # until its gradient comes back
            else:
                came, result = kept.pop(number)
                result.backward(None if me == last else rank.receive(me + 1))
                if me > 0:
                    rank.send(came.grad, me - 1)
        if me in (0, last):  # the table is on both: add up its two gradients
            other = last - me  # the other one of these two ranks
            rank.send(mine.wte.weight.grad, other)
            mine.wte.weight.grad += rank.receive(other)
        return {name: weight.grad for name, weight in mine.named_parameters()}

    pp = run_ranks(4, with_pipeline)
    return (pp,)


@app.cell(hide_code=True)
def _(
    Pipeline,
    Stage,
    compared_with_one,
    expected,
    ids,
    mo,
    package_code,
    pp,
    predict,
):
    def _owner(name):
        if name.startswith("h."):
            return int(name.split(".")[1])
        return 3 if name.startswith("ln_f") else 0

    _found = {n: pp.results[_owner(n)][n] for n in expected}
    _b, _t = ids.shape
    _border, _table = _b * _t * 32 * 4, 4 * expected["wte.weight"].numel()
    talk_guess = predict(
        "Finally, the texts themselves are cut: each rank has a quarter of the tokens of every text, and all weights. "
        "Which parts of a block need something from other ranks?",
        ["attention", "attention and the norms", "all of them", "the feed-forward layer"],
    )
    mo.vstack([
        compared_with_one(
            _found, pp,
            f"Theory: a rank in the middle sends {_b} · {_t} tokens · 32 channels · 4 bytes forward, and as much "
            f"back: {2 * _border:,}. The first and the last send half of it, and the table: {_border + _table:,}.",
        ),
        mo.md(
            """
            - **It sends** the vectors of all tokens once at each border, and their gradients back. That is far
              less than tensor parallelism, so it works between machines, over slower links.
            - **It saves** memory for weights, gradients and means (1 / n of them is left), and time. The time of the bubble is lost.
            """
        ),
        package_code(Stage, Pipeline),
        mo.md(
            """
            ## Context parallelism: each rank has a part of every text

            A text of a million tokens has too many activations for one rank, even if it is the only text.
            """
        ),
        talk_guess,
    ])  # fmt: skip
    return (talk_guess,)


@app.cell(hide_code=True)
def _(mo, reply, talk_guess):
    mo.vstack([
        reply(
            talk_guess,
            "attention",
            "Attention is the only part in which a token looks at another one (lesson 7). Norms and the "
            "feed-forward layer work on each token by itself.",
            wrong={
                "attention and the norms": "A norm takes the mean over the channels of one token.",
                "all of them": "Everything but attention works on each token by itself.",
                "the feed-forward layer": "It works on each token by itself.",
            },
        ),
        mo.md(
            """
            So **context parallelism** only has to change attention. Each rank makes the queries, keys and
            values of its own tokens. Then keys and values are gathered, and each rank's queries look at all of
            them, as far as the mask allows. You know something that gives a block more keys than it has tokens:
            the KV cache (lesson 12). Here a "cache" whose other tokens come from other ranks takes its place.
            The blocks do not notice. In the code, `AttentionContext` is what attention needs to know, apart from x: positions,
            mask, cache. It is not the context of the heading.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(
    AttentionContext,
    all_reduce,
    attention_mask,
    copy,
    gathered,
    ids,
    model,
    replace,
    run_ranks,
    targets,
    torch,
    total,
):
    class KeysFromAllRanks:
        """It stands where a KV cache would: keys and values (B, nh, T, hs) of all ranks' tokens."""

        def __init__(self, rank):
            self.rank = rank

        def update(self, layer, k, v):
            return gathered(k, self.rank, dim=2), gathered(v, self.rank, dim=2)

    def with_context(rank):
        mine = copy.deepcopy(model)
        mine.zero_grad()
        length = ids.shape[1]
        pos = torch.arange(length).tensor_split(rank.size)[rank.number]  # its own tokens
        mask = attention_mask(length, length)[pos]  # their queries, all keys
        context = AttentionContext(
            position=mine.wpe, pos=pos[None], mask=mask, causal=False, cache=KeysFromAllRanks(rank)
        )
        x = mine.wpe.embed(mine.wte(ids[:, pos]), pos[None])
        for layer, block in enumerate(mine.h):
            x = block(x, replace(context, layer=layer))
        logits = mine.head(mine.ln_f(x))
        (mine.loss(logits, targets[:, pos], "sum") / total).backward()
        return {name: all_reduce(weight.grad, rank) for name, weight in mine.named_parameters()}

    cp = run_ranks(4, with_context)
    return (cp,)


@app.cell(hide_code=True)
def _(
    KeysOfOthers,
    compared_with_one,
    cp,
    cut_context,
    ids,
    mo,
    package_code,
    weights_in_all,
):
    _b, _t = ids.shape
    _keys = 4 * 4 * _b * _t * 32 * 4 * 3 // 4
    _grads = 2 * 3 * weights_in_all
    mo.vstack([
        compared_with_one(
            cp.results[1], cp,
            f"Theory, about: in each of 4 blocks keys and values are gathered, and their gradients "
            f"reduce-scattered, {_keys:,} bytes; then the gradients of all weights, {_grads:,}. In all {_keys + _grads:,}. "
            "(The pieces are not all of one size, so the ranks do not send exactly alike.)",
        ),
        mo.md(
            """
            - **It sends** keys and values of all tokens in each block, and their gradients back. The weights
              are copies, so their gradients are added up as in data parallelism.
            - **It saves** memory for activations: each rank has 1 / n of every text. It saves nothing of the
              16 bytes a weight.

            With a causal mask the last rank has more to do than the first, since its tokens see more keys. Real
            programs give each rank an early and a late part of the text. Often they also pass keys and values
            around the ring piece by piece, and never hold all of them (Ring Attention).
            """
        ),
        package_code(KeysOfOthers, cut_context),
        mo.md(
            """
            ## All five together

            Data and FSDP send weights or gradients. Tensor and pipeline send vectors of tokens. Context sends
            both: keys and values in every block, and at the end the gradients.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(predict):
    wider_guess = predict(
        "A model becomes twice as wide: C channels become 2C. How many times as many bytes does tensor "
        "parallelism send in a step, with the same tokens?",
        step=1,
    )
    wider_guess
    return (wider_guess,)


@app.cell(hide_code=True)
def _(mo, reply, wider_guess):
    how_many = mo.ui.slider(steps=[2, 4, 8, 16, 32, 64], value=8, label="ranks", show_value=True)
    width = mo.ui.slider(
        steps=[1024, 2048, 4096, 8192], value=4096, label="channels", show_value=True
    )
    reads = mo.ui.slider(steps=[1, 2, 4, 8], value=4, label="texts a rank", show_value=True)
    speed = mo.ui.slider(
        steps=[1, 10, 50, 450], value=50, label="link, GB a second", show_value=True
    )
    mo.vstack([
        reply(
            wider_guess,
            2,
            "Twice, since the vectors of the tokens become twice as long. A matrix becomes four times as large "
            "(12 C² weights in a block). So data parallelism and FSDP send four times as much.",
            wrong={
                4: "This is so for what sends weights or gradients. Tensor parallelism sends vectors of C numbers.",
                1: "The vectors that are sent have C numbers each.",
            },
        ),
        mo.md(
            """
            Here are all five for a model of 32 blocks, with these assumptions:

            - A step reads some texts of 2,048 tokens for each rank: with four ranks and two texts, eight.
            - Tensor ranks all read all of them, in n parts one after the other, and keep the activations of one
              part. A pipeline rank keeps up to n parts, but only 1 / n of the blocks. One rank alone takes one text at a time.
            - Activations take 32 bytes for each token, block and channel. Three quarters of them are inside the
              layers, and tensor ranks divide these.
            - Activations, and all that is sent, have 16 bits a number, as in most large runs. Each rank keeps
              its weights in 32 bits and sends copies in 16.
            - Each card reaches 40 % of an H100's peak. The picture on the right compares the time to send with
              the time to compute.
            - Each card can send 450 GB a second to the cards of its machine (NVLink), and to other machines 50 over a
              fast network, 1 over a usual one.
            """
        ),
        mo.hstack([how_many, width, speed, reads], justify="start", wrap=True),
    ])  # fmt: skip
    return how_many, reads, speed, width


@app.cell(hide_code=True)
def _(BLUE, GREY, LIGHT, ORANGE, how_many, mo, plt, reads, speed, width):
    WAYS = ("one rank", "data", "FSDP", "tensor", "pipeline", "context")
    TEXT, LAYERS, VOCABULARY = 2048, 32, 50257
    KEPT = (
        2 * 16
    )  # bytes of activations for each token, block and channel; 3/4 of them inside the layers

    def bytes_held(way, n, C, texts):
        """Bytes on a rank: (weights, gradients and means; activations)."""
        N = 12 * LAYERS * C**2 + VOCABULARY * C
        state, activations = 16 * N, KEPT * LAYERS * C * TEXT * texts
        if way in ("FSDP", "tensor", "pipeline"):
            state /= n
        if way == "FSDP":
            state += 4 * 12 * C**2  # one block, whole
        if way == "one rank":
            activations /= texts  # one text at a time
        if way == "tensor":
            activations *= 1 / 4 + 3 / 4 / n
        return state, activations

    def bytes_sent(way, n, C, texts):
        """Bytes that a rank sends in a step in which all together read n * texts."""
        N, ring = 12 * LAYERS * C**2 + VOCABULARY * C, (n - 1) / n
        vectors = 2 * n * texts * TEXT * C  # of all tokens, once
        return {
            "one rank": 0,
            "data": 2 * ring * 2 * N,
            "FSDP": 3 * ring * 2 * N,
            "tensor": 4 * LAYERS * 2 * ring * vectors,
            "pipeline": 2 * vectors,
            "context": 4 * LAYERS * ring * vectors + 2 * ring * 2 * N,
        }[way]

    _n, _c, _k, _link = how_many.value, width.value, reads.value, 1e9 * speed.value
    _weights = 12 * LAYERS * _c**2 + VOCABULARY * _c
    beside = {
        "xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 11,
        "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    }  # fmt: skip
    _bars, (_left, _right) = plt.subplots(
        1, 2, figsize=(8.8, 3.9), layout="constrained", sharey=True
    )
    for _y, _way in enumerate(WAYS):
        _state, _activations = (x / 1e9 for x in bytes_held(_way, _n, _c, _k))
        _left.barh(_y, _state, color=BLUE, height=0.62, label="16 bytes a weight" if not _y else "")
        _left.barh(
            _y,
            _activations,
            left=_state,
            color=LIGHT,
            height=0.62,
            label="activations" if not _y else "",
        )
        _left.annotate(f"{_state + _activations:,.0f}", (_state + _activations, _y), **beside)
        _seconds = bytes_sent(_way, _n, _c, _k) / _link
        _right.barh(_y, _seconds, color=ORANGE, height=0.62)
        if _seconds:
            _right.annotate(
                f"{_seconds:,.2g} s" if _seconds < 10 else f"{_seconds:,.0f} s",
                (_seconds, _y),
                **beside,
            )
    _most = max(sum(bytes_held(_way, _n, _c, _k)) for _way in WAYS) / 1e9
    _left.axvline(80, color=GREY, ls="--", lw=1)
    _left.text(80, -0.62, " a card: 80", color=GREY, fontsize=10, va="bottom")
    _left.set_yticks(range(6), WAYS)
    _left.set(xlim=(0, 1.25 * max(_most, 90)), ylim=(5.6, -1.1), xlabel="GB on each rank")
    _left.legend(
        frameon=False, fontsize=11, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1
    )
    _computes = 6 * _weights * _k * TEXT / (0.4 * 989e12)
    _slowest = max(bytes_sent(_way, _n, _c, _k) / _link for _way in WAYS)
    _right.axvline(_computes, color=GREY, ls="--", lw=1)
    _right.text(
        _computes,
        -0.62,
        f" computing: {_computes:,.2g} s" if _computes < 10 else f" computing: {_computes:,.0f} s",
        color=GREY,
        fontsize=10,
        va="bottom",
    )
    _right.set(xlim=(0, 1.35 * max(_slowest, _computes)), xlabel="seconds of sending in a step")
    mo.vstack([
        _bars,
        mo.md(
            f"The model has {_weights / 1e9:.1f} billion weights. Try these: which ways fit into 80 GB with 8,192 "
            "channels, and how many ranks does that take? Which way suffers most from a slow link? What do more "
            "texts a rank change for data parallelism and FSDP, and what for tensor parallelism? (The light part of "
            "context is as long as that of data: both have as many tokens. But one very long text cannot be divided by "
            "data parallelism. Context parallelism divides it.)"
        ),
    ])  # fmt: skip
    return KEPT, TEXT


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    | | each rank has | sends in a step | weights, gradients, AdamW's means | saves | costs |
    |:--|:--|:--|:--|:--|:--|
    | data | part of the texts | 2 × gradients | 16 bytes a weight | time; activations | a copy everywhere |
    | FSDP | part of the texts and of each weight | 3 × weights | 16 / n bytes a weight | time; activations | waits for weights if a card has few tokens |
    | tensor | part of each matrix | 8 × tokens in each block | 16 / n bytes a weight of a matrix | time; most activations | waits in every block |
    | pipeline | some blocks | 2 × tokens at each border; the tied table | 16 / n bytes a weight | time | the bubble |
    | context | part of every text | 4 × tokens in each block, 2 × gradients | 16 bytes a weight | activations | a copy everywhere |

    (Multiply each entry by (n - 1) / n, except for the pipeline. "Tokens" are the vectors of all tokens, C numbers each. An
    all-reduce counts twice.)

    They can be combined, because each cuts something different. (Only FSDP and data cut the same batch: FSDP
    is data parallelism without the copies.) **Then the numbers of ranks multiply**: 8 for
    tensor times 4 for pipeline times 2 for data are 64 ranks. And they help each other. A rank with 1/8 of
    every matrix has 1/8 of the gradients, so its data parallelism sends an eighth.

    A usual order of choice:

    1. The model and its AdamW fit on one card: data parallelism, and nothing else.
    2. They do not fit: FSDP, as long as each card has enough tokens.
    3. A block is too large or too slow, or there are more ranks than texts in a batch: tensor parallelism
       inside of each machine, up to its 8 cards.
    4. Eight cards hold each block, but not all blocks; or there are still more ranks than texts: pipeline
       parallelism between machines.
    5. The texts are very long: context parallelism.
    
    Which limit comes first? Let the cards grow a hundredfold, and the batch stay the same, say 4 million tokens. (A
    larger batch would help the cards. But beyond some size it hardly makes a step better.) Then each card gets a
    hundredth of the tokens, and has as many bytes to send as before. So the limit changes with the number of cards:
    
    | cards | what runs out first | what helps |
    |--:|:--|:--|
    | 1 | memory: 80 GB are full with 5 billion weights; then time | more cards |
    | 2 to 8 | memory, if a copy does not fit on each card | FSDP, or tensor inside the machine |
    | up to hundreds | the link between machines | more tokens on each card |
    | thousands | the batch: too few texts for each card | tensor and pipeline: several cards share a text |
    | 10,000 | the bubble: more copies of the model share one batch, so each has fewer microbatches | fewer parts of the pipeline; context for long texts |
    
    Why does FSDP need many tokens? It sends 6 bytes a weight: three times 16 bits. Computing takes 6 operations
    for each weight and token. With 50 GB a second and 40 % of an H100's peak, sending takes 6 · N / 50 billion seconds, and computing takes
    6 · N · tokens / 396,000 billion. The 6 and the N cancel: from 396,000 / 50 = about 8,000 tokens a step on,
    computing takes longer than sending. (Nothing is hidden here.) A batch of 4 million tokens then
    keeps 500 cards busy, and no more.

    Meta trained its model of 405 billion weights on 16,384 cards: 8 for tensor, 16 for pipeline and 128 for
    data, with sharded weights. For texts of 131,072 tokens it was 8 for tensor, 16 for pipeline, 16 for
    context and 8 for data. Each card reached about 40 % of its peak.

    ## Find the layout

    Now you. A model of 64 blocks and 8,192 channels, 52 billion weights; 64 cards of 80 GB, 8 in each
    machine. A step reads 128 texts of 2,048 tokens. Choose how many ranks share each matrix (tensor) and how
    many the blocks (pipeline). The rest are copies (data parallelism). Inside of a machine links send
    450 GB a second, between machines 50. **Which layout fits and has the shortest step?**
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    across = mo.ui.slider(steps=[1, 2, 4, 8, 16], value=1, label="tensor", show_value=True)
    along = mo.ui.slider(steps=[1, 2, 4, 8, 16], value=8, label="pipeline", show_value=True)
    mo.hstack([across, along], justify="start", wrap=True)
    return across, along


@app.cell(hide_code=True)
def _(BLUE, GREY, KEPT, OLIVE, ORANGE, TEXT, across, along, mo, plt):
    def layout_costs(t, p, ranks=64, L=64, C=8192):
        """Seconds of a step by cause, and GB on a rank, for t ranks a matrix and p parts of the blocks."""
        N, d = 12 * L * C**2, ranks // (t * p)
        own = 128 / d  # texts, one microbatch each, that one copy of the model reads
        fast, slow = 450e9, 50e9
        vectors = 2 * own * TEXT * C
        computing = 6 * N * 128 * TEXT / ranks / (0.4 * 989e12)
        costs = {
            "computing": computing,
            "bubble": computing * (p - 1) / own,
            "tensor": 4 * (L / p) * 2 * (t - 1) / t * vectors / (fast if t <= 8 else slow),
            "pipeline": 2 * vectors / slow * (p > 1),
            "data": 2 * (d - 1) / d * 2 * N / (t * p) / slow,
        }
        texts_kept = min(own, p)  # 1F1B
        memory = 16 * N / (t * p) + KEPT * (L / p) * C * TEXT * texts_kept * (1 / 4 + 3 / 4 / t)
        return costs, memory / 1e9

    _t, _p = across.value, along.value
    if _t * _p > 64:
        _shown = mo.md(f"**{_t} · {_p} = {_t * _p} ranks, and there are 64.** Choose less.")
    else:
        _costs, _memory = layout_costs(_t, _p)
        _inks = dict(zip(_costs, (BLUE, "#dddddd", ORANGE, "#e0b040", OLIVE), strict=True))
        _layout, (_top, _low) = plt.subplots(2, 1, figsize=(8.6, 3.6), layout="constrained")
        _start = 0.0
        for _name, _seconds in _costs.items():
            _top.barh(
                0,
                _seconds,
                left=_start,
                color=_inks[_name],
                height=0.6,
                label=f"{_name} {_seconds:.2f} s",
            )
            _start += _seconds
        _top.text(_start, 0, f"  {_start:.1f} s", va="center")
        _top.set(
            xlim=(0, 1.15 * max(_start, 8)), ylim=(-0.4, 1.9), yticks=[], xlabel="seconds of a step"
        )
        _top.legend(frameon=False, ncols=3, fontsize=11, loc="upper left")
        _low.barh(0, _memory, color=BLUE if _memory <= 80 else ORANGE, height=0.6)
        _low.axvline(80, color=GREY, ls="--", lw=1)
        _low.text(
            _memory,
            0,
            f"  {_memory:,.0f} GB" + (" fits" if _memory <= 80 else ": too much"),
            va="center",
        )
        _low.set(
            xlim=(0, max(120, 1.3 * _memory)),
            ylim=(-0.5, 0.6),
            yticks=[],
            xlabel="GB on each rank (dashed: a card)",
        )
        for _axes in (_top, _low):
            _axes.spines["left"].set_visible(False)
        _shown = mo.vstack([
            _layout,
            mo.md(f"tensor {_t} · pipeline {_p} · data {64 // (_t * _p)} = 64 ranks, {128 * _t * _p // 64} "
                  "microbatches for each copy."),
        ])  # fmt: skip
    _shown
    return (layout_costs,)


@app.cell(hide_code=True)
def _(layout_costs, mo):
    _all = {
        (t, p): layout_costs(t, p)
        for t in (1, 2, 4, 8, 16)
        for p in (1, 2, 4, 8, 16)
        if t * p <= 64
    }
    _fit = {k: sum(costs.values()) for k, (costs, memory) in _all.items() if memory <= 80}
    _best = min(_fit, key=_fit.get)
    _rows = "\n".join(
        f"| {t} | {p} | {64 // (t * p)} | {_all[t, p][1]:,.0f} GB | {seconds:.2f} s |"
        for (t, p), seconds in sorted(_fit.items(), key=lambda pair: pair[1])[:4]
    )
    mo.accordion({
        "The four best layouts, once you have looked for yourself": mo.md(
            f"| tensor | pipeline | data | memory | a step |\n|--:|--:|--:|--:|--:|\n{_rows}\n\n"
            f"The best has tensor {_best[0]} and pipeline {_best[1]}; the first four hardly differ. A pipeline alone "
            "does not fit, not even with 16 parts. Tensor alone: eight ranks would hold over 80 GB each, so it takes 16, two machines, and the slow link costs more than all the computing. (Pipeline and data are counted over the slow link.) Here "
            "nothing is sent while a rank computes. Real programs hide a part of the sending in this way."
        )
    })  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    - Training keeps 16 bytes a weight, and a large model takes one card decades. So ranks share it, and each
      way to share it sends something.
    - In a ring a reduce-scatter and an all-gather send the tensor once, an all-reduce twice, however many
      ranks there are. A rank that leaves out a collective stops all others.
    - Data parallelism averages gradients, weighted by targets. FSDP keeps 1/n of each weight and sends half as
      much again. Both send more for more weights.
    - Tensor parallelism cuts the first matrix by outputs and the second by inputs, and adds up once.
      Pipelines send little and have a bubble, which many microbatches shrink. Context parallelism gathers
      keys and values, and sums gradients. What these three send grows with the tokens;
        context parallelism also sends the gradients of all weights.
    - A divided training is right if its gradients are those of one rank.
    """)
    return


@app.cell(hide_code=True)
def _(mo, self_test):
    answers = self_test(18)
    mo.vstack([mo.md("## Questions"), answers])
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(18, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Three exercises. All ranks run your function at once; the judge names ranks that wait for ever, and says
    how many bytes a right answer sends:

    ```sh
    nanogpt exercise check all-reduce
    nanogpt exercise check average-gradients
    nanogpt exercise check parallel-mlp
    ```

    Two experiments. In `with_data`, let rank 3 return before `average_gradients`. What do the others do? And in
    `with_tensor`, replace `copied(x, rank)` by `x`: which gradients are wrong then, and why does the loss
    not show it?

    `nanogpt train` divides a training among real processes, each with its own memory. Whatever you divide, the
    losses stay the same but for rounding. And `nanogpt plan` compares the layouts of a large run:

    ```sh
    nanogpt train demo --train.max-steps 20 --run runs/one
    nanogpt train demo --train.max-steps 20 --run runs/two --parallel.processes 2 --parallel.tensor 2
    nanogpt plan gpt2-124m --gpus 64 --gpu h100
    ```

    **Papers.** Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    Li et al. 2020, "PyTorch Distributed", for data parallelism that sends while it computes. Rajbhandari et
    al. 2020, "ZeRO", sections 5 and 7, and Zhao et al. 2023, "PyTorch FSDP". Shoeybi et al. 2019,
    "Megatron-LM", section 3; Korthikanti et al. 2022, "Reducing Activation Recomputation", for sequence
    parallelism. Huang et al. 2019, "GPipe"; Narayanan et al. 2019, "PipeDream", and 2021, "Efficient
    Large-Scale Language Model Training on GPU Clusters", for the bubble and for layouts. Liu et al. 2023,
    "Ring Attention". Llama Team 2024, "The Llama 3 Herd of Models", section 3.3 and table 4: layouts, and
    400 gigabits a second between machines. NVIDIA's data sheet of the H100: 80 GB, and NVLink with 900 GB a
    second in both directions together.
    """)
    return


if __name__ == "__main__":
    app.run()
