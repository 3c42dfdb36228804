import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 4: embeddings and order")


@app.cell(hide_code=True)
def _():
    import math
    import random
    from itertools import pairwise

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import ModelConfig
    from nanogpt.errors import UserError
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.learn.plain import embed
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax
    from nanogpt.model.position import Sinusoidal
    from nanogpt.text.worlds import Grammar

    return (
        GPT,
        Grammar,
        ModelConfig,
        Sinusoidal,
        UserError,
        embed,
        judged,
        math,
        mo,
        package_code,
        pairwise,
        plt,
        predict,
        random,
        reply,
        self_test,
        small_model,
        softmax,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 4. Embeddings: what a token is, and where it stands

    After this lesson you can look up a text in an embedding table. You can say where its rows come
    from and what makes two of them alike, and measure it. You can show why a Transformer must be told the
    order of its tokens, and compare two ways of telling it.

    ## An id is only a name

    Lesson 3 ended with ids. Token 300 is not larger than token 200, and it is not nearer to 301 than to
    7: the numbers only say which merge came first. A network computes with sizes and sums, so it must not
    take an id for a size. Each id is therefore exchanged for a row of numbers, its embedding.
    Here is a table for four tokens, with three channels:

    | id | token | row |
    |--:|:--|:--|
    | 0 | dog | 0.9, 0.1, 0.3 |
    | 1 | bites | -0.4, 0.8, 0.0 |
    | 2 | man | 0.7, -0.2, 0.5 |
    | 3 | cat | 0.8, 0.2, 0.2 |

    The text *man bites man* has the ids 2, 1, 2. To embed it means to write down rows 2, 1 and 2:
    """)
    return


@app.cell
def _(torch):
    table = torch.tensor([[0.9, 0.1, 0.3], [-0.4, 0.8, 0.0], [0.7, -0.2, 0.5], [0.8, 0.2, 0.2]])
    ids = torch.tensor([2, 1, 2])  # change them, and run again
    looked_up = table[ids]
    return ids, looked_up, table


@app.cell(hide_code=True)
def _(looked_up, mo):
    mo.plain_text(str(looked_up))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Three tokens have become three rows of three numbers. The same token gets the same row, wherever it
    stands.

    This look-up is a matrix product in disguise. Write each token as a one-hot row (lesson 2): a 1 at the
    place of its id, and 0 elsewhere. Multiply this row by each column of the table, number by
    number, and add up. One row of the table is multiplied by 1, all others by 0.
    In Python, this product is written `@`.
    """)
    return


@app.cell
def _(ids, looked_up, mo, table, torch):
    one_hot = torch.nn.functional.one_hot(ids, len(table)).float()
    mo.plain_text(f"{one_hot}\n\nthe same as the look-up: {torch.equal(one_hot @ table, looked_up)}")
    return


@app.cell(hide_code=True)
def _(predict):
    rows_guess = predict(
        """
        Nobody writes the table. It starts at random and is trained like every other weight (lesson 2).
        Suppose that the loss is computed from the rows 2, 1, 2 that were just looked up. How many rows of
        the table get a gradient that is not zero?
        """,
        step=1,
    )
    rows_guess
    return (rows_guess,)


@app.cell(hide_code=True)
def _(reply, rows_guess, rows_with_gradient):
    reply(
        rows_guess,
        rows_with_gradient,
        "Only rows that were looked up had a part in the loss. Token 2 was looked up twice: its two "
        "gradients are added up in one row.",
        wrong={
            3: "There are three tokens in the text, but two of them are the same, and share a row.",
            4: "Rows 0 and 3 were multiplied by 0. If you change them a little, the loss stays the "
            "same, so their gradient is zero.",
            1: "Bites was looked up as well.",
        },
    )
    return


