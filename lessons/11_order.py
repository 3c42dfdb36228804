import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 11: order again")


@app.cell(hide_code=True)
def _():
    import math
    from dataclasses import replace
    from pathlib import Path

    import marimo as mo
    import numpy as np
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    from nanogpt.config import ModelConfig
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.attention import attention, attention_mask, same_document
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax
    from nanogpt.model.position import ALiBi, RoPE, apply_rotary
    from nanogpt.text.batches import random_windows
    from nanogpt.text.tokenfiles import read_token_file

    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    SIDES = LinearSegmentedColormap.from_list("sides", [BLUE, "white", ORANGE])
    plt.rcParams.update({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False})
    return (
        ALiBi,
        BLUE,
        GPT,
        GREY,
        LIGHT,
        ListedColormap,
        ModelConfig,
        OLIVE,
        ORANGE,
        Path,
        RoPE,
        SIDES,
        apply_rotary,
        attention,
        attention_mask,
        judged,
        math,
        mo,
        np,
        read_token_file,
        package_code,
        plt,
        predict,
        random_windows,
        replace,
        reply,
        same_document,
        self_test,
        short_run,
        softmax,
        torch,
    )


@app.cell(hide_code=True)
def _(mo, predict):
    corner_guess = predict(
        "The point (3, 1) is rotated around the origin by a quarter turn (90 degrees), "
        "counterclockwise. What is the first of its two new numbers?",
        step=1,
    )
    mo.vstack([
        mo.md("""
        # 11. Order again: RoPE, ALiBi, windows

        After this lesson you can

        - derive RoPE from a rotation in the plane, and say why its scores depend on distance only,
        - compute what ALiBi does to an attention weight,
        - draw what a window hides, and compute what it saves and how far several layers reach,
        - say what each of them does with a text that is longer than any text of the training.

        In lesson 4 the order came in at the bottom of the network: a vector for the position was added to
        the vector of the token. This works, but it has two weak points.

        - **What matters is mostly the distance.** "The word before this one" is the same relation at
          positions 3 and 4 as at 203 and 204. With learned positions these are four different vectors,
          and the model has to learn the relation for each pair of places.
        - **The position shares the channels with the meaning.** Every layer gets the sum of the two.

        Where is order needed? In attention only: all other layers work on each token by itself. And
        attention looks at pairs. So let the *score* of a query and a key know the distance between them.
        This lesson shows three ways.

        ## 1. A rotation in the plane

        Take two numbers as a point in the plane, and draw an arrow to it. Now rotate the arrow around the
        origin. Its length stays, its direction changes.
        """),
        corner_guess,
    ])  # fmt: skip
    return (corner_guess,)


@app.cell
def _(math, mo, torch):
    def rotation(angle):
        """The matrix that rotates a point by an angle in radians, counterclockwise."""
        return torch.tensor([
            [math.cos(angle), -math.sin(angle)],
            [math.sin(angle), math.cos(angle)],
        ])  # fmt: skip

    quarter = 2 * math.pi / 4  # a full turn is 2 pi = 6.28 radians
    corner = rotation(quarter) @ torch.tensor([3.0, 1.0])
    mo.plain_text(str([round(number, 2) for number in corner.tolist()]))
    return corner, rotation


@app.cell(hide_code=True)
def _(corner, corner_guess, mo, reply):
    mo.vstack([
        reply(
            corner_guess,
            round(corner[0].item()),
            "The arrow pointed right and a little up. A quarter turn later it points up and a little to "
            "the left: (-1, 3).",
            wrong={
                1: "This is a quarter turn clockwise, to (1, -3).",
                -3: "This is half a turn, to (-3, -1).",
                3: "The arrow changes its direction, so both numbers change. Only its length stays.",
            },
        ),
        mo.md("""
        In general, the point (a, b) goes to (a cos - b sin, a sin + b cos). You can read the two columns of
        the matrix: the point (1, 0) goes to (cos, sin), and (0, 1) goes to (-sin, cos).

        ## 2. RoPE: rotate queries and keys

        Let a head have two channels, so that queries and keys are arrows in the plane. **RoPE** (rotary
        position embedding, Su et al. 2021) rotates each query and each key by an angle that grows with its
        position: at position 0 by nothing, at position 1 by 0.5 radians, at position 2 by 1 radian. Then the
        scores are computed as always: the product of query and key, divided by the root of the head size.
        """),
    ])  # fmt: skip
    return


@app.cell
def _(rotation, torch):
    query, key = torch.tensor([1.0, 2.0]), torch.tensor([1.2, 0.3])

    def rotated_score(q_at, k_at):
        return (rotation(0.5 * q_at) @ query) @ (rotation(0.5 * k_at) @ key) / 2**0.5

    return key, query, rotated_score


