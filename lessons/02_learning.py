import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 2: counting and learning")


@app.cell(hide_code=True)
def _():
    import math
    import random
    import re
    from collections import Counter
    from itertools import pairwise

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap

    from nanogpt.config import DataConfig
    from nanogpt.learn.autograd import Network, Value
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.layers import softmax
    from nanogpt.text.sources import load_split
    from nanogpt.text.tokenizer import CharTokenizer

    BLUE, ORANGE, OLIVE, GREY = "#1f5a99", "#d1602b", "#7a9a3a", "#888888"
    SIDES = LinearSegmentedColormap.from_list("sides", [BLUE, "white", ORANGE])
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        BLUE,
        CharTokenizer,
        Counter,
        DataConfig,
        GREY,
        Network,
        OLIVE,
        ORANGE,
        SIDES,
        Value,
        judged,
        load_split,
        math,
        mo,
        package_code,
        pairwise,
        plt,
        predict,
        random,
        re,
        reply,
        self_test,
        softmax,
        torch,
    )


@app.cell(hide_code=True)
def _(mo, predict):
    after_a = predict(
        "The text is `abracadabra`. The model has just read an `a`. By counting, what is the "
        "probability that `b` comes next?",
        step=0.01,
    )
    mo.vstack(
        [
            mo.md("""
        # 2. Counting, and learning the same by gradients

        After this lesson you can

        - make a small language model by counting, and measure how good it is,
        - say what a gradient is, and check one without calculus,
        - follow a gradient back through two layers with the chain rule,
        - explain what autograd stores and does, and why gradients are set to zero before each step.

        In lesson 1 the weights were there already. Where do they come from? This lesson finds some,
        first by counting, then by **training**: start with weights that know nothing, and improve
        them step by step. GPT-2's weights were found in this second way, and by nothing else.

        ## Count what follows

        The simplest model that predicts anything looks at one token and knows what followed it
        before. In this lesson a token is a single character.
        """),
            after_a,
        ]
    )
    return (after_a,)


@app.cell(hide_code=True)
def _(after_a, pairs, reply):
    _all = sum(n for (before, _), n in pairs.items() if before == "a")
    reply(
        after_a,
        pairs["a", "b"] / _all,
        f"An `a` is followed {_all} times, {pairs['a', 'b']} times by `b`. Divide the count of "
        "the pair by the count of everything that follows an `a`.",
        wrong={
            0.4: "There are five `a`, but nothing follows the last one.",
            0.2: "This divides by all ten pairs of the text. You know already that an `a` was "
            "read, so only pairs that start with `a` count.",
        },
        tolerance=0.005,
    )
    return


