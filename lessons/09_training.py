import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 9: training")


@app.cell(hide_code=True)
def _():
    import math
    from dataclasses import replace

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import DataConfig, ModelConfig, TrainConfig
    from nanogpt.device import resolve
    from nanogpt.learn.models import short_run, small_config, small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.gpt import GPT, evaluating
    from nanogpt.text.batches import Batch, padded_batch, random_windows
    from nanogpt.text.sources import load_split
    from nanogpt.training.loop import accumulate_gradients
    from nanogpt.training.objective.next_token import NextToken
    from nanogpt.training.optim import SGD, AdamW, cosine, decay_groups, learning_rate
    from nanogpt.training.plan import kept_bytes
    from nanogpt.training.records import Step
    from nanogpt.training.threads import limited_to

    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        AdamW,
        BLUE,
        Batch,
        DataConfig,
        GPT,
        GREY,
        LIGHT,
        ModelConfig,
        NextToken,
        OLIVE,
        ORANGE,
        SGD,
        Step,
        TrainConfig,
        accumulate_gradients,
        cosine,
        decay_groups,
        evaluating,
        judged,
        kept_bytes,
        learning_rate,
        limited_to,
        load_split,
        math,
        mo,
        package_code,
        padded_batch,
        plt,
        predict,
        random_windows,
        replace,
        reply,
        resolve,
        self_test,
        short_run,
        small_config,
        small_model,
        torch,
    )


@app.cell(hide_code=True)
def _(mo, predict):
    first_step = predict(
        "Take b = 1 and the learning rate 0.05. Where is b after one step?", step=0.01
    )
    mo.vstack([
        mo.md(
            """
            # 9. Training: from a gradient to a step

            After this lesson you can

            - say what momentum, Adam and the W in AdamW each add,
            - say why the learning rate climbs before it falls,
            - compute what gradient clipping and accumulation do to a gradient,
            - see overfitting in two curves.

            Lesson 2 computed gradients. Lesson 8 cut the text into batches. One question is left:
            **how far should each weight move?** A gradient gives a direction and a slope. It does not
            say how long that slope continues.

            ## One rate for all weights

            Start with two weights, a and b, and the loss a²/2 + 25 b². The gradient is a for the
            first weight and 50 b for the second. So the loss is flat along a and steep along b.
            Gradient descent subtracts the learning rate times the gradient. If each gradient comes
            from a random batch, the method is called **SGD**, stochastic gradient descent.
            """
        ),
        first_step,
    ])  # fmt: skip
    return (first_step,)


@app.cell(hide_code=True)
def _(first_step, mo, reply):
    mo.vstack([
        reply(
            first_step,
            1 - 0.05 * 50 * 1,
            "The gradient at b = 1 is 50. So b becomes 1 - 0.05 · 50 = -1.5. The step has the right "
            "direction, but it goes past the lowest place and lands higher than before.",
            wrong={
                0.95: "This subtracts the rate alone. The step is the rate times the gradient, 50.",
                -2.5: "This is the step itself. The weight starts at 1.",
                0.0: "The step does not know where the lowest place is. It knows the slope at b = 1.",
            },
            tolerance=0.005,
        ),
        mo.md("The next steps make it worse. Change 0.05 to 0.03, or to 0.001, and run again."),
    ])  # fmt: skip
    return


@app.cell
def _():
    rate_b = 0.05
    b = 1.0
    path_b = [b]
    for _ in range(6):
        gradient_b = 50 * b
        b = b - rate_b * gradient_b
        path_b.append(round(b, 3))
    str(path_b)
    return


@app.cell(hide_code=True)
def _(mo, predict):
    summed = predict(
        "A weight gets the gradient 1 in every step, for hundreds of steps. Momentum multiplies the "
        "old sum by 0.9 and adds the new gradient. Near which number does the sum settle?",
        step=0.1,
    )
    mo.vstack([
        mo.md(
            """
            Each step multiplies b by 1 - 50 · rate. This shrinks b only while the rate is below
            2/50 = 0.04. So the **steepest** direction limits the rate. The flat direction has to
            live with the same rate: at 0.04 each step shrinks a by 4 % only. A real model has
            directions of every steepness.

            ## Momentum: remember the last gradients

            The gradient along b changes its sign in each step. The gradient along a always has the
            same sign. **Momentum** uses that. It keeps a running sum of gradients for each weight,
            and the weight moves by the rate times this sum (Polyak 1964). Opposite gradients cancel.
            Equal ones add up, like a ball that gains speed as it rolls downhill.
            """
        ),
        summed,
    ])  # fmt: skip
    return (summed,)


@app.cell(hide_code=True)
def _(mo, reply, summed):
    mo.vstack([
        reply(
            summed,
            1 / (1 - 0.9),
            "The sum is 1 + 0.9 + 0.81 + ... = 1/(1 - 0.9) = 10. In a direction that never changes, "
            "momentum takes steps ten times as long.",
            wrong={
                1: "This would be the mean of the gradients. Here they are added up.",
                0.9: "0.9 is what remains of one gradient after one step. The earlier ones are there, too.",
                1.9: "This is the sum after two steps. It goes on growing.",
            },
            tolerance=0.05,
        ),
        mo.md("The same for gradients of alternating sign, and for constant ones, step by step:"),
    ])  # fmt: skip
    return