@app.cell(hide_code=True)
def _(predict, rotated_score):
    moved_guess = predict(
        f"""
        The query stands at position 7, the key at position 3. Their score is
        {rotated_score(7, 3):.2f}. Now the same two stand at positions 107 and 103. What is the score?
        """,
        step=0.01,
    )
    moved_guess
    return (moved_guess,)


@app.cell
def _(mo, rotated_score):
    mo.plain_text(
        "\n".join(
            f"query at {q_at:3}, key at {k_at:3}: {rotated_score(q_at, k_at):.4f}"
            for q_at, k_at in [(7, 3), (17, 13), (107, 103), (7, 4)]
        )
    )
    return


@app.cell(hide_code=True)
def _(mo, moved_guess, reply, rotated_score):
    key_place = mo.ui.slider(
        0, 20, value=2, label="both move: position of the key", show_value=True
    )
    apart = mo.ui.slider(0, 20, value=3, label="distance to the query", show_value=True)
    mo.vstack([
        reply(
            moved_guess,
            round(rotated_score(107, 103).item(), 2),
            "Both have moved by 100 tokens, so both are rotated by the same angle more. The angle between "
            "them is what it was, and so is the product.",
            wrong={
                round(-rotated_score(7, 3).item(), 2): "A change of sign would need another angle "
                "between the two. Both rotate together.",
                round(rotated_score(107, 3).item(), 2): "This is the query at 107 and the key at 3: only "
                "one of them has moved.",
                0: "Rotation does not make anything smaller. The lengths stay, and so does the angle "
                "between the arrows.",
            },
            tolerance=0.015,
        ),
        mo.md("""
        Why? The product of two arrows is length times length times the cosine of the angle **between**
        them. Rotation keeps the lengths. The query at position m is rotated by 0.5 m, the key at position n
        by 0.5 n. So the angle between them changes by 0.5 (m - n). Only the distance m - n is left.

        Move the first slider: both arrows rotate together, and the score stays. Move the second: the angle
        opens, and the score changes.
        """),
        key_place,
        apart,
    ])  # fmt: skip
    return apart, key_place


@app.cell(hide_code=True)
def _(BLUE, GREY, LIGHT, ORANGE, apart, key, key_place, np, plt, query, rotation):
    _n, _d, _speed = key_place.value, apart.value, 0.5
    _figure, (_plane, _curve) = plt.subplots(1, 2, figsize=(6.6, 3.5), layout="constrained")
    _plane.add_patch(plt.Circle((0, 0), query.norm().item(), fill=False, color=LIGHT, lw=1.5))
    _plane.add_patch(plt.Circle((0, 0), key.norm().item(), fill=False, color=LIGHT, lw=1.5))
    _ends = {}
    for _word, _arrow, _at, _color in (("query", query, _n + _d, BLUE), ("key", key, _n, ORANGE)):
        _x, _y = _ends[_word] = (rotation(_speed * _at) @ _arrow).tolist()
        _plane.plot([0, _arrow[0]], [0, _arrow[1]], color=_color, lw=1.5, ls=":", alpha=0.7)
        _plane.annotate(
            "", (_x, _y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": _color, "lw": 3}
        )
        _out = 1 + 0.8 / _arrow.norm().item()  # beyond the tip
        _plane.text(
            _out * _x, _out * _y, f"{_word}\nat {_at}", color=_color, ha="center", va="center"
        )
    _from, _to = (np.arctan2(*_ends[_word][::-1]) for _word in ("key", "query"))
    _sweep = np.linspace(_from, _from + (_to - _from + np.pi) % (2 * np.pi) - np.pi, 40)
    _plane.plot(0.8 * np.cos(_sweep), 0.8 * np.sin(_sweep), color="#222222", lw=2)
    _plane.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1), aspect="equal", xticks=[], yticks=[])
    _plane.spines[:].set_visible(False)
    _plane.set_title("dotted: before the rotation", fontsize=11, color=GREY)
    _far = np.linspace(0, 20, 400)
    _size = (query.norm() * key.norm()).item() / 2**0.5
    _start = (np.arctan2(*query.tolist()[::-1]) - np.arctan2(*key.tolist()[::-1])).item()
    _curve.plot(_far, _size * np.cos(_start + _speed * _far), color=GREY, lw=2)
    _score = _size * np.cos(_start + _speed * _d)
    _curve.plot([_d], [_score], "o", ms=11, color="#222222")
    _curve.axhline(0, color=LIGHT)
    _curve.set(xlabel="distance, in tokens", title=f"score {_score:.2f}", ylim=(-2.4, 2.4))
    _curve.grid(alpha=0.25)
    _figure
    return