@app.cell
def _(ids, mo, table):
    weights = table.clone().requires_grad_()
    loss = (weights[ids] ** 2).sum()  # any loss that uses the rows will do
    loss.backward()
    rows_with_gradient = int((weights.grad != 0).any(dim=1).sum())
    mo.plain_text(str(weights.grad))
    return (rows_with_gradient,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    So a token that never occurs in training is never moved by the look-up. That was the trouble with the tokens
    without a history at the end of lesson 3.

    ## What makes two rows alike?

    Let us watch a table while it learns. The text has simple sentences. Here are all its words, and four of the
    sentences:
    """)
    return


@app.cell
def _(Grammar, mo, pairwise, random, torch):
    draw = random.Random(0)
    sentences = [Grammar().line(draw).split() for _ in range(2000)]
    words = sorted({word for sentence in sentences for word in sentence})
    counts = torch.zeros(len(words), len(words))  # how often each word follows each other word
    for sentence in sentences:
        for left, right in pairwise(sentence):
            counts[words.index(left), words.index(right)] += 1
    of_king = next(x for x in sentences if "king" in x)
    of_queen = next(x for x in sentences if "queen" in x and "king" not in x)
    shown = [words[:10], words[10:], [], *sentences[:2], of_king, of_queen]
    mo.plain_text("\n".join(" ".join(line) for line in shown))
    return counts, words


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Each of the 21 words is a token. The model has two tables. The first gives each
    word two numbers, its embedding. The second turns the two numbers into one logit for each
    possible next word. It is a bigram model, as in lesson 2: it sees one word, predicts the next, and is
    trained by gradient descent on the cross-entropy. New is the narrow middle: all that the model knows
    of a word must fit into two numbers. Two channels are few, but we can draw them.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    pair_guess = predict(
        "Which two words will have the most similar embeddings after training?",
        choices=[
            "king and queen: the same words follow them",
            "the and king: they often stand side by side",
            "old and king: an old king is common here",
        ],
    )
    pair_guess
    return (pair_guess,)


@app.cell
def _(counts, softmax, torch, words):
    generator = torch.Generator().manual_seed(0)  # another number is another random start
    rows = (0.1 * torch.randn(len(words), 2, generator=generator)).requires_grad_()
    output = (0.1 * torch.randn(2, len(words), generator=generator)).requires_grad_()
    history = []
    for _step in range(301):
        chances = softmax(rows @ output)  # for each word, the probability of each next word
        bigram_loss = -(counts * chances.log()).sum() / counts.sum()
        history.append((bigram_loss.item(), rows.detach().clone()))
        bigram_loss.backward()
        with torch.no_grad():  # a step of training is no part of the loss
            for weight in (rows, output):
                weight -= 5.0 * weight.grad
                weight.grad = None
    return (history,)


@app.cell(hide_code=True)
def _(history, mo):
    moment = mo.ui.slider(
        steps=[0, 5, 10, 15, 20, 25, 30, 40, 50, 70, 100, 150, len(history) - 1], value=0,
        label="steps of training", show_value=True,
    )  # fmt: skip
    mo.vstack([mo.md("Move the slider slowly, and watch where the words go."), moment])
    return (moment,)


@app.cell(hide_code=True)
def _(history, moment, plt, words):
    _kinds = {
        "article": ("#d1602b", ("the", "a")),
        "adjective": ("#7a9a3a", ("old", "young", "mad", "wise")),
        "verb": ("#7d5ba6", ("sees", "loves", "fears", "hears")),
        "who, and what follows": ("#888888", ("who", "sings", "weeps")),
    }
    _color = {word: color for color, group in _kinds.values() for word in group}
    _loss, _rows = history[moment.value]
    _limit = 1.25 * _rows.abs().max().item()
    _figure, _axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    _placed = []
    for _word, (_x, _y) in sorted(
        zip(words, _rows.tolist(), strict=True), key=lambda item: -item[1][1]
    ):
        _taken = [y for x, y in _placed if abs(x - _x) < 0.35 * _limit]
        _label = min([_y, *(y - 0.075 * _limit for y in _taken)])
        _placed.append((_x, _label))
        _paint = _color.get(_word, "#1f5a99")
        _axes.plot([_x, _x + 0.06 * _limit], [_y, _label], lw=0.6, color="#888888")
        _axes.plot([_x], [_y], "o", ms=5, color=_paint)
        _axes.text(_x + 0.07 * _limit, _label, _word, fontsize=10, color=_paint, va="center")
    _axes.axhline(0, color="#dddddd", lw=0.8, zorder=0)
    _axes.axvline(0, color="#dddddd", lw=0.8, zorder=0)
    _axes.set(
        xlim=(-_limit, 1.15 * _limit), ylim=(-_limit, _limit), xlabel="first channel",
        ylabel="second channel", title=f"After {moment.value} steps: loss {_loss:.2f} nats",
    )  # fmt: skip
    _axes.spines[["top", "right"]].set_visible(False)
    _figure
    return


@app.cell(hide_code=True)
def _(history, mo, pair_guess, reply, torch, words):
    def cosine_of(a, b):
        return torch.dot(a, b).item() / (a.norm() * b.norm()).item()

    _end = dict(zip(words, history[-1][1], strict=True))
    _names = {
        "king and queen: the same words follow them": ("king", "queen"),
        "the and king: they often stand side by side": ("the", "king"),
        "old and king: an old king is common here": ("old", "king"),
    }
    _alike = {text: cosine_of(_end[a], _end[b]) for text, (a, b) in _names.items()}
    mo.vstack([
        reply(
            pair_guess,
            max(_alike, key=_alike.get),
            "The model needs the embedding for one purpose: to predict the next word. Words with the same "
            "followers need the same prediction, so gradients push them to the same place.",
            wrong={
                "the and king: they often stand side by side": "Neighbours in the text are not "
                "neighbours in the table. After *the* comes a noun or an adjective, after *king* a verb: the two need "
                "different predictions.",
                "old and king: an old king is common here": "*old* is followed by a noun, *king* is not. "
                "Standing side by side does not make two words alike.",
            },
        ),
        mo.md(
            """
            Nobody told the model what a noun is. The groups arise because each word is used like
            the others of its group. Nor does the model know the meaning: with these sentences it cannot tell a
            king from a fool. In real texts, *king* and *fool* are followed by different words, and move apart. **Rows are alike
            as far as their tokens are used alike.**
            """
        ),
    ])  # fmt: skip
    return (cosine_of,)


@app.cell(hide_code=True)
def _(all_cosines, mo, small_model, torch):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    wte = model.wte.weight.detach()  # (vocabulary, channels)

    def _by_chance(channels):
        _vectors = torch.randn(400, channels, generator=torch.Generator().manual_seed(0))
        return all_cosines(_vectors).std().item()

    mo.md(
        f"""
        ## The table of a real model

        The small GPT of these lessons has such a table, called `wte` in the code: {wte.shape[0]:,} tokens by
        {wte.shape[1]} channels, {wte.numel():,} of its {model.num_parameters():,} weights. We cannot draw
        {wte.shape[1]} channels, so we measure. The **cosine** of two vectors says how far they point the same
        way: multiply them number by number, add up, and divide by both lengths. It is 1 for the same
        direction, 0 for a right angle, -1 for opposite directions. For (3, 4) and (4, 3) it is (12 + 12) / (5 · 5) = 0.96.

        What cosine do two vectors have by chance? Fill both with random numbers, some positive, some negative. The products
        then have random signs, and in the sum they cancel in part. The cosine is 0 on average. With 2 channels it
        typically lies {_by_chance(2):.2f} away from 0, with 10 channels {_by_chance(10):.2f}.
        """
    )
    return model, tokenizer, wte


@app.cell(hide_code=True)
def _(predict, wte):
    random_guess = predict(
        f"""
        Now take two vectors of {wte.shape[1]} random numbers. How far from 0 does their cosine typically
        lie? Say why before you look.
        """,
        choices=["about 0.5", "about 0.1", "about 0.01"],
    )
    random_guess
    return (random_guess,)


@app.cell
def _(torch):
    def all_cosines(vectors):
        """The cosine of each vector with each other one."""
        directions = vectors / vectors.norm(dim=-1, keepdim=True)  # all of length 1
        above = torch.triu_indices(len(vectors), len(vectors), offset=1)
        return (directions @ directions.T)[above[0], above[1]]

    return (all_cosines,)


@app.cell
def _(all_cosines, torch, wte):
    # Ids 0 to 255 are the bytes, and most bytes never occur in the plays. The last id is the
    # end-of-text token. Between them are the tokens made by merging.
    tokens = wte[256:-1]
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))

    random_spread = all_cosines(noise).std().item()
    return noise, random_spread, tokens


@app.cell(hide_code=True)
def _(
    all_cosines,
    math,
    mo,
    noise,
    plt,
    random_guess,
    random_spread,
    reply,
    tokens,
):
    _figure, _axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
    for _name, _vectors, _paint in (
        ("random", noise, "#888888"), ("learned", tokens, "#d1602b"),
    ):  # fmt: skip
        _axes.hist(
            all_cosines(_vectors).tolist(), bins=90, range=(-0.6, 1), color=_paint, alpha=0.65,
            density=True, label=f"{_name} vectors",
        )  # fmt: skip
    _axes.set(xlabel="cosine of two tokens", yticks=[])
    _axes.legend(frameon=False)
    _axes.spines[["top", "right", "left"]].set_visible(False)
    _width = tokens.shape[1]
    _sizes = {"about 0.5": 0.5, "about 0.1": 0.1, "about 0.01": 0.01}
    mo.vstack([
        reply(
            random_guess,
            min(_sizes, key=lambda name: abs(math.log(_sizes[name] / random_spread))),
            f"Measured: {random_spread:.2f}. This number is the **standard deviation**: how far values typically lie "
            f"from their mean. For random vectors of n channels it is 1 / √n, here 1 / √{_width} = "
            f"{1 / math.sqrt(_width):.2f}. With many channels, nearly all directions are at right angles. So there "
            "is room for many tokens that have nothing in common.",
            wrong={
                "about 0.5": f"In two or three dimensions, yes. With {_width} channels there are {_width} "
                "products of random sign to add up, and they cancel each other to a large part.",
                "about 0.01": f"They do not cancel that completely. Each product is about 1 / {_width} in "
                f"size, and a sum of {_width} of them with random signs grows with the root of their number.",
            },
        ),
        mo.md("The cosines of all pairs of merged tokens, and of as many random vectors:"),
        _figure,
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    word_wanted = mo.ui.text(value=" king", label="a token (a space in front belongs to it)")
    mo.vstack([
        mo.md(
            "Training has made many pairs more alike than chance would. Which ones? Ask for a token; try "
            "` my`, ` you`, `ed`. The model was trained for some seconds only, so you will see more grammar than meaning."
        ),
        word_wanted,
    ])
    return (word_wanted,)


@app.cell(hide_code=True)
def _(cosine_of, mo, tokenizer, visible, word_wanted, wte):
    def shown_token(i):
        return visible(tokenizer.decode_bytes([i]))

    _asked = tokenizer.encode(word_wanted.value or " ")[0]
    _alike = sorted(
        ((cosine_of(wte[i], wte[_asked]), i) for i in range(256, len(wte) - 1) if i != _asked),
        reverse=True,
    )
    mo.md(
        f"Nearest to `{shown_token(_asked)}` (token {_asked}): "
        + ", ".join(f"`{shown_token(i)}` {value:.2f}" for value, i in _alike[:7])
    )
    return


@app.cell(hide_code=True)
def _(mo, model, wte):
    mo.md(
        f"""
        **The table is used twice.** At the end of the network, the language model's head multiplies the hidden state
        by a row for each token. The sum is the token's logit (lesson 1). GPT-2 takes the rows of the
        same table: this is called a **tied embedding**. A row then has two tasks. It says what its token is, and it says what a hidden
        state must look like for this token to come next. Tying saves a second table of
        {wte.numel():,} weights, here {wte.numel() / model.num_parameters():.0%} of the model. It also means that each step of training moves
        all rows: the look-up moves only those that were read, the head moves all. An **untied** head
        (`--model.head untied`) has a table of its own, and each table one task. Most models of today have that.

        ## The order is missing

        Now compare *dog bites man* and *man bites dog*. The rows are the same three, in another order. A layer that
        mixes tokens adds their vectors up, each with some weight; you will see how in lesson 6. The simplest such
        mix is the average.
        """
    )
    return


@app.cell
def _(mo, table):
    dog_bites_man, man_bites_dog = table[[0, 1, 2]], table[[2, 1, 0]]
    mo.plain_text(f"{dog_bites_man.mean(dim=0)}\n{man_bites_dog.mean(dim=0)}")
    return dog_bites_man, man_bites_dog


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The two averages are equal, because a sum does not care about the order of its terms. For such a model a
    text is a bag of tokens. Attention is a weighted average, and its weights are computed from the vectors themselves.
    If the vectors do not say where they stand, neither do the weights.

    So the vectors must say it. **Add to each token a second vector that depends only on its position.** There is one
    for the first place, another for the second, and so on. Whatever brings the order into the model is called a **position encoding**.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    average_guess = predict(
        """
        We add the position vectors p0, p1, p2 to the three tokens, in both texts. Then we take
        the plain average again. Do the two averages differ now?
        """,
        choices=[
            "yes, because each token now knows its place",
            "no, they are still the same",
        ],
    )
    average_guess
    return (average_guess,)


@app.cell(hide_code=True)
def _(average_guess, plain_average, reply):
    _no, _yes = "no, they are still the same", "yes, because each token now knows its place"
    reply(
        average_guess,
        _no if plain_average < 1e-6 else _yes,
        "The sum of all six vectors is the same: dog + bites + man + p0 + p1 + p2. An average alone cannot use the "
        "positions.",
        wrong={
            _yes: "Each vector knows its place, that is true. But the average adds everything up, and in the "
            "sum nobody can tell which position belonged to which token.",
        },
    )
    return


@app.cell
def _(dog_bites_man, man_bites_dog, mo, torch):
    places = torch.tensor([[0.5, -0.3, 0.1], [-0.2, 0.4, 0.6], [0.1, 0.7, -0.5]])  # p0, p1, p2
    one, other = dog_bites_man + places, man_bites_dog + places
    plain_average = (one.mean(dim=0) - other.mean(dim=0)).abs().max().item()
    after_tanh = (one.tanh().mean(dim=0) - other.tanh().mean(dim=0)).abs().max().item()
    mo.plain_text(f"difference of the averages: {plain_average:.4f}\nwith tanh first: {after_tanh:.4f}")
    return after_tanh, plain_average


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    What has changed is each single vector: *dog* at the first place is another vector than *dog* at the
    third. Any step that is not a mere sum can use this. In the cell above, an activation function
    (tanh, lesson 2) before the average is enough: the averages differ. Attention is such a step, too. Its weights
    depend on the vectors, so *dog* can get another weight at the first place than at the third.

    Here is the same with a real attention layer. We exchange three tokens in front of the last one.
    """)
    return