@app.cell
def _():
    def running_sums(gradients):
        total, sums = 0.0, []
        for gradient in gradients:
            total = 0.9 * total + gradient
            sums.append(round(total, 2))
        return sums

    {
        "alternating": str(running_sums([1, -1, 1, -1, 1, -1])),
        "constant": str(running_sums([1, 1, 1, 1, 1, 1])),
    }
    return


@app.cell(hide_code=True)
def _(SGD, mo, package_code, predict):
    larger = predict(
        "The same network is trained twice with Adam. In the second training the loss is multiplied "
        "by 100, so every gradient is 100 times as large. How do the steps of the weights change?",
        ["not at all", "100 times as long", "10 times as long, because of the root"],
    )
    mo.vstack([
        package_code(SGD),
        mo.md(
            """
            ## Adam: divide by the typical size

            Momentum still has one rate for all. The gradients of different weights differ by orders
            of magnitude, so one rate is too long for some and too short for others. **Adam** keeps
            two means for each weight: of the gradient, and of its square. The root of the second one
            is the typical size of this weight's gradient. The step is

            rate · (mean of the gradient) / √(mean of the squared gradient)

            An example with plain means: the gradients of a weight are 3, -1, 4, 2. Their mean is 2.
            Their squares are 9, 1, 16, 4, with the mean 7.5 and its root 2.74. So the step is 0.73
            times the rate.

            Adam does not store old gradients. It keeps *running means*, in which older gradients count
            less:

            new mean = 0.9 · old mean + 0.1 · gradient

            (In momentum the gradient counts whole; here a tenth of it.) The squares usually get a
            longer memory, for example 0.95 · old mean + 0.05 · square. The code calls the two numbers,
            0.9 and 0.95, `betas`.
            """
        ),
        larger,
    ])  # fmt: skip
    return (larger,)


@app.cell(hide_code=True)
def _(larger, mo, reply):
    mo.vstack([
        reply(
            larger,
            "not at all",
            "The mean grows 100 times, and so does the root of the mean square. Their quotient stays. "
            "(The tiny eps of 1e-8 in the denominator hardly matters.)",
            wrong={
                "100 times as long": "This is SGD. Adam divides by the size of the gradient.",
                "10 times as long, because of the root": "The squares grow 10,000 times, their root "
                "grows 100 times. That is what the mean is divided by.",
            },
        ),
        mo.md(
            """
            Here are three weights with very different gradients, moved by the package's AdamW. The
            decay is off for now:
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(AdamW, torch):
    three = torch.nn.Parameter(torch.zeros(3))
    adam = AdamW([three], lr=0.01, weight_decay=0.0)
    moves = []
    for _ in range(3):
        three.grad = torch.tensor([0.001, 1.0, -1000.0])
        adam.step()
        moves.append(str([round(x, 4) for x in three.tolist()]))
    moves  # the three weights after each of three steps
    return


@app.cell(hide_code=True)
def _(AdamW, mo, package_code):
    rate = mo.ui.slider(
        steps=[0.01, 0.02, 0.03, 0.05, 0.08], value=0.05, label="learning rate", show_value=True
    )
    steep = mo.ui.slider(steps=[1, 5, 20, 50, 100], value=50, label="steepness", show_value=True)
    mo.vstack([
        mo.md(
            """
            All three move by the learning rate, whatever the scale of their gradient. So in Adam the
            learning rate means something simple: about how far one step moves a weight.

            One detail is needed for the first steps. Both means start at 0. After one step with the
            gradient 2, a running mean with memory 0.9 is 0.1 · 2 = 0.2, far too small. It has seen
            only a share of 1 - 0.9¹ = 0.1. Dividing by that share gives 2. After n steps the share is
            1 - 0.9ⁿ. The same is done for the squares. It is called *bias correction*. This bias is an
            error in one direction, and has nothing to do with the bias of a linear map.

            The package's AdamW is folded below. You will write it yourself, and later the learning
            rate, so try before you look.

            Now the valley from above, 40 steps from the same start. Make it steeper, or raise the
            rate:
            """
        ),
        mo.hstack([rate, steep], justify="start", wrap=True),
        package_code(AdamW),
    ])  # fmt: skip
    return rate, steep


@app.cell(hide_code=True)
def _(
    AdamW,
    BLUE,
    GREY,
    OLIVE,
    ORANGE,
    SGD,
    math,
    mo,
    plt,
    rate,
    steep,
    torch,
):
    def walk(kind, memory):
        place = torch.nn.Parameter(torch.tensor([-2.0, 0.9]))
        mover = kind([place], lr=rate.value, betas=(memory, 0.95), weight_decay=0.0)
        path = [place.tolist()]
        for _ in range(40):
            mover.zero_grad()
            (0.5 * (place[0] ** 2 + steep.value * place[1] ** 2)).backward()
            mover.step()
            path.append(place.tolist())
        return path

    def height(place):
        return 0.5 * (place[0] ** 2 + steep.value * place[1] ** 2)

    _paths = {"SGD": walk(SGD, 0.0), "SGD with momentum": walk(SGD, 0.9), "Adam": walk(AdamW, 0.9)}
    _figure, _panels = plt.subplots(3, 1, figsize=(8, 6.4), layout="constrained", sharex=True)
    _east, _north = torch.meshgrid(
        torch.linspace(-2.5, 2.5, 90), torch.linspace(-1.3, 1.3, 60), indexing="xy"
    )
    _ground = 0.5 * (_east**2 + steep.value * _north**2)
    _words = []
    for _axes, (_name, _path), _color in zip(
        _panels, _paths.items(), (BLUE, OLIVE, ORANGE), strict=True
    ):
        _axes.contour(_east, _north, _ground.sqrt(), levels=9, colors="#dddddd", linewidths=1)
        _axes.plot(*zip(*_path, strict=True), "o-", ms=3, lw=1.2, color=_color)
        _axes.plot([0], [0], "x", color=GREY, ms=9, mew=2)
        _axes.set(xlim=(-2.5, 2.5), ylim=(-1.3, 1.3), yticks=[-1, 0, 1], ylabel="b")
        _end = height(_path[-1])
        _said = f"loss {_end:.2g}" if math.isfinite(_end) and _end < 1000 else "left the picture"
        _axes.set_title(f"{_name}: {_said} after 40 steps", color=_color, fontsize=13, loc="left")
        _words.append(f"{_name}: {_said}")
    _panels[-1].set_xlabel("a")
    mo.vstack([
        _figure,
        mo.md(
            f"The loss begins at {height([-2.0, 0.9]):.3g}. SGD gets lost as soon as rate times "
            "steepness exceeds 2. With momentum it survives longer, up to 3.8: gradients that alternate "
            "cancel in the running sum. After many steps 1 - 0.9 + 0.81 - ... = 1/1.9 of one gradient "
            "is left, so the limit is 1.9 times as high. It is also faster along a. Adam's path hardly depends on the steepness, because it divides it away. "
            "Near the lowest place it keeps moving by about the rate, so it circles there until the "
            "rate falls."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, predict):
    who_decays = predict(
        "L2 adds the pull to the gradient, before Adam divides by the typical size. One weight has "
        "large gradients, another one tiny gradients. Which of the two does L2 shrink faster?",
        ["the one with tiny gradients", "the one with large gradients", "both alike"],
    )
    decay = mo.ui.slider(
        steps=[0.1, 0.2, 0.5, 1.0], value=0.5, label="weight decay", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## The W: decay that does not pass through Adam

            **Weight decay** pulls each weight a little towards zero in every step. A weight then
            stays large only if the gradients keep renewing it. This limits how much the model can
            learn by heart.

            There are two ways to do it. *L2* adds the pull to the gradient: gradient + decay · weight.
            **AdamW** leaves the gradient alone. It multiplies the weight by 1 - rate · decay, and Adam's
            step comes on top (Loshchilov & Hutter 2019). For plain SGD the two are the same. For Adam they
            are not.
            """
        ),
        who_decays,
        decay,
    ])  # fmt: skip
    return decay, who_decays