@app.cell(hide_code=True)
def _(mo, predict):
    values_guess = predict(
        "Suppose we rotate the values as well, each by its position. Then we move the whole text by 10 "
        "tokens: the same tokens, at positions 10 to 15 and not 0 to 5. Does the result of attention change?",
        ["no, only distances count", "yes, the result is another one"],
    )
    mo.vstack([
        mo.md("""
        Compare this with lesson 4.

        - **Nothing is added to the stream.** The stream says what the tokens are, and nothing about their
          places. Each layer rotates its own queries and keys, just before the scores.
        - **There is nothing to learn.** What is true of a distance at one place is true at every place,
          from the first step.
        - **Values are not rotated.** Scores decide where a token looks. Values are what it fetches.
        """),
        values_guess,
    ])  # fmt: skip
    return (values_guess,)


@app.cell
def _(ModelConfig, RoPE, attention, mo, torch):
    rope = RoPE(ModelConfig(n_head=1, n_embd=8, n_layer=1))
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 6, 8)  # six tokens, one head of eight channels

    def fetched(start, rotate_values):
        at = start + torch.arange(6)[None]
        rotated_q, rotated_k = rope.rotate(q, k, at)
        values = rope.rotate(v, v, at)[0] if rotate_values else v
        return attention(rotated_q, rotated_k, values, causal=True)

    shifts = [(fetched(0, both) - fetched(10, both)).abs().max().item() for both in (False, True)]
    mo.plain_text(f"values as they are: {shifts[0]:.6f}\nvalues rotated:     {shifts[1]:.6f}")
    return (shifts,)


@app.cell(hide_code=True)
def _(mo, predict, reply, shifts, values_guess):
    _yes, _no = "yes, the result is another one", "no, only distances count"
    turn_guess = predict(
        "A head has 8 channels, so 4 pairs. Their speeds are 1, 0.1, 0.01 and 0.001 radians per token. After "
        "how many tokens has the slowest pair made one full turn?",
        step=1,
    )
    mo.vstack([
        reply(
            values_guess,
            _yes if shifts[1] > 1e-3 else _no,
            "The cell shows the largest change. Weights depend on distances, but a rotated value carries its "
            "own position with it. The same text would mean something else 10 tokens later.",
            wrong={
                _no: "That is true of a product of two rotated arrows. A value is not multiplied with "
                "another rotated arrow: it is added up as it is.",
            },
        ),
        mo.md("""
        ## 3. One hand is not enough: many speeds

        Look again at the curve above. It repeats: at 0.5 radians per token, the score at distance 13 is
        almost the score at distance 0. A slower rotation would not repeat so soon. But then neighbours
        would hardly differ. You know the answer from the clock of lesson 4: fast hands and slow hands.

        A head of hs channels has hs / 2 pairs of channels. Each pair is an arrow of its own, with its own
        speed. The first pair rotates by 1 radian per token. Each further pair is slower by the same factor:
        pair i, counted from 0, rotates by 10,000^(-i / number of pairs). With 4 pairs the speeds are 1, 0.1,
        0.01 and 0.001. With more pairs, the last speed comes nearer to 1/10,000.

        The score is the sum over all pairs. Each term depends on the distance only, and so does the sum.
        """),
        turn_guess,
    ])  # fmt: skip
    return (turn_guess,)


@app.cell(hide_code=True)
def _(math, mo, reply, turn_guess):
    wanted = mo.ui.slider(0, 60, value=8, label="the head looks this far back", show_value=True)
    mo.vstack([
        reply(
            turn_guess,
            round(2 * math.pi / 0.001),
            "A full turn is 2 pi, or 6.28 radians. At 0.001 radians per token it takes 6.28 / 0.001 tokens. "
            "The fastest pair needs 6.28.",
            wrong={
                1000: "After 1,000 tokens the pair has rotated by 1 radian. A full turn is 6.28 radians.",
                10000: "10,000 is the number in the formula of the speeds. Divide a full turn by the speed.",
                360000: "The speed is in radians, not in degrees. A full turn is 6.28 radians.",
            },
            tolerance=10,
        ),
        mo.md("""
        What can a head do with it? Suppose that the query is the key rotated **back** by 8 tokens. Then the
        two arrows of each pair meet exactly when the key stands 8 tokens earlier. Queries are made by
        learned weights, so training can find such a query. It then works at every place of the text.

        The picture has a head of 32 channels, 16 pairs. Above: the score of each pair, fast ones on top
        (orange: high, blue: low). Below: their mean (the sum, divided by 16). Move the slider, and the peak
        goes along.
        """),
        wanted,
    ])  # fmt: skip
    return (wanted,)