@app.cell
def _(GPT, ModelConfig, mo, torch):
    def moved_by_shuffling(position):
        """How far the last logits move if three earlier tokens change places, in a fresh network."""
        torch.manual_seed(0)
        network = GPT(ModelConfig(
            position=position, vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=32,
            init_std=0.2,
        )).eval()  # used, not trained
        with torch.no_grad():  # no gradients are needed
            logits = network(torch.tensor([[11, 22, 33, 44, 5], [44, 22, 11, 33, 5]]))[:, -1]
        return (logits[0] - logits[1]).abs().max().item()

    shuffled = {position: moved_by_shuffling(position) for position in ("none", "learned")}
    mo.plain_text(f"no positions: {shuffled['none']:.7f}\nwith positions: {shuffled['learned']:.2f}")
    return


@app.cell(hide_code=True)
def _(embed, mo, model, package_code):
    mo.vstack([
        mo.md(
            f"""
            Without positions, the prediction after `11 22 33 44 5` and after
            `44 22 11 33 5` is the same, up to rounding. (In networks of several layers, some order comes back: a token only
            sees earlier ones, so the tokens differ in how much they see. Haviv et al. 2022.)

            ## Learned positions

            Where do position vectors come from? GPT-2 treats positions like tokens: a second table, `wpe`,
            with one row for each position, trained with the rest. The first token of a text gets row 0,
            the second row 1. In our small model that is {model.config.context_length} rows of
            {model.config.n_embd} numbers; in GPT-2 1,024 rows of 768, or {1024 * 768:,} weights.

            The start of the residual stream is the sum of two rows: *what* the token is, and *where* it stands.
            You write this sum in the exercise `embed`, so try before you look.
            """
        ),
        package_code(embed),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(model, predict):
    beyond_guess = predict(
        f"""
        The context length of the small model is {model.config.context_length}. What happens if it gets
        {model.config.context_length + 1} tokens?
        """,
        choices=[
            "it predicts a little worse than usual",
            "the last token shares the last row of the table",
            "an error: there is no row for the last token",
        ],
    )
    beyond_guess
    return (beyond_guess,)


@app.cell(hide_code=True)
def _(answer_beyond, beyond_guess, reply):
    _error = "an error: there is no row for the last token"
    _worse = "it predicts a little worse than usual"
    _shared = "the last token shares the last row of the table"
    reply(
        beyond_guess,
        _error if answer_beyond.startswith("error") else _worse,
        "The table has one row for each position of the context, and no more. The network itself stops with an "
        "error. The program around it (lesson 1) cuts the text first: it gives the network only the last tokens "
        "that fit, counted from position 0 again.",
        wrong={
            _worse: "A model computes only with weights that it has. For this position there is none.",
            _shared: "A program could do that, but the two tokens would then seem to stand at the same "
            "place. Nothing was trained for this.",
        },
    )
    return


@app.cell
def _(UserError, mo, model, torch):
    too_long = torch.zeros(1, model.config.context_length + 1, dtype=torch.long)
    try:
        model(too_long)
        answer_beyond = "it predicts"
    except UserError as error:
        answer_beyond = f"error: {error}"
    mo.md(answer_beyond)
    return (answer_beyond,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Could we make the table longer afterwards? Yes, but the new rows would be random until they
    are trained.

    ## Positions from waves

    The first Transformer (Vaswani et al. 2017) also tried position vectors that nobody trains. Why not
    simply add the number of the position? It would grow without limit, and at position 500 it would
    drown everything that the token says. We need numbers that stay small and still tell all positions
    apart.

    A clock does that. Its second hand tells apart moments that are near each other, but it repeats after a
    minute. The hour hand is slow and tells apart moments that are far from each other. Together they show every second of half a
    day. The tip of each hand is given by two numbers between -1 and 1, a sine and a cosine. Here are two hands at six
    positions. The first moves 1 radian per token (a full turn is 6.28), the second 0.1:
    """)
    return


@app.cell
def _(mo, torch):
    position = torch.arange(6)
    hands = [f(speed * position) for speed in (1.0, 0.1) for f in (torch.sin, torch.cos)]
    mo.plain_text(str(torch.stack(hands, dim=1)))
    return


@app.cell(hide_code=True)
def _(Sinusoidal, mo, model, package_code):
    where = mo.ui.slider(
        0, model.config.context_length - 1, value=20, label="position", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            Each row is the vector of one position. The **sinusoidal** position encoding is this with as many hands
            as fit: half as many as there are channels. The first moves 1 radian per token, the last about 1/10,000 of that.
            Each is slower than the one before by the same factor.
            """
        ),
        package_code(Sinusoidal),
        mo.md(
            """
            The upper picture shows 64 such vectors: one position in each column, fast hands on top. Of each
            hand only the sine is drawn. No two columns are equal. The lower picture compares one position with all others. Move the
            slider.
            """
        ),
        where,
    ])  # fmt: skip
    return (where,)


