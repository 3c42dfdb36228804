import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 10: when training goes wrong")


@app.cell(hide_code=True)
def _():
    import math
    import random
    from dataclasses import replace

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import IGNORED, ModelConfig
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.attention import attention
    from nanogpt.model.gpt import GPT, evaluating
    from nanogpt.text.batches import padded_batch
    from nanogpt.training.optim import AdamW
    from nanogpt.training.threads import limited_to

    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        AdamW,
        BLUE,
        GPT,
        GREY,
        IGNORED,
        LIGHT,
        ModelConfig,
        OLIVE,
        ORANGE,
        attention,
        evaluating,
        judged,
        limited_to,
        math,
        mo,
        package_code,
        padded_batch,
        plt,
        predict,
        random,
        replace,
        reply,
        self_test,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 10. When training goes wrong

    After this lesson you can

    - recognise eight common mistakes from three curves,
    - say what to check before a long training,
    - find out which line is wrong when a run looks strange.

    Most wrong programs stop with an error. A wrong training does not. It runs to its end, the loss
    falls a little, and the model is bad. Nothing says why. So you need to know how a healthy run
    looks, and how each mistake changes it.

    ## A small language to practise with

    We want many runs in a minute, so the language is small. Each word is one token. Each noun has its
    own verb: a dog always barks. The rest is drawn at random, so no model can predict everything.
    """)
    return


@app.cell
def _(random):
    VERBS = {"king": "rules", "queen": "dreams", "dog": "barks", "cat": "sleeps",
             "bird": "sings", "ship": "sails", "ghost": "haunts", "child": "plays"}
    draw = random.Random(0)

    def phrase():
        adjective = [draw.choice(["old", "young", "small", "red"])] if draw.random() < 0.4 else []
        return [draw.choice(["the", "a"]), *adjective, draw.choice(list(VERBS))]

    def say():
        subject = phrase()
        said = [*subject, VERBS[subject[-1]]]
        while len(said) < 13 and (len(said) < 5 or draw.random() < 0.35):
            said += [draw.choice(["near", "behind", "under"]), *phrase()]
        return [*said, "."]

    [" ".join(say()) for _ in range(4)]
    return (say,)


@app.cell(hide_code=True)
def _(math, mo, padded_batch, predict, random, say, torch):
    lines = [say() for _ in range(1200)]
    words = ["-", *sorted({word for line in lines for word in line})]  # "-" is padding
    number = {word: n for n, word in enumerate(words)}
    rows = [[number["."], *(number[word] for word in line)] for line in lines]
    unseen, practice = rows[:200], rows[200:]
    longest = max(map(len, rows))

    def everything(texts):
        """Ids and targets of sentences, padded to the longest one of all."""
        ids, targets, _ = padded_batch([*texts, [0] * longest])
        return torch.tensor(ids[:-1]), torch.tensor(targets[:-1])

    def batch_of(texts, n, size=32):
        """Batch number n, drawn at random."""
        return everything(random.Random(n).choices(texts, k=size))

    _all = [token for row in practice for token in row[1:]]
    _shares = torch.bincount(torch.tensor(_all)) / len(_all)
    know_nothing, frequencies = math.log(len(words)), -(_shares * _shares.clamp(min=1e-9).log()).sum().item()

    first_loss = predict(
        f"The vocabulary has {len(words)} tokens. What is the loss of a fresh model, in nats?", step=0.01
    )
    mo.vstack([
        mo.md(
            f"There are {len(practice):,} sentences to learn from and {len(unseen)} for validation. "
            f"Batches are padded to {longest} tokens, as in lesson 8. Before you train anything, predict "
            "one number. It is the first check of every run:"
        ),
        first_loss,
    ])
    return (
        batch_of,
        everything,
        first_loss,
        frequencies,
        know_nothing,
        longest,
        number,
        practice,
        unseen,
        words,
    )


@app.cell(hide_code=True)
def _(ModelConfig, first_loss, know_nothing, longest, math, mo, reply, words):
    config = ModelConfig(
        vocab_size=len(words), context_length=longest, n_layer=2, n_head=4, n_embd=32, dropout=0.4
    )
    mo.vstack([
        reply(
            first_loss,
            round(know_nothing, 2),
            f"A fresh model gives all {len(words)} tokens about the same probability, 1/{len(words)}. "
            f"Its loss is log {len(words)} = {know_nothing:.2f}.",
            wrong={
                len(words): "This is the perplexity. The loss is its logarithm.",
                round(math.log2(len(words)), 2): "These are bits. The loss is in nats, so take the "
                "natural logarithm.",
                1: "This would be a probability of 37 % for the right token. A fresh model knows nothing.",
            },
            tolerance=0.05,
        ),
        mo.md(
            """
            ## A healthy run

            Here are the pieces of lesson 9 in one loop, as short as it can be. The random numbers of dropout start
            anew in each step, so that two runs can be compared exactly. Read it line by line: each of
            the eight mistakes below changes one of these lines.
            """
        ),
    ])
    return (config,)


@app.cell
def _(AdamW, GPT, batch_of, config, evaluating, everything, practice, torch, unseen):
    def validation_loss(model):
        ids, targets = everything(unseen)
        with evaluating(model):  # no dropout here
            return model.loss(model(ids), targets).item()

    def healthy(steps=120):
        torch.manual_seed(1)
        model = GPT(config)
        optimizer = AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
        losses, lengths, checks = [], [], []
        for step in range(steps):
            if step % 10 == 0:
                checks.append(validation_loss(model))
            torch.manual_seed(step)
            ids, targets = batch_of(practice, step)
            loss = model.loss(model(ids), targets)
            optimizer.zero_grad()
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
            optimizer.step()
            losses.append(loss.item())
            lengths.append(gradient.norm().item())
        checks.append(validation_loss(model))
        return {"losses": losses, "lengths": lengths, "checks": checks, "model": model}

    return healthy, validation_loss


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    frequencies,
    healthy,
    know_nothing,
    limited_to,
    mo,
    plt,
    words,
):
    with mo.status.spinner("a healthy run"), limited_to(1):
        good = healthy()
    _figure, (_loss, _length) = plt.subplots(
        2, 1, figsize=(8, 5.4), layout="constrained", sharex=True, height_ratios=[3, 2]
    )
    _steps = range(0, 121, 10)
    _loss.plot(good["losses"], color=BLUE, lw=1.8)
    _loss.plot(_steps, good["checks"], "o-", color=ORANGE, ms=4, lw=1.8)
    for _y, _text in ((know_nothing, f"log {len(words)}: knows nothing"),
                      (frequencies, "knows how frequent each word is")):
        _loss.axhline(_y, color=LIGHT, lw=1.6)
        _loss.text(120, _y + 0.03, _text, color=GREY, fontsize=11, ha="right", va="bottom")
    _loss.annotate("training", (22, good["losses"][22]), (34, 2.35), color=BLUE, fontsize=12,
                   arrowprops={"arrowstyle": "-", "color": BLUE})
    _loss.annotate("validation", (80, good["checks"][8]), (62, 0.75), color=ORANGE, fontsize=12,
                   arrowprops={"arrowstyle": "-", "color": ORANGE})
    _loss.set(ylabel="loss, nats per token", ylim=(0.5, 3.7))
    _length.semilogy(good["lengths"], color=BLUE, lw=1.8)
    _length.set(xlabel="step", ylabel="gradient, length", ylim=(0.05, 20))
    _late = sum(good["losses"][-20:]) / 20
    mo.vstack([
        _figure,
        mo.md(
            f"""
            Learn this picture by heart:

            - The first loss is {good["losses"][0]:.2f}, the logarithm of the vocabulary.
            - The loss soon passes the second line, {frequencies:.2f}. It belongs to a model that knows
              how frequent each word is and nothing else (the unigram model of lesson 2).
            - The validation loss ends at {good["checks"][-1]:.2f}. It cannot end at 0, because much is drawn
              at random.
            - The training loss of the last 20 steps is {_late:.2f} on average. The validation loss can lie
              *below* it. Training works with four tenths of the numbers zeroed (dropout). Validation works
              with all of them.
            - The gradient is longest at the start, then steady.

            ## The first loss tells about the initialisation

            The slider sets the standard deviation of the fresh weights. Nothing is trained here. Where
            does the first loss leave log {len(words)}?
            """
        ),
    ])
    return (good,)


@app.cell(hide_code=True)
def _(mo):
    spread = mo.ui.slider(
        steps=[0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], value=0.5,
        label="standard deviation of fresh weights", show_value=True,
    )  # fmt: skip
    spread
    return (spread,)


@app.cell(hide_code=True)
def _(
    BLUE,
    GPT,
    GREY,
    ORANGE,
    batch_of,
    config,
    evaluating,
    know_nothing,
    mo,
    plt,
    practice,
    replace,
    spread,
    torch,
    words,
):
    def _fresh(deviation):
        torch.manual_seed(1)
        model = GPT(replace(config, init_std=deviation))
        ids, targets = batch_of(practice, 0)
        with evaluating(model):
            logits = model(ids)
            chances = logits[0, 2].softmax(-1)
            return chances, model.loss(logits, targets).item()

    _chances, _loss = _fresh(spread.value)
    _figure, _axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    _color = BLUE if abs(_loss - know_nothing) < 0.1 else ORANGE
    _axes.bar(range(len(words)), _chances, color=_color)
    _axes.axhline(1 / len(words), color=GREY, lw=1, ls="--")
    _axes.text(len(words) - 0.4, 1 / len(words), f"1/{len(words)}", color=GREY, va="bottom", ha="right")
    _axes.set(xlabel="token of the vocabulary", ylabel="probability, fresh", ylim=(0, 1.02))
    _axes.set_title(f"first loss {_loss:.2f}, log {len(words)} = {know_nothing:.2f}", color=_color, loc="left")
    mo.vstack([
        _figure,
        mo.md(
            "These are the probabilities that a fresh model gives at one place of a text. With small "
            "weights all logits are near 0, so all tokens are equally likely. With large weights the "
            "logits are large, and softmax turns them into a firm belief in random tokens. The loss of "
            "a firm wrong belief is high. GPT-2 uses 0.02."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(
    AdamW,
    GPT,
    IGNORED,
    attention,
    batch_of,
    config,
    everything,
    limited_to,
    mo,
    practice,
    replace,
    torch,
    unseen,
    validation_loss,
):
    def with_mistake(mistake, steps=120, one_batch=False):
        """The healthy loop with one line wrong; the same seeds, so that nothing else differs."""
        torch.manual_seed(1)
        wrong_spread = 1.0 if mistake == "wrong initialisation" else config.init_std
        dropout = 0.0 if one_batch else config.dropout
        model = GPT(replace(config, init_std=wrong_spread, dropout=dropout))
        rate = 0.5 if mistake == "learning rate too high" else 0.01
        optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
        if mistake == "a leak from the future":
            for block in model.h:  # attention without its mask
                block.attn.kernel.forward = lambda q, k, v, mask=None, causal=False: attention(q, k, v)

        def look(step):
            if mistake != "dropout left on in evaluation":
                return validation_loss(model)
            torch.manual_seed(10_000 + step)
            ids, targets = everything(unseen)
            with torch.no_grad():
                return model.loss(model(ids), targets).item()

        losses, lengths, checks = [], [], []
        for step in range(steps):
            if step % 10 == 0:
                checks.append(look(step))
            torch.manual_seed(step)
            ids, targets = batch_of(practice, *((0, 8) if one_batch else (step,)))
            if mistake == "targets not shifted":
                targets = torch.where(targets == IGNORED, targets, ids)
            if mistake == "loss over padding":
                targets = torch.where(targets == IGNORED, 0, targets)
            if mistake == "labels shuffled":
                real = targets != IGNORED
                targets[real] = targets[real][torch.randperm(int(real.sum()))]
                torch.manual_seed(step)
            loss = model.loss(model(ids), targets)
            if mistake != "gradients not zeroed":
                optimizer.zero_grad()
            loss.backward()
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
            optimizer.step()
            losses.append(loss.item())
            lengths.append(gradient.norm().item())
        checks.append(look(steps))
        return {"losses": losses, "lengths": lengths, "checks": checks, "model": model}

    ANSWERS = {
        "A": "learning rate too high",
        "B": "targets not shifted",
        "C": "labels shuffled",
        "D": "wrong initialisation",
        "E": "gradients not zeroed",
        "F": "dropout left on in evaluation",
        "G": "loss over padding",
        "H": "a leak from the future",
    }
    MISTAKES = sorted(ANSWERS.values())
    with mo.status.spinner("eight broken runs"), limited_to(1):
        runs = {letter: with_mistake(mistake) for letter, mistake in ANSWERS.items()}
    return ANSWERS, MISTAKES, runs, with_mistake


@app.cell(hide_code=True)
def _(BLUE, GREY, LIGHT, ORANGE, frequencies, good, know_nothing, plt, runs):
    _steps = range(0, 121, 10)

    def draw_losses(axes, run, low=0, top=4.2):
        for height in (know_nothing, frequencies):
            axes.axhline(height, color=LIGHT, lw=1.4)
        axes.plot(good["losses"], color="#c4c4c4", lw=5, solid_capstyle="round")
        axes.plot(_steps, good["checks"], color=GREY, lw=2.2, ls=":")
        axes.plot([min(x, 99) for x in run["losses"]], color=BLUE, lw=1.6)
        axes.plot(_steps, [min(x, 99) for x in run["checks"]], "o-", color=ORANGE, ms=3.5, lw=1.6)
        axes.set(ylim=(low, top), xlim=(-2, 122))

    def wall(names):
        """All eight runs, each with a healthy one in grey."""
        figure, panels = plt.subplots(4, 2, figsize=(8, 10), layout="constrained", sharex=True, sharey=True)
        for axes, (letter, run) in zip(panels.flat, runs.items(), strict=True):
            draw_losses(axes, run)
            axes.set_title(names.get(letter, letter), loc="left", fontsize=14, fontweight="bold")
        for axes in panels[:, 0]:
            axes.set_ylabel("loss")
        for axes in panels[-1]:
            axes.set_xlabel("step")
        figure.suptitle("blue: training   orange: validation   grey: healthy", fontsize=13, color="#444444")
        return figure

    def evidence(letter):
        """One run beside the healthy one: losses and the length of the gradient."""
        run = runs[letter]
        highest = max(run["losses"] + run["checks"])
        near = max(abs(a - b) for a, b in zip(run["losses"], good["losses"], strict=True)) < 0.6
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
        if near:  # too close to see the difference in the usual range
            draw_losses(left, run, low=0.8, top=2.2)
        else:
            draw_losses(left, run, top=max(4.2, min(1.08 * highest, 16)))
        left.set(xlabel="step", ylabel="loss")
        left.set_title(f"run {letter}" + ", enlarged" * near, loc="left", fontweight="bold")
        right.semilogy(good["lengths"], color="#c4c4c4", lw=5)
        right.semilogy(run["lengths"], color=BLUE, lw=1.6)
        right.set(xlabel="step", ylim=(0.01, 300))
        right.set_title("length of the gradient", loc="left", fontsize=13)
        return figure

    return evidence, wall


@app.cell(hide_code=True)
def _(mo, wall):
    mo.vstack([
        mo.md(
            """
            ## Eight broken runs

            Now the wall. In each run one line of the loop is wrong. Everything else is the same: the
            weights at the start, the batches, the dropout. The two light blue lines are those of the
            healthy picture. The healthy run is grey: thick for training, dotted for validation. Validation
            is measured by the right function, apart from one run.

            These are the eight mistakes, in the order of the alphabet:

            - **a leak from the future**: attention has no mask, so each token sees the next ones
            - **dropout left on in evaluation**: four tenths of the numbers are zeroed there, too
            - **gradients not zeroed**: each gradient is added to all earlier ones
            - **labels shuffled**: the targets of a batch are right, but in random order
            - **learning rate too high**: 0.5 in place of 0.01
            - **loss over padding**: the model must predict padding, too, and it counts in the loss
            - **targets not shifted**: the target of each token is the token itself
            - **wrong initialisation**: a standard deviation of 1 in place of 0.02

            Guess first which letter is which. Then go through them one by one.
            """
        ),
        wall({}),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_a = predict("What is wrong with run A?", MISTAKES)
    mo.vstack([mo.md("### Run A"), evidence("A"), guess_a])
    return (guess_a,)


@app.cell(hide_code=True)
def _(ANSWERS, guess_a, reply, runs, words):
    reply(
        guess_a,
        ANSWERS["A"],
        (f"The validation loss jumps to {max(runs['A']['checks']):.1f}, far above log {len(words)}, and "
            "then stays near the line of the frequencies. Each step goes past its aim and lands somewhere "
            "else. What survives is the simplest thing there is to learn: how frequent each word is."
        ),
        wrong={
            "wrong initialisation": "Then the very first loss would be wrong. Here it is right, and the damage comes with the first steps.",
            "labels shuffled": "Shuffled labels end at the same line, but they get there calmly. They never jump above the start.",
            "gradients not zeroed": "Then the gradient would grow and grow. Here its length does not grow without end.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_b = predict("What is wrong with run B?", MISTAKES)
    mo.vstack([mo.md("### Run B"), evidence("B"), guess_b])
    return (guess_b,)


@app.cell(hide_code=True)
def _(ANSWERS, guess_b, reply, runs, words):
    reply(
        guess_b,
        ANSWERS["B"],
        (f"The training loss falls to {runs['B']['losses'][-1]:.3f}. Half of this language is drawn at "
            "random, so nobody can predict it so well. The task must be another one: repeat the token that "
            f"you see. The validation set asks for the next token. There the model is sure and wrong, and "
            f"its loss climbs to {runs['B']['checks'][-1]:.1f}."
        ),
        wrong={
            "a leak from the future": "A leak is in the model, so the validation loss would fall as well. Here it climbs.",
            "loss over padding": "Padding makes the training loss too low, but not zero. And the validation loss would be almost healthy.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_c = predict("What is wrong with run C?", MISTAKES)
    mo.vstack([mo.md("### Run C"), evidence("C"), guess_c])
    return (guess_c,)


@app.cell(hide_code=True)
def _(ANSWERS, frequencies, guess_c, reply, runs):
    reply(
        guess_c,
        ANSWERS["C"],
        (f"Both losses fall to {runs['C']['checks'][-1]:.2f} and stay. The line of the frequencies is at "
            f"{frequencies:.2f}. Shuffling destroys which word follows which, but it keeps how often "
            "each word occurs. So this is all that the model can learn. The gradient is short, because "
            "nothing else is left to learn."
        ),
        wrong={
            "learning rate too high": "That one ends near the same line, but after a jump, and with unsteady steps. Here everything is calm.",
            "wrong initialisation": "The first loss is right here.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_d = predict("What is wrong with run D?", MISTAKES)
    mo.vstack([mo.md("### Run D"), evidence("D"), guess_d])
    return (guess_d,)


@app.cell(hide_code=True)
def _(ANSWERS, guess_d, know_nothing, reply, runs, words):
    reply(
        guess_d,
        ANSWERS["D"],
        (f"The first loss is {runs['D']['losses'][0]:.1f}, and log {len(words)} is {know_nothing:.2f}. Before "
            "any step something is wrong, so it is neither the optimizer nor the learning rate. The model "
            "starts with firm beliefs in random tokens. Most of the run is spent on taking them back."
        ),
        wrong={
            "learning rate too high": "The rate acts after the first step. Here the loss is wrong before it.",
            "gradients not zeroed": "The first step has no earlier gradients. Here the first loss is wrong already.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_e = predict("What is wrong with run E?", MISTAKES)
    mo.vstack([mo.md("### Run E"), evidence("E"), guess_e])
    return (guess_e,)


@app.cell(hide_code=True)
def _(ANSWERS, good, guess_e, reply, runs):
    reply(
        guess_e,
        ANSWERS["E"],
        (f"The gradient grows to {max(runs['E']['lengths']):.0f}. The healthy one stays below "
            f"{max(good['lengths'][20:]):.1f} after 20 steps. All "
            "gradients since the first step are added up. Old ones, from weights that no longer exist, "
            "outweigh the new one. The loss falls at first, because the early gradients agree. Then the "
            "weights run past every low place."
        ),
        wrong={
            "learning rate too high": "The loss looks similar. The gradient tells them apart: here it grows with every step.",
            "labels shuffled": "Then the loss would stay calmly at the line of the frequencies.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_f = predict("What is wrong with run F?", MISTAKES)
    mo.vstack([mo.md("### Run F"), evidence("F"), guess_f])
    return (guess_f,)


@app.cell(hide_code=True)
def _(ANSWERS, everything, good, guess_f, reply, runs, torch, unseen, validation_loss):
    _pairs = zip(runs["F"]["checks"], good["checks"], strict=True)
    _gap = sum(broken - right for broken, right in _pairs) / len(good["checks"])
    _ids, _targets = everything(unseen)
    _model = runs["F"]["model"].train()
    torch.manual_seed(0)
    with torch.no_grad():
        _twice = [_model.loss(_model(_ids), _targets).item() for _ in range(2)]
    reply(
        guess_f,
        ANSWERS["F"],
        ("The blue curve lies exactly on the grey one, in the loss and in the gradient. So the training "
            "is healthy, to the last digit. Only the measurement is wrong. The validation loss is too high, "
            f"by {_gap:.2f} on average. And it is not even a fixed number: measured twice, the same model gets "
            f"{_twice[0]:.4f} and {_twice[1]:.4f}. With `model.eval()` it gets "
            f"{validation_loss(runs['F']['model']):.4f} both times."
        ),
        wrong={
            "loss over padding": "Then the training loss would differ from the healthy one. Here it is the same in every step.",
            "a leak from the future": "Then the model itself would be another one, and so would its training loss.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_g = predict("What is wrong with run G?", MISTAKES)
    mo.vstack([mo.md("### Run G"), evidence("G"), guess_g])
    return (guess_g,)


@app.cell(hide_code=True)
def _(ANSWERS, IGNORED, batch_of, good, guess_g, practice, reply, runs):
    _late = [batch_of(practice, n)[1] == IGNORED for n in range(100, 120)]
    _padded = sum(padding.float().mean().item() for padding in _late) / 20
    _mean = sum(runs["G"]["losses"][-20:]) / 20
    reply(
        guess_g,
        ANSWERS["G"],
        (f"In the last 20 steps the training loss is {_mean:.2f} on average, the healthy one "
            f"{sum(good['losses'][-20:]) / 20:.2f}. But the validation loss is no better than the healthy "
            f"one. In these batches {_padded:.0%} of the places are padding. To predict padding after padding is easy, and "
            f"each such place counts with a loss of almost 0. The real tokens, {1 - _padded:.0%}, have a loss of about "
            f"{_mean / (1 - _padded):.2f}. That is no better than healthy: the model had padding to learn "
            "as well. So the mean looks better than the model is."
        ),
        wrong={
            "targets not shifted": "Then the training loss would fall to almost 0 and the validation loss would climb.",
            "a leak from the future": "With a leak the validation loss would be too low as well. Here only the training loss is.",
        },
    )
    return


@app.cell(hide_code=True)
def _(MISTAKES, evidence, mo, predict):
    guess_h = predict("What is wrong with run H?", MISTAKES)
    mo.vstack([mo.md("### Run H"), evidence("H"), guess_h])
    return (guess_h,)


@app.cell(hide_code=True)
def _(ANSWERS, evaluating, everything, good, guess_h, reply, runs, torch, unseen):
    _ids, _targets = everything(unseen)
    _model = runs["H"]["model"]
    with evaluating(_model):  # each prediction from its own past alone
        _last = [_model(_ids[:, : n + 1])[:, -1:] for n in range(_ids.shape[1])]
        _honest = _model.loss(torch.cat(_last, 1), _targets).item()
    reply(
        guess_h,
        ANSWERS["H"],
        (f"Both losses go below the healthy ones: validation ends at {runs['H']['checks'][-1]:.2f}, healthy "
            f"at {good['checks'][-1]:.2f}. That is too good to be true: half of this language is drawn at "
            "random. The model has learned to look at the next token. "
            "In the validation the next token is there, too, so the validation loss "
            "does not warn you. In generation there is no next token to look at. If each "
            f"prediction gets only the tokens before it, the loss is {_honest:.2f}. After 120 steps the leak is only "
            "half learned. In a longer run both losses fall further, towards 0."
        ),
        wrong={
            "targets not shifted": "Then the validation loss would climb. It tells the two apart. The training loss does not: a leak, too, can bring it towards 0.",
            "loss over padding": "Then only the training loss would be too low. Here the validation loss is too low as well.",
        },
    )
    return


@app.cell(hide_code=True)
def _(
    ANSWERS,
    guess_a,
    guess_b,
    guess_c,
    guess_d,
    guess_e,
    guess_f,
    guess_g,
    guess_h,
    mo,
    wall,
):
    _guesses = dict(
        zip("ABCDEFGH", (guess_a, guess_b, guess_c, guess_d, guess_e, guess_f, guess_g, guess_h), strict=True)
    )
    _given = {letter: form.value["prediction"] for letter, form in _guesses.items() if form.value}
    _names = {letter: f"{letter}: {ANSWERS[letter]}" for letter, guess in _given.items() if guess}
    _right = sum(ANSWERS[letter] == guess for letter, guess in _given.items())
    _said = (
        f"You have diagnosed {len(_names)} of 8 runs, {_right} of them right."
        if _names
        else "Here the runs get their names as you answer."
    )
    _signs = """
    | what you see | what to suspect |
    |:--|:--|
    | the first loss is far from log V | initialisation |
    | a jump above the first loss | rate too high |
    | the gradient grows without end | gradients not zeroed |
    | calm, and stuck at the frequencies | targets do not belong to inputs |
    | training near 0, validation climbs | targets not shifted, or so little text that it is known by heart (lesson 9) |
    | training too low, validation usual | loss over padding |
    | both too good to be true, in a long run perhaps near 0 | a leak from the future |
    | training usual, validation too high and unsteady | dropout in evaluation |
    """
    mo.vstack([mo.md(f"## The wall, with names\n\n{_said}"), wall(_names), mo.md(_signs)])
    return


@app.cell(hide_code=True)
def _(good, mo, predict):
    memorised = predict(
        f"On new sentences the healthy model reaches a loss of {good['checks'][-1]:.2f}. Now it trains without "
        "dropout on the same 8 sentences, 80 times. How low does the loss on these 8 sentences get?",
        ["close to 0, except for what no model can know", "to about the same loss, because much is random",
         "it does not fall: 8 sentences are too few"],
    )  # fmt: skip
    mo.vstack([
        mo.md(
            """
            ## Overfit one batch first

            You need not wait for the curves of a long run. The best short test is this: take **one**
            small batch and train on nothing else. Switch dropout off. Overfitting is the aim here.
            """
        ),
        memorised,
    ])  # fmt: skip
    return (memorised,)


@app.cell
def _(MISTAKES, limited_to, with_mistake):
    with limited_to(1):
        tests = {
            mistake: with_mistake(mistake, steps=80, one_batch=True)["losses"]
            for mistake in ["none", *MISTAKES]
        }
    return (tests,)


@app.cell(hide_code=True)
def _(BLUE, LIGHT, OLIVE, ORANGE, know_nothing, memorised, mo, plt, reply, tests):
    _ends = {name: sum(losses[-5:]) / 5 for name, losses in tests.items()}
    _usual = _ends["none"]
    _figure, _axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    _order = sorted(_ends, key=lambda name: -_ends[name])
    _found = [name for name in _order if _ends[name] > _usual + 0.2]
    _colors = [ORANGE if n in _found else OLIVE if n == "none" else BLUE for n in _order]
    _axes.barh(range(len(_order)), [min(_ends[n], 4.5) for n in _order], color=_colors)
    _axes.axvline(know_nothing, color=LIGHT, lw=1.6)
    _axes.text(know_nothing + 0.04, 7, "knows nothing", color="#888888", va="center", fontsize=12)
    _axes.set_yticks(range(len(_order)), [n if n != "none" else "healthy" for n in _order])
    for _n, _name in enumerate(_order):
        _axes.text(min(_ends[_name], 4.5) + 0.04, _n, f"{_ends[_name]:.2f}", va="center", fontsize=12)
    _axes.set(xlabel="loss on the one batch, last 5 steps", xlim=(0, 5))
    _missed = [n for n in _order if n not in [*_found, "none"]]
    _repaired = "wrong initialisation" in _missed
    mo.vstack([
        reply(
            memorised,
            "close to 0, except for what no model can know",
            f"It gets to {_usual:.2f}. The model learns the sentences by heart, the random parts, too. What "
            "remains is the beginning: where several sentences start alike, it cannot know which one comes.",
            wrong={
                "to about the same loss, because much is random": "Random parts cannot be predicted in "
                "new sentences. In sentences that were seen 80 times they can be learned by heart.",
                "it does not fall: 8 sentences are too few": "The fewer there are, the easier it is to "
                "learn them by heart.",
            },
        ),
        _figure,
        mo.md(
            f"The test finds the orange ones: {', '.join(_found)}. It takes seconds and needs no second "
            "run to compare with: a healthy model **can** learn 8 sentences. If it cannot, look for the "
            "mistake before anything else.\n\n"
            f"The test misses the blue ones: {', '.join(_missed)}. Some of them even look better than healthy. "
            "They make the task too easy, or they are no mistake of training at all. "
            + "A wrong initialisation is repaired within 80 steps. The first loss shows it. " * _repaired
            + "So you need a few more checks. Here are three, and each is a few lines."
        ),
    ])
    return


@app.cell
def _(IGNORED, batch_of, practice, words):
    # 1. Read a batch with your own eyes: each token, and what should come next.
    ids, targets = batch_of(practice, 0, size=2)
    shown = [
        f"{words[i]} -> {words[t] if t != IGNORED else '(ignored)'}"
        for i, t in zip(ids[0].tolist(), targets[0].tolist(), strict=True)
    ]
    shown[:10]
    return (ids,)


@app.cell
def _(evaluating, good, ids, runs):
    # 2. Change the last token. No earlier prediction may move.
    changed = ids.clone()
    changed[:, -1] = 5
    moves = {}
    for name, network in (("healthy", good["model"]), ("run H", runs["H"]["model"])):
        with evaluating(network):
            difference = network(changed)[:, :-1] - network(ids)[:, :-1]
        moves[name] = round(difference.abs().max().item(), 4)
    moves
    return


@app.cell
def _(good, validation_loss):
    # 3. Measure twice. The two numbers must be equal.
    [validation_loss(good["model"]) for _ in range(2)]
    return


@app.cell(hide_code=True)
def _(evaluating, mo, package_code):
    mo.vstack([
        mo.md(
            """
            ## A checklist before a long run

            1. Print one batch as text. Is each target the next token? Is padding ignored?
            2. Is the first loss the logarithm of the vocabulary?
            3. Change a later token. Do all earlier predictions stay?
            4. Can the model learn one small batch by heart?
            5. Does the validation give the same number twice?
            6. Train for a few minutes. Is the loss below the line of the frequencies? Is the gradient
               steady?
            7. Let the model write. A low loss with bad text is a sign of a leak.
            8. Change **one** thing at a time, and keep the run before it for comparison.

            If the loss jumps to infinity, `nanogpt train` stops before any weight moves. It says at
            which step and batch it happened and which gradients were the largest, and which checkpoint
            is still good.

            For point 5, the package measures inside `evaluating`. It switches dropout off, and
            afterwards on again:
            """
        ),
        package_code(evaluating),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    - A broken training runs to its end. You recognise it beside a healthy run: by the first loss, by
      the level where it stays, by the gap between training and validation, and by the gradient.
    - A loss below what the text allows is no success. Either the targets are not shifted, or padding
      counts, or the model sees the future. The validation loss tells which.
    - Overfitting one batch finds most mistakes of learning within seconds. It does not find tasks that
      became too easy.
    - A validation loss that is not the same twice comes from dropout that was left on.
    """)
    return


@app.cell(hide_code=True)
def _(mo, self_test):
    answers = self_test(10)
    mo.vstack([mo.md("## Questions"), answers])
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(10, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own. Its exercise is to break things.

    - Open the hidden cell with `with_mistake` and add a mistake of your own. Weights that decay a
      hundred times too fast? Position embeddings left out? Draw its curves. Would you have found it?
    - In the loop of the healthy run, move `optimizer.zero_grad()` between `backward` and `step`. Say
      first what the curves will look like.
    - Break a real run: `nanogpt demo --train.lr 1` says what happened to it.

    **Papers.** Karpathy 2019, "A Recipe for Training Neural Networks", on overfitting one batch and on
    the first loss. Ivanov 2017, "37 Reasons why your Neural Network is not working". Zhang et al. 2017,
    "Understanding deep learning requires rethinking generalization", section 2, where networks learn
    random labels by heart.
    """)
    return


if __name__ == "__main__":
    app.run()
