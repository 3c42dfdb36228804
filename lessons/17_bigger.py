import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 17: bigger")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import numpy as np
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import with_settings
    from nanogpt.lab.law import Law, Point, bootstrap, fit, need_scipy
    from nanogpt.lab.scaling import size_of
    from nanogpt.learn.models import short_run, small_config
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test

    torch.set_num_threads(1)  # for models so small, two threads wait for each other
    return (
        Law,
        Point,
        bootstrap,
        fit,
        judged,
        math,
        mo,
        need_scipy,
        np,
        package_code,
        plt,
        predict,
        reply,
        self_test,
        short_run,
        size_of,
        small_config,
        with_settings,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 17. Bigger: a scaling law, predicted, then measured

    After this lesson you can say how the loss falls with the size of a model and the length of its
    text. You can fit a law to small runs, predict a larger run before you train it, and say how sure
    the prediction is. And you have seen where such a prediction missed.

    A large model costs millions, and it is trained once. Nobody can try a few settings first. So one
    trains a *ladder* of small models, each rung a little larger. From the way the losses fall one works
    out what the large model will reach. That this works at all is one of the most useful facts of the field.

    ## Twenty-two runs

    These are real runs of the study in `docs/studies/scaling`: plays by Shakespeare, two cores, twelve
    minutes in all. Five models, each trained on four lengths of the text, make the ladder. The last two
    runs are a larger model on a longer text, with two seeds. We pretend not to know them yet: a folded
    cell holds all the numbers, and you see them when you have predicted them. Here is the shortest run of
    each of the five models.
    """)
    return


@app.cell(hide_code=True)
def _(Point):
    # weights, tokens, validation loss in nats per token
    study_runs = """
    57344 120576 5.4076
    57344 241152 4.9063
    57344 482304 4.5516
    57344 964608 4.2440
    104448 120576 5.3054
    104448 241152 4.7935
    104448 482304 4.4500
    104448 964608 4.1439
    163840 120576 5.1401
    163840 241152 4.7324
    163840 482304 4.3910
    163840 964608 4.0779
    319488 120576 5.0183
    319488 241152 4.6073
    319488 482304 4.2566
    319488 964608 3.9682
    524288 120576 4.9481
    524288 241152 4.5028
    524288 482304 4.1501
    524288 964608 3.8827
    1081344 1928448 3.5776
    1081344 1928448 3.5614
    """
    rows = [line.split() for line in study_runs.split("\n") if line.strip()]
    runs = [Point(int(size), int(tokens), float(loss)) for size, tokens, loss in rows]
    ladder, larger = runs[:20], runs[20:]
    return ladder, larger


@app.cell
def _(ladder):
    [(run.size, run.tokens, run.loss) for run in ladder[::4]]  # weights, tokens, loss in nats
    return


@app.cell(hide_code=True)
def _(ladder, mo):
    _one = [_p for _p in ladder if _p.size == 104448]
    _rows = [
        f"| {_p.tokens:,} | {_p.loss:.2f} | {f'{_before.loss - _p.loss:.2f}' if _before else ''} |"
        for _before, _p in zip([None, *_one[:2]], _one[:3], strict=True)
    ]
    mo.md(
        "Take the model with 104,448 weights. Its text is doubled from line to line:\n\n"
        "| tokens | loss | fell by |\n|---:|---:|---:|\n" + "\n".join(_rows)
    )
    return


@app.cell(hide_code=True)
def _(predict):
    double_guess = predict(
        "The text is doubled once more, to 964,608 tokens. By how much does the loss fall this time?",
        step=0.01,
    )
    double_guess
    return (double_guess,)


@app.cell(hide_code=True)
def _(double_guess, ladder, reply):
    _losses = [_p.loss for _p in ladder if _p.size == 104448]
    reply(
        double_guess,
        round(_losses[2] - _losses[3], 2),
        """
        Each doubling gains less than the one before, but not by half. This is a slow decline: it does
        not stop soon, and it never becomes steep again.
        """,
        wrong={
            0.51: "The first doubling gained as much. Had each gained the same, the loss would reach 0 "
            "after some ten doublings.",
            0.17: "If each doubling gained half of the one before, there would be hardly anything left to "
            "gain. The decline is slower.",
            0.0: "The text is far from exhausted: more of it still helps.",
        },
        tolerance=0.04,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A power

    Here is the simplest rule with this behaviour: *each doubling multiplies the loss by the same factor,
    a bit below 1.* If the factor is 0.8, a loss of 1 becomes 0.8, then 0.64, then 0.51. It falls by 0.20,
    0.16, 0.13: less each time. Written with the number of tokens D, the rule is a *power*:

    $$\frac{B}{D^{b}}$$

    With twice the D it is divided by $2^b$. A factor of 0.8 is b = 0.32, since $2^{-0.32} = 0.80$. On
    paper with logarithmic axes a power is a straight line, and its slope is -b: it falls.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    halve_guess = predict(
        """
        With b = 0.3166, how many times as much text does it take to *halve* B / D<sup>b</sup>?
        """,
        step=0.1,
    )
    halve_guess
    return (halve_guess,)


@app.cell(hide_code=True)
def _(halve_guess, reply):
    reply(
        halve_guess,
        round(2 ** (1 / 0.3166), 1),
        """
        D<sup>b</sup> has to double, so D grows by 2 to the power 1/b. Three doublings give 0.8 times 0.8 times 0.8,
        which is 0.51: eight times the text for nearly half. This is why models grew by factors of ten and
        not by factors of two.
        """,
        wrong={
            2: "That would be b = 1. Twice the text brings the term down by a fifth only.",
            4: "That would be b = 0.5. Four times the text leaves 0.64 of the term.",
            3.2: "That is 1/b: the number of doublings. Three doublings are a factor of eight.",
        },
        tolerance=0.6,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The law

    The size of the model matters in the same way. And one part of the loss no model can remove: the
    entropy of the text itself. Put together, this is the **scaling law**: how the loss falls with the
    size of the model and the length of the text (Hoffmann et al. 2022):

    $$\text{loss}(N, D) = E + \frac{A}{N^{a}} + \frac{B}{D^{b}}$$

    N counts the weights in matrix products. D counts the tokens that training reads; a token that is read
    twice would count twice, but no run of the study reads its text more than once. E is the *floor*: what is left with
    an endless model and an endless text. The second term is the price of a finite model, the third the
    price of a finite text. Five numbers have to be found: E, A, a, B, b. To *fit* the law means to search
    those that miss the runs by least.
    """)
    return