@app.cell
def _(Counter, pairwise):
    word = "abracadabra"
    pairs = Counter(pairwise(word))  # each character with the next one
    {after: number for (before, after), number in pairs.items() if before == "a"}
    return (pairs,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    A model that knows how often each token follows each other token, and nothing else, is a
    **bigram model**. One that knows only how often each token occurs is a **unigram model**.

    Now with more text. A **corpus** is all the text that a model learns from or is measured on.
    Ours is twenty plays by Shakespeare, in small letters, with everything else turned into a
    space. Two plays are put aside. They are the **held-out text**, also called the **validation
    set**: we measure on it and never learn from it, because a model that has seen a text could
    simply know it by heart.
    """)
    return


@app.cell(hide_code=True)
def _(CharTokenizer, DataConfig, load_split, mo, re, torch):
    letters = " abcdefghijklmnopqrstuvwxyz"
    tokenizer = CharTokenizer(letters)

    def small_letters(documents):
        joined = " ".join(document.text for document in documents).lower()
        return torch.tensor(tokenizer.encode(re.sub("[^a-z]+", " ", joined)))

    _split = load_split(DataConfig(max_documents=20))
    train, held_out = small_letters(_split.train), small_letters(_split.val)
    mo.md(
        f"`train` has {len(train):,} characters, `held_out` {len(held_out):,}. The vocabulary has "
        f"{len(letters)} tokens: the space and 26 letters. This counts all pairs, and divides each "
        "row by its sum:"
    )
    return held_out, letters, tokenizer, train


@app.cell
def _(torch, train):
    counts = torch.zeros(27, 27)  # row: the letter before; column: the letter after
    one = torch.ones(len(train) - 1)
    counts.index_put_((train[:-1], train[1:]), one, accumulate=True)  # one more for each pair
    counts += 0.1  # a pair that never came is rare, not impossible; the loss below shows why
    counted = counts / counts.sum(1, keepdim=True)  # each row sums to 1
    return (counted,)


@app.cell
def _(counted, mo, tokenizer, torch):
    torch.manual_seed(4)
    written = [0]  # a space
    for _ in range(120):
        written.append(int(torch.multinomial(counted[written[-1]], 1)))
    mo.md(f"`{tokenizer.decode(written)}`")
    return


@app.cell(hide_code=True)
def _(mo, predict):
    uniform_loss = predict(
        "A model knows nothing: it gives each of the 27 characters the same probability. What is its "
        "loss?",
        step=0.01,
    )
    mo.vstack(
        [
            mo.md("""
        The lines above were written by the table. Groups of letters look like English, but hardly
        one is a word, because the table sees a single letter.

        ## How good is it? The loss

        Let the model read the held-out text. At each place, look up the probability that it gave to
        the character that really came. A good model gives high ones. To make one number of them:

        1. Take the logarithm, and change its sign. Probability 1 becomes 0: no surprise at all.
           1/2 becomes 0.69, 1/10 becomes 2.30, 1/1,000 becomes 6.91.
        2. Take the mean over all places.

        The result is the **loss**: the number that training makes smaller. This loss is called
        **cross-entropy**, and with the natural logarithm its unit is the **nat**. Why the logarithm?
        The probability of a whole text is the product of the probabilities of its tokens, and the
        logarithm turns this product into a sum. A model that gave probability 0 to what came would
        have an infinite loss. This is why we added 0.1 to each count.
        """),
            uniform_loss,
        ]
    )
    return (uniform_loss,)


@app.cell(hide_code=True)
def _(math, reply, uniform_loss):
    reply(
        uniform_loss,
        round(math.log(27), 2),
        "Each probability is 1/27, and -log(1/27) = log 27. Every place gives the same, so the mean "
        "is the same.",
        wrong={
            round(1 / 27, 3): "This is the probability. The loss is minus its logarithm.",
            round(math.log2(27), 2): "This is the right quantity in bits, with the logarithm to "
            "base 2. Nats use the natural logarithm.",
            27: "The model is as unsure as among 27 equal choices. The loss is the logarithm of this.",
        },
        tolerance=0.02,
    )
    return


@app.cell
def _(counted, held_out):
    came = counted[held_out[:-1], held_out[1:]]  # the probability of what came, at each place
    counted_loss = -came.log().mean().item()
    f"{counted_loss:.3f} nats"
    return (counted_loss,)


@app.cell(hide_code=True)
def _(counted_loss, held_out, letters, math, mo, torch, train):
    unigram = torch.bincount(train, minlength=len(letters)) / len(train)
    _unigram_loss = -unigram[held_out].log().mean().item()
    mo.md(
        f"""
        | model | weights | loss on held-out text |
        |:--|--:|--:|
        | all characters alike | 0 | {math.log(27):.2f} |
        | unigram | 27 | {_unigram_loss:.2f} |
        | bigram | 27 x 27 = 729 | {counted_loss:.2f} |

        ## The same table, by training

        Counting works because the model is a table. Nobody can count the weights of a GPT. So we
        find our table in another way, and it works for any model: start anywhere, measure the loss,
        and change each weight a little so that the loss falls.

        A weight may become any number, also a negative one. A probability may not. So the weights
        are scores (lesson 1 called them logits), and **softmax** turns scores into probabilities:
        it exponentiates each score, and divides by the sum. For three letters with the scores 2, 1
        and 0:

        | | a | b | c | sum |
        |:--|--:|--:|--:|--:|
        | score | 2 | 1 | 0 | |
        | exp(score) | {math.exp(2):.2f} | {math.exp(1):.2f} | 1.00 | {math.exp(2) + math.exp(1) + 1:.2f} |
        | divided by the sum | {math.exp(2) / (math.exp(2) + math.exp(1) + 1):.3f} | {math.exp(1) / (math.exp(2) + math.exp(1) + 1):.3f} | {1 / (math.exp(2) + math.exp(1) + 1):.3f} | 1 |

        The exponential function makes every number positive; the division makes the sum 1. Lesson 5
        looks at it closely.
        """
    )
    return


@app.cell(hide_code=True)
def _(mo, predict):
    others = predict(
        "Now `b` really comes next. You raise the score of `c` a little. What does the loss do?",
        ["it stays: c did not come", "it falls a little", "it rises a little"],
    )
    mo.vstack(
        [
            mo.md("""
        ## A gradient: nudge a weight and look

        Which way should a score move? Try it. Raise one score by 0.001, compute the loss again, and
        divide the change of the loss by 0.001. The result says how much the loss changes when this
        weight changes a little. It is the **gradient** of the weight, also called its derivative: the
        slope at this place. Positive means that the loss rises when the weight rises.
        """),
            others,
        ]
    )
    return (others,)


@app.cell(hide_code=True)
def _(others, reply):
    reply(
        others,
        "it rises a little",
        "A higher score for c makes the sum larger. Every other probability is divided by this sum, so "
        "b loses some of its probability.",
        wrong={
            "it stays: c did not come": "The loss looks at the probability of b alone. But all scores "
            "are in the sum that it is divided by.",
            "it falls a little": "Probabilities sum to 1. What c gains, the others lose, and b is one "
            "of them.",
        },
    )
    return


@app.cell
def _(mo, softmax, torch):
    scores = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)  # a, b, c
    target = 1  # b came
    rows = []
    for i in range(3):
        nudged = scores.clone()
        nudged[i] += 0.001
        before = -softmax(scores)[target].log()
        after = -softmax(nudged)[target].log()
        rows.append(
            f"{'abc'[i]}: p = {softmax(scores)[i]:.3f}   slope = {(after - before) / 0.001:+.3f}"
        )
    mo.plain_text("\n".join(rows))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## p minus one-hot

    Look at the two columns. For the letters that did not come, the slope is their probability. For
    the letter that came, it is its probability minus 1. Write 1 for the letter that came and 0 for
    all others: a row of zeros with a single one is called **one-hot**. Then for all letters at once

    > gradient = p - one-hot

    Why? The loss is -log(exp(score of b) / sum). The logarithm of a quotient is a difference, so

    > loss = log(sum of all exp(score)) - score of b

    - The second part changes by -1 when the score of b rises by 1. This is the one-hot.
    - The first part is the logarithm of a sum. Raise the score of a by 0.001. Its exp(score) is 7.39
      and becomes exp(2.001) = exp(2) · exp(0.001). For a small s, exp(s) is about 1 + s. So exp(2) is
      multiplied by 1.001 and grows by 0.1 %. It makes up 7.39 of 11.11 of the sum, so the sum grows by 0.665 times
      0.1 %. For the same reason log(1 + s) is about s, so the logarithm grows by 0.665 times 0.001. The
      slope is the share of a in the sum: its p.

    This says what training does. The letter that came is pushed up by what it lacks to 1. All others
    are pushed down by what they have. If the model was sure and right, p is nearly one-hot, and
    almost nothing moves.

    One more step, and you see why training finds the counted table. Take all places where the letter
    before was an `a`. The mean of the one-hots over these places is the share of each letter after
    an `a`: the counted row. So the mean gradient is p minus the counted row, and the weights stop
    moving when p is the counted row.

    ## Down the slope

    All weights at once: move each a little **against** its gradient. The **learning rate**
    says how far: weight = weight - learning rate x gradient. The whole text at every step would be
    slow, so each step looks at a few random places. These examples together are a **batch**, and the gradient
    is the mean over the batch. This is called gradient descent:
    """)
    return


