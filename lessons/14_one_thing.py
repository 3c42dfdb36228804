import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 14: change one thing")


@app.cell(hide_code=True)
def _():
    import random
    from hashlib import sha256
    from math import comb, sqrt
    from pathlib import Path
    from statistics import mean, stdev

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.settings import recipe_folder
    from nanogpt.config import read_toml
    from nanogpt.errors import UserError
    from nanogpt.lab.judge import LEVEL, Difference, differences, largest_span_of_equals, spread
    from nanogpt.lab.report import write_report
    from nanogpt.lab.runner import run_study
    from nanogpt.lab.study import load_study
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.workers import usable_cores

    torch.set_num_threads(1)  # for models so small, two threads wait for each other
    return (
        Difference,
        LEVEL,
        Path,
        UserError,
        comb,
        differences,
        judged,
        largest_span_of_equals,
        load_study,
        mean,
        mo,
        package_code,
        plt,
        predict,
        random,
        read_toml,
        recipe_folder,
        reply,
        run_study,
        self_test,
        sha256,
        short_run,
        spread,
        sqrt,
        stdev,
        usable_cores,
        write_report,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 14. Change one thing, and know whether to believe it

    After this lesson you can say how much of a difference between two trainings is luck. You can run a
    study that changes one thing and nothing else. And you can tell a real effect from luck, by a test
    that you understand step by step.

    The field knows its hyperparameters from experiments, not from formulas. Somebody changes the
    learning rate, the loss falls by 0.02, and the change is kept. Was it the learning rate? Or would
    the loss have fallen by itself, in another run of the same recipe? Most wrong beliefs about
    training come from skipping this question.

    ## The same recipe, again and again

    The seed of a run decides three things: the first random weights, which windows of the text make
    up each batch, and what dropout sets to zero (dropout is off here). It is the one setting that nobody means when they say "the recipe". Here is the
    small model of the lessons, trained for 30 steps: three times with another seed, and then once
    more with the first one.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    twice_guess = predict(
        """
        The last run repeats the first: same settings, same seed, same machine. By how much will
        their validation losses differ?
        """,
        choices=["not at all", "by some thousandths", "by some hundredths"],
    )
    twice_guess
    return (twice_guess,)


@app.cell(hide_code=True)
def _(ends, reply, twice_guess):
    _apart = abs(ends["seed 1"] - ends["seed 1 again"])
    _right = "not at all" if _apart < 5e-4 else "by some thousandths"
    if _apart >= 5e-3:
        _right = "by some hundredths"
    _reasons = {
        "not at all": "On some machines sums are taken in another order in each run.",
        "by some thousandths": "Nothing in a training is truly random. The seed fixes every draw, so "
        "the second run repeats the first, number for number.",
        "by some hundredths": "That is the distance between *different* seeds. With the same seed the "
        "same weights meet the same batches.",
    }
    reply(
        twice_guess,
        _right,
        f"The distance is {_apart:.1g}. The seed fixes the weights at the start and all batches.",
        wrong={_guess: _why for _guess, _why in _reasons.items() if _guess != _right},
    )
    return


@app.cell
def _(short_run):
    ends = {}
    for _name, _seed in (("seed 1", 1), ("seed 2", 2), ("seed 3", 3), ("seed 1 again", 1)):
        _records = short_run(30, train={"seed": _seed})
        ends[_name] = round(_records[-1].val_loss, 6)
    ends
    return (ends,)


@app.cell(hide_code=True)
def _(ends, mean, mo, stdev):
    _three = list(ends.values())[:3]
    mo.md(f"""
    The three different seeds end at {", ".join(f"{_loss:.3f}" for _loss in _three)}. Their mean is
    {mean(_three):.3f} and their standard deviation {stdev(_three):.3f}. Between the best and the worst
    lie **{max(_three) - min(_three):.3f} nats, and nothing was changed at all.** We call this spread
    *the noise*. So if you change one thing, run it once, and see a difference of that size, you know
    nothing.

    ## Luck looks like success

    So one takes several seeds. Suppose you try a new setting, *b*, against the old one, *a*, with three
    seeds each. All three runs of *b* end below all three runs of *a*. That looks clear.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    sweep_guess = predict(
        """
        The two settings are in truth equally good. In how many of 100 such experiments are *all three*
        runs of one setting better than *all three* of the other?
        """,
        step=1,
    )
    sweep_guess
    return (sweep_guess,)


@app.cell(hide_code=True)
def _(reply, share, sweep_guess):
    reply(
        sweep_guess,
        10,
        f"""
        Put all six losses in a row, best first. There are 20 ways to place three *a* among six, and
        without any effect all are equally likely. In two of them the letters do not mix: *aaabbb* and
        *bbbaaa*. Two of 20 are 10 of 100. Drawn 5,000 times below: {100 * share:.1f} of 100.
        """,
        wrong={
            5: "This is the chance for *b* to win in all three. But *a* can win in the same way, and "
            "you would report that as well.",
            1: "One in a hundred needs five seeds each. Three look like many, but there are only "
            "20 ways to share out six places.",
            25: "A coin that falls three times on the same side does so in 25 of 100. Here each run is "
            "compared with all three others, so it is rarer.",
            50: "That is the chance that one named setting has the better mean.",
        },
        tolerance=2,
    )
    return


@app.cell
def _(random):
    def swept(a, b):
        """Whether all runs of one setting are better than all runs of the other."""
        return max(a) < min(b) or max(b) < min(a)

    def experiment(seeds, draw, effect=0.0, noise=0.01):
        """The losses of two settings; b is better by `effect`."""
        a = [draw.gauss(2.5, noise) for _ in range(seeds)]
        b = [draw.gauss(2.5 - effect, noise) for _ in range(seeds)]
        return a, b

    _draw = random.Random(0)
    share = sum(swept(*experiment(3, _draw)) for _ in range(5000)) / 5000
    f"{100 * share:.1f} of 100"
    return experiment, share, swept


@app.cell(hide_code=True)
def _(mo):
    seeds_each = mo.ui.slider(2, 6, value=3, label="seeds for each setting", show_value=True)
    mo.vstack([
        mo.md(
            """
            Here are 100 experiments in which *nothing* differs. In each box, the upper dots are the
            losses of *a* and the lower dots those of *b*; left is better. The boxes in orange look
            like a clear victory. Move the slider: more seeds make such luck rarer.
            """
        ),
        seeds_each,
    ])  # fmt: skip
    return (seeds_each,)


@app.cell(hide_code=True)
def _(comb, experiment, mo, plt, random, seeds_each, swept):
    _draw = random.Random(4)
    wall, boxes = plt.subplots(figsize=(7, 5), layout="constrained")
    lucky = 0
    for _n in range(100):
        _column, _line = _n % 10, _n // 10
        _a, _b = experiment(seeds_each.value, _draw)
        _won = swept(_a, _b)
        lucky += _won
        boxes.add_patch(
            plt.Rectangle((_column + 0.04, _line + 0.06), 0.92, 0.88, lw=0, color="#f3d3c2" if _won else "#f1f1f1")
        )
        for _losses, _height, _color in ((_a, 0.34, "#1f5a99"), (_b, 0.66, "#d1602b" if _won else "#888888")):
            _x = [_column + 0.5 + (_loss - 2.5) / 0.075 for _loss in _losses]
            boxes.plot(_x, [_line + _height] * len(_x), "o", ms=3.2, color=_color)
    boxes.set(xlim=(0, 10), ylim=(10, 0))
    boxes.axis("off")
    boxes.set_title(f"{lucky} of 100 experiments look like a clear victory. All are luck.", fontsize=11)
    mo.vstack([
        wall,
        mo.md(
            f"With {seeds_each.value} seeds for each setting, {2 * 100 / comb(2 * seeds_each.value, seeds_each.value):.1f} "
            "of 100 are expected in the long run."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(predict):
    twenty_guess = predict(
        """
        You try twenty ideas in this way, three seeds each, and none of them does anything. In how many
        of 100 such rounds of twenty ideas will at least one idea have "clearly worked"? (Each works by luck in 10 of
        100, independently of the others.)
        """,
        step=1,
    )
    twenty_guess
    return (twenty_guess,)


@app.cell(hide_code=True)
def _(reply, twenty_guess):
    reply(
        twenty_guess,
        round(100 * (1 - 0.9**20)),
        """
        Each idea stays without luck in 90 of 100. All twenty do so in 0.9 multiplied with itself twenty
        times, 12 of 100. In the other 88 you have a false discovery. So say how many ideas you
        tried, not only which one worked.
        """,
        wrong={
            10: "That is the chance of a single idea. Twenty have twenty chances.",
            100: "Twenty times 10 of 100 would be 200 of 100. Chances of different ideas do not add up: "
            "some rounds have two lucky ideas, others none.",
            50: "It feels like even odds. But the chance that all twenty fail is 0.9 to the power 20.",
        },
        tolerance=3,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A test, on paper

    We need a rule that says *real* or *within the noise*. It should be wrong rarely, and we should know
    how rarely. Take three losses each:

    | | seed 1 | seed 2 | seed 3 | mean | standard deviation |
    |:---|---:|---:|---:|---:|---:|
    | *a* | 2.51 | 2.52 | 2.53 | 2.52 | 0.01 |
    | *b* | 2.49 | 2.50 | 2.51 | 2.50 | 0.01 |

    For the standard deviation, the squared distances from the mean are divided by 2 here, not by 3. The
    three runs are a sample, and their mean was estimated from the same three numbers. So the distances
    come out a little too small, and one divides by n - 1 instead of n.

    1. The difference of the means is 0.02.
    2. A single run strays by 0.01. A mean of three runs strays less, because high and low runs cancel
       in part. It strays by the standard deviation divided by the root of the number of runs:
       0.01 / √3 = 0.0058. This is the *standard error* of a mean.
    3. The difference is 0.02 / 0.0058 = 3.5 standard errors. We call this its *span*. (Both means
       stray, so their difference strays more than one mean. The table of step 4 counts on that.)
    4. How large a span does luck give? The noise itself was estimated from six numbers, so it may be too
       small by luck as well. A table, computed once by mathematicians, says: with two settings and three
       seeds each, luck alone gives a span above 6.5 in 1 of 100 studies.

    3.5 is below 6.5. So the difference of 0.02 is **within the noise**, although *b* is better in the
    mean by twice the noise of a run. This does not prove that *b* is no better. It says that these six
    runs cannot tell.
    """)
    return


@app.cell
def _(differences):
    paper = differences({"a": [2.51, 2.52, 2.53], "b": [2.49, 2.50, 2.51]})[0]
    {
        "difference": round(paper.by, 4),
        "span": round(paper.span, 2),
        "luck does as much, of 100": round(100 * paper.p, 1),
        "real": paper.real,
    }
    return


@app.cell(hide_code=True)
def _(LEVEL, largest_span_of_equals, mo):
    mo.md(f"""
    In the package this rule is called the **judge** of a study. It calls a difference real where luck
    alone would do as much in less than {100 * LEVEL:.0f} of 100 studies. With more than two settings it
    looks at all pairs at once. Three settings make three pairs, and so three chances for luck. With three
    seeds each the limit for a single pair would be {largest_span_of_equals(2, 6):.1f}; for all three pairs
    together it is {largest_span_of_equals(3, 6):.1f}. Two settings had a limit of
    {largest_span_of_equals(2, 4):.1f} above. A single pair gets the smaller {largest_span_of_equals(2, 6):.1f}
    here, because the noise is now known from nine runs instead of six. This is the remedy for the twenty
    ideas, if all twenty are settings of one study.

    Each setting has a standard deviation of its own. The judge assumes that the noise is equally large in
    all of them. So it makes one number: the root of the mean of their squares.
    """)
    return


@app.cell(hide_code=True)
def _(Difference, differences, package_code):
    package_code(differences, Difference)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## How many seeds?

    A rule that is careful with luck overlooks small effects. The remedy is more seeds, and it is an
    expensive one.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    half_guess = predict(
        """
        With 4 seeds for each setting, a mean has a standard error of 0.02. You look for an effect of
        half the size, so you want a standard error of 0.01. How many seeds for each setting is that?
        """,
        step=1,
    )
    half_guess
    return (half_guess,)


@app.cell(hide_code=True)
def _(mo):
    effect = mo.ui.slider(0, 5, step=0.5, value=2, label="true effect, in units of the noise", show_value=True)
    many = mo.ui.slider(2, 12, value=3, label="seeds for each setting", show_value=True)
    mo.vstack([
        mo.md(
            """
            In the picture *b* is truly better by the effect that you choose. On the left is one study.
            On the right is the share of 200 such studies in which the judge finds the effect, for each
            number of seeds. Find out how many seeds an effect of 2, and of 1, needs. Then set the effect
            to 0: what the judge finds there is false alarm.
            """
        ),
        effect,
        many,
    ])  # fmt: skip
    return effect, many


@app.cell(hide_code=True)
def _(differences, effect, experiment, many, mean, mo, plt, random):
    def found_share(seeds):
        draw = random.Random(seeds)
        pairs = (experiment(seeds, draw, effect=0.01 * effect.value) for _ in range(200))
        return sum(differences({"a": a, "b": b})[0].real for a, b in pairs) / 2  # of 100

    _counts = list(range(2, 13))
    _shares = [found_share(_n) for _n in _counts]
    power, (one, all_of_them) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    _a, _b = experiment(many.value, random.Random(1), effect=0.01 * effect.value)
    for _row, (_name, _losses, _color) in enumerate((("a", _a, "#1f5a99"), ("b", _b, "#d1602b"))):
        one.plot(_losses, [_row] * len(_losses), "o", color=_color, alpha=0.8)
        one.plot([mean(_losses)], [_row], "|", ms=30, mew=3, color=_color)
    one.set(xlabel="loss; the stroke is the mean", xlim=(2.42, 2.54), ylim=(1.6, -0.6))
    one.set_yticks([0, 1], ["a", "b"])
    all_of_them.plot(_counts, _shares, "o-", color="#888888")
    all_of_them.plot([many.value], [_shares[many.value - 2]], "o", ms=10, color="#d1602b")
    all_of_them.set(xlabel="seeds for each setting", ylabel="found, of 100 studies", ylim=(-4, 104))
    for _axes in (one, all_of_them):
        _axes.grid(alpha=0.25)
        _axes.spines[["top", "right"]].set_visible(False)
    _said = differences({"a": _a, "b": _b})[0]
    mo.vstack([
        power,
        mo.md(
            f"The study on the left: difference {_said.by:.3f}, span {_said.span:.1f}: "
            + ("**a real difference.**" if _said.real else "**within the noise.**")
            + f" Luck alone would do as much in {100 * _said.p:.1f} of 100 studies."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(half_guess, largest_span_of_equals, reply, sqrt):
    reply(
        half_guess,
        4 * 2**2,
        f"""
        The standard error falls with the *root* of the number of seeds: 1/√4 is {1 / sqrt(4):.2f}, and
        half of that, {1 / sqrt(16):.2f}, is 1/√16. The limit falls a little as well, because more runs
        tell the noise better: from {largest_span_of_equals(2, 6):.1f} with 4 seeds to
        {largest_span_of_equals(2, 30):.1f} with 16. So half the effect takes at most four times the
        runs. Aim at large effects first.
        """,
        wrong={
            8: "Twice the seeds make the standard error smaller by √2 only, not by 2.",
            4: "The same number of seeds gives the same standard error, 0.02.",
            6: "Twice the seeds would be 8, and even those are not enough.",
        },
        tolerance=1,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A study, run now

    A **study** is a set of runs that differ in one setting, with several seeds and one budget for all.
    Each of the settings that it compares is an **arm**. A study is a short file. It says what is the
    same, what varies, which seeds, and how long each run may take.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    rate_guess = predict(
        "The study below compares three learning rates, after 40 steps. Which ends with the lowest loss?",
        choices=["0.0003", "0.003", "0.03"],
    )
    rate_guess
    return (rate_guess,)


@app.cell(hide_code=True)
def _(mo):
    written = mo.ui.code_editor(
        value="""question = "How fast should it learn?"
seeds = [1, 2]

[budget]
steps = 40

[settings]
"model.context_length" = 64
"model.n_layer" = 2
"model.n_head" = 4
"model.n_embd" = 64
"data.vocab_size" = 512
"data.max_documents" = 20
"train.min_lr" = 0.0
"train.warmup_steps" = 10

[vary]
"train.lr" = [3e-4, 3e-3, 3e-2]
""",
        language="toml",
        label="change it and submit",
    ).form()
    mo.vstack([
        mo.md(
            """
            Six runs, each in a process of its own; about twenty seconds on two cores. Afterwards change
            the file: another setting under `vary`, or more seeds. `nanogpt train --help` lists all
            settings. Finished runs are kept, so the same study is not run twice.
            """
        ),
        written,
    ])  # fmt: skip
    return (written,)


@app.cell(hide_code=True)
def _(
    Path,
    UserError,
    differences,
    load_study,
    mean,
    mo,
    run_study,
    sha256,
    spread,
    usable_cores,
    write_report,
    written,
):
    toml = written.value or written.element.value
    study_place = Path("runs/lesson-studies") / sha256(toml.encode()).hexdigest()[:8]
    study_place.mkdir(parents=True, exist_ok=True)
    (study_place / "study.toml").write_text(toml)
    results = {}
    try:
        with mo.status.spinner("running the study"):
            study = load_study(study_place / "study.toml")
            results = run_study(study, study_place, usable_cores(), lambda line: None)
        write_report(study_place, study, results)
        losses = {_arm: [_run["val_loss"] for _run in _runs] for _arm, _runs in results.items()}
        rows = [
            f"| {_arm} | {mean(_all):.3f} | {spread(_all):.3f} |" for _arm, _all in losses.items()
        ]
        pairs = [
            f"- {_d.one} and {_d.other} differ by {abs(_d.by):.3f}: "
            + ("**a real difference**" if _d.real else "**within the noise**")
            + f" (luck does as much in {100 * _d.p:.1f} of 100 studies)"
            for _d in differences(losses)
        ]
        shown = mo.vstack([
            mo.md("| arm | loss at the end | standard deviation between seeds |\n|:---|---:|---:|\n" + "\n".join(rows)),
            mo.md("\n".join(pairs)),
            mo.image(str(study_place / "curves.png"), style={"max-width": "min(640px, 100%)"}),
        ])  # fmt: skip
    except UserError as error:
        shown = mo.md(f"**{error}**")
    shown
    return losses, results


@app.cell(hide_code=True)
def _(differences, losses, mean, mo, rate_guess, reply, results):
    by_rate = {
        _arm.removeprefix("lr "): mean(_run["val_loss"] for _run in _runs)
        for _arm, _runs in results.items()
        if _arm.removeprefix("lr ") in ("0.0003", "0.003", "0.03")
    }
    _reasons = {
        "0.0003": "It is safe and slow: after 40 steps the weights have hardly moved.",
        "0.003": "The middle is a fair guess, but nothing makes the middle of three values the best.",
        "0.03": "Large steps can overshoot. Then the loss jumps about.",
    }
    best = min(by_rate, key=by_rate.get) if len(by_rate) == 3 else None
    _open = [
        _arm.removeprefix("lr ")
        for _d in (differences(losses) if best else [])
        for _arm, _with in ((_d.one, _d.other), (_d.other, _d.one))
        if _with == f"lr {best}" and not _d.real
    ]
    for _rate in _open:
        _reasons[_rate] = (
            f"It ends higher than {best} in the mean, but the judge cannot tell the two apart. "
            "So your guess may still be right; two seeds do not say."
        )
    _certain = (
        f"It ends lowest, but the judge cannot tell it from {' or '.join(_open)}. That takes more seeds. "
        if _open
        else "Its difference from both others is real. "
    )
    mo.md("The study was changed; its table says what came out.") if best is None else reply(
        rate_guess,
        best,
        _certain + "It holds for this model, this text and 40 steps. A longer run has time for smaller steps.",
        wrong={_rate: _why for _rate, _why in _reasons.items() if _rate != best},
    )
    return


@app.cell(hide_code=True)
def _(mo, read_toml, recipe_folder):
    _ready = sorted((recipe_folder() / "studies").glob("*.toml"))
    mo.md(
        """
## What makes a study fair

The judge knows the noise. It does not know what you did before. Four habits spoil a study that has
enough seeds:

- **Two things change.** More layers are also more weights and more time. Give all arms the same
  budget, and say which: steps, tokens or seconds.
- **Only one side is tuned.** You tried five learning rates for your own idea and none for the old one.
  Give both the same search.
- **Looking until it works.** You add seeds and stop as soon as the judge says yes. Decide the number of
  seeds before.
- **The best of many.** You report the best of several seeds, or the best moment of the curve. Report
  the mean, at the end.

## Studies that are ready

Each takes five to ten minutes on two cores. Guess the answer before you run one.

| run it | its question |
|:---|:---|
"""
        + "\n".join(f"| `nanogpt lab run {_p.stem}` | {read_toml(_p)['question']} |" for _p in _ready)
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    Two runs of one recipe end at different losses when their seeds differ, and the spread between seeds
    is the noise. With three seeds each, two equal settings look like a clear victory in 10 of 100
    experiments. So one of twenty useless ideas nearly always looks good. The judge divides a difference
    by the standard error of a mean and asks how often luck alone gives as much. Half the effect takes
    up to four times the seeds. So is a difference of 0.02 luck or effect? The difference alone cannot tell; the
    noise and the number of seeds have to be known.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(14)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(14, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own, but two experiments.

    1. Write down a guess about one setting, with a number: "dropout 0.1 costs 0.05 nats after 300
       steps". Then write a study with three seeds, as above, into `my_study.toml`, and let it answer:

       ```sh
       nanogpt lab run my_study.toml
       ```

    2. Let a study compare a thing with itself: two arms that differ in a setting which does nothing for
       the loss, such as `train.checkpoint_interval`. Does the judge stay silent?

    **Papers.** Tukey 1949, "Comparing Individual Means in the Analysis of Variance", is where the judge
    comes from. Dodge et al. 2020, "Fine-Tuning Pretrained Language Models: Weight Initializations, Data
    Orders, and Early Stopping", section 3, on what a seed alone can do. Dodge et al. 2019, "Show Your
    Work: Improved Reporting of Experimental Results", on reporting how much was tried. Henderson et al.
    2018, "Deep Reinforcement Learning that Matters", on how a field can fool itself.
    """)
    return


if __name__ == "__main__":
    app.run()