@app.cell
def _(fit, ladder):
    law = fit(ladder)
    {name: round(number, 3) for name, number in law.numbers().items()}
    return (law,)


@app.cell(hide_code=True)
def _(Law, fit, package_code):
    package_code(fit, Law)
    return


@app.cell(hide_code=True)
def _(ladder, law, mo, np, plt):
    fitted, _axes = plt.subplots(figsize=(8, 4), layout="constrained")
    _sizes = sorted({_p.size for _p in ladder})
    _inks = ["#c9d9ea", "#9dbbd9", "#7fa6cf", "#4b7fb5", "#1f5a99"]
    _line = np.geomspace(1e5, 1.2e6, 50)
    for _size, _ink in zip(_sizes, _inks, strict=True):
        _mine = [_p for _p in ladder if _p.size == _size]
        _axes.plot(_line, [law.loss(_size, _d) for _d in _line], color=_ink, lw=1.5)
        _axes.plot([_p.tokens for _p in _mine], [_p.loss for _p in _mine], "o", color=_ink)
        _axes.text(1.25e6, law.loss(_size, 1.2e6), f"{_size:,} weights", va="center", fontsize=9)
    _axes.set(xscale="log", xlim=(1e5, 2.2e6), xlabel="tokens of training", ylabel="validation loss, nats")
    _axes.grid(alpha=0.25)
    _axes.spines[["top", "right"]].set_visible(False)
    _miss = np.mean([abs(_p.loss / law.loss(_p.size, _p.tokens) - 1) for _p in ladder])
    mo.vstack([
        fitted,
        mo.md(f"Dots are runs, lines are the law. It misses the twenty runs by {100 * _miss:.2f} % in the mean."),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What twenty runs cannot know

    The fit says that the floor E is 0. This cannot be true: no model predicts a play without any error.
    So is the law useless? Test it. Force the floor to a value of your choice, and fit the other four
    numbers again.
    """)
    return


@app.cell
def _(ladder, need_scipy, np):
    sizes = np.array([run.size for run in ladder]) / 2e5
    tokens = np.array([run.tokens for run in ladder]) / 4e5
    losses = np.array([run.loss for run in ladder])

    def loss_of(numbers, floor, size, text):
        A, a, B, b = numbers
        return floor + A * (size / 2e5) ** -a + B * (text / 4e5) ** -b

    def fit_with_floor(floor):
        """The four other numbers of the law, for a floor that is given."""

        def misses(numbers):
            return np.log(loss_of(numbers, floor, 2e5 * sizes, 4e5 * tokens) / losses)

        start = [(4.4 - floor) / 2, 0.2, (4.4 - floor) / 2, 0.3]
        return need_scipy()(misses, start, bounds=(0, 10)).x

    return fit_with_floor, loss_of


@app.cell(hide_code=True)
def _(mo):
    floor = mo.ui.slider(0, 3, step=0.25, value=1, label="floor E, in nats", show_value=True)
    floor
    return (floor,)


@app.cell(hide_code=True)
def _(fit_with_floor, floor, ladder, loss_of, mo, np, plt):
    far, (_near, _wide) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    _share = np.geomspace(1 / 16, 1, 40)
    _steps = np.geomspace(1 / 16, 1000, 60)
    for _e, _ink, _lw in ((0.0, "#888888", 1.5), (2.0, "#7fa6cf", 1.5), (floor.value, "#d1602b", 2.5)):
        _numbers = fit_with_floor(_e)
        _label = f"E = {_e:g}"
        _near.plot(964608 * _share, [loss_of(_numbers, _e, 524288, 964608 * _x) for _x in _share], color=_ink, lw=_lw)
        _wide.plot(_steps, [loss_of(_numbers, _e, 524288 * _x, 964608 * _x) for _x in _steps], color=_ink, lw=_lw, label=_label)
    _mine = [_p for _p in ladder if _p.size == 524288]
    _near.plot([_p.tokens for _p in _mine], [_p.loss for _p in _mine], "o", color="#1f5a99")
    _near.set(xscale="log", xlabel="tokens, 524,288 weights", ylabel="loss, nats", title="where runs were made")
    _wide.set(xscale="log", xlabel="times as many weights and tokens", title="far beyond", ylim=(0, 5.2))
    _wide.axvspan(1 / 16, 1, color="#f1f1f1")
    for _axes in (_near, _wide):
        _axes.grid(alpha=0.25)
        _axes.spines[["top", "right"]].set_visible(False)
    _wide.legend(frameon=False, loc="lower left")
    _best = fit_with_floor(floor.value)
    _miss = np.mean([abs(loss_of(_best, floor.value, _p.size, _p.tokens) / _p.loss - 1) for _p in ladder])
    mo.vstack([
        far,
        mo.md(
            f"With E = {floor.value:g} the law misses the twenty runs by {100 * _miss:.2f} % in the mean. For the next "
            f"model, twice as large on twice the text, it predicts {loss_of(_best, floor.value, 1081344, 1928448):.3f}. "
            f"For a thousand times the weights and tokens it predicts {loss_of(_best, floor.value, 524288e3, 964608e3):.2f}."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    On the left the curves lie on each other: the runs hardly care about the floor. On the right they part.
    So a ladder can predict its next rung, and it cannot say where the ladder ends. This holds for every
    curve that is continued beyond its data.

    ## How sure is it?

    Each run of the ladder has noise; lesson 14 showed how much a seed does. Another seed would give
    other losses, another fit and another prediction. We cannot run everything a hundred times. But we can
    pretend: the **bootstrap** measures uncertainty by drawing the data again and again from what was seen.
    The fit missed each run by a little. We take the law, add to each run such a miss, drawn at random from
    all twenty, and fit again. We do this three hundred times. The spread of the predictions is what noise
    of this size can do.
    """)
    return


@app.cell
def _(bootstrap, ladder, larger, law, mo):
    size, text = larger[0].size, larger[0].tokens
    uncertainty = bootstrap(ladder, law)
    predicted = law.loss(size, text)
    low, high = uncertainty.interval(size, text, runs=2)  # for the mean of two runs
    mo.md(f"Predicted: {predicted:.3f}. Nine in ten lie between {low:.3f} and {high:.3f}.")
    return high, low, predicted, size, text, uncertainty


@app.cell(hide_code=True)
def _(package_code, bootstrap):
    package_code(bootstrap)
    return


@app.cell(hide_code=True)
def _(predict):
    measured_guess = predict(
        """
        Now the two runs of the larger model, with twice the weights and twice the tokens of the largest
        in the ladder. Where does their mean lie?
        """,
        choices=[
            "in the lower half of the interval, or below it",
            "in the upper half of the interval, or above it",
            "exactly at the predicted value",
        ],
    )
    measured_guess
    return (measured_guess,)


@app.cell(hide_code=True)
def _(measured, measured_guess, predicted, reply):
    _higher = "in the upper half of the interval, or above it"
    _lower = "in the lower half of the interval, or below it"
    _right = _higher if measured > predicted else _lower
    _reasons = {
        _lower: "It would be lower if larger models learned better than the law says. Here the law is "
        "too hopeful.",
        _higher: "It would be higher if the law were too hopeful.",
        "exactly at the predicted value": "Two runs have noise, and so have the twenty that the law was fitted to.",
    }
    reply(
        measured_guess,
        _right,
        """
        An honest reading: the prediction is useful, since it misses by little more than 1 %. But it is
        not as sure as the fit suggests. It missed the ladder by 0.4 % in the mean. It missed the new model by
        more than three times as much, and it was too hopeful. A floor of 0 is one reason: without a
        floor the curve falls too long. And the bootstrap knows of noise only. It does not know that the
        form of the law may be wrong, or that the learning rate suits the small models better.
        """,
        wrong={_guess: _why for _guess, _why in _reasons.items() if _guess != _right},
    )
    return


@app.cell(hide_code=True)
def _(high, larger, low, mo, np, plt, predicted, size, text, uncertainty):
    measured = float(np.mean([_p.loss for _p in larger]))
    hits, _axes = plt.subplots(figsize=(8, 3), layout="constrained")
    _axes.hist([_law.loss(size, text) for _law in uncertainty.laws], bins=20, color="#c9d9ea")
    _top = _axes.get_ylim()[1]
    _axes.axvspan(low, high, color="#888888", alpha=0.12)
    _axes.axvline(predicted, color="#1f5a99", lw=2)
    _axes.text(predicted, 1.12 * _top, f"predicted {predicted:.3f}  ", color="#1f5a99", ha="right")
    _axes.axvline(measured, color="#d1602b", lw=2)
    _axes.text(measured, 1.12 * _top, f"  measured {measured:.3f}", color="#d1602b", ha="left")
    _axes.plot([_p.loss for _p in larger], [0.05 * _top] * 2, "D", color="#d1602b")
    _axes.set(xlabel="validation loss, nats", ylabel="laws of the bootstrap", ylim=(0, 1.25 * _top))
    _axes.spines[["top", "right"]].set_visible(False)
    mo.vstack([
        hits,
        mo.md(
            f"Grey: where nine in ten should lie, {low:.3f} to {high:.3f}. The two runs (diamonds) ended at "
            f"{larger[0].loss:.3f} and {larger[1].loss:.3f}. Their mean is {measured:.3f}, "
            f"**{100 * (measured / predicted - 1):+.1f} % from what was predicted**."
        ),
    ])
    return (measured,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A ladder of your own, now

    Nine runs of one to three seconds, on single characters instead of tokens, because short runs get
    further with them. Three widths, three lengths. The learning rate falls with the root of the width, as
    in the study. Then the law, then the prediction, and only then the larger run.
    """)
    return


@app.cell
def _(Point, short_run, size_of, small_config, with_settings):
    def rung(width, steps):
        """One run: its size, its tokens, its loss at the end."""
        shape = {"n_embd": width, "n_head": 2, "position": "rope"}
        records = short_run(
            steps, tokens="runs/lesson-characters",
            data={"tokenizer": "char"}, model=shape,
            train={"batch_size": 8, "warmup_steps": 10, "min_lr": 0.0,
                   "lr": 0.01 * (32 / width) ** 0.5},
        )  # fmt: skip
        config = with_settings(small_config(1), model={**shape, "vocab_size": 78})  # the characters of the plays
        return Point(size_of(config), steps * 8 * 64, records[-1].val_loss)

    return (rung,)


@app.cell
def _(bootstrap, fit, mo, rung):
    with mo.status.spinner("training nine small models"):
        mine = [rung(width, steps) for width in (16, 32, 64) for steps in (40, 80, 160)]
    my_law = fit(mine)
    my_doubt = bootstrap(mine, my_law, draws=100)
    with mo.status.spinner("training the larger one"):
        goal = rung(96, 320)
    return goal, mine, my_doubt, my_law


@app.cell(hide_code=True)
def _(goal, mine, mo, my_doubt, my_law, np, plt):
    _said = my_law.loss(goal.size, goal.tokens)
    _low, _high = my_doubt.interval(goal.size, goal.tokens)
    own_ladder, _axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    _line = np.geomspace(mine[0].tokens, goal.tokens, 50)
    for _size, _ink in zip([*sorted({_p.size for _p in mine}), goal.size], ("#c9d9ea", "#7fa6cf", "#1f5a99", "#d1602b"), strict=True):
        _dots = [_p for _p in [*mine, goal] if _p.size == _size]
        _axes.plot(_line, [my_law.loss(_size, _d) for _d in _line], color=_ink, lw=1.5, label=f"{_size:,} weights")
        _axes.plot([_p.tokens for _p in _dots], [_p.loss for _p in _dots], "o", color=_ink, ms=7)
    _axes.errorbar([goal.tokens], [_said], [[_said - _low], [_high - _said]], fmt="_", color="#888888", ms=16, capsize=6)
    _axes.set(xscale="log", xlabel="characters of training", ylabel="loss, nats per character")
    _axes.grid(alpha=0.25)
    _axes.spines[["top", "right"]].set_visible(False)
    _axes.legend(frameon=False, title="lines: the law of the nine runs")
    _inside = _low <= goal.loss <= _high
    mo.vstack([
        own_ladder,
        mo.md(
            f"Predicted for {goal.size:,} weights and {goal.tokens:,} characters: **{_said:.3f}**, between {_low:.3f} "
            f"and {_high:.3f} (grey). Measured: **{goal.loss:.3f}** (orange), {100 * (goal.loss / _said - 1):+.1f} %. "
            + ("It lies in the interval. " if _inside else "It lies outside the interval. ")
            + "Nine runs of seconds with one seed each are a weak ladder; look at how wide the interval is. "
            "Change the widths or the steps in the cell above and see what happens to it."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What it is for: dividing a budget

    Lesson 12 counted about six operations for each weight and each token. So a training costs
    C = 6 · N · D operations. With a given budget C, a larger model can see fewer tokens. Which N is best?
    The law answers: too small a model wastes its long text, too large a model sees too little of it.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    budget_guess = predict(
        """
        You get four times the budget. In the law of large models the two powers are nearly equal
        (a = 0.35, b = 0.37). By which factor should the model grow?
        """,
        step=0.1,
    )
    budget_guess
    return (budget_guess,)


@app.cell(hide_code=True)
def _(mo):
    budget = mo.ui.slider(
        steps=[18, 19, 20, 21, 22, 23, 24], value=21, label="budget C: 10 to the power", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            Each curve is one budget, with the five numbers that Besiroglu et al. (2024) found for the runs
            of Hoffmann et al.: E = 1.8172, A = 482.01, a = 0.3478, B = 2085.43, b = 0.3658. Move the budget
            and watch the lowest point.
            """
        ),
        budget,
    ])  # fmt: skip
    return (budget,)


