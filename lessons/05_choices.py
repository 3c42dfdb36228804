import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 5: from scores to choices")


@app.cell(hide_code=True)
def _():
    import html
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import DataConfig, SampleConfig
    from nanogpt.evaluation.loss import Score
    from nanogpt.generation.sampling import (
        apply_temperature,
        keep_min_p,
        keep_top_k,
        keep_top_p,
    )
    from nanogpt.generation.stream import generate_text, prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.learn.plain import cross_entropy, cross_entropy_gradient
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax
    from nanogpt.text.sources import stream_documents

    return (
        DataConfig,
        GPT,
        SampleConfig,
        Score,
        apply_temperature,
        cross_entropy,
        cross_entropy_gradient,
        generate_text,
        html,
        judged,
        keep_min_p,
        keep_top_k,
        keep_top_p,
        math,
        mo,
        package_code,
        plt,
        predict,
        prompt_ids,
        reply,
        self_test,
        small_model,
        softmax,
        stream_documents,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 5. From scores to choices: softmax, loss, sampling

    After this lesson you can turn logits into probabilities by hand, and say in which direction each logit is
    pushed in training. You know what the loss of a fresh model must be, turn it into bits per byte and back, and
    compare models with different tokenizers. And you can say what temperature, top-k and top-p do to one
    and the same distribution.

    The network ends with one logit for each token of the vocabulary. A logit can be any number.
    This lesson is about what comes after: probabilities, the loss, and the choice of one token.

    ## Softmax again, more closely

    Take three tokens with the logits 1.5, 0.5 and -1. Softmax (lesson 2) computes exp of each and divides by the sum:

    | logit | exp | probability |
    |---|---|---|
    | 1.5 | 4.48 | 4.48 / 6.50 = 0.69 |
    | 0.5 | 1.65 | 1.65 / 6.50 = 0.25 |
    | -1 | 0.37 | 0.37 / 6.50 = 0.06 |
    | | sum 6.50 | sum 1.00 |

    exp makes every number positive, and the division makes the sum 1. A token whose logit is higher by 1 than another's is
    2.72 times as likely.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    shift_guess = predict(
        "We add 100 to all three logits: 101.5, 100.5 and 99. What happens to the probabilities?",
        choices=[
            "nothing",
            "all three become larger",
            "the first comes near 1, the others near 0",
            "they become more equal",
        ],
    )
    shift_guess
    return (shift_guess,)


@app.cell(hide_code=True)
def _(reply, shift_guess):
    reply(
        shift_guess,
        "nothing",
        "Each exp is multiplied by exp(100), the sum too, and the factor cancels. Only "
        "**differences** of logits count.",
        wrong={
            "all three become larger": "They cannot: their sum is always 1.",
            "the first comes near 1, the others near 0": "That happens if you *multiply* the logits, because "
            "then their differences grow (last line below).",
            "they become more equal": "101.5 and 100.5 look nearly equal, as a ratio. But softmax looks at the "
            "difference, which is still 1.",
        },
    )
    return


@app.cell
def _(mo, softmax, torch):
    logits = torch.tensor([1.5, 0.5, -1.0])
    shifts = {"logits": logits, "logits + 100": logits + 100, "logits * 100": logits * 100}
    rows = {name: [f"{chance:.3f}" for chance in softmax(x)] for name, x in shifts.items()}
    mo.plain_text("\n".join(f"{name:13} {'  '.join(row)}" for name, row in rows.items()))
    return (logits,)


@app.cell(hide_code=True)
def _(mo, package_code, softmax, torch):
    _large = torch.exp(torch.tensor([1000.0, 999.0]))
    mo.vstack([
        mo.md(
            f"""
            That adding changes nothing is useful. exp(1000) is too large for the computer's numbers. It gives `{_large[0].item()}`, and
            `{_large[0].item()}` divided by `{_large.sum().item()}` gives `{(_large / _large.sum())[0].item()}`, which
            is "not a number". So a good softmax first subtracts the largest logit from all. The
            result is the same, and the largest exp is exp(0) = 1. You will write it yourself, so try before you look.
            """
        ),
        package_code(softmax),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## The gradient of softmax

    How do the probabilities answer when one logit moves? As in lesson 2, nudge it and look. Here the
    first logit is raised by 0.001, and each change is divided by 0.001.
    """)
    return


@app.cell
def _(logits, mo, softmax, torch):
    p = softmax(logits)
    nudged = softmax(logits + torch.tensor([0.001, 0.0, 0.0]))
    slopes = (nudged - p) / 0.001
    by_rule = torch.stack([p[0] * (1 - p[0]), -p[0] * p[1], -p[0] * p[2]])
    both = {"measured": slopes, "by rule": by_rule}
    mo.plain_text(
        "\n".join(f"{name:9}" + "  ".join(f"{x:+.3f}" for x in each) for name, each in both.items())
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The last line follows a rule. If the logit of token *i* grows, its own probability grows by
    $p_i (1 - p_i)$. The probability of each other token *j* falls by $p_i p_j$. The changes add up to 0, because the sum stays 1: what one
    token gains, the others lose. Where a probability is near 0 or near 1, all these numbers are near 0: **a softmax that
    is sure hardly moves.** Remember this for lesson 6.

    The loss is minus the logarithm of the target's probability. Now use the chain rule (lesson 2). The slope of
    -log(p) is -1 / p. Multiply it with the slopes above, for the target *t*:

    - the target's own logit: $-1/p_t$ times $p_t (1 - p_t)$ is **$p_t - 1$**
    - each other logit: $-1/p_t$ times $-p_t p_j$ is **$p_j$**

    This is the "p minus one-hot" of lesson 2. Note what happens when a model is sure and wrong: $p_t$ is near 0, softmax
    hardly moves, but $-1/p_t$ is huge. In the product the two cancel. The gradient is almost -1, and the model learns fast. This is why
    cross-entropy and softmax belong together.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    push_guess = predict(
        "The probabilities are 0.7, 0.2 and 0.1, and the target is the third token. What is the gradient of "
        "the loss for the *first* logit?",
        step=0.1,
    )
    push_guess
    return (push_guess,)


@app.cell(hide_code=True)
def _(cross_entropy_gradient, push_guess, reply, torch):
    _gradient = cross_entropy_gradient(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([2]))
    reply(
        push_guess,
        round(_gradient[0, 0].item(), 2),
        "The first token was not the target, so its gradient is its probability. It is positive, and gradient "
        "descent goes the other way: this logit is pushed down, and harder than the second.",
        wrong={
            0: "The first token is not in the text, but it is in the sum. It takes 0.7 of the "
            "probability away from the target.",
            -0.7: "Careful with the sign. If this logit grows, the loss grows, so the gradient is positive. The step of "
            "training is negative.",
            -0.3: "p - 1 is the rule for the target. For all other tokens it is p.",
        },
        tolerance=0.04,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    target_logit = mo.ui.slider(
        -4, 6, step=0.5, value=-1, label="logit of the target", show_value=True
    )
    mo.vstack([
        mo.md(
            "Move the logit of the target, and watch the gradient. It vanishes when the target has all the "
            "probability. The negative gradient (orange) always balances the positive ones (grey)."
        ),
        target_logit,
    ])
    return (target_logit,)


@app.cell(hide_code=True)
def _(cross_entropy_gradient, plt, softmax, target_logit, torch):
    _logits = torch.tensor([[2.0, 1.0, target_logit.value, 0.0, -1.0]])
    _p, _gradient = softmax(_logits)[0], cross_entropy_gradient(_logits, torch.tensor([2]))[0]
    _names = ["A", "B", "target", "C", "D"]
    _figure, (_above, _below) = plt.subplots(
        2, 1, figsize=(6.4, 4.2), layout="constrained", sharex=True
    )
    _colors = ["#1f5a99", "#1f5a99", "#d1602b", "#1f5a99", "#1f5a99"]
    _above.bar(_names, _p.tolist(), color=_colors)
    _above.set(
        ylim=(0, 1.12), ylabel="probability", title=f"loss = -log {_p[2]:.3f} = {-_p[2].log():.2f} nats"
    )
    _below.bar(
        _names, _gradient.tolist(), color=["#d1602b" if g < 0 else "#888888" for g in _gradient]
    )
    _below.axhline(0, color="black", lw=0.8)
    _below.set(ylim=(-1.4, 1.1), ylabel="gradient")
    for _n, (_chance, _slope) in enumerate(zip(_p.tolist(), _gradient.tolist(), strict=True)):
        _above.text(_n, _chance + 0.02, f"{_chance:.2f}", ha="center")
        _below.text(
            _n, _slope + (0.04 if _slope >= 0 else -0.04), f"{_slope:+.2f}", ha="center",
            va="bottom" if _slope >= 0 else "top",
        )  # fmt: skip
    for _axes in (_above, _below):
        _axes.spines[["top", "right"]].set_visible(False)
    _figure
    return


@app.cell(hide_code=True)
def _(cross_entropy, cross_entropy_gradient, mo, package_code):
    mo.vstack([
        mo.md(
            "In training, the loss is the mean over N targets, so each of them counts for 1/N, and each gradient "
            "is divided by N. The package's functions follow, folded. Both are exercises, so try before you look."
        ),
        package_code(cross_entropy, cross_entropy_gradient),
        mo.md(
            """
            ## What should the loss be?

            The loss is counted in nats: -log of the target's probability, with the natural logarithm. Probability 1
            costs 0 nats. Probability 0.5 costs 0.69, probability 0.1 costs 2.30, probability 0.01 costs 4.61.
            """
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    return model, tokenizer


@app.cell(hide_code=True)
def _(model, predict):
    fresh_guess = predict(
        f"""
        A model of {model.config.vocab_size:,} tokens was just made: its weights are small random numbers, and it
        has learned nothing. What is its loss on *Macbeth*, in nats per token? (One decimal.) Macbeth is held-out text:
        the small model has not seen it in training either.
        """,
        step=0.1,
    )
    fresh_guess
    return (fresh_guess,)


@app.cell(hide_code=True)
def _(fresh_guess, fresh_loss, math, model, reply):
    _size = model.config.vocab_size
    reply(
        fresh_guess,
        round(math.log(_size), 1),
        f"Small weights give logits near 0, so all {_size:,} tokens are about equally likely: probability "
        f"1/{_size}. Its loss is log({_size}) = {math.log(_size):.2f} nats; measured {fresh_loss:.2f}.",
        wrong={
            round(math.log2(_size), 1): "That is the same in bits, with the logarithm to base 2. In nats, multiply by 0.69.",
            0: "A loss of 0 means that the model gave each right token probability 1. A fresh model knows "
            "nothing.",
            100: "A loss much above log V means that the model is sure of wrong tokens. A fresh model is sure "
            "of nothing.",
        },
        tolerance=0.15,
    )
    return


@app.cell
def _(DataConfig, GPT, mo, model, stream_documents, tokenizer, torch):
    macbeth = next(d.text for d in stream_documents(DataConfig()) if d.name == "Macbeth")[:20_000]
    length = model.config.context_length
    text_ids = torch.tensor(tokenizer.encode(macbeth))
    pieces = text_ids[: len(text_ids) // (length + 1) * (length + 1)].view(-1, length + 1)

    def loss_of(network):
        """The mean loss on Macbeth, in nats per token: predict each token from those before it."""
        with torch.no_grad():  # no gradients are needed
            # Inputs: all tokens of a piece but the last. Targets: the same, one place further.
            return network.loss(network(pieces[:, :-1]), pieces[:, 1:]).item()

    torch.manual_seed(0)
    fresh_loss, trained_loss = loss_of(GPT(model.config).eval()), loss_of(model.eval())
    mo.plain_text(f"fresh model {fresh_loss:.2f}\ntrained     {trained_loss:.2f}")
    return fresh_loss, macbeth, text_ids, trained_loss


@app.cell(hide_code=True)
def _(fresh_loss, math, mo, trained_loss):
    mo.md(
        f"""
        So **log V is the first thing to check**: if a fresh model starts far above it, its first weights are too large. If
        it starts far below, the loss is computed wrongly, because nobody can know that much yet.

        The **perplexity** says the same in another way: exp(loss), the number of equally likely tokens among
        which the model would be as unsure. The fresh model has a perplexity of {math.exp(fresh_loss):.0f},
        about the size of its vocabulary. The trained one has {math.exp(trained_loss):.0f}: as unsure as
        among {math.exp(trained_loss):.0f} equally likely tokens.

        ## Entropy: the loss that nobody can beat

        Can a good model reach a loss of 0? Only if the text can be known in advance. Take a coin that shows heads in 75% of the
        throws. A model gives heads some probability q. It pays -log2(q) bits for each head and -log2(1 - q) for each
        tail. (A **bit** is the unit with the logarithm to base 2: one bit is one fair yes or no. 1 nat is 1.44 bits.)
        """
    )
    return


@app.cell(hide_code=True)
def _(predict):
    coin_guess = predict(
        "Which probability q for heads makes the model's average cost smallest, if heads come in 75% of the throws?",
        step=0.05,
    )
    coin_guess
    return (coin_guess,)


@app.cell(hide_code=True)
def _(coin_guess, math, mo, reply):
    def coin_cost(truth, q):
        """Bits per throw of a coin that shows heads with probability `truth`, for a model that says q."""
        return -truth * math.log2(q) - (1 - truth) * math.log2(1 - q)

    _best = min((q / 100 for q in range(1, 100)), key=lambda q: coin_cost(0.75, q))
    heads = mo.ui.slider(0.5, 0.99, step=0.01, value=0.75, label="true share of heads", show_value=True)
    mo.vstack([
        reply(
            coin_guess,
            _best,
            f"The best a model can do is to say how it really is. Then it pays {coin_cost(0.75, 0.75):.2f} bits per throw.",
            wrong={
                1: "Then each tail costs -log2(0): infinitely much. One tail is enough.",
                0.95: f"Heads become cheap, but each tail costs {-math.log2(0.05):.1f} bits. On average that is "
                f"{coin_cost(0.75, 0.95):.2f} bits: more than without any knowledge.",
                0.5: "That costs exactly 1 bit per throw. Knowing the coin is worth something.",
            },
            tolerance=0.02,
        ),
        mo.md(
            """
            The curve shows the cost for each q. Its lowest point is called the **entropy** of the coin: the average cost of a
            model that knows the true probabilities. Move the slider: the more predictable the coin, the lower the
            entropy.
            """
        ),
        heads,
    ])  # fmt: skip
    return coin_cost, heads


@app.cell(hide_code=True)
def _(coin_cost, heads, plt):
    _truth = heads.value
    _q = [n / 200 for n in range(4, 199)]
    _entropy = coin_cost(_truth, _truth)
    _figure, _axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    _axes.plot(_q, [coin_cost(_truth, q) for q in _q], color="#1f5a99", lw=2)
    _axes.plot([0.5], [1.0], "o", color="#888888")
    _axes.annotate("knows nothing: 1 bit", (0.5, 1.0), xytext=(-12, -30), textcoords="offset points",
                   ha="right", color="#666666")  # fmt: skip
    _axes.plot([_truth], [_entropy], "o", ms=10, color="#d1602b")
    _axes.annotate(
        f"entropy {_entropy:.2f} bits", (_truth, _entropy), xytext=(0, -20),
        textcoords="offset points", ha="center" if _truth < 0.85 else "right", color="#d1602b",
    )  # fmt: skip
    _axes.set(
        xlabel="probability q that the model gives to heads", ylabel="bits per throw", xlim=(0, 1.02),
        ylim=(-0.35, 3.2), title=f"Heads in {_truth:.0%} of the throws: what each model pays",
    )  # fmt: skip
    _axes.grid(alpha=0.25)
    _figure
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The same holds for text. After *What is the*, several words are possible, and nobody can know which one
    comes. **No model's average cost is below the entropy of the text.** What lies above is what the model
    does not know yet. If all cases are equally likely, the entropy is simply the logarithm of their
    number. A byte drawn at random from 256 has log2(256) = 8 bits. A token drawn at random from V
    tokens has log2(V) bits.

    ## Bits per byte: comparing models with different tokenizers

    A loss per token depends on the tokenizer. Long tokens are hard to predict, but a text has fewer of them. So we ask for the
    cost of something that is the same for everybody, a byte of text:

    1. loss in nats per token, divided by log(2) = 0.693, is bits per token;
    2. bits per token, divided by the bytes per token, is **bits per byte**.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    better_guess = predict(
        """
        Model A has a loss of 3.0 nats per token, and its tokens hold 4.0 bytes on average. Model B has a loss of 1.5
        nats per token, and its tokens hold 1.5 bytes. Both were measured on the same text. Which model predicts it better?
        """,
        choices=["model A", "model B", "they are equal", "that cannot be said"],
    )
    better_guess
    return (better_guess,)


@app.cell(hide_code=True)
def _(a, b, better_guess, reply):
    reply(
        better_guess,
        "model A" if a.bits_per_byte < b.bits_per_byte else "model B",
        "3.0 / 0.693 / 4.0 = 1.08 bits for each byte, against 1.5 / 0.693 / 1.5 = 1.44.",
        wrong={
            "model B": "Its loss per token is lower, but it has to predict more than twice as many tokens for the same "
            "text.",
            "they are equal": "They would be, if the losses were in proportion to the bytes: 3.0 / 4.0 is not 1.5 / 1.5.",
            "that cannot be said": "With different tokenizers the losses cannot be compared, that is right. With "
            "the bytes per token you can convert them.",
        },
    )
    return


@app.cell
def _(Score, mo):
    a = Score(loss=3.0, tokens=1000, bytes_per_token=4.0)
    b = Score(loss=1.5, tokens=1000, bytes_per_token=1.5)
    mo.plain_text(f"A: {a.bits_per_byte:.2f} bits per byte\nB: {b.bits_per_byte:.2f} bits per byte")
    return a, b


@app.cell(hide_code=True)
def _(Score, fresh_loss, macbeth, math, mo, model, text_ids, trained_loss):
    _count, _bytes = len(text_ids), len(macbeth.encode()) / len(text_ids)
    _uniform = math.log(model.config.vocab_size)
    _rows = "\n".join(
        f"| {name} | {score.loss:.2f} | {score.loss / math.log(2):.2f} | {score.bits_per_byte:.2f} |"
        for name, score in {
            "a random byte (its token is one byte)": Score(math.log(256), _count, 1.0),
            "a random token": Score(_uniform, _count, _bytes),
            "fresh model": Score(fresh_loss, _count, _bytes),
            "trained model": Score(trained_loss, _count, _bytes),
        }.items()
    )
    _ours = Score(trained_loss, _count, _bytes).bits_per_byte
    mo.md(
        f"""
Here are four ways to predict Macbeth. Our tokens hold {_bytes:.2f} bytes on average.

| | nats per token | bits per token | bits per byte |
|:--|--:|--:|--:|
{_rows}

The last column has a plain meaning. A text is stored with 8 bits per byte. With the trained model's predictions it could be stored
with {_ours:.2f}, in {_ours / 8:.0%} of the space. **To predict well and to compress well are the same.**

And back: take 1.0 bit per byte, and 4 bytes per token. That is 4 bits per token, or 4 · 0.693 = 2.77 nats. The
perplexity is exp(2.77) = 16, the same as 2 to the power 4.
"""
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## From probabilities to one token

    The model has done its work: there is a distribution. Now one token must be chosen. The part of the
    program that does this is called the **sampler**. It can simply draw: a token with probability 0.3 is drawn in three of ten
    cases. Often it changes the distribution first. Take four tokens with the probabilities 0.5, 0.25, 0.15 and 0.1, and
    these tools:

    - **Temperature** T: divide all logits by T. Below 1, differences grow, and the likely becomes likelier. Above 1, they
      shrink, and the unlikely gets a chance. At T = 0.5 each logit is doubled, and this squares its exp: exp(2s) = exp(s) · exp(s).
      In terms of probabilities: raise each to the power 1/T, then make the sum 1 again.
    - **Top-k**: keep the k likeliest tokens, rule out the rest.
    - **Top-p**: go down from the likeliest token, and keep tokens until together they reach probability p.
    - **Min-p**: rule out tokens that are less than p times as likely as the likeliest one.

    A token is ruled out by setting its logit to minus infinity, since exp(-infinity) = 0. After that, softmax shares the probability
    among those that are left.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    cold_guess = predict(
        "Two tokens have the probabilities 0.8 and 0.2. What is the probability of the first at temperature 0.5?",
        step=0.01,
    )
    cold_guess
    return (cold_guess,)


@app.cell(hide_code=True)
def _(apply_temperature, cold_guess, reply, softmax, torch):
    _two = torch.tensor([[0.8, 0.2]]).log()  # logits that give these probabilities
    reply(
        cold_guess,
        round(softmax(apply_temperature(_two, 0.5))[0, 0].item(), 2),
        "1 / 0.5 = 2, so both are squared: 0.64 and 0.04. Divided by their sum, 0.68, that is 0.94 and 0.06.",
        wrong={
            0.4: "The *logits* are divided by the temperature, not the probabilities. And below 1 the likelier token gains.",
            1: "Only a temperature of 0 gives all the probability to one token.",
            0.64: "0.64 is the square. The two squares no longer add up to 1, so divide by their sum.",
            0.67: "That is temperature 2, with square roots. Dividing by 0.5 doubles the logits.",
        },
        tolerance=0.015,
    )
    return


@app.cell(hide_code=True)
def _(predict):
    nucleus_guess = predict(
        "How many of the four tokens, 0.5, 0.25, 0.15 and 0.1, does top-p with p = 0.8 keep?", step=1
    )
    nucleus_guess
    return (nucleus_guess,)


@app.cell(hide_code=True)
def _(changed, nucleus_guess, reply):
    _kept = int((changed["top-p, p = 0.8"] > -float("inf")).sum())
    reply(
        nucleus_guess,
        _kept,
        "The first two have 0.75 together: not enough. The third makes it 0.9, and is kept.",
        wrong={
            2: "Together they have 0.75, less than 0.8. The token that carries the sum over p still belongs to "
            "those that are kept.",
            1: "p is no limit for a single token. It is a limit for the sum.",
            4: "After the third token the sum is 0.9, and p is reached.",
        },
    )
    return


@app.cell
def _(
    apply_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    mo,
    softmax,
    torch,
):
    four = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()  # logits: softmax gives these back
    changed = {
        "as the model says": four,
        "temperature 0.5": apply_temperature(four, 0.5),
        "temperature 2": apply_temperature(four, 2.0),
        "top-k, k = 2": keep_top_k(four, 2),
        "top-k, k = 1": keep_top_k(four, 1),
        "top-p, p = 0.8": keep_top_p(four, 0.8),
        "min-p, p = 0.25": keep_min_p(four, 0.25),
    }
    table = [[name, *(f"{x:.2f}" for x in softmax(each)[0])] for name, each in changed.items()]
    mo.plain_text("\n".join(f"{row[0]:18}" + "  ".join(row[1:]) for row in table))
    return changed, four


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Look at the line with k = 1 above. One token is left, and it has probability 1: always the likeliest. That is called
    **greedy**. So greedy is top-k with k = 1. It is also what temperature comes to when it goes to
    0, and most programs (this package, too) mean greedy when you set temperature 0.

    The tools can be combined, and the order matters. The package applies temperature first, then top-k, top-p
    and min-p. Top-p therefore sees the probabilities that the temperature has changed.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    prompt = mo.ui.text(value="What is the king", label="text", full_width=True)
    temperature = mo.ui.slider(
        steps=[0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0], value=0.8,
        label="temperature", show_value=True,
    )  # fmt: skip
    top_k = mo.ui.slider(
        steps=[1, 2, 3, 5, 8, 10, 20, 50, 100, 0], value=0, label="top-k (0: all)", show_value=True
    )
    top_p = mo.ui.slider(0.05, 1, step=0.05, value=0.9, label="top-p (1: all)", show_value=True)
    mo.vstack([
        mo.md(
            """
            ## One distribution of a real model

            The light bars are what the small model says after your text: its twelve likeliest tokens, and all others
            together. Orange is what is left after the three sliders. Move one at a time.
            """
        ),
        prompt,
        temperature,
        top_k,
        top_p,
    ])  # fmt: skip
    return prompt, temperature, top_k, top_p


@app.cell(hide_code=True)
def _(
    apply_temperature,
    keep_top_k,
    keep_top_p,
    mo,
    model,
    plt,
    prompt,
    prompt_ids,
    softmax,
    temperature,
    tokenizer,
    top_k,
    top_p,
    torch,
    visible,
):
    _ids = prompt_ids(tokenizer, prompt.value)[-model.config.context_length :]
    with torch.no_grad():
        _logits = model(torch.tensor([_ids]))[:, -1]
    _cold = apply_temperature(_logits, temperature.value)
    _plain = softmax(_logits)[0]
    _left = softmax(keep_top_p(keep_top_k(_cold, top_k.value), top_p.value))[0]

    _best = _plain.topk(12).indices.tolist()
    _names = [visible(tokenizer.decode_bytes([i])).replace("$", "\\$") for i in _best]
    _bars = [[*x[_best].tolist(), 1 - x[_best].sum().item()] for x in (_plain, _left)]
    _figure, _axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    _rows = range(13, 0, -1)
    _axes.barh(_rows, _bars[0], height=0.85, color="#c9d9ea", label="the model")
    _axes.barh(_rows, _bars[1], height=0.42, color="#d1602b", label="after the sliders")
    _axes.set_yticks(_rows, [*_names, f"{len(_plain) - 12:,} others"])
    _axes.set(xlabel="probability", xlim=(0, min(1.0, 1.1 * max(map(max, _bars)))))
    _axes.set_title(f"{int((_left > 0).sum()):,} of {len(_plain):,} tokens can be drawn")
    _axes.legend(frameon=False, loc="center right")
    _axes.spines[["top", "right"]].set_visible(False)
    rare = _bars[0][-1]
    others = len(_plain) - 12
    mo.vstack([_figure])
    return others, rare


@app.cell(hide_code=True)
def _(mo, others, rare):
    mo.md(f"""
    Why rule tokens out at all? Look at the lowest bar: all tokens but the twelve likeliest. Each of them is rare.
    But there are {others:,} of them, and here they have {rare:.0%} together. If it is like that at each step, the chance to get
    through ten steps without one of them is {(1 - rare) ** 10:.2%}. A single odd token can derail the
    rest of the text, because the model continues whatever stands there.

    Top-k and top-p cut this tail in different ways. Top-k keeps the same number of tokens everywhere. That is too many where the model is sure, and too
    few where many tokens are reasonable. Top-p adapts: it keeps one token where one has nearly all the probability, and a hundred where the
    model is unsure. Here is what the small model writes:
    """)
    return


@app.cell(hide_code=True)
def _(
    SampleConfig,
    generate_text,
    html,
    mo,
    model,
    prompt,
    temperature,
    tokenizer,
    top_k,
    top_p,
):
    _ways = {
        "greedy": (0.0, 0, 1.0),
        "as the model says": (1.0, 0, 1.0),
        "by your sliders": (temperature.value, top_k.value, top_p.value),
    }
    _parts = []
    for _title, (_t, _k, _p) in _ways.items():
        _settings = SampleConfig(
            prompt=prompt.value, temperature=_t, top_k=_k, top_p=_p, max_new_tokens=50, seed=1
        )
        _text = "".join(generate_text(model, tokenizer, _settings))
        _escaped = html.escape(prompt.value + _text)
        _parts.append(mo.md(f"**{_title}**"))
        _parts.append(mo.Html(f'<pre style="white-space: pre-wrap">{_escaped}</pre>'))
    mo.vstack([
        *_parts,
        mo.md(
            """
            Greedy soon goes in circles: the likeliest continuation of a phrase is often the same phrase again, and each
            repetition makes the next one likelier. Drawing from everything goes astray. What people use lies between: a
            temperature somewhat below 1, and top-k or top-p. A **repetition penalty** works against circles directly: it lowers
            the logits of tokens that are already in the text.

            None of this changes the model or its loss. The loss is always measured on the plain distribution.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(apply_temperature, keep_min_p, keep_top_k, keep_top_p, package_code):
    package_code(apply_temperature, keep_top_k, keep_top_p, keep_min_p)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    - Softmax turns logits into probabilities. Only differences of logits count, so adding a number to all changes nothing.
    - The gradient of the loss is p for each wrong token and p - 1 for the target. It vanishes only where the model is right and sure.
    - A fresh model has a loss of log V. Perplexity is exp(loss). No model gets below the entropy of the text.
    - Bits per byte are nats per token, divided by 0.693 and by the bytes per token. They compare models with different tokenizers.
    - Temperature changes how unequal the probabilities are. Top-k keeps a fixed number of tokens, top-p a fixed share of the probability.
      Greedy is top-k with k = 1.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    test_form = self_test(5)
    test_form
    return (test_form,)


@app.cell(hide_code=True)
def _(judged, test_form):
    judged(5, test_form)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write the four functions of this lesson:

    ```sh
    nanogpt exercise check softmax
    nanogpt exercise check cross-entropy
    nanogpt exercise check loss-gradient
    nanogpt exercise check top-k
    ```

    Two experiments:

    - In the cell with four tokens, apply top-p before temperature 2 and then after it. When does it keep more tokens?
    - Watch single draws, with the probabilities from which they were drawn:

    ```sh
    nanogpt generate runs/demo --explain
    ```

    **Papers.** Shannon 1948, "A Mathematical Theory of Communication", sections 6 and 7, for entropy. Shannon 1951,
    "Prediction and Entropy of Printed English", who measured it for English. Fan et al. 2018, "Hierarchical Neural Story Generation", section
    5.4, for top-k. Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", for top-p, and for why the likeliest text is a bad
    one. Keskar et al. 2019, "CTRL", section 4.1, for the repetition penalty. Nguyen et al. 2024, "Turning Up the Heat", for min-p.
    """)
    return


if __name__ == "__main__":
    app.run()