@app.cell
def _(decay, torch):
    def shrink(kind, size):
        """A weight at 1 whose gradients only swing: +size, -size, +size, ..."""
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = kind([weight], lr=0.01, weight_decay=decay.value)
        values = []
        for n in range(200):
            weight.grad = torch.tensor([size * (-1.0) ** n])
            optimizer.step()
            values.append(weight.item())
        return values

    return (shrink,)


@app.cell(hide_code=True)
def _(
    AdamW,
    BLUE,
    GREY,
    OLIVE,
    ORANGE,
    decay,
    decay_groups,
    mo,
    package_code,
    plt,
    reply,
    shrink,
    torch,
    who_decays,
):
    _figure, _panels = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
    _kinds = {"Adam with L2": torch.optim.Adam, "AdamW": AdamW}
    _ends = {}
    for _axes, (_name, _kind) in zip(_panels, _kinds.items(), strict=True):
        for _size, _color in ((10.0, ORANGE), (1.0, OLIVE), (0.01, BLUE)):
            _line = shrink(_kind, _size)
            _ends[_name, _size] = _line[-1]
            _axes.plot(_line, color=_color, lw=2, label=f"gradients of {_size:g}")
        _axes.axhline(0, color=GREY, lw=0.8)
        _axes.set(title=_name, xlabel="step", ylim=(-0.1, 1.08))
    _panels[1].set_title("AdamW: all three alike")
    _panels[0].set_ylabel("weight")
    _panels[1].legend(frameon=False, fontsize=11)
    mo.vstack([
        _figure,
        reply(
            who_decays,
            "the one with tiny gradients",
            "The pull is divided by the typical size of the gradient, too. After 200 steps with L2 the "
            f"weight with gradients of 10 is at {_ends['Adam with L2', 10.0]:.2f} and the one with "
            f"gradients of 0.01 at {_ends['Adam with L2', 0.01]:.2f}. With AdamW they are at "
            f"{_ends['AdamW', 10.0]:.2f} and {_ends['AdamW', 0.01]:.2f}: all decay alike. The "
            f"decay alone gives (1 - 0.01 · {decay.value:g})²⁰⁰ = {(1 - 0.01 * decay.value) ** 200:.2f}. "
            "The small rest comes from the swing of the gradients.",
            wrong={
                "the one with large gradients": "A large gradient makes the divisor large, and the "
                "pull is divided by it.",
                "both alike": "That is the promise of AdamW. With L2 the pull goes through Adam's "
                "division, and the divisors differ.",
            },
        ),
        mo.md(
            "In a GPT only the matrices and embeddings decay. Biases and the gains of the norms are "
            "left alone: a gain that is pulled to zero would switch its channel off."
        ),
        package_code(decay_groups),
    ])
    return