@app.cell(hide_code=True)
def _(Law, budget, mo, np, plt):
    large = Law((1.8172, 482.01, 0.3478, 2085.43, 0.3658), (1.0, 1.0))

    def best_size(operations):
        many = np.geomspace(1e6, 1e13, 4000)
        return float(min(many, key=lambda n: large.loss(n, operations / 6 / n)))

    valleys, _axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for _power in (18, 19, 20, 21, 22, 23, 24):
        _now = _power == budget.value
        _best = best_size(10.0**_power)
        _n = np.geomspace(_best / 30, _best * 30, 80)
        _axes.plot(_n, [large.loss(_x, 10.0**_power / 6 / _x) for _x in _n], color="#d1602b" if _now else "#c9d9ea", lw=3 if _now else 1.5, zorder=3 if _now else 2)
        _axes.plot([_best], [large.loss(_best, 10.0**_power / 6 / _best)], "o", color="#d1602b" if _now else "#7fa6cf", zorder=4)
    _axes.set(xscale="log", xlabel="weights N; tokens are D = C / 6N", ylabel="predicted loss, nats", ylim=(1.8, 5))
    _axes.grid(alpha=0.25)
    _axes.spines[["top", "right"]].set_visible(False)
    _best = best_size(10.0**budget.value)
    _texts = 10.0**budget.value / 6 / _best
    mo.vstack([
        valleys,
        mo.md(
            f"With 10^{budget.value} operations the law asks for **{_best / 1e6:,.0f} million weights** and "
            f"**{_texts / 1e9:,.1f} billion tokens**, {_texts / _best:.0f} tokens for each weight. Around the lowest "
            "point the curve is flat: a model of half the size loses little."
        ),
    ])
    return (best_size,)


