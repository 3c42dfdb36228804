import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 6: attention")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import ModelConfig, TrainConfig
    from nanogpt.generation.stream import prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.learn.plain import average, causal_mask, multi_head_attention
    from nanogpt.model.attention import CausalSelfAttention, attention, attention_weights
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax
    from nanogpt.model.trace import record
    from nanogpt.training.optim import build_optimizer, learning_rate

    torch.set_printoptions(precision=2, sci_mode=False)

    return (
        CausalSelfAttention,
        GPT,
        ModelConfig,
        TrainConfig,
        attention,
        attention_weights,
        average,
        build_optimizer,
        causal_mask,
        judged,
        learning_rate,
        math,
        mo,
        multi_head_attention,
        package_code,
        plt,
        predict,
        prompt_ids,
        record,
        reply,
        self_test,
        small_model,
        softmax,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 6. Attention: how a token looks at others

    After this lesson you can compute one row of attention on paper, and say what queries, keys and
    values are for. You can say why scores are divided by a square root, why the future is hidden
    before softmax and not after it, and what several heads cost. And you have seen what attention can do
    that no token can do alone.

    ## 1. A task that no token can solve alone

    Some different letters in a row, and then the same row again:

    `qhbewmx qhbew?`

    The next letter is *m*. You found it by looking back: the last letter is a *w*, there was a *w*
    before, and an *m* came after it. Such a small artificial language is called a **toy world**. We
    know its rule, so we know how well it can be predicted at best: once the row repeats, the loss
    can be 0.

    The embedding of *w* cannot give the answer. The row is new each time, so *w* is followed by *m*
    here and by another letter in the next text. The token has to fetch something from other tokens.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    alone_guess = predict(
        """
        A model in which each token sees only itself is trained on such rows, drawn from 26 letters. Its loss on the
        repeated part will not fall below some number, however long you train. Which number, in nats?
        (Two decimals.)
        """,
        step=0.01,
    )
    alone_guess
    return (alone_guess,)


@app.cell(hide_code=True)
def _(alone_guess, math, reply):
    reply(
        alone_guess,
        round(math.log(25), 2),
        """
        The letter itself says nothing about the next one, except that it will be another letter. So the
        best is to give the 25 others the same probability: log(25) = 3.22.
        """,
        wrong={
            3.26: "Near. log(26) still gives the letter itself a share, but all letters of a row are different.",
            0: "That is the floor for a model that can look back. This one cannot see the first row.",
            1.95: "log(7) would be right if the model knew which 7 letters are in the row. It sees only "
            "one of them.",
            4.64: "That is log2(25), in bits. A nat is 1.44 bits.",
        },
        tolerance=0.02,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    At the end of this lesson you train this model, and two with attention. First you build attention
    itself, from the simplest thing that lets a token see others.

    ## 2. The plain average

    Three tokens with one channel each: 2, 4 and 9. Let each token take the average of what is known so
    far: itself and all earlier tokens. The first stays 2. The second becomes (2 + 4) / 2 = 3.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    average_guess = predict("What does the third token, 9, become?", step=0.5)
    average_guess
    return (average_guess,)


@app.cell(hide_code=True)
def _(average, average_guess, reply, torch):
    reply(
        average_guess,
        average(torch.tensor([[[2.0], [4.0], [9.0]]]))[0, 2, 0].item(),
        "(2 + 4 + 9) / 3.",
        wrong={
            6: "That is the average of 3 and 9. The third token averages the original numbers, not the "
            "results for earlier tokens.",
            3: "That is the average of the earlier tokens alone. A token sees itself, too.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The three averages are one product of a table of weights with the tokens. Each row of the table
    belongs to one token and says how much it takes from each: multiply the row number by number with
    the column of tokens, and add up. In Python this product is again written `@`.
    """)
    return


@app.cell
def _(mo, torch):
    mix = torch.tensor(
        [
            [1.0, 0.0, 0.0],  # the first token takes all from itself
            [1 / 2, 1 / 2, 0.0],
            [1 / 3, 1 / 3, 1 / 3],
        ]
    )
    numbers = torch.tensor([[2.0], [4.0], [9.0]])

    mo.plain_text(f"{mix @ numbers}")
    return


@app.cell(hide_code=True)
def _(average, mo, package_code):
    mo.vstack([
        mo.md(
            """
            Change a row to `[0.0, 0.0, 1.0]` or `[0.9, 0.1, 0.0]`. **No weight is
            negative, and each row of weights sums to 1.** This is all that attention does to the tokens: it takes weighted averages. What
            is left is where the weights come from. The plain average is an exercise, so try before you look:
            """
        ),
        package_code(average),
        mo.md(
            """
            ## 3. Weights that depend on the tokens

            The plain average takes as much from *the* as from *king*. In a sentence such as *the king sees
            him*, the word *him* should take more from *king*. So the weights must depend on the tokens.
            You know all that is needed:

            1. A product of two vectors is large if they point the same way (lesson 4). So it can be a
               score: how well do these two tokens fit?
            2. Softmax turns scores into positive numbers that sum to 1 (lesson 5). So it can turn a row of
               scores into a row of weights.

            Which vectors should be multiplied? If we take the tokens' own vectors, each token fits
            best to tokens like itself. But a token seldom needs its like. *him* does not look for
            another *him*; it looks for a man who was named. And in the toy world, *w* does not need the
            other *w*: it needs what came after it. So each token gets three vectors, for three purposes:

            - the **query**: what it looks for;
            - the **key**: how it can be found;
            - the **value**: what it gives to those who find it.

            Each of the three is made from the token's vector x by its own matrix of learned weights:
            `q = x @ W_q`, `k = x @ W_k`, `v = x @ W_v`. Each column of a matrix makes one number of the
            result. Here are four tokens with two channels, and three small matrices. In a model, training
            finds them; these are made up so that you can check every number.
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(torch):
    words = ["the", "king", "sees", "him"]
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 1.0]])

    W_q = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    W_k = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    W_v = torch.tensor([[0.0, 1.0], [2.0, 1.0]])

    q, k, v = x @ W_q, x @ W_k, x @ W_v
    return W_k, W_q, W_v, k, q, v, words, x


@app.cell(hide_code=True)
def _(W_k, W_q, W_v, k, mo, plt, q, v, words, x):
    def draw_table(axes, table, title, names=None, color="Blues", digits=0):
        axes.imshow(table.abs(), cmap=color, vmin=0, vmax=9, aspect="auto")
        for _r, _row in enumerate(table.tolist()):
            for _c, _number in enumerate(_row):
                axes.text(_c, _r, f"{_number:.{digits}f}", ha="center", va="center", fontsize=11)
        axes.set_title(title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks(range(len(table)), names or [""] * len(table), fontsize=10)
        axes.tick_params(length=0)

    _figure, _grid = plt.subplots(3, 3, figsize=(5.6, 5.6), layout="constrained")
    _roles = {"q": (W_q, q, "looks for"), "k": (W_k, k, "is found by"), "v": (W_v, v, "gives")}
    for _line, (_role, (_matrix, _made, _what)) in zip(_grid, _roles.items(), strict=True):
        draw_table(_line[0], x, "x: the tokens", words, "Greys")
        draw_table(_line[1], _matrix, f"@ W_{_role}", color="Oranges")
        draw_table(_line[2], _made, f"= {_role}: {_what}", words)
    mo.vstack([
        _figure,
        mo.md(
            """
            Check one: the query of *him* is [0, 1] times W_q. The first number is 0 · 0 + 1 · 3 = 3, the
            second is 0 · 1 + 1 · 0 = 0.

            ## 4. One row on paper

            Now the row of *him*, the last token. Its query is [3, 0]. The product of a query with a key is
            an **attention score**, after one division that section 5 explains: by the square root of the
            **head size**. The head size says how many numbers a query has. Here it is 2, and √2 = 1.414.
            """
        ),
    ])  # fmt: skip
    return (draw_table,)


@app.cell(hide_code=True)
def _(predict):
    score_guess = predict(
        """
        The query of *him* is [3, 0], the key of *king* is [2, 0]. What is the score of *him* for
        *king*? (Two decimals.)
        """,
        step=0.01,
    )
    score_guess
    return (score_guess,)


@app.cell(hide_code=True)
def _(k, math, q, reply, score_guess):
    reply(
        score_guess,
        round((q[3] @ k[1]).item() / math.sqrt(2), 2),
        "The product is 3 · 2 + 0 · 0 = 6, and 6 / √2 = 4.24.",
        wrong={
            6: "That is the product alone. It is still divided by the square root of 2.",
            3: "That divides by 2, the head size. The division is by its square root.",
            3.46: "That divides by √3. 3 is the length of the vector [3, 0]. The head size is how many numbers it "
            "has: 2.",
        },
        tolerance=0.02,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The other three scores are 0, 2.12 and 2.12. The cell computes the whole row, one step a line. Read it
    with the table below it.
    """)
    return


@app.cell
def _(k, math, mo, q, softmax, torch, v):
    row = 3  # him; change it to 0, 1 or 2
    row_scores = torch.tensor([float(q[row] @ k[j]) / math.sqrt(2) for j in range(4)])
    row_weights = softmax(row_scores)
    taken = sum(row_weights[j] * v[j] for j in range(4))

    mo.plain_text(f"scores  {row_scores}\nweights {row_weights}\ntaken   {taken}")
    return row, row_scores, row_weights, taken


@app.cell(hide_code=True)
def _(mo, row, row_scores, row_weights, taken, v, words):
    _lines = "\n".join(
        f"| {_word} | {_score:.2f} | {_score.exp():.2f} | {_weight:.2f} | [{_v[0]:.0f}, {_v[1]:.0f}] | "
        f"[{_weight * _v[0]:.2f}, {_weight * _v[1]:.2f}] |"
        for _word, _score, _weight, _v in zip(words, row_scores, row_weights, v, strict=True)
    )
    mo.vstack([
        mo.md(
            f"| {words[row]} looks at | score | exp | weight | value | weight · value |\n"
            "|:--|--:|--:|--:|:--|:--|\n" + _lines + "\n"
            f"| **sum** | | {row_scores.exp().sum():.2f} | {row_weights.sum():.2f} | | "
            f"**[{taken[0]:.2f}, {taken[1]:.2f}]** |"
        ),
        mo.md(
            f"""
            These are the **attention weights** of *{words[row]}*, one for each token. The last line is what
            *{words[row]}* takes along: the average of the values, with these weights. To do it on paper, fill
            in this table from left to right. All rows at once are a few matrix products and a softmax. You
            write that in the exercise `attention`.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    direction = mo.ui.slider(
        0, 350, step=10, value=30, label="direction (degrees)", show_value=True
    )
    length = mo.ui.slider(0, 8, step=0.5, value=3, label="length", show_value=True)
    mo.vstack([
        mo.md(
            """
            With two channels, everything can be drawn. Rotate the query with the first slider. The keys that
            lie in its direction get more weight, and the result moves towards their values. Then make the
            query longer and shorter. At 0 degrees and length 3 it is the query of *him*. With length 0 you get a plain average.
            """
        ),
        direction,
        length,
    ])  # fmt: skip
    return direction, length


@app.cell(hide_code=True)
def _(direction, k, length, math, plt, softmax, torch, v, words):
    _angle = math.radians(direction.value)
    _query = length.value * torch.tensor([math.cos(_angle), math.sin(_angle)])
    _weights = softmax(k @ _query / math.sqrt(2))
    _result = _weights @ v
    _figure = plt.figure(figsize=(5.6, 4.9), layout="constrained")
    _parts = _figure.add_gridspec(2, 2, height_ratios=[1.5, 1])
    _left, _right = (_figure.add_subplot(_parts[0, _n]) for _n in range(2))
    _middle = _figure.add_subplot(_parts[1, :])
    _nudge = {"the": (0.12, 0.12), "king": (0.05, -0.42), "sees": (0.1, 0.1), "him": (-0.1, -0.42)}
    for _word, _key in zip(words, k.tolist(), strict=True):
        _left.annotate(
            "", _key, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "#1f5a99", "lw": 2}
        )
        _left.text(_key[0] + _nudge[_word][0], _key[1] + _nudge[_word][1], _word, color="#1f5a99")
    _unit = [3.3 * math.cos(_angle), 3.3 * math.sin(_angle)]
    _left.plot([0, _unit[0]], [0, _unit[1]], ":", color="#d1602b", lw=1)
    _shown = (_query * min(1.0, 3.3 / max(length.value, 1e-6))).tolist()
    _left.annotate(
        "", _shown, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "#d1602b", "lw": 3}
    )
    _left.set(
        xlim=(-3.5, 3.6), ylim=(-3.5, 3.5), title="keys (blue), query (orange)", aspect="equal"
    )
    _left.set_xticks([])
    _left.set_yticks([])
    _middle.barh(words[::-1], _weights.flip(0), color="#1f5a99")
    for _n, _weight in enumerate(_weights.flip(0).tolist()):
        _middle.text(_weight + 0.03, _n, f"{_weight:.2f}", va="center")
    _middle.set(xlim=(0, 1.25), title="weights")
    _middle.set_xticks([])
    _middle.spines[["top", "right", "bottom"]].set_visible(False)
    _places = v.tolist()
    for _word, _place, _weight in zip(words, _places, _weights.tolist(), strict=True):
        _right.plot(
            [_place[0], _result[0]],
            [_place[1], _result[1]],
            color="#1f5a99",
            lw=0.5 + 6 * _weight,
            alpha=0.35,
        )
        _right.plot(*_place, "o", ms=7, color="#1f5a99")
        _right.text(_place[0] + 0.12, _place[1] + 0.12, _word, color="#1f5a99")
    _right.plot(*_result.tolist(), "o", ms=12, color="#d1602b", zorder=5)
    _right.set(xlim=(-0.6, 5.2), ylim=(0.5, 2.6), title="values, mix (orange)")
    _right.set_xticks([])
    _right.set_yticks([])
    _figure
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The mix always lies between the values: a weighted average cannot leave them. Why three vectors and
    not one? With one vector for both query and key, the score of *him* for *king* would be the score of
    *king* for *him*: looking would be mutual. And with one vector for key and value, a token could give
    only what it is found by.

    ## 5. Why divide by the square root?

    A score is a sum with one term for each channel of the query. The head size is the number of these terms.
    Take queries and keys of random numbers with the standard deviation 1. Some terms are positive, some negative, and
    they cancel in part. A sum of n such terms has the standard deviation √n.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    spread_guess = predict(
        "GPT-2's heads have 64 channels. What is the standard deviation of the products, before any division?",
        step=1,
    )
    spread_guess
    return (spread_guess,)


@app.cell(hide_code=True)
def _(math, reply, spread_guess):
    reply(
        spread_guess,
        math.sqrt(64),
        "√64 = 8. After the division by √64 it is 1 again, for any head size.",
        wrong={
            64: "That would be right if all terms had the same sign. They have random signs, and cancel in part.",
            1: "One term has a standard deviation of 1. Here 64 of them are added.",
        },
        tolerance=0.3,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    What is wrong with large scores? Lesson 5 has the answer: a softmax that is sure hardly moves. The
    slope of a weight p for its own score is p (1 - p). Let us look at it. Change 1 to 8, as if the scores
    of a head of 64 channels were not divided.
    """)
    return


@app.cell
def _(mo, softmax, torch):
    factor = 1  # now 8
    scores_now = (factor * torch.tensor([0.0, 0.5, 1.0, 2.0])).requires_grad_()
    weights_now = softmax(scores_now)
    weights_now[3].backward()  # how does the largest weight answer to each score?

    mo.plain_text(f"weights  {weights_now.detach()}\ngradient {scores_now.grad}")
    return


@app.cell(hide_code=True)
def _(mo):
    head_size = mo.ui.slider(
        steps=[1, 2, 4, 8, 16, 32, 64, 128, 256], value=64, label="head size", show_value=True
    )
    head_size
    return (head_size,)


@app.cell(hide_code=True)
def _(head_size, math, mo, plt, softmax, torch):
    _sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    _draw = torch.Generator().manual_seed(0)
    _products = {}
    for _size in _sizes:
        _queries, _keys = (torch.randn(2000, _size, generator=_draw) for _ in range(2))
        _products[_size] = _queries @ _keys[:16].T

    def _largest(scores):
        return softmax(scores).amax(-1)

    def _slope(scores):
        _p = softmax(scores)
        return (_p * (1 - _p)).sum(-1).mean().item()

    _raw, _root = _products[head_size.value], math.sqrt(head_size.value)
    _figure, (_left, _right) = plt.subplots(2, 1, figsize=(5.6, 5.4), layout="constrained")
    _left.hist(_raw.flatten().tolist(), bins=61, range=(-40, 40), color="#d1602b", alpha=0.75,
               label=f"as they are: {_raw.std():.1f}")  # fmt: skip
    _left.hist((_raw / _root).flatten().tolist(), bins=61, range=(-40, 40), color="#1f5a99", alpha=0.6,
               label=f"divided: {_raw.std() / _root:.1f}")  # fmt: skip
    _left.set(title="scores, and their standard deviation", yticks=[])
    _left.legend(frameon=False)
    _curves = {
        "not divided": ([_slope(_products[s]) for s in _sizes], "#d1602b"),
        "divided": ([_slope(_products[s] / math.sqrt(s)) for s in _sizes], "#1f5a99"),
    }
    _at = _sizes.index(head_size.value)
    for _name, (_curve, _color) in _curves.items():
        _right.plot(_sizes, _curve, color=_color, lw=2)
        _right.plot(head_size.value, _curve[_at], "o", ms=9, color=_color)
        _right.text(_sizes[4], _curve[4] + (0.04 if _name == "divided" else -0.11), _name, color=_color,
                    ha="left" if _name == "divided" else "right")  # fmt: skip
    _right.set(
        xscale="log", ylim=(0, 1), xlabel="head size", title="slopes of 16 weights, added up"
    )
    _right.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    _right.minorticks_off()
    _right.grid(alpha=0.25)
    mo.vstack([
        _figure,
        mo.md(
            f"""
            Head size {head_size.value}: without the division, the largest of 16 weights is
            {_largest(_raw).mean():.2f} on average, and with it {_largest(_raw / _root).mean():.2f}. Without it, a
            wide head is sure from the start, of a key picked by chance. Its gradient is small, so it
            learns slowly to look elsewhere. The division keeps the slope alive at any head size.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 6. The mask: no token sees the future

    In section 4, *him* was the last token and could see all others. But *the*, the first, must not see
    *king*. It has to predict the next token, and if it could see it, it would just copy it. In training
    all rows are computed at once, so the later tokens are there. They must be hidden.

    An **attention mask** says which keys each query may look at. In a language model it is **causal**: each
    token sees itself and earlier tokens, and no later one. The hidden scores are set to minus infinity
    *before* softmax. exp of minus infinity is 0.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    first_guess = predict(
        """
        *the* is the first token, so it sees only itself. Its four scores are 0.71, 0, 0.71 and 0. The last
        three are set to minus infinity. What is the weight of *the* for itself after softmax?
        """,
        step=0.01,
    )
    first_guess
    return (first_guess,)


@app.cell(hide_code=True)
def _(first_guess, k, math, q, reply, softmax):
    _unmasked = softmax(q @ k.T / math.sqrt(2))[0, 0].item()
    reply(
        first_guess,
        1,
        "exp(0.71) = 2.03 is divided by the sum 2.03 + 0 + 0 + 0. Whatever the score is, a token that sees "
        "only itself takes all from itself.",
        wrong={
            round(
                _unmasked, 2
            ): "That is its weight without a mask, or with zeros put in after softmax. The "
            "hidden scores then have been part of the sum.",
            0.71: "That is the score. Softmax comes after it.",
            0.25: "That shares equally among four tokens, three of which are hidden.",
        },
        tolerance=0.02,
    )
    return


@app.cell(hide_code=True)
def _(causal_mask, k, math, mo, q, softmax, torch):
    all_scores = q @ k.T / math.sqrt(2)
    may_look = causal_mask(4)  # True where a query may look

    before = softmax(all_scores.masked_fill(~may_look, -math.inf))
    after = softmax(all_scores).masked_fill(~may_look, 0.0)

    mo.plain_text(f"minus infinity before softmax\n{before}\n\nzero after softmax\n{after}")
    return all_scores, before, may_look


@app.cell(hide_code=True)
def _(all_scores, before, draw_table, mo, plt, softmax, words):
    _figure, _panels = plt.subplots(1, 2, figsize=(5.6, 2.9), layout="constrained")
    _pair = {"nothing hidden": softmax(all_scores), "future hidden": before}
    for _panel, (_title, _table) in zip(_panels, _pair.items(), strict=True):
        draw_table(_panel, _table, f"weights, {_title}", words, digits=2)
        _panel.images[0].set_clim(0, 1.6)
        _panel.set_xticks(range(4), words)
    mo.vstack([
        _figure,
        mo.md(
            """
            With zeros after softmax, the first row sums to 0.33. That is not only too little. The number
            0.33 was computed with the scores of *king*, *sees* and *him*: **the future took part in the sum.**
            Change *king*, and what *the* takes along changes. The model could learn to read the future from it.
            (If you divide each row by its sum afterwards, the future cancels. Then you have divided
            twice to get what minus infinity gives at once.)

            Setting the *score* to 0 hides nothing at all: exp(0) is 1, and that counts. So how negative must a
            hidden score be? Move the first slider. Then move the second. It multiplies the visible scores, by
            negative numbers too: the scores of a trained head may be large, and of either sign.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    hidden = mo.ui.slider(
        steps=[0, -1, -2, -4, -8, -16, -32],
        value=-4,
        label="hidden scores are set to",
        show_value=True,
    )
    sharpness = mo.ui.slider(
        steps=[1, -1, -2, -4, -8, -16, -32], value=1, label="visible scores times", show_value=True
    )
    mo.vstack([hidden, sharpness])
    return hidden, sharpness


@app.cell(hide_code=True)
def _(all_scores, draw_table, hidden, may_look, mo, plt, sharpness, softmax, words):
    _leaky = softmax((sharpness.value * all_scores).masked_fill(~may_look, float(hidden.value)))
    _future = _leaky.masked_fill(may_look, 0).sum(-1)
    _figure, _axes = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    draw_table(_axes, _leaky, f"weights, visible scores times {sharpness.value}", words, digits=2)
    _axes.images[0].set_clim(0, 1.6)
    _axes.set_xticks(range(4), words)
    mo.vstack([
        _figure,
        mo.md(
            f"Hidden scores are {hidden.value}, visible scores are multiplied by {sharpness.value}: "
            f"*{words[int(_future.argmax())]}* takes **{_future.max():.2%}** from the future. "
            "A model can learn scores below any number that you choose. Only minus infinity hides for certain."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(attention, attention_weights, causal_mask, mo, package_code):
    mo.vstack([
        mo.md(
            """
            That is attention: scores, division, mask, softmax, weighted average. You write the mask and
            the whole as exercises. The package can compute attention in two ways, by hand or with a
            faster routine of PyTorch. Each such implementation is called an **attention kernel**, and a test
            holds the two equal. By hand it is as follows, folded. Try before you look:
            """
        ),
        package_code(causal_mask, attention_weights, attention),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    mo.md(
        f"""
        ## 7. Several heads

        One row of weights gives one average. But a token may have several questions: which noun? which
        verb? what stood just before me? One average that serves two questions mixes both answers. So
        attention is done several times side by side. Each is a head, with its own queries, keys and values.

        The channels are shared out. In GPT-2 a token has 768 channels. W_q makes 768 numbers of them, and
        these are cut into 12 queries of 64. The same happens to keys and values. Each head
        attends with its 64 channels and gives 64 numbers. These are joined to 768 again, and a last
        matrix mixes what the heads have found.

        | | shape for T tokens |
        |:--|:--|
        | tokens | T × 768 |
        | queries, keys, values | each T × 768 |
        | cut into heads | each 12 × T × 64 |
        | scores, weights | 12 × T × T |
        | results | 12 × T × 64 |
        | joined, then mixed | T × 768 |

        Look at the heads of {"a model with" if model.config.n_layer == 1 else "the small model of these lessons,"}
        {model.config.n_layer} layers of {model.config.n_head} heads. Layers and heads are counted from 0.
        """
    )
    return model, tokenizer


@app.cell(hide_code=True)
def _(mo, model):
    layer = mo.ui.slider(0, model.config.n_layer - 1, label="layer", show_value=True)
    head = mo.ui.slider(0, model.config.n_head - 1, label="head", show_value=True)
    sentence = mo.ui.text(
        value="To be, or not to be: that is the question.", label="text", full_width=True
    )
    mo.vstack([sentence, layer, head])
    return head, layer, sentence


@app.cell(hide_code=True)
def _(head, layer, mo, model, plt, prompt_ids, record, sentence, tokenizer, torch):
    _ids = prompt_ids(tokenizer, sentence.value or " ")[: min(40, model.config.context_length)]
    with torch.no_grad(), record(model, "h.*.attn.weights") as _seen:
        model(torch.tensor([_ids]))
    _weights = _seen[f"h.{layer.value}.attn.weights"][0, head.value]
    _pieces = [tokenizer.decode([i]).replace("\n", "\\n").replace("$", "\\$") for i in _ids]
    _figure, _axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    _axes.imshow(_weights.sqrt(), cmap="Blues", vmin=0, vmax=1)
    _axes.set_xticks(range(len(_ids)), _pieces, rotation=90, fontsize=9)
    _axes.set_yticks(range(len(_ids)), _pieces, fontsize=9)
    _axes.set_title(
        f"layer {layer.value}, head {head.value}: each row looks at the columns", fontsize=11
    )
    _previous = _weights.diagonal(-1).mean() if len(_ids) > 1 else torch.tensor(0.0)
    mo.vstack([
        _figure,
        mo.md(
            f"On average, a token gives {_weights.diagonal().mean():.0%} of this head's attention to itself, "
            f"{_previous:.0%} to the token before it, and {_weights[:, 0].mean():.0%} to the first token."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(predict):
    heads_guess = predict(
        """
        Attention with one head of 768 channels, and attention with 12 heads of 64 channels: how many times
        as many weights does the second have in W_q, W_k and W_v?
        """,
        step=1,
    )
    heads_guess
    return (heads_guess,)


@app.cell(hide_code=True)
def _(CausalSelfAttention, ModelConfig, heads_guess, reply):
    def _weights_with(n_head):
        _layer = CausalSelfAttention(ModelConfig(n_head=n_head, n_embd=768))
        return _layer.c_attn.weight.numel(), sum(p.numel() for p in _layer.parameters())

    _three, _all = _weights_with(12)

    reply(
        heads_guess,
        _three / _weights_with(1)[0],
        f"The matrices are the same, 768 × 768; only their result is cut. W_q, W_k and W_v have {_three:,} weights "
        f"in both; with the last matrix and the biases {_all:,}. The scores cost the same, too: one sum of 768 products, or 12 sums of 64. "
        "What costs more is memory: 12 tables of T × T weights instead of one. And each query is narrower, "
        "so it can ask for less.",
        wrong={
            12: "Each head has its own matrices, but they are 12 times narrower: 768 × 64.",
            144: "The heads do not multiply each other. Each takes a twelfth of the channels.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo, multi_head_attention, package_code):
    mo.vstack([
        mo.md(
            """
            The plain form below is the exercise `heads`, so try before you look. The package's own layer,
            `CausalSelfAttention`, does the same and has more options. Later lessons explain them. What all layers need to know about a batch, such as
            positions and the mask, comes to it in one object, the **attention context**.
            """
        ),
        package_code(multi_head_attention),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 8. The race

    Back to the toy world of section 1. The rows are new in each step, and the number of letters is
    different each time, 6 to 16. So counting back by a fixed number does not help. The loss counts only
    where the row repeats, so its floor is 0.
    """)
    return


@app.cell
def _(torch):
    def repeated_letters(rows, shortest, longest, draw):
        """Rows of 33 letters (0 to 25): some different ones, then the same again and again."""
        letters = torch.rand(rows, 26, generator=draw).argsort(-1)  # 26 letters in random order
        lengths = torch.randint(shortest, longest + 1, (rows, 1), generator=draw)
        return letters.gather(1, torch.arange(33) % lengths), lengths  # again from the first

    return (repeated_letters,)


@app.cell(hide_code=True)
def _(GPT, ModelConfig, TrainConfig, build_optimizer, learning_rate, look, repeated_letters, torch):
    def copying(layers, alone=False, shortest=6, longest=16, position="alibi", steps=240):
        """Train a small GPT on such rows. Give its losses, and pictures of its weights on the way."""
        torch.set_num_threads(1)  # for so small a model, a second thread costs more than it gives
        torch.manual_seed(0)
        draw = torch.Generator().manual_seed(0)
        network = GPT(ModelConfig(
            vocab_size=26, context_length=32, n_layer=layers, n_head=4, n_embd=64, init_std=0.05,
            position=position,  # here: near keys get a little more score (lesson 11)
            window=1 if alone else 0,  # 1: each token sees only itself
        ))  # fmt: skip
        settings = TrainConfig(
            optimizer="muon",
            lr=0.01,
            muon_lr=0.05,
            weight_decay=0.0,
            max_steps=steps,
            warmup_steps=20,
        )  # lesson 9 explains these
        optimizer = build_optimizer(network, settings)
        losses, pictures = [], []
        for step in range(steps):
            if step % 12 == 0:
                pictures.append(look(network))
            text, lengths = repeated_letters(32, shortest, longest, draw)
            new = (
                torch.arange(32) < lengths
            )  # still in the first row: nobody can know the next letter
            loss = network.loss(
                network(text[:, :-1]), text[:, 1:].masked_fill(new, -100)
            )  # not counted
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, settings) * group.get("lr_factor", 1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, [*pictures, look(network)]

    return (copying,)


@app.cell(hide_code=True)
def _(record, repeated_letters, torch):
    probe = repeated_letters(1, 16, 16, torch.Generator().manual_seed(3))[0][:, :32]

    def look(network):
        """The attention weights on one text of 16 letters, twice: a tensor (nh, T, T) a layer."""
        with torch.no_grad(), record(network, "h.*.attn.weights") as seen:
            network(probe)
        return [weights[0] for weights in seen.values()]

    return look, probe


@app.cell(hide_code=True)
def _(predict):
    race_guess = predict(
        """
        Three models learn this for 240 steps: one whose tokens see only themselves, one with one layer of
        attention, one with two. All have a feed-forward layer after each attention. Which of them come
        near the floor of 0?
        """,
        choices=["none", "two layers only", "one layer and two layers", "all three"],
    )
    race_guess
    return (race_guess,)


@app.cell
def _(copying, mo):
    with mo.status.spinner("three models learn to copy"):  # each sees 240 batches of 32 rows
        race = {
            "tokens alone": copying(layers=2, alone=True),
            "one layer": copying(layers=1),
            "two layers": copying(layers=2),
        }
    return (race,)


@app.cell(hide_code=True)
def _(race, race_guess, reply):
    finals = {name: sum(losses[-20:]) / 20 for name, (losses, _) in race.items()}
    near = [name for name, loss in finals.items() if loss < 0.5]
    _said = {
        (): "none",
        ("two layers",): "two layers only",
        ("one layer", "two layers"): "one layer and two layers",
    }
    reply(
        race_guess,
        _said.get(tuple(near), "all three"),
        "The mean loss of the last 20 steps: "
        + ", ".join(f"{name} {loss:.2f}" for name, loss in finals.items())
        + ". The floor of the first is log(25) = 3.22. Knowing nothing costs log(26) = 3.26.",
        wrong={
            "one layer and two layers": "One layer can find the earlier *w*. But it has to find what comes *after* "
            "the *w*, and the key of that letter knows only itself. See below.",
            "all three": "The first model sees one letter at a time, and the next letter is different in each text.",
            "none": "The rule is simple, and two layers are enough for it.",
        },
    )
    return (finals,)


@app.cell(hide_code=True)
def _(mo):
    moment = mo.ui.slider(0, 240, step=12, value=240, label="training step", show_value=True)
    mo.vstack([
        mo.md("Move the slider from the left to the right, and watch the second layer when the blue curve falls."),
        moment,
    ])  # fmt: skip
    return (moment,)


@app.cell(hide_code=True)
def _(mo, moment, plt, probe, race, torch):
    def _induction(weights):
        """How much each head looks at the letter after the same letter's first appearance."""
        _late = torch.arange(16, 32)
        return weights[:, _late, _late - 15].mean(-1)

    _last = race["two layers"][1][-1]
    _best = int(_induction(_last[1]).argmax())
    _near = int(_last[0].diagonal(-1, 1, 2).mean(-1).argmax())
    _now = race["two layers"][1][moment.value // 12]
    _letters = [chr(97 + i) for i in probe[0].tolist()]

    _figure = plt.figure(figsize=(6.4, 6.8), layout="constrained")
    _parts = _figure.add_gridspec(2, 2, height_ratios=[1, 1.25])
    _above = _figure.add_subplot(_parts[0, :])
    _colors = {"tokens alone": "#888888", "one layer": "#d1602b", "two layers": "#1f5a99"}
    for _name, (_losses, _) in race.items():
        _above.plot(_losses, color=_colors[_name], lw=1, alpha=0.3)
        _above.plot(_losses[: moment.value], color=_colors[_name], lw=2.2)
        _above.text(
            243, max(0.2, sum(_losses[-20:]) / 20), _name, color=_colors[_name], va="center"
        )
    _above.axhline(0, color="black", lw=0.8)
    _above.text(2, 0.07, "floor: all is known", fontsize=9)
    _above.axvline(moment.value, color="#888888", lw=1, ls=":")
    _above.set(
        xlim=(0, 295), ylim=(-0.1, 3.7), xlabel="training step", ylabel="loss, repeated part"
    )
    _above.set_xticks(range(0, 241, 60))
    _above.spines[["top", "right"]].set_visible(False)
    for _column, (_weights, _head, _title) in enumerate(
        ((_now[0], _near, "first layer: near letters"), (_now[1], _best, "second layer"))
    ):
        _map = _figure.add_subplot(_parts[1, _column])
        _map.imshow(_weights[_head].sqrt(), cmap="Blues", vmin=0, vmax=1)
        _map.set_xticks(range(32), _letters, fontsize=7)
        _map.set_yticks(range(32), _letters, fontsize=7)
        _map.tick_params(length=0)
        _map.set_title(_title, fontsize=11)
        _map.set_xlabel("looks at")
        _map.axhline(15.5, color="#d1602b", lw=0.8)
        if _column:
            _score = _induction(_weights)[_head]
            _map.text(31, 2, f"{_score:.0%} on the letter\nthat came next\nbefore", ha="right", va="top",
                      color="#d1602b", fontsize=9)  # fmt: skip
    mo.vstack([
        _figure,
        mo.md(
            "Below: what one head of each layer of the two-layer model looks at. The text is a row of 16 letters, "
            "twice; the orange line marks where it repeats. The darker, the more weight."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(finals, mo, race):
    _late = race["two layers"][1][-1][1]
    _score = _late[:, range(16, 32), range(1, 17)].mean(-1).max().item()
    mo.md(
        f"""
        At the end, the head in the lower right gives {_score:.0%} of its attention to one letter: the one that
        **came after this letter's first appearance**. An attention head that does this is called an **induction
        head**. It needs two layers:

        1. In the first layer, each letter looks at itself and at the letters just before it, and of these at the one
           directly before most. It adds what it found to its own vector. The *m* now carries the note "a *w* stood
           before me". W_v and the last matrix write this note in other directions than the embedding. So "a *w*
           stood before me" is not mistaken for "I am a *w*".
        2. In the second layer, the new *w* makes the query "before whom did a *w* stand?" The key of *m*
           contains the note, so *m* is found, and its value says "*m*".

        One layer cannot do this. When its only attention looks for keys, each key is made of one letter and its
        position. The key of *m* does not know of the *w*. So the one-layer model learns less: it sees which letters are in
        the row, and that the latest ones will not come again soon. That takes it from 3.26 to
        {finals["one layer"]:.2f}, far from the floor.

        Large language models have induction heads, too. Olsson et al. (2022) found that they appear early in training, in
        a short time in which the loss falls quickly. They are one way in which a model learns from its prompt.

        Was it the copying itself, or the changing length? Now all rows have 12 letters. The model has one layer again,
        and learned positions, as in lesson 4. Because the kind of position is new, a second model with learned
        positions gets rows of 6 to 16 letters, as before.
        """
    )
    return


@app.cell(hide_code=True)
def _(predict):
    fixed_guess = predict(
        "Does one layer come near the floor if the row always has 12 letters?",
        choices=["yes", "no"],
    )
    fixed_guess
    return (fixed_guess,)


@app.cell(hide_code=True)
def _(fixed, fixed_guess, reply):
    reply(
        fixed_guess,
        "yes" if sum(fixed[-10:]) / 10 < 0.5 else "no",
        "Now position is enough. The query of position 20 looks for the key of position 9, whatever letter stands "
        "there, and its value is the answer. All copying needs attention. Only copying by content, where "
        "the place must be found by what stands *before* it, needs two layers.",
        wrong={
            "no": "The first task was hard for one layer because the place of the answer changes. Here it does not.",
        },
    )
    return


@app.cell
def _(copying, mo):
    fixed, _ = copying(layers=1, shortest=12, longest=12, position="learned", steps=100)
    changing, _ = copying(layers=1, position="learned")  # 6 to 16 letters, 240 steps
    mo.plain_text(
        f"one layer, always 12 letters: {sum(fixed[-10:]) / 10:.2f}\n"
        f"one layer, 6 to 16 letters:   {sum(changing[-20:]) / 20:.2f}"
    )
    return (fixed,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    Attention replaces each token by a weighted average of values. The weights come from softmax, over the
    products of its query with all keys. Query, key and value are three vectors because looking for something, being
    found, and giving something are three tasks. The division by the square root of the head size keeps scores at one
    size; without it softmax is sure too early, and its gradient vanishes. The future is hidden by minus
    infinity before softmax, so it takes no part in the sum. Several heads ask several questions with the
    same number of weights. All copying needs attention; finding a place by what stands before it needs two layers,
    and the head that does it is an induction head.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(6)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(6, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check average
    nanogpt exercise check attention
    nanogpt exercise check mask
    nanogpt exercise check heads
    ```

    Three experiments:

    - In the cell of section 3, change `W_k` so that *him* looks at *sees* more than at *king*. Which number decides?
    - In the last cell of section 8, in its first line, change `position="learned"` to `"none"`. What does the layer need to know to copy?
    - Grow induction heads with the whole program (a few minutes), and score every head:

    ```sh
    nanogpt train induction-heads --run runs/induction
    nanogpt lab heads runs/induction --repeat-after 20
    ```

    **Papers.** Vaswani et al. 2017, "Attention Is All You Need", sections 3.2.1 (with the reason for the
    square root) and 3.2.2. Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and
    Translate", where attention began. Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", on
    one and two layers. Olsson et al. 2022, "In-context Learning and Induction Heads".
    """)
    return


if __name__ == "__main__":
    app.run()