@app.cell(hide_code=True)
def _(ModelConfig, Sinusoidal, model, plt, torch, where):
    _length, _width = model.config.context_length, model.config.n_embd
    _shape = ModelConfig(n_layer=1, n_head=1, n_embd=_width, context_length=_length)
    _waves = Sinusoidal(_shape).embed(
        torch.zeros(1, _length, _width), torch.arange(_length)[None]
    )[0]
    _figure, (_above, _below) = plt.subplots(
        2, 1, figsize=(6.4, 5.6), layout="constrained", sharex=True, height_ratios=[1, 1.1]
    )
    _sines = _waves[:, ::2].T
    _above.imshow(_sines / _sines.abs().max(), aspect="auto", cmap="PuOr", vmin=-1, vmax=1)
    _above.set(ylabel="hand", title="The sine of each hand: orange negative, purple positive")
    _above.axvline(where.value, color="black", lw=1)
    for _name, _vectors, _paint in (
        ("waves", _waves, "#1f5a99"), ("learned by the small model", model.wpe.weight.detach(), "#d1602b"),
    ):  # fmt: skip
        _unit = _vectors / _vectors.norm(dim=-1, keepdim=True)
        _below.plot((_unit @ _unit[where.value]).tolist(), lw=2, color=_paint, label=_name)
    _below.axvline(where.value, color="black", lw=1)
    _below.set(
        xlabel="position", ylabel="cosine", ylim=(-0.75, 1.1),
        title=f"How alike is position {where.value} to the others?",
    )  # fmt: skip
    _below.grid(alpha=0.25)
    _below.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    _figure
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The curve of the waves moves with the slider and keeps its shape. Near positions are alike, far ones
    less so: only the **distance** counts. The reason is the clock: from position 3 to 5 each hand turns by the same angle as from 20 to 22. The
    learned vectors of our small model show hardly any such pattern. They start at random, and after seconds of
    training they have moved little; it is enough that they differ.

    | | learned (`wpe`) | sinusoidal |
    |:--|:--|:--|
    | weights | one row for each position | none |
    | near positions alike | only if training makes them so | from the start |
    | beyond the context length | no row: an error | a vector, but an untrained one (the package stops here, too) |

    The last line needs a word. Waves can be computed for any position. But the network has never seen these vectors
    in training, and does not know what to do with them. Press et al. 2022 trained such models on short texts and
    measured longer ones. A few dozen tokens more did no harm, then the loss rose. So with both kinds, the context length
    of the training is the limit in practice. Lesson 11 shows other ways.

    ## What you can say now

    - An embedding is a row of a table, one for each token. The look-up is a product with a one-hot row, so the
      gradient reaches the rows that were read.
    - Two rows become alike when their tokens are used alike: when the same tokens follow. Standing side by side
      does not make them alike.
    - GPT-2 uses the table a second time, in its head.
    - A sum does not know the order of its terms. A Transformer must be told, and GPT-2 adds a position vector to each
      token.
    - Learned positions are a table that ends with the context length. Waves never end, but beyond the context length the
      network has not learned to read them.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    test_form = self_test(4)
    test_form
    return (test_form,)


@app.cell(hide_code=True)
def _(judged, test_form):
    judged(4, test_form)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write the start of the residual stream yourself: look up the tokens, look up the positions, add. The text
    comes as a batch, so ids have the shape (texts, tokens). Every text starts at position 0.

    ```sh
    nanogpt exercise check embed
    ```

    Two experiments in the cells above:

    - Change the number in `manual_seed(0)`. The words start elsewhere. What is the same after training, and
      what is not?
    - Change `places` so that p0, p1 and p2 are equal. What does tanh do now, and why?

    **Papers.** Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2, where words became vectors
    that are learned. Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space". Press & Wolf
    2017, "Using the Output Embedding to Improve Language Models". Vaswani et al. 2017, "Attention Is All You Need", section 3.5, for
    the waves. Haviv et al. 2022, "Transformer Language Models without Positional Encodings Still Learn Positional
    Information". Press et al. 2022, "Train Short, Test Long", section 2, for texts beyond the context length.
    """)
    return


if __name__ == "__main__":
    app.run()