@app.cell(hide_code=True)
def _(DataConfig, load_split, mo, small_model, torch):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    _split = load_split(DataConfig(max_documents=20))

    def first_tokens(documents, characters):
        joined = "\n".join(document.text for document in documents)[:characters]
        return torch.tensor(tokenizer.encode(joined)).numpy()

    train_ids = first_tokens(_split.train, 200_000)
    val_ids = first_tokens(_split.val, 60_000)
    vocab_size = tokenizer.vocab_size
    return model, tokenizer, train_ids, val_ids, vocab_size


@app.cell(hide_code=True)
def _(mo, predict):
    full_moves = predict(
        "A fresh GPT takes its very first step with AdamW at the full learning rate. What share of "
        "the weights in its blocks moves by at least 99 % of the learning rate? (Give percent.)",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            ## Warm-up: why the rate starts low

            The learning rate changes during a training. It climbs first: this is the **warm-up**. The
            reason is in Adam's first steps.
            """
        ),
        full_moves,
    ])  # fmt: skip
    return (full_moves,)


@app.cell(hide_code=True)
def _(
    AdamW,
    GPT,
    ModelConfig,
    limited_to,
    mo,
    random_windows,
    torch,
    train_ids,
    vocab_size,
):
    def first_moves(steps=60, lr=1e-3):
        """How far each weight moves in each of the first steps, in learning rates: medians, shares."""
        torch.manual_seed(0)
        network = GPT(ModelConfig(vocab_size=vocab_size, context_length=32, n_layer=2, n_head=4, n_embd=64))
        optimizer = AdamW(network.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
        weights = [p for p in network.h.parameters() if p.ndim == 2]
        found = []
        for n in range(steps):
            x, y = map(torch.from_numpy, random_windows(train_ids, 32, 16, seed=0, number=n))
            before = [w.detach().clone() for w in weights]
            optimizer.zero_grad()
            network.loss(network(x), y).backward()
            optimizer.step()
            pairs = zip(weights, before, strict=True)
            found.append(torch.cat([(w.detach() - b).abs().flatten() / lr for w, b in pairs]))
        return found

    with mo.status.spinner("sixty steps"), limited_to(1):
        moved = first_moves()
    return (moved,)


@app.cell(hide_code=True)
def _(BLUE, LIGHT, ORANGE, full_moves, mo, moved, plt, reply, torch):
    _share = 100 * (moved[0] > 0.99).float().mean().item()
    _figure, _axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    _bins = torch.linspace(0, 1.3, 53)
    for _n, _color, _alpha in ((0, ORANGE, 1.0), (9, LIGHT, 0.9), (59, BLUE, 0.75)):
        _counts = torch.histogram(moved[_n], _bins).hist / len(moved[_n])
        _axes.stairs(100 * _counts, _bins, fill=True, color=_color, alpha=_alpha, label=f"step {_n + 1}")
    _axes.set(xlabel="how far a weight moves, in learning rates", ylabel="% of the weights", ylim=(0, 30))
    _axes.annotate(
        f"step 1: {_share:.0f} % at the\nfull rate (bar cut off)", (0.985, 27), (0.42, 22),
        arrowprops={"arrowstyle": "->", "color": ORANGE}, color=ORANGE, fontsize=12,
    )  # fmt: skip
    _axes.legend(frameon=False, loc="center right", fontsize=12)
    mo.vstack([
        reply(
            full_moves,
            round(_share),
            "In the first step Adam knows one gradient. Its mean is this gradient, and the root of its "
            "mean square is the size of this gradient. The quotient is +1 or -1. "
            "Weights whose gradient is mere noise move as far as those that matter. Only where the "
            "gradient is tiny, here below a millionth, the eps in the denominator makes the step "
            f"shorter: {100 - _share:.1f} % of the weights.",
            wrong={
                50: "It is not a matter of chance. One number divided by its own size is always 1 or -1.",
                10: "Most gradients are small, but Adam divides each by its own size.",
                5: "Large gradients are rare, but size does not count here. A small gradient divided by its own "
                "size is 1, too.",
            },
            tolerance=2,
        ),
        _figure,
        mo.md(
            f"Later the gradients of a weight partly cancel, and its step gets shorter: the median is "
            f"{moved[9].median():.2f} of the rate in step 10 and {moved[59].median():.2f} in step 60. So "
            "the first steps are the longest ones, at the moment when Adam knows least. The warm-up "
            "makes them short. Then the means settle before large steps are taken with them."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, predict):
    halfway = predict(
        "A cosine schedule falls from 0.001 to 0.0001. What is the rate at half of the way?",
        step=0.00001,
    )
    climb = mo.ui.slider(0, 100, step=10, value=30, label="warm-up steps", show_value=True)
    lowest = mo.ui.slider(
        steps=[0, 0.05, 0.1, 0.5], value=0.1, label="final rate, as a share", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## The fall: why the rate ends low

            Every batch is a small sample of the text, so its gradient is partly noise. Each step adds
            some of this noise to the weights. While the model is bad, the signal is much stronger.
            Near the end this noise keeps the loss up: the weights wander around the lowest place, as
            Adam circled in the valley. Smaller steps stay closer to it.

            The usual form is the **cosine schedule**: half a wave, slow at both ends and fast in the
            middle. The share of the rate that is left after a progress of p, from 0 to 1, is
            (1 + cos(π p)) / 2. If the rate ends at a final value, the share applies to the difference:
            final + share · (peak - final).

            A **trapezoidal schedule** stays at the peak and then falls in a straight line. With it you
            need not know in advance how long the training will be. You start the fall when you decide to
            stop.
            """
        ),
        halfway,
        mo.hstack([climb, lowest], justify="start", wrap=True),
    ])  # fmt: skip
    return climb, halfway, lowest


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    OLIVE,
    ORANGE,
    TrainConfig,
    climb,
    cosine,
    halfway,
    learning_rate,
    lowest,
    mo,
    package_code,
    plt,
    replace,
    reply,
):
    _plan = TrainConfig(lr=1.0, min_lr=lowest.value, warmup_steps=climb.value, max_steps=300)
    _figure, _axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for _name, _color in (("constant", GREY), ("trapezoidal", OLIVE), ("cosine", ORANGE)):
        _settings = replace(_plan, schedule=_name)
        _axes.plot([learning_rate(n, _settings) for n in range(301)], color=_color, lw=2.2, label=_name)
    _axes.axvspan(0, climb.value, color=BLUE, alpha=0.08, lw=0)
    if climb.value >= 20:
        _axes.text(climb.value + 3, 0.04, "warm-up", color=BLUE, fontsize=12)
    _axes.set(xlabel="step", ylabel="share of the peak rate", ylim=(0, 1.08), xlim=(0, 300))
    _axes.legend(frameon=False, fontsize=12, loc="lower left", bbox_to_anchor=(0.12, 0.1))
    _half = 0.0001 + cosine(0.5) * (0.001 - 0.0001)
    mo.vstack([
        reply(
            halfway,
            _half,
            "At half of the way the cosine of π/2 is 0, so half of the difference is left: "
            "0.0001 + 0.5 · 0.0009 = 0.00055.",
            wrong={
                0.0005: "This is half of the peak. The fall ends at 0.0001 and not at 0.",
                0.0001: "The cosine itself is 0 there. The share is (1 + 0)/2.",
                0.00032: "This is the geometric mean. Halfway down, the cosine is at the ordinary mean.",
            },
            tolerance=0.000005,
        ),
        _figure,
        mo.md(
            "The peak rate, the length of the warm-up and the memory of Adam's means are "
            "**hyperparameters**: numbers that training does not find by itself. Somebody chooses them, "
            "and a later lesson shows how to compare two choices fairly."
        ),
        package_code(learning_rate),
    ])
    return