@app.cell(hide_code=True)
def _(BLUE, GREY, ORANGE, SIDES, plt, torch, wanted):
    _distance = torch.arange(0, 65)
    _speeds = 10_000.0 ** (-torch.arange(16) / 16)
    _scores = torch.cos(_speeds[:, None] * (_distance - wanted.value))
    _figure, (_pairs, _sum) = plt.subplots(
        2, 1, figsize=(6.8, 5), layout="constrained", sharex=True, height_ratios=[1.1, 1]
    )
    _pairs.imshow(_scores, aspect="auto", cmap=SIDES, vmin=-1, vmax=1)
    _pairs.set_yticks([0, 5, 10, 15], [f"{_speeds[i]:.2g}" for i in (0, 5, 10, 15)])
    _pairs.set(ylabel="speed of the pair", title="score of each pair of channels")
    _sum.plot(_distance, _scores.mean(0), color=BLUE, lw=2.5)
    _sum.axvline(wanted.value, color=ORANGE, lw=1.5)
    _sum.axhline(0, color=GREY, lw=0.8)
    _sum.set(xlabel="how many tokens back the key stands", ylabel="mean", ylim=(-0.3, 1.1))
    _sum.text(
        wanted.value + (1 if wanted.value < 40 else -1), 0.97, "all pairs agree here", color=ORANGE,
        ha="left" if wanted.value < 40 else "right",
    )  # fmt: skip
    _sum.grid(alpha=0.25)
    _figure
    return


@app.cell(hide_code=True)
def _(RoPE, apply_rotary, mo, package_code, predict):
    alibi_guess = predict(
        "A head has the slope 0.5, and all keys fit equally well. By what number do you multiply the "
        "attention weight of the key at distance 0 to get that of the key at distance 2?",
        step=0.01,
    )
    mo.vstack([
        mo.md("""
        In the code, channel i is paired with channel i + hs / 2. The paper pairs neighbours: 0 with 1, 2
        with 3. Both work. But weights that were trained with one do not work with the other. This is a
        mistake that people make when they load the weights of others.

        Here is the package's code, folded. `apply_rotary` is the solution of the exercise `rope`: try before
        you look.
        """),
        package_code(RoPE, apply_rotary),
        mo.md("""
        ## 4. ALiBi: distance costs

        The second way is even simpler. **ALiBi** (attention with linear biases, Press et al. 2022) computes
        the scores as always. Then it subtracts the distance times a number, the *slope*. With slope 0.5 a
        key loses 0.5 at distance 1, 1 at distance 2, 50 at distance 100.
        """),
        alibi_guess,
    ])  # fmt: skip
    return (alibi_guess,)


@app.cell
def _(mo, softmax, torch):
    equal_scores = torch.zeros(5)  # five keys, at the distances 0 to 4
    alibi_weights = softmax(equal_scores - 0.5 * torch.arange(5))
    mo.plain_text(f"{alibi_weights}\n{alibi_weights / alibi_weights[0]}")
    return (alibi_weights,)