@app.cell
def _(softmax, torch, train):
    torch.manual_seed(0)
    learning_rate = 20.0
    one_hot = torch.eye(27)  # row n is the one-hot of letter n
    table = torch.zeros(27, 27)  # all scores equal: the model knows nothing
    history = [table.clone()]
    for _ in range(1000):
        places = torch.randint(len(train) - 1, (1000,))  # a batch of 1,000 places
        first, second = train[places], train[places + 1]
        gradient = (softmax(table[first]) - one_hot[second]) / 1000
        table.index_add_(0, first, -learning_rate * gradient)  # to the rows of the letters before
        history.append(table.clone())
    return history, learning_rate


@app.cell(hide_code=True)
def _(mo):
    step_of_table = mo.ui.slider(
        steps=[0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], value=10, label="steps of training",
        show_value=True,
    )  # fmt: skip
    mo.vstack(
        [
            mo.md("""
        Left is the table that was counted, right the table after so many steps. A row is the letter
        before, a column the letter after, a dot is the space. Dark means likely. Move the slider and watch the table
        appear out of nothing:
        """),
            step_of_table,
        ]
    )
    return (step_of_table,)


@app.cell(hide_code=True)
def _(
    BLUE, GREY, ORANGE, counted, counted_loss, held_out, history, learning_rate, letters, mo, plt,
    softmax, step_of_table, torch,
):  # fmt: skip
    _pairs = torch.bincount(held_out[:-1] * 27 + held_out[1:], minlength=729).view(27, 27)
    _losses = [
        -(softmax(table).log() * _pairs).sum().item() / _pairs.sum().item() for table in history
    ]
    _largest = (history[1] - history[0]).abs().max().item() / learning_rate
    _figure, _axes = plt.subplot_mosaic(
        [["counted", "learned"], ["loss", "loss"]], figsize=(8, 6.6), layout="constrained",
        height_ratios=[2, 1],
    )  # fmt: skip
    _tables = {"counted": counted, "learned": softmax(history[step_of_table.value])}

    for _name, _table in _tables.items():
        _ax = _axes[_name]
        _ax.imshow(_table**0.5, cmap="Blues", vmin=0, vmax=0.9)
        _ax.set_xticks([letters.index(c) for c in " ehou"], "·ehou")
        _ax.set_yticks([letters.index(c) for c in " ehqt"], "·ehqt")
        _ax.tick_params(length=2)
        _ax.spines[:].set_visible(False)
        _q, _u = letters.index("q"), letters.index("u")
        _ax.plot(_u, _q, "o", markersize=13, markerfacecolor="none", color=ORANGE, mew=2)
        _ax.annotate(
            f"u after q: {_table[_q, _u]:.0%}", (_u, _q), (_u - 7, _q - 3.5), color=ORANGE, ha="center",
            bbox={"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.85},
        )  # fmt: skip
    _axes["counted"].set_title("counted", loc="left")
    _axes["learned"].set_title(f"learned, {step_of_table.value:,} steps", loc="left")
    _ax = _axes["loss"]
    _ax.plot(range(len(_losses)), _losses, color=BLUE)
    _ax.axhline(counted_loss, color=GREY, linestyle="--")
    _ax.text(1000, counted_loss - 0.03, "counted", color=GREY, ha="right", va="top")
    _ax.plot(step_of_table.value, _losses[step_of_table.value], "o", color=ORANGE, markersize=9)
    _ax.set_xscale("symlog", linthresh=1)
    _ax.set_xlim(-0.1, 1300)
    _ax.set_ylim(counted_loss - 0.25, 3.4)
    _ax.set_xticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1,000"])
    _ax.set(xlabel="steps", ylabel="held-out loss")
    mo.vstack(
        [
            _figure,
            mo.md(
                f"After {step_of_table.value:,} steps the loss is {_losses[step_of_table.value]:.2f}. "
                f"After all {len(history) - 1:,} it is {_losses[-1]:.2f}; counting gives "
                f"{counted_loss:.2f}.\n\nWhy is the learning rate 20? The right rate depends on the size "
                "of the gradients. Here they are small: each is a mean over 1,000 places, and at most "
                "places the letter before is another one. In the first step no gradient is "
                f"larger than {_largest:.2f}. Later in this lesson a weight has the gradient -6, and a "
                "rate of 0.1 is enough. Try other rates in the cell above: 1 is slow, "
                "and with 500 the steps are so long that the loss jumps up and down."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(mo, predict):
    zero_input = predict(
        "In this network, the input x is 0 for once. What is the gradient of the first weight, w1?",
        step=0.1,
    )
    weight = mo.ui.slider(-1.5, 1.5, step=0.1, value=0.5, label="w1", show_value=True)
    mo.vstack(
        [
            mo.md("""
        ## Two layers: the chain rule

        A table has one layer: each weight acts on a score directly. In a network, a weight of the
        first layer acts on something that acts on something that acts on the loss. The smallest such
        network has two weights, and its loss is the square of the distance from 1:

        > u = w1 · x  →  a = tanh(u)  →  y = w2 · a  →  loss = (y - 1)²

        The function in the middle, tanh, squeezes any number into the range from -1 to 1. It is the
        **activation function**, also called the **nonlinearity**. Without it, y = w2 · w1 · x would be
        one layer with the weight w2 · w1, however many layers you stack. With it, two layers can do
        more than one.

        Nudge w1. Then u changes by x times as much. The change of u changes a, by the slope of tanh
        at this place. The change of a changes y, by w2 times as much. The change of y changes the
        loss. Like gear wheels, each passes on what it gets, times its own factor. So the factors are
        multiplied:

        > **chain rule**: the gradient through several steps is the product of the gradients of the
        > steps.

        It is easiest from the loss backward, because each product is used again for the next one:
        """),
            zero_input,
        ]
    )
    return weight, zero_input


@app.cell(hide_code=True)
def _(math, mo, reply, weight, zero_input):
    _a = math.tanh(0.5 * 2)
    _factors = 2 * (-_a - 1), -1.0, 1 - _a**2, 2.0
    mo.vstack(
        [
            reply(
                zero_input,
                0.0,
                "The last factor on the way back to w1 is x, because u = w1 · x changes by x when w1 changes by "
                "1. An input of 0 gives the weight no influence, so it gets no gradient.",
                wrong={
                    1.0: "This would be so if u were w1 + x. In a product, the gradient of one factor is the "
                    "other factor.",
                    2.0: "The factor of this step is x itself, and x is 0 now.",
                },
                tolerance=0.001,
            ),
            mo.md(
                f"""
        Now with x = 2, w1 = 0.5 and w2 = -1. Then u = 1, a = {_a:.2f} and y = {-_a:.2f}. The four
        factors, from the loss backward, are

        - 2 · (y - 1) = {_factors[0]:.2f} for the square: in c · c the gradient of each factor is the
          other one, so both together give 2 · c,
        - w2 = {_factors[1]:.2f} for y = w2 · a,
        - 1 - a² = {_factors[2]:.2f}, the slope of tanh,
        - x = {_factors[3]:.2f} for u = w1 · x.

        Their product, {math.prod(_factors):.2f}, is the gradient of w1. The slider moves w1:
        """
            ),
            weight,
        ]
    )
    return


@app.cell(hide_code=True)
def _(BLUE, ORANGE, Value, math, mo, plt, weight):
    _x, _w1, _w2 = Value(2.0), Value(float(weight.value)), Value(-1.0)
    _u = _w1 * _x
    _a = _u.tanh()
    _y = _w2 * _a
    _loss = (_y - 1.0) ** 2
    _loss.backward()
    _figure, (_top, _ax) = plt.subplots(
        2, 1, figsize=(8, 6), layout="constrained", height_ratios=[1.15, 1]
    )
    _chain = [("w1", _w1), ("u", _u), ("a", _a), ("y", _y), ("loss", _loss)]
    _factors = [
        ("times x", _x.data), ("slope of tanh", 1 - _a.data**2), ("times w2", _w2.data),
        ("2 (y - 1)", 2 * (_y.data - 1)),
    ]  # fmt: skip
    for _place, (_name, _number) in enumerate(_chain):
        _top.text(_place, 1.28, _name, ha="center", weight="bold")
        _top.text(
            _place, 0.85, f"{_number.data:.2f}", ha="center", color="white",
            bbox={"boxstyle": "round,pad=0.4", "color": BLUE},
        )  # fmt: skip
        _top.text(
            _place, -0.35, f"{_number.grad:.2f}", ha="center", color="white",
            bbox={"boxstyle": "round,pad=0.4", "color": ORANGE},
        )  # fmt: skip
    for _place, (_name, _factor) in enumerate(_factors):
        _arrow = {"arrowstyle": "->", "color": BLUE, "lw": 2}
        _top.annotate("", (_place + 0.68, 0.92), (_place + 0.32, 0.92), arrowprops=_arrow)
        _arrow = {"arrowstyle": "->", "color": ORANGE, "lw": 2}
        _top.annotate("", (_place + 0.32, -0.28), (_place + 0.68, -0.28), arrowprops=_arrow)
        _top.text(
            _place + 0.5, 0.08, f"{_name}\nx {_factor:.2f}", ha="center", color=ORANGE, fontsize=11
        )
    _top.text(-0.45, 1.62, "forward: compute the numbers", color=BLUE)
    _top.text(4.45, -0.95, "backward: multiply from the right", color=ORANGE, ha="right")
    _top.set(xlim=(-0.5, 4.5), ylim=(-1.05, 1.85))
    _top.axis("off")

    _line = [n / 50 for n in range(-90, 91)]
    _ax.plot(_line, [(-math.tanh(2 * w) - 1) ** 2 for w in _line], color=BLUE)
    _touch = [_w1.data - 0.5, _w1.data + 0.5]
    _ax.plot(
        _touch, [_loss.data + _w1.grad * (w - _w1.data) for w in _touch], color=ORANGE, lw=3,
        label=f"slope {_w1.grad:.2f}: the gradient of w1",
    )  # fmt: skip
    _ax.plot(_w1.data, _loss.data, "o", color=ORANGE, markersize=9)
    _ax.set(xlabel="w1", ylabel="loss", ylim=(-0.6, 4.6))
    _ax.legend(loc="upper left", frameon=False, labelcolor=ORANGE)
    mo.vstack(
        [
            _figure,
            mo.md(
                f"Blue numbers are computed from left to right, orange ones from "
                f"right to left. The product of the four factors, "
                f"{_w1.grad:.2f}, is the slope of the curve at the dot. Move w1 to -1.5: tanh is nearly flat there, its factor is nearly 0, and "
                "hardly any gradient reaches w1."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(mo, package_code, Value):
    mo.vstack(
        [
            mo.md("""
        ## Autograd: numbers that remember

        A GPT has many millions of such chains. Nobody writes them down. **Autograd** finds the
        gradients by itself, and it needs two things only:

        - **Forward**, each operation stores its result and, for each of its inputs, the local
          derivative: how much the result changes when this input changes a little. For a sum, that is
          1 for each term. For a product, it is the other factor.
        - **Backward**, it starts at the loss with the gradient 1 and walks back through the
          operations. Each number gives each of its inputs its own gradient times the local
          derivative. Autograd takes the numbers in reverse order. So each number has received all its
          gradients before it passes any on.

        The package has this in some hundred lines of plain Python, without torch. The class is `Value`: a
        number that remembers how it was computed. You write its heart yourself at the end of this
        lesson, so try before you look.
        """),
            package_code(Value),
        ]
    )
    return


@app.cell
def _(Value, mo):
    x, w1, w2 = Value(2.0), Value(0.5), Value(-1.0)
    u = w1 * x
    a = u.tanh()
    y = w2 * a
    loss = (y - 1.0) ** 2
    loss.backward()  # fills in .grad of every number that loss depends on
    stored = [(number.data, slope) for number, slope in u.inputs]
    mo.plain_text(
        f"w1.grad = {w1.grad:.2f}\nw2.grad = {w2.grad:.2f}\nu stored (number, slope): {stored}"
    )
    return


@app.cell(hide_code=True)
def _(mo, predict):
    twice = predict(
        "`x = Value(3.0)`, then `loss = x * x`. You call `loss.backward()` **twice**. What is `x.grad` "
        "afterwards?"
    )
    mo.vstack(
        [
            mo.md("""
        Compare with the picture above, with w1 at 0.5. Change the numbers and run it again.

        ## Gradients add up

        A number may be used more than once. Then several paths lead from the loss back to it, and
        every path counts: the gradients of the paths are **added**. So `backward` adds to `grad`; it
        does not replace it.
        """),
            twice,
        ]
    )
    return (twice,)


@app.cell(hide_code=True)
def _(Value, mo, reply, twice):
    _x = Value(3.0)
    _loss = _x * _x
    _loss.backward()
    _once = _x.grad
    _loss.backward()
    mo.vstack(
        [
            reply(
                twice,
                _x.grad,
                f"In x * x there are two paths to x, with 3 each: {_once:g}. The second call adds another "
                f"{_once:g}. `backward` adds to what is there.",
                wrong={
                    6: "This is right for one call. The second call does not replace the gradient, it adds "
                    "to it.",
                    3: "This is one of the two paths. x is used twice, so both count, and both in each "
                    "call.",
                    36: "Gradients of several calls are added, not multiplied.",
                },
            ),
            mo.md("""
        Adding is useful: the gradients of many examples become the gradient of the
        batch. But after a step the weights are others, and the old gradients are out of date. So you
        set them to zero **before each step**. See what happens if you forget it. One weight, and the
        loss is smallest at 3:
        """),
        ]
    )
    return


@app.cell
def _(Value):
    paths = {}
    for zeroed in (True, False):
        w, path = Value(0.0), [0.0]
        for _ in range(40):
            if zeroed:
                w.grad = 0.0
            ((w - 3.0) ** 2).backward()
            w.data -= 0.1 * w.grad
            path.append(w.data)
        paths[zeroed] = path
    return (paths,)


@app.cell(hide_code=True)
def _(BLUE, GREY, ORANGE, mo, paths, plt):
    _figure, _ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    _ax.axhline(3, color=GREY, linestyle="--", linewidth=1)
    _ax.plot(paths[False], color=ORANGE)
    _ax.plot(paths[True], color=BLUE, linewidth=3)
    _high = max(range(41), key=lambda n: paths[False][n])
    _ax.text(
        _high, paths[False][_high] + 0.15, "never zeroed", color=ORANGE, ha="center", va="bottom"
    )
    _white = {"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.9}
    _ax.text(40, 2.5, "zeroed before each step", color=BLUE, ha="right", va="top", bbox=_white)
    _ax.set(xlabel="steps", ylabel="the weight", ylim=(-0.8, 7.2))
    mo.vstack(
        [
            _figure,
            mo.md("""
        Without zeroing, all old gradients push on. The weight rushes past 3, swings back, and never
        comes to rest. Nothing fails and nothing warns you, so this mistake is common.

        ## 62 weights draw a heart

        Now all of it together: a network in plain Python, trained by our own autograd. It reads the
        two coordinates of a dot and says whether the dot lies inside a heart. The first layer makes 12
        numbers from 2: each is a weighted sum of both coordinates plus one more weight, its
        **bias**, then tanh. The second layer makes two logits from the 12, for "outside" and "inside".
        That is 12 x 3 + 2 x 13 = 62 weights. The loss is the one that you know: -log of the probability of the right answer,
        written as log(sum of exp) - logit. (This takes some seconds: every single product is a Python
        object here.)
        """),
        ]
    )
    return


@app.cell(hide_code=True)
def _(math):
    dots, is_inside = [], []  # on two hearts, one a little smaller and one a little larger
    for _size in (0.8, 1.2):
        for _n in range(40):
            _t = 2 * math.pi * _n / 40
            _height = (
                13 * math.cos(_t) - 5 * math.cos(2 * _t) - 2 * math.cos(3 * _t) - math.cos(4 * _t)
            )
            dots.append((_size * 1.33 * math.sin(_t) ** 3, _size * _height / 12))
            is_inside.append(_size < 1)
    return dots, is_inside


@app.cell
def _(Network, Value, dots, is_inside, random):
    network = Network(2, 12, 2)  # 2 numbers in, 12 in the middle, 2 logits out
    draw = random.Random(0)
    snapshots, batch_losses = [], []
    for step in range(801):
        if step % 10 == 0:
            snapshots.append([[[w.data for w in unit] for unit in part] for part in network.layers])
        batch_loss = Value(0.0)
        for dot in draw.sample(range(len(dots)), 16):  # a batch of 16 dots
            outside, inside = network(dots[dot])
            right = inside if is_inside[dot] else outside
            batch_loss += (outside.exp() + inside.exp()).log() - right
        batch_loss /= 16
        for parameter in network.parameters():
            parameter.grad = 0.0
        batch_loss.backward()
        for parameter in network.parameters():
            parameter.data -= 0.7 * parameter.grad
        batch_losses.append(batch_loss.data)
    return batch_losses, network, snapshots


@app.cell(hide_code=True)
def _(mo, snapshots):
    step_of_heart = mo.ui.slider(
        0,
        10 * len(snapshots) - 10,
        step=10,
        value=10 * len(snapshots) - 10,
        label="step of training",
        show_value=True,
    )
    mo.vstack(
        [
            mo.md("""
        Left: the probability of "inside" at each point of the plane, orange where it is high. Right:
        what each of the 12 numbers in the middle says, orange for 1 and blue for -1. Each of them
        knows one straight line and nothing else. The second layer adds them up, and 12 lines become a
        heart. Move the slider from 0:
        """),
            step_of_heart,
        ]
    )
    return (step_of_heart,)


@app.cell(hide_code=True)
def _(BLUE, ORANGE, SIDES, batch_losses, dots, is_inside, plt, snapshots, step_of_heart, torch):
    _first, _second = (torch.tensor(part) for part in snapshots[step_of_heart.value // 10])
    _side = torch.linspace(-2, 2, 161)
    _plane = torch.stack(torch.meshgrid(_side, _side - 0.15, indexing="xy"), -1)
    _units = torch.tanh(_plane @ _first[:, :2].T + _first[:, 2])
    _logits = _units @ _second[:, :-1].T + _second[:, -1]
    _chance = torch.sigmoid(_logits[..., 1] - _logits[..., 0])
    _box = {"origin": "lower", "extent": (-2, 2, -2.15, 1.85), "cmap": SIDES}
    _figure = plt.figure(figsize=(8, 4.4), layout="constrained")
    _left, _right = _figure.subfigures(1, 2, width_ratios=[1.15, 1])
    _ax = _left.subplots()
    _ax.imshow(_chance, vmin=0, vmax=1, **_box)
    _ax.contour(_side, _side - 0.15, _chance, levels=[0.5], colors="#222222")
    for (_x, _y), _in in zip(dots, is_inside, strict=True):
        _ax.plot(_x, _y, "o", color=ORANGE if _in else BLUE, markersize=5, mec="white", mew=0.8)
    _now = batch_losses[max(0, step_of_heart.value - 20) : step_of_heart.value + 1]
    _ax.set_title(f"step {step_of_heart.value}, loss {sum(_now) / len(_now):.2f}", loc="left")
    _ax.axis("off")
    _small = _right.subplots(4, 3).flat
    for _n, _ax in enumerate(_small):
        if _n < _units.shape[-1]:
            _ax.imshow(_units[..., _n], vmin=-1, vmax=1, **_box)
            _ax.contour(
                _side, _side - 0.15, _units[..., _n], levels=[0], colors="#222222", linewidths=0.8
            )
        _ax.axis("off")
    _right.suptitle(f"the {_units.shape[-1]} numbers in the middle", fontsize=12)
    _figure
    return


@app.cell(hide_code=True)
def _(mo, network):
    mo.md(f"""
    ## Is it right?

    The next cell computes the gradients of all {len(network.parameters())} weights twice: with our
    `Value`, and with torch, whose autograd trains every model in this course from here on.
    """)
    return


@app.cell
def _(Value, dots, is_inside, network, torch):
    our_loss = Value(0.0)
    for dot_, inside_ in zip(dots, is_inside, strict=True):
        no, yes = network(dot_)
        our_loss += (no.exp() + yes.exp()).log() - (yes if inside_ else no)
    for parameter_ in network.parameters():
        parameter_.grad = 0.0
    our_loss.backward()

    one_, two_ = (
        torch.tensor([[w.data for w in u] for u in part], dtype=torch.float64, requires_grad=True)
        for part in network.layers
    )
    # A @ B multiplies each row of A with each column of B, number by number, and adds the products.
    # .T makes rows of columns. So this is a weighted sum for each dot and each middle number.
    middle = torch.tanh(torch.tensor(dots, dtype=torch.float64) @ one_[:, :-1].T + one_[:, -1])
    torch_logits = middle @ two_[:, :-1].T + two_[:, -1]
    answers = torch.tensor(is_inside).long()
    torch.nn.functional.cross_entropy(torch_logits, answers, reduction="sum").backward()
    return one_, two_


@app.cell(hide_code=True)
def _(mo, network, one_, self_test, two_):
    _ours = [w.grad for w in network.parameters()]
    _torch = [*one_.grad.flatten().tolist(), *two_.grad.flatten().tolist()]
    _most = max(abs(mine - theirs) for mine, theirs in zip(_ours, _torch, strict=True))
    questions = self_test(2)
    mo.vstack(
        [
            mo.md(
                f"""
            The largest difference between the two is {_most:.1g}; the largest gradient is
            {max(map(abs, _ours)):.2g}. torch does the same as `Value`, with whole tables
            of numbers in place of single ones, and that makes it much faster.

            ## What you can say now

            A bigram model is a table of counts, each row divided by its sum. The loss is the mean of
            -log of the probability of what really came. A gradient says how much the loss changes when
            a weight changes a little; you check it by nudging the weight. For scores that go through
            softmax, it is p minus one-hot. The chain rule multiplies the local derivatives on the way
            from the loss to a weight, and adds over the paths. Autograd stores these derivatives
            forward and multiplies them backward. Gradients add up, so set them to zero before each
            step.

            ## Questions
            """
            ),
            questions,
        ]
    )
    return (questions,)


@app.cell(hide_code=True)
def _(judged, questions):
    judged(2, questions)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write the heart of autograd: addition, multiplication, tanh, and the way back.

    ```sh
    nanogpt exercise check value
    ```

    Two experiments in the cells above:

    - Give the network 3 numbers in the middle in place of 12. Which shape can it draw? With 2?
    - Remove the two lines that set the gradients to zero. What does the heart become?

    **Papers.** Shannon 1948, "A Mathematical Theory of Communication", section 3, writes English by
    counted letters and pairs of letters. Bridle 1990, "Training Stochastic Model Recognition
    Algorithms as Networks", gave softmax its name. Rumelhart, Hinton, Williams 1986, "Learning
    Representations by Back-propagating Errors", is the chain rule through layers. Baydin et al. 2018,
    "Automatic Differentiation in Machine Learning: a Survey", section 3.2, is what autograd does.
    """)
    return


if __name__ == "__main__":
    app.run()