@app.cell(hide_code=True)
def _(mo, predict):
    clipped = predict(
        "A gradient has two numbers, 6 and 8. The limit is 1. What is its first number after clipping?",
        step=0.1,
    )
    mo.vstack([
        mo.md(
            """
            ## Gradient clipping: a limit for bad batches

            Now and then a batch has a huge gradient: a page of numbers, or a strange language. One such
            step can spoil a good model. **Gradient clipping** sets a limit for the length of the whole
            gradient, over all weights together. The length is the root of the sum of all squares. A
            longer gradient is multiplied by limit/length. A shorter one stays as it is.
            """
        ),
        clipped,
    ])  # fmt: skip
    return (clipped,)


@app.cell
def _(torch):
    two = torch.nn.Parameter(torch.zeros(2))
    two.grad = torch.tensor([6.0, 8.0])
    length = torch.nn.utils.clip_grad_norm_([two], max_norm=1.0)
    {"length before": length.item(), "gradient after": str([round(g, 3) for g in two.grad.tolist()])}
    return


@app.cell(hide_code=True)
def _(clipped, mo, reply):
    mo.vstack([
        reply(
            clipped,
            6 / (6**2 + 8**2) ** 0.5,
            "The length is √(36 + 64) = 10, so both numbers are divided by 10. The direction stays.",
            wrong={
                1: "This would limit each number by itself, and (1, 1) points elsewhere than (6, 8).",
                6: "The length is 10, above the limit, so clipping acts.",
                0.43: "This divides by the sum, 14. The length is the root of the sum of squares.",
            },
            tolerance=0.02,
        ),
        mo.md(
            "When does it act? Usually in the first steps, where gradients are long, and later on rare "
            "bad batches. You will see it below in a real run. Adam divides by the typical size anyway, "
            "so clipping does not set the length of its steps. It protects Adam's means: one huge "
            "gradient would stay in the mean of the squares for many steps."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, predict):
    both = predict(
        "Batch A has 10 targets and a mean loss of 2.0. Batch B has 30 targets and a mean loss of "
        "4.0. What would be the mean loss if all were one batch?",
        step=0.1,
    )
    mo.vstack([
        mo.md(
            """
            ## Accumulation: a large batch in small pieces

            A large batch has less noise, but its activations may not fit into memory. **Accumulation**
            computes several small batches one after another and adds up their gradients. Then the
            optimizer makes one step. Lesson 2 showed that gradients add up until they are set to zero.
            Here that is useful.
            """
        ),
        both,
    ])  # fmt: skip
    return (both,)


@app.cell(hide_code=True)
def _(both, mo, reply):
    mo.vstack([
        reply(
            both,
            (10 * 2.0 + 30 * 4.0) / 40,
            "The losses sum to 10 · 2 + 30 · 4 = 140, over 40 targets: 3.5. A mean of the two means "
            "would count each target of the small batch three times as much. So the losses of each "
            "batch are added up as **sums**, and divided once by the number of all real targets. "
            "Padding makes these numbers differ from batch to batch.",
            wrong={
                3: "This is the mean of the two means. Each target of the small batch would then count "
                "three times as much as one of the large batch.",
                6: "A mean over more targets does not grow with their number.",
                2.5: "Here the weights are swapped: the larger batch counts more.",
            },
            tolerance=0.01,
        ),
        mo.md("The same 8 windows, once as one batch and once as four batches of 2:"),
    ])  # fmt: skip
    return


@app.cell
def _(
    Batch,
    NextToken,
    accumulate_gradients,
    model,
    random_windows,
    resolve,
    torch,
    train_ids,
):
    x8, y8 = random_windows(train_ids, 48, 8, seed=1, number=0)
    ways = {
        "one batch of 8": [Batch(x8, y8)],
        "four batches of 2": [Batch(x8[n : n + 2], y8[n : n + 2]) for n in (0, 2, 4, 6)],
    }
    gradients = {}
    for way, batches in ways.items():
        model.zero_grad()
        accumulate_gradients(NextToken(model), batches, resolve("cpu", "float32"))
        gradients[way] = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return gradients, x8, y8


@app.cell(hide_code=True)
def _(
    Batch,
    NextToken,
    accumulate_gradients,
    gradients,
    kept_bytes,
    mo,
    model,
    package_code,
    padded_batch,
    resolve,
    tokenizer,
    torch,
    x8,
):
    _one, _four = gradients.values()
    _apart = ((_one - _four).norm() / _one.norm()).item()
    _compute = resolve("cpu", "float32")
    _one_kept, _two_kept = kept_bytes(model.config, _compute, masked=False).values()

    def _n_kept(n):
        return _one_kept + (n - 1) * (_two_kept - _one_kept)

    _kept = {n: _n_kept(n) / 1e6 for n in (2, 8)}

    def _gradient(batches):
        model.zero_grad()
        accumulate_gradients(NextToken(model), batches, _compute)
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    def _padded(*texts):
        return Batch(*padded_batch([tokenizer.encode(text) for text in texts]))

    _short = _padded("Who is there?", "O King!")
    _long = _padded(*[tokenizer.decode(row.tolist()) for row in x8[:2]])
    _right = _gradient([_short, _long])
    _wrong = 0.5 * (_gradient([_short]) + _gradient([_long]))
    _off = ((_right - _wrong).norm() / _right.norm()).item()
    model.zero_grad()
    mo.vstack([
        mo.md(
            f"""
            The two gradients differ by {_apart:.0e} of their length: rounding, and nothing else. So:

            | | one batch of 8 | four batches of 2 |
            |:--|:--|:--|
            | gradient, and so the step | the same | the same |
            | activations in memory | {_kept[8]:.1f} MB | {_kept[2]:.1f} MB |
            | arithmetic | the same | the same |
            | optimizer steps | 1 | 1 |

            Accumulation saves memory. It saves no time. It must not be confused with four small steps:
            those would move the weights four times, with noisier gradients.

            And the mean of means? A batch of two short lines and a batch of two long ones give a
            gradient that is off by {_off:.0%} if each batch counts the same. Widely used training code
            had this error until 2024.
            """
        ),
        package_code(accumulate_gradients),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## All of it in one loop

    A training is a loop, and a step is a few lines. You know each of them now. Take out a line, or
    change 3e-3, and run the cell again:
    """)
    return


@app.cell
def _(
    AdamW,
    GPT,
    ModelConfig,
    TrainConfig,
    learning_rate,
    random_windows,
    torch,
    train_ids,
    vocab_size,
):
    torch.manual_seed(0)
    learner = GPT(
        ModelConfig(vocab_size=vocab_size, context_length=32, n_layer=2, n_head=4, n_embd=64)
    )
    optimizer = AdamW(learner.parameters(), weight_decay=0.1)  # all weights decay here: shorter
    plan = TrainConfig(lr=3e-3, min_lr=3e-4, warmup_steps=10, max_steps=40)
    seen_losses = []
    for step in range(plan.max_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, plan)
        windows = random_windows(train_ids, 32, 16, seed=0, number=step)
        ids, targets = map(torch.from_numpy, windows)
        optimizer.zero_grad()
        loss = learner.loss(learner(ids), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), max_norm=1.0)
        optimizer.step()
        seen_losses.append(round(loss.item(), 2))
    str(seen_losses[::10] + seen_losses[-1:])  # every tenth, and the last
    return


@app.cell(hide_code=True)
def _(mo):
    lr = mo.ui.slider(
        steps=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1], value=3e-2, label="learning rate",
        show_value=True,
    )  # fmt: skip
    warm = mo.ui.switch(value=False, label="warm-up of 20 steps")
    mo.vstack([
        mo.md(
            """
            ## Reading a loss curve

            Here is the lessons' small model, trained for 60 steps at the rate that you choose. It
            trains as soon as you let the slider go, which takes some five seconds. The two grey
            curves have a rate that is too low, and one that is about right. Below is the length of
            the gradient, with a dot wherever clipping acts.
            """
        ),
        mo.hstack([lr, warm], justify="start", wrap=True),
    ])  # fmt: skip
    return lr, warm


@app.cell(hide_code=True)
def _(Step, mo, short_run, small_config):
    _known = {}

    def curve(rate_of_run, warmup):
        key = rate_of_run, warmup
        if key not in _known:
            changed = {"lr": rate_of_run, "min_lr": rate_of_run / 10, "warmup_steps": warmup}
            records = short_run(60, train=changed)
            _known[key] = [r for r in records if isinstance(r, Step)], records[-1].val_loss
        return _known[key]

    with mo.status.spinner("two runs to compare with"):
        for _rate in (1e-4, 3e-3):
            curve(_rate, 20)
    step_tokens, vocabulary = small_config(60).tokens_per_step, small_config(60).data.vocab_size
    return curve, step_tokens, vocabulary


@app.cell(hide_code=True)
def _(
    GREY,
    LIGHT,
    ORANGE,
    curve,
    lr,
    math,
    mo,
    plt,
    step_tokens,
    vocabulary,
    warm,
):
    with mo.status.spinner("training"):
        _taken, _end = curve(lr.value, 20 if warm.value else 0)
    _figure, (_losses, _norms) = plt.subplots(
        2, 1, figsize=(8, 5.6), layout="constrained", sharex=True, height_ratios=[3, 2]
    )
    for _other, _style, _where in ((1e-4, ":", 0.02), (3e-3, "-", -0.3)):
        _grey = curve(_other, 20)[0]
        _losses.plot([r.loss for r in _grey], color=GREY, lw=1.6, ls=_style)
        _losses.text(59.5, _grey[-1].loss, f" {_other:g}", color=GREY, fontsize=11, va="center")
        _norms.semilogy([r.grad_norm for r in _grey], color=GREY, lw=1.2, ls=_style)
    _losses.plot([r.loss for r in _taken], color=ORANGE, lw=2)
    _lengths = [r.grad_norm for r in _taken]
    _norms.semilogy(_lengths, color=ORANGE, lw=1.6)
    _acts = [n for n, length in enumerate(_lengths) if length > 1]
    _norms.plot(_acts, [_lengths[n] for n in _acts], "o", ms=4, color=ORANGE)
    _norms.axhline(1, color=GREY, lw=0.8)
    _losses.axhline(math.log(vocabulary), color=LIGHT, lw=1.5)
    _losses.text(30, math.log(vocabulary) + 0.08, f"knows nothing: log {vocabulary}", fontsize=11, color=GREY)
    _top = min(9, max(6.8, max(r.loss for r in _taken) + 0.3))
    _losses.set(ylabel="training loss", ylim=(4.2, _top), xlim=(0, 66))
    _losses.set_title(f"learning rate {lr.value:g}", color=ORANGE, fontsize=13, loc="left")
    _norms.set(xlabel="step", ylabel="gradient, length")
    mo.vstack([
        _figure,
        mo.md(
            f"{len(_taken)} steps of {step_tokens:,} tokens end at a validation loss of "
            f"**{_end:.2f}**. The highest training loss on the way was {max(r.loss for r in _taken):.2f}. "
            f"Clipping acted in {len(_acts)} of {len(_taken)} steps.\n\n"
            "- *A slow, straight fall*: the rate is too low.\n"
            "- *A fast fall that gets slower and slower*: about right.\n"
            "- *A jump upwards at first, then a curve that lies flat above the others*: too high. The "
            "model learns how frequent each token is, and every step destroys the finer things that "
            "the last step found."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    amount = mo.ui.slider(
        steps=[1000, 3000, 10000, 30000], value=1000, label="tokens of training text",
        show_value=True,
    )  # fmt: skip
    mo.vstack([
        mo.md(
            """
            ## Overfitting: two curves that part

            The training loss is measured on text that the model learns from. The validation loss is
            measured on text that it never learns from. As long as both fall, the model learns things
            that hold for other texts, too. **Overfitting** begins where the training loss goes on
            falling while the validation loss rises: the model learns its text by heart. The less text
            there is, the earlier this happens. How much text does it take to avoid it in 150 steps?
            Each step reads 12 windows of 32 tokens, so 384 tokens.
            """
        ),
        amount,
    ])  # fmt: skip
    return (amount,)


@app.cell(hide_code=True)
def _(
    AdamW,
    GPT,
    ModelConfig,
    evaluating,
    limited_to,
    random_windows,
    torch,
    train_ids,
    val_ids,
    vocab_size,
):
    _known = {}

    def memorise(tokens, steps=150):
        """Train on so many tokens: losses of training and validation, as pairs of step and loss."""
        if tokens in _known:
            return _known[tokens]
        torch.manual_seed(0)
        config = ModelConfig(vocab_size=vocab_size, context_length=32, n_layer=2, n_head=4, n_embd=64)
        network = GPT(config)
        optimizer = AdamW(network.parameters(), lr=5e-3, betas=(0.9, 0.95))
        unseen = map(torch.from_numpy, random_windows(val_ids, 32, 64, seed=1, number=0))
        val_x, val_y = unseen
        losses, unseen_losses = [], []
        with limited_to(1):
            for n in range(steps + 1):
                if n % 10 == 0:
                    with evaluating(network):
                        unseen_losses.append((n, network.loss(network(val_x), val_y).item()))
                chosen = random_windows(train_ids[:tokens], 32, 12, seed=2, number=n)
                x, y = map(torch.from_numpy, chosen)
                loss = network.loss(network(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append((n, loss.item()))
        _known[tokens] = losses, unseen_losses
        return _known[tokens]

    return (memorise,)


@app.cell(hide_code=True)
def _(BLUE, GREY, ORANGE, amount, memorise, mo, plt):
    with mo.status.spinner("training"):
        _losses, _unseen = memorise(amount.value)
    _best = min(_unseen, key=lambda pair: pair[1])
    _figure, _axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    _axes.plot(*zip(*_losses, strict=True), color=BLUE, lw=1.5)
    _axes.plot(*zip(*_unseen, strict=True), "o-", ms=4, color=ORANGE, lw=2)
    _axes.text(152, _losses[-1][1], "training", color=BLUE, va="center", fontsize=12)
    _axes.text(152, _unseen[-1][1], "validation", color=ORANGE, va="center", fontsize=12)
    _axes.axvline(_best[0], color=GREY, lw=1, ls="--")
    _axes.text(_best[0] + 1, 0.1, f"lowest validation loss: {_best[1]:.2f}", color=GREY, fontsize=11)
    _axes.set(xlabel="step", ylabel="loss, nats per token", xlim=(0, 178), ylim=(0, 1.08 * max(8, _unseen[-1][1])))
    _axes.set_title(f"{amount.value:,} tokens of training text", fontsize=13, loc="left")
    _rises = _unseen[-1][1] - _best[1]
    _epochs = 150 * 12 * 32 / amount.value
    mo.vstack([
        _figure,
        mo.md(
            f"In 150 steps the model reads its {amount.value:,} tokens about {_epochs:.0f} times. The "
            f"validation loss is lowest after {_best[0]} steps and ends {_rises:.2f} above that. "
            "A gap between the curves is normal. A validation loss that **rises** is the sign. What "
            "helps: more text, a smaller model, dropout, weight decay, or to stop at the dashed line."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What else a run needs

    To be able to stop, and to go back, a run saves a **checkpoint** now and then: all that it needs
    to go on. These are the weights, both running means of AdamW, and the number of the step. Weights
    alone are not enough: without its means Adam would start its first steps again.

    There are other optimizers. A step changes a whole matrix, and usually it changes the results for a
    few directions of the input much more than for all others. **Muon** (Jordan et al. 2024) takes the momentum of the
    matrix and makes it orthogonal, which means that it stretches all directions of the input about
    equally. Adam evens out single weights, Muon evens out directions. The package has it: `nanogpt train --train.optimizer muon`.

    ## What you can say now

    - The steepest direction limits the rate of SGD. Momentum adds up gradients that agree and cancels
      those that do not. Adam divides by the typical size of each weight's gradient, so the rate, and
      not the size of the gradient, decides how far a weight moves. The W keeps the decay out of this division.
    - The rate climbs first, because Adam's first steps are the longest and know the least. It falls at
      the end, because the noise of single batches then outweighs what is left to learn.
    - Clipping shortens a gradient that is too long and keeps its direction. Accumulation gives the
      gradient of a large batch with the memory of a small one.
    - Overfitting shows where the validation loss rises while the training loss falls.
    """)
    return


@app.cell(hide_code=True)
def _(mo, self_test):
    answers = self_test(9)
    mo.vstack([mo.md("## Questions"), answers])
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(9, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write the optimizer and the learning rate yourself:

    ```sh
    nanogpt exercise check adamw
    nanogpt exercise check schedule
    nanogpt exercise play
    ```

    `play` shows what it was for. It trains a small GPT with your own functions in place of the package's, and
    draws its loss curve on top of the package's.

    Two experiments. In the decay section, give `shrink` a rate of 0.1 instead of 0.01: which curves
    change? On the command line, train without clipping and compare the largest gradients:
    `nanogpt demo --train.grad_clip 0`.

    **Papers.** Polyak 1964, "Some methods of speeding up the convergence of iteration methods".
    Kingma & Ba 2015, "Adam", sections 2 and 3 (bias correction). Loshchilov & Hutter 2019, "Decoupled
    Weight Decay Regularization", section 2; and 2017, "SGDR", for the cosine. Vaswani et al. 2017,
    section 5.3, for a warm-up. Pascanu et al. 2013, "On the difficulty of training recurrent neural
    networks", section 3.2, for clipping. Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations", for the trapezoid. McCandlish et al. 2018, "An Empirical Model of
    Large-Batch Training", on how noisy a batch is. Jordan et al. 2024, "Muon". On the mean of means:
    the Unsloth and Hugging Face blogs of October 2024, "Gradient accumulation".
    """)
    return


if __name__ == "__main__":
    app.run()