@app.cell(hide_code=True)
def _(alibi_guess, alibi_weights, mo, reply):
    mo.vstack([
        reply(
            alibi_guess,
            round((alibi_weights[2] / alibi_weights[0]).item(), 2),
            "Its score is lower by 1. Softmax exponentiates, so its weight is exp(-1) times that of distance "
            "0. Each further token of distance multiplies the weight by exp(-0.5) = 0.61.",
            wrong={
                0: "1 - 2 x 0.5 would be 0, but the penalty is subtracted from the score, not from the "
                "weight. A weight never becomes 0 in this way.",
                0.25: "Half for each token would be the slope log 2 = 0.69.",
                0.5: "Half the weight is what a penalty of log 2 = 0.69 gives. Here the penalty is 1.",
                0.61: "This is distance 1.",
            },
            tolerance=0.005,
        ),
        mo.md("""
        Each head has its own slope: with 8 heads 1/2, 1/4, 1/8 and so on, to 1/256. With 4 heads, as below,
        they are 1/4, 1/16, 1/64 and 1/256. So some heads look at what is near, and others far. The slopes
        are fixed; there is nothing to learn.
        """),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(ALiBi, BLUE, GREY, ModelConfig, OLIVE, ORANGE, mo, package_code, plt, softmax, torch):
    _places = torch.arange(33)
    _bias = ALiBi(ModelConfig(n_head=4, n_embd=64)).bias(torch.tensor([[32]]), _places[None])[
        0, :, 0
    ]
    _figure, (_left, _right) = plt.subplots(1, 2, figsize=(6.4, 3.1), layout="constrained")
    for _head, _color in enumerate((BLUE, ORANGE, OLIVE, GREY)):
        _name = f"1/{4 ** (_head + 1)}"
        _left.plot(32 - _places, _bias[_head], color=_color, lw=2.5)
        _right.plot(32 - _places, softmax(_bias[_head]), color=_color, lw=2.5, label=_name)
    _left.set(title="added to the score", xlabel="distance")
    _right.set(title="weight, all keys alike", xlabel="distance", ylim=(0, None))
    _right.legend(frameon=False, title="slope")
    for _axes in (_left, _right):
        _axes.grid(alpha=0.25)
    mo.vstack([
        _figure,
        package_code(ALiBi),
        mo.md("""
        A far key is not hidden. If it fits much better than the near ones, it wins. But ALiBi can only say
        "the nearer, the better". It cannot ask for the key exactly 8 tokens back. RoPE can, as you saw.

        ## 5. Windows: nobody looks far

        The third way is the hardest penalty: hide everything that is too far away. With a window of 4, a
        token sees itself and the 3 tokens before it (Beltagy et al. 2020). In lesson 8 a window was a
        stretch of a token file. Here a window is a limit inside attention. It hides the far tokens. It does
        not tell a token how far away each of the others is. So it goes together with RoPE or ALiBi.

        Is everything older lost? No. In the first layer, each token collects what it sees. In the second
        layer, a token looks at tokens that have collected already.
        """),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(predict):
    reach_guess = predict(
        "A model has 3 layers, each with a window of 4. How many tokens can have an influence on the prediction "
        "of the last token, itself included?",
        step=1,
    )
    reach_guess
    return (reach_guess,)


@app.cell
def _(GPT, ModelConfig, mo, torch):
    torch.manual_seed(0)
    narrow = GPT(ModelConfig(
        window=4, n_layer=3, position="rope", vocab_size=50, context_length=16, n_head=2, n_embd=32,
        init_std=0.2,
    )).eval()  # fmt: skip
    moves = []
    with torch.no_grad():
        before = narrow(torch.arange(16)[None])[0, -1]  # the prediction after 16 tokens
        for place in range(16):
            ids = torch.arange(16)[None]
            ids[0, place] = 40  # change one token
            moves.append((narrow(ids)[0, -1] - before).abs().max().item())
    mo.plain_text(str([place for place, move in enumerate(moves) if move > 0]))
    return (moves,)


@app.cell(hide_code=True)
def _(mo, moves, reach_guess, reply):
    width = mo.ui.slider(1, 12, value=4, label="window", show_value=True)
    depth = mo.ui.slider(1, 4, value=3, label="layers", show_value=True)
    two_texts = mo.ui.checkbox(label="two documents in the row")
    mo.vstack([
        reply(
            reach_guess,
            sum(move > 0 for move in moves),
            "The cell changes one token at a time and lists the places that move the last prediction. Each "
            "layer reaches 3 tokens further back: 3 x 3, and the token itself.",
            wrong={
                4: "That is one layer. But the token 3 places back knows of the 3 before it.",
                12: "The windows overlap: a token is part of its own window. Each layer adds 3 new tokens.",
                64: "The reach grows by the same number in each layer. It does not multiply.",
            },
        ),
        mo.md("""
        Above: what reaches the last token (orange), layer by layer. Below: the mask of one layer, rows look,
        columns are seen. Move the sliders.
        """),
        width,
        depth,
        two_texts,
    ])  # fmt: skip
    return depth, two_texts, width


@app.cell(hide_code=True)
def _(
    BLUE,
    LIGHT,
    ListedColormap,
    ORANGE,
    attention_mask,
    depth,
    mo,
    np,
    plt,
    same_document,
    torch,
    two_texts,
    width,
):
    _same = same_document(torch.tensor([[1] * 5 + [2] * 7]), 12) if two_texts.value else None
    _sees = attention_mask(12, 12, width.value, _same).reshape(12, 12)
    _figure, (_paths, _grid) = plt.subplots(
        2, 1, figsize=(6.4, 3.0 + 0.6 * depth.value + 2.4), layout="constrained",
        height_ratios=[1 + 0.6 * depth.value, 4],
    )  # fmt: skip
    _reached = torch.arange(12) == 11
    for _level in range(depth.value, 0, -1):
        for _to in range(12):
            for _of in range(12):
                if _sees[_to, _of]:
                    _hot = bool(_reached[_to])
                    _paths.plot(
                        [_of, _to], [_level - 1, _level], lw=1.5 if _hot else 0.7, zorder=2 if _hot else 1,
                        color=BLUE if _hot else "#e4e4e4",
                    )  # fmt: skip
        for _t in range(12):
            _paths.plot(
                [_t], [_level], "o", ms=8, zorder=3, color=BLUE if _reached[_t] else "#dddddd"
            )
        _reached = (_sees & _reached[:, None]).any(0)
    for _t in range(12):
        _paths.plot([_t], [0], "o", ms=8, zorder=3, color=BLUE if _reached[_t] else "#dddddd")
    _paths.plot([11], [depth.value], "o", ms=12, zorder=4, color=ORANGE)
    _paths.set_yticks(
        range(depth.value + 1), ["tokens", *(f"layer {n + 1}" for n in range(depth.value))]
    )
    _paths.set(xticks=[], xlim=(-0.5, 11.5))
    _paths.spines[:].set_visible(False)
    _paths.tick_params(length=0)
    _shown = _sees.int().numpy()
    _shown[11] *= 2
    _grid.imshow(_shown, cmap=ListedColormap(["#f4f4f4", LIGHT, ORANGE]), vmin=0, vmax=2)
    _grid.set(xticks=range(12), yticks=range(12))
    _grid.set_xticks(np.arange(-0.5, 12), minor=True)
    _grid.set_yticks(np.arange(-0.5, 12), minor=True)
    _grid.grid(which="minor", color="white", lw=2)
    _grid.tick_params(which="both", length=0, labelsize=10)
    _grid.spines[:].set_visible(False)
    mo.vstack([
        _figure,
        mo.md(
            f"{int(_sees.sum())} pairs of query and key in this layer; without a window and documents, 78. The "
            f"last token sees {int(_sees[11].sum())}, and after {depth.value} "
            f"layer{'s' * (depth.value > 1)} it knows something of **{int(_reached.sum())}**."
        ),
    ])  # fmt: skip
    return


@app.cell
def _(mo):
    length, window = 32_768, 4_096
    every_pair = length * (length + 1) // 2
    in_window = window * length - window * (window - 1) // 2
    mo.plain_text(
        f"pairs, all:       {every_pair:,}\n"
        f"pairs, window:    {in_window:,}  ({every_pair / in_window:.1f} times fewer)\n"
        f"keys kept, all:   {length:,}\n"
        f"keys kept, window: {window:,}  ({length / window:.0f} times fewer)"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What it saves.** Without a window, twice the text makes four times the pairs. With a window, it
    makes twice the pairs. A model that writes keeps the keys and values of earlier tokens, as you will
    see in lesson 12. With a window, each layer needs only the last few. What a window does *not*
    save is everything outside the scores: the matrices cost the same for every token.

    The numbers above are those of Mistral 7B (Jiang et al. 2023): a window of 4,096 in each of 32 layers,
    which reach some 131,000 tokens in theory. But a chain of 32 hops may lose much
    on the way. So some models let a few layers see everything. In Gemma 3, five layers have a window of 1,024, and
    every sixth has none (Gemma Team 2025).

    Our package only masks. It computes all scores and keeps all keys. So it shows what a window does to a
    model, and saves nothing.

    ## 6. Longer than any text of the training

    Now a test. In this text, each token repeats the token 9 places before it. So a token that wants to
    predict the next one has to look 8 tokens back. Only one token in ten is new, at random. Four small models of one layer learn it from pieces of 32 tokens. Then they read pieces of 128.
    (The learned positions get rows for 33 to 128, at random, as nobody trained them.)
    """)
    return


@app.cell
def _():
    arms = {
        "learned": {"position": "learned"},
        "ALiBi": {"position": "alibi"},
        "RoPE": {"position": "rope"},
        "RoPE, window 16": {"position": "rope", "window": 16},
    }
    return (arms,)


@app.cell(hide_code=True)
def _(arms, predict):
    beyond_guess = predict(
        "Which model predicts best between places 65 and 128?", choices=list(arms)
    )
    beyond_guess
    return (beyond_guess,)


@app.cell(hide_code=True)
def _(GPT, ModelConfig, arms, mo, np, random_windows, replace, torch):
    GAP, KINDS = 9, 32

    def echoes(number, seed):
        """Each token repeats the one GAP places before it, but for one in ten."""
        draw = np.random.default_rng(seed)
        made, new = draw.integers(0, KINDS, number), draw.random(number) < 0.1
        for n in range(GAP, number):
            if not new[n]:
                made[n] = made[n - GAP]
        return made.astype(np.uint16)

    def stretched(network, size):
        """The same network for longer texts; rows of positions that it lacks are random."""
        longer = GPT(replace(network.config, context_length=size)).eval()
        own = longer.state_dict()
        for name, weights in network.state_dict().items():
            own[name][: len(weights)] = weights
        return longer

    def losses_by_place(network, ids, number=64):
        """The mean loss at each of 128 places, over some windows."""
        x, y = map(torch.from_numpy, random_windows(ids, 128, number, seed=0, number=0))
        with torch.no_grad():
            longer = stretched(network, 128)
            return longer.loss(longer(x), y, reduction="none").view(number, 128).mean(0)

    def learn_echoes(change, steps=150):
        torch.manual_seed(0)
        network = GPT(ModelConfig(
            vocab_size=KINDS, context_length=32, n_layer=1, n_head=2, n_embd=64, init_std=0.05, **change
        ))  # fmt: skip
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)
        for n in range(steps):
            optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (n + 1) / 20) * (1 - n / steps)
            x, y = map(torch.from_numpy, random_windows(heard, 32, 32, seed=0, number=n))
            optimizer.zero_grad()
            network.loss(network(x), y).backward()
            optimizer.step()
        return network

    heard, unheard = echoes(60_000, seed=1), echoes(20_000, seed=2)
    with mo.status.spinner("four models learn to look 8 tokens back"):
        by_place = {
            arm: losses_by_place(learn_echoes(change), unheard) for arm, change in arms.items()
        }
    return by_place, losses_by_place


@app.cell(hide_code=True)
def _(BLUE, GREY, OLIVE, ORANGE, beyond_guess, by_place, math, mo, plt, reply):
    _far = {arm: losses[64:].mean().item() for arm, losses in by_place.items()}
    _best = min(_far, key=_far.get)
    _why = {
        "learned": "Its rows for the places after 32 were never trained. It does not know where it is.",
        "ALiBi": "It goes on as before, but it never learned this task: it cannot ask for one distance.",
        "RoPE": "The right key is where it always was, 8 tokens back. But there are also keys at distances "
        "that never came in training, and some of them happen to get a high score.",
        "RoPE, window 16": "The window hides what it never saw, so it should have been best.",
    }
    _figure, _axes = plt.subplots(figsize=(6.2, 4), layout="constrained")
    _colors = dict(zip(by_place, (GREY, OLIVE, ORANGE, BLUE), strict=True))
    for _arm, _losses in by_place.items():
        _smooth = _losses.unfold(0, 4, 1).mean(1)  # the mean of four places
        _axes.plot(range(3, 128), _smooth, color=_colors[_arm], lw=2.5, label=_arm)
    _axes.axvline(32, color="#222222", lw=1)
    _axes.axhline(math.log(32), color="#222222", lw=1, ls=":", label="knowing nothing")
    _axes.text(33, 0.1, "longer than in training", va="bottom")
    _axes.set(xlabel="place in the text", ylabel="loss, nats", ylim=(0, 6.2), xlim=(0, 128))
    _axes.legend(frameon=False, ncols=2, loc="upper left")
    _axes.grid(alpha=0.25)
    mo.vstack([
        reply(
            beyond_guess,
            _best,
            "Mean loss from place 65 on: " + ", ".join(f"{arm} {loss:.2f}" for arm, loss in _far.items()) + ". "
            "No token looks further back than 15, so every distance is one that was trained.",
            wrong={arm: why for arm, why in _why.items() if arm != _best},
        ),
        _figure,
        mo.md("""
        Up to place 8 nobody can know the answer: there is nothing to repeat yet. Then see what happens at the
        line.

        - **Learned** positions end. What comes after is noise.
        - **RoPE** has an angle for every position, and the distance 8 is as well known as before. But the keys
          further back than 31 are new. Nobody taught the query to give them a low score.
        - **RoPE with a window** never meets a new distance. It goes on as long as you like.
        - **ALiBi** changes little at the line. It has not solved this task, because one penalty for distance
          cannot pick out the eighth token. On ordinary text it can be good: see below.

        Large models with RoPE are made longer in another way: the angles are squeezed, so that 4 times the
        length makes the same angles as before, and training goes on for a short while (Chen et al. 2023).

        ## 7. On real text

        Five runs of the lessons' small model on the plays, with a context length of 32. "None" has no
        position encoding at all.
        """),
    ])  # fmt: skip
    return


@app.cell
def _(mo, short_run):
    trained = {}
    with mo.status.spinner("five short runs"):
        for encoding in ("learned", "sinusoidal", "none", "alibi", "rope"):
            short_run(
                100,
                watch=lambda model, step, name=encoding: trained.update({name: model}),
                model={"position": encoding, "context_length": 32, "n_embd": 64},
            )
    mo.plain_text(f"trained: {', '.join(trained)}")
    return (trained,)


@app.cell(hide_code=True)
def _(Path, losses_by_place, mo, read_token_file, trained):
    _ids = read_token_file(Path("runs/lesson/data/val.bin")).ids
    _titles = {
        "learned": ("learned", "added to the token"), "sinusoidal": ("sinusoidal", "added to the token"),
        "none": ("none", "nowhere"), "alibi": ("ALiBi", "added to the scores"),
        "rope": ("RoPE", "queries and keys rotate"),
    }  # fmt: skip
    _rows, _within, _beyond = [], {}, {}
    for _key, _model in trained.items():
        _losses = losses_by_place(_model, _ids, 256)
        _within[_key], _beyond[_key] = _losses[:32].mean().item(), _losses[32:].mean().item()
        _name, _where = _titles[_key]
        _rows.append(f"| {_name} | {_where} | {_within[_key]:.2f} | {_beyond[_key]:.2f} |")
    _order = sorted(_within, key=_within.get)
    _least = min(_beyond, key=_beyond.get)
    mo.vstack([
        mo.md(
            "| position encoding | where it enters | loss, places 1 to 32 | places 33 to 128 |\n"
            "|:--|:--|--:|--:|\n" + "\n".join(_rows)
        ),
        mo.md(f"""
        Within the trained length, the order here is {", ".join(_titles[key][0] for key in _order)}. Beyond it,
        {_titles[_least][0]} has the lowest loss. Later places have more to look at, so a good model could even be
        better there.

        **No position encoding at all** works, too. Lesson 4 said that a Transformer must be told the order,
        and this holds for attention without a mask. With the mask, the first token sees one token, the tenth
        sees ten. A layer can find out how many there are, and hand it on (Haviv et al. 2022).

        But why are learned positions worse than none here? After 100 steps these models know little more
        than which token follows which. For this they need no position. Learned rows start at random, so at
        first they are only noise in each token. (Rows that start at 0 do nearly as well as none.) And why does the loss rise by only
        {_beyond["learned"] - _within["learned"]:.2f} beyond the trained length? The rows beyond 32 are random
        here as well. But the model hardly uses its rows yet, as it hardly uses its context (lesson 8).

        These are single runs of 100 steps. Some differences are luck; lesson 14 shows how to tell. The
        package has a longer comparison, with three runs of each: `nanogpt lab run positions`. There RoPE
        and ALiBi came out ahead of the vectors that are added, by more than luck. After a
        full training, Vaswani et al. (2017) found learned vectors and waves nearly equal.

        ## What you can say now

        - RoPE rotates each pair of channels of queries and keys by an angle that grows with the position. The
          product depends on the angle between the two, so only their distance counts. It adds nothing to the
          stream and leaves values alone.
        - Many speeds together tell near from far, as the hands of a clock do.
        - ALiBi subtracts slope times distance from the score. So each token of distance multiplies the weight
          by the same factor, and each head has its own.
        - A window hides what is too far away. It saves pairs and kept keys, and several layers still reach far
          back: each layer adds the window less one.
        - Beyond the trained length, learned positions end, and RoPE meets distances that it never saw. ALiBi or
          a window keeps them away.

        ## Questions
        """),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(self_test):
    form = self_test(11)
    form
    return (form,)


@app.cell(hide_code=True)
def _(form, judged):
    judged(11, form)
    return


@app.cell(hide_code=True)
def _(attention_mask, mo, package_code):
    mo.vstack([
        mo.md("""
        ## Your turn

        Rotate all pairs of channels at once, for every head and every token. The cosines and sines are given.

        ```sh
        nanogpt exercise check rope
        ```

        And, if you like, the package's whole mask, with window and documents. (Optional.)

        ```sh
        nanogpt exercise check full-mask
        ```

        Four rules make this mask. A token sees no later token. It sees nothing outside its window. It sees no
        other document (lesson 8). And it always sees itself, so that padding does not take a softmax of
        nothing. The mask has one row for each *new* token. When a model writes, only the latest token is new
        (lesson 12). The solution follows, folded: try before you look.
        """),
        package_code(attention_mask),
        mo.md("""
        Three experiments in the cells above:

        - In `arms`, change the window from 16 to 8. A token has to look 8 tokens back. Is a window of 8
          enough? And of 9?
        - In `arms`, add `"both": {"position": "alibi", "window": 16}` in place of one of the four. What does the
          window change for ALiBi, and what can it not change?
        - On the command line, train a small model with RoPE and a window:
          `nanogpt demo --model.position rope --model.window 16`

        **Papers.** Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3. Press,
        Smith & Lewis 2022, "Train Short, Test Long: Attention with Linear Biases Enables Input Length
        Extrapolation", section 3. Beltagy et al. 2020, "Longformer: The Long-Document Transformer", section 3, for
        windows. Jiang et al. 2023, "Mistral 7B", section 2. Gemma Team 2025, "Gemma 3 Technical Report", section 2.
        Vaswani et al. 2017, "Attention Is All You Need", table 3 (E). Chen
        et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation", in
        section 3. Haviv et al. 2022, "Transformer Language Models without Positional Encodings Still Learn Positional
        Information".
        """),
    ])  # fmt: skip
    return


if __name__ == "__main__":
    app.run()