@app.cell(hide_code=True)
def _(best_size, budget_guess, law, reply):
    _a, _b = law.numbers()["a"], law.numbers()["b"]
    reply(
        budget_guess,
        round(best_size(4e21) / best_size(1e21), 1),
        f"""
        Both grow by about two, since the product has to grow by four and neither power is much larger.
        In general the model grows by 4 to the power b / (a + b). The law of our twenty runs has
        a = {_a:.2f} and b = {_b:.2f}, so it asks for a model {4 ** (_b / (_a + _b)):.1f} times as large. Do not trust
        this number: the twenty runs hardly know a, as they hardly know the floor.
        Hoffmann et al. found about twenty tokens for each weight. They built Chinchilla by this rule: its
        70 billion weights beat a model with 280 billion that had seen less text.
        """,
        wrong={
            4: "Then the text would stay as long as it was, and its term of the loss would not fall.",
            1: "Then the model would stay as it was, and its term of the loss would not fall.",
            1.4: "That is the root of two. The budget grows by four, and its root is two.",
        },
        tolerance=0.2,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    A law is no law of nature. It holds for one kind of text, one tokenizer and one way to train; other
    data have other numbers. The numbers that Hoffmann et al. printed for this form even contradicted
    their own other results, and it took two years until others fitted the same runs again and noticed. A
    fit deserves the same distrust as a single run.

    ## What you can say now

    The loss falls with size and text as a sum of two powers above a floor. Each doubling gains less than
    the one before. A law that is fitted to small runs predicts the next size to about a percent, and it
    cannot tell the floor. The bootstrap says how much of the uncertainty is noise; it does not know whether
    the form is right. In the study the prediction was too hopeful by 1.4 %, near the edge of its interval.
    With four times the budget, model and text should both be twice as large if the two powers are equal.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(17)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(17, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own, but two experiments.

    1. Let the package do all of it, with a recipe and a time of yours. Write down your own guess before
       the prediction appears:

       ```sh
       nanogpt lab scaling --minutes 5
       ```

    2. Leave the four longest runs out of `ladder` and fit again. Does the prediction for the larger model
       become better or worse, and does the interval say so?

    **Papers.** Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 3, found the powers.
    Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", section 3.3, has the law of this
    lesson, and section 4 Chinchilla. Besiroglu et al. 2024, "Chinchilla Scaling: A Replication Attempt",
    fitted it again. Efron 1979, "Bootstrap Methods: Another Look at the Jackknife", is the bootstrap.
    """)
    return


if __name__ == "__main__":
    app.run()
