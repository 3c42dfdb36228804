import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 1: the whole trip")


@app.cell(hide_code=True)
def _():
    import html

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap

    from nanogpt.cli.text import visible
    from nanogpt.generation.stream import prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.gpt import Block
    from nanogpt.model.layers import softmax
    from nanogpt.model.trace import record

    BLUE, ORANGE, GREY = "#1f5a99", "#d1602b", "#888888"
    SIGNS = LinearSegmentedColormap.from_list("signs", [BLUE, "white", ORANGE])
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        BLUE,
        Block,
        GREY,
        ORANGE,
        SIGNS,
        html,
        judged,
        mo,
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
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 1. The whole trip: from a text to its next token

    After this lesson you can

    - name every station between a text and the next piece of text that a GPT writes, and give the
      shape of the data at each station,
    - let a model write, in eight lines of Python,
    - say which of two things somebody means by "head".

    A **language model** does one thing. It reads a text and gives a probability to each piece of
    text that could come next. To write, you draw one of these pieces by its probability, append it
    to the text, and let the model read again. A whole page is made this way.
    Only one piece is chosen at a time; no later piece is fixed.

    These are the stations:

        text
          │  cut into pieces
        tokens and their numbers
          │  look up a row of a table
        vectors
          │  blocks: look around, then think
        vectors
          │  compare with every token
        scores, then probabilities
          │  draw one
        the next token

    You see every station with real numbers now. The later lessons take them one by one, so you need
    not understand everything here. You should know afterwards **what** goes in and out, and
    **where**.
    """)
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    config = model.config
    text = mo.ui.text(value="My lord, the king is", label="text", full_width=True)
    mo.vstack([
        mo.md(
            f"""
            ## A small GPT

            A model is a list of rules, which we write, and many numbers, which training finds.
            These numbers are its **parameters**, also called its **weights**. Here is a small GPT.
            It has {model.num_parameters():,} weights and was trained on plays by Shakespeare, on
            this computer. One training, and the folder that it leaves, is a **run**: look into
            `runs/` afterwards. GPT-2 follows the same rules with 124 million weights.

            Write what the model should read. Everything below follows your text:
            """
        ),
        text,
    ])  # fmt: skip
    return config, model, text, tokenizer


@app.cell(hide_code=True)
def _(config, html, mo, prompt_ids, text, tokenizer, visible):
    ids = prompt_ids(tokenizer, text.value)[-config.context_length :]
    pieces = [visible(tokenizer.decode_bytes([i])) for i in ids]
    boxes = "".join(
        f'<span style="display:inline-block;margin:2px;border:4px solid #c9d9ea;background:#c9d9ea;color:#000">'
        f"{html.escape(piece)}<br><small>{i}</small></span>"
        for piece, i in zip(pieces, ids, strict=True)
    )
    mo.vstack([
        mo.md(
            f"""
            ## Station 1: tokens

            A **token** is a piece of text with a number, its id. All tokens that a model knows are
            its **vocabulary**. This one has {config.vocab_size:,}; GPT-2 has 50,257. Your text
            becomes {len(ids)} tokens. A dot stands for a space:
            """
        ),
        mo.Html(f"<div>{boxes}</div>"),
        mo.md(
            f"""
            From here on there is no text, only numbers. Frequent words are one token, rare words
            several; lesson 3 shows why. The model sees at most {config.context_length} tokens at
            once. This is its **context length** (GPT-2's is 1,024). Of a longer text, the program
            gives it only the end. The next cell is code that you may change: put in a word of your
            own and run it.
            """
        ),
    ])  # fmt: skip
    return ids, pieces


@app.cell
def _(tokenizer):
    word_ids = tokenizer.encode("unkindness")
    " | ".join(f"{tokenizer.decode([number])} {number}" for number in word_ids)
    return


@app.cell(hide_code=True)
def _(config, ids, mo, predict):
    how_many = predict(
        f"Your text has {len(ids)} tokens, and a vector has {config.n_embd} numbers. How many "
        "numbers are there after the lookup, when the position is added?"
    )
    mo.vstack([
        mo.md(
            f"""
            ## Station 2: vectors

            A vector is a list of numbers, here {config.n_embd}. The model has a table with one row
            for each token of the vocabulary, and an id picks a row. The row is the **embedding** of
            the token: numbers that say what the token is. Training found them.

            A second table has one row for each position: the first token takes row 0, the second
            row 1, and so on. The two rows are added, number by number, so the sum says what the
            token is **and** where it stands.
            """
        ),
        how_many,
    ])  # fmt: skip
    return (how_many,)


@app.cell(hide_code=True)
def _(config, how_many, ids, reply):
    reply(
        how_many,
        len(ids) * config.n_embd,
        f"Each of the {len(ids)} tokens has one vector of {config.n_embd} numbers: "
        f"{len(ids)} times {config.n_embd}. The two rows are added, not put side by side.",
        wrong={
            2 * len(ids) * config.n_embd: "That counts the row of the token and the row of the "
            "position. They are added, so only one vector for each token is left.",
            config.n_embd: "That is one token. Each token keeps a vector of its own.",
        },
    )
    return


@app.cell
def _(ids, model):
    what = model.wte.weight[ids]  # wte: token embeddings, a row for each id
    where = model.wpe.weight[: len(ids)]  # wpe: position embeddings, rows 0, 1, 2, ...
    x = what + where
    x.shape  # (tokens, channels)
    return (x,)


@app.cell(hide_code=True)
def _(Block, config, mo, package_code):
    mo.vstack(
        [
            mo.md(
                f"""
            `wte` and `wpe` are the names that OpenAI gave these tables. We keep all of its names. One
            place in a vector is called a channel, so there are {config.n_embd} channels.

            ## Station 3: the blocks

            The vectors now pass through {config.n_layer} **blocks**, one after the other. A block has
            two parts:

            1. **Attention**. Each token looks at itself and the tokens before it, and takes in
               something of what they hold. This is the only place where tokens meet.
            2. The **feed-forward layer**, also called **MLP**. It computes something new from the
               vector of each token by itself: from {config.n_embd} numbers to {4 * config.n_embd}
               and back to {config.n_embd}.

            In front of each part stands a **layer norm**. It brings each vector to the same size,
            so that the part always meets numbers of the same kind.

            Neither part replaces the vectors. Each **adds** its result to them. So the {config.n_embd}
            numbers of a token run through the whole model, and every part adds to them. This is the
            **residual stream**. Its shape never changes.

            A network of such blocks is called a **Transformer**. It is the T in GPT, which is short
            for "generative pre-trained Transformer". In the package the whole block is two lines at
            the end:
            """
            ),
            package_code(Block),
        ]
    )
    return


@app.cell
def _(config, ids, model, record, torch):
    # no_grad: we only read here and train nothing. record: note what each part computes.
    with torch.no_grad(), record(model) as seen:
        logits = model(torch.tensor([ids]))

    # "drop" is what enters the first block. Its name is that of a step that only training uses.
    total = seen["drop"]
    for n in range(config.n_layer):
        total = total + seen[f"h.{n}.attn"] + seen[f"h.{n}.mlp"]
    after_the_last_block = seen[f"h.{config.n_layer - 1}"]
    f"largest difference: {(total - after_the_last_block).abs().max().item():.1g}"
    return logits, seen


@app.cell(hide_code=True)
def _(mo, seen, x):
    distance = (x - seen["drop"][0]).abs().max().item()
    mo.md(
        f"""
        The code above is a check. It adds up what the parts computed, and finds what comes out of
        the last block (up to rounding). So the stream really is a sum. `record` keeps a **trace**:
        what each part computed while the model ran. And our own `x` from above is what entered the
        first block: the largest difference is {distance:.1g}.
        """
    )
    return


@app.cell(hide_code=True)
def _(ids, mo, predict):
    which_change = predict(
        "You replace one token in the middle of a text and let the model read again. Which tokens "
        "have other vectors after the last block?",
        [
            "this token alone",
            "the later ones alone",
            "this token and the later ones",
            "all tokens",
        ],
    )
    changed = mo.ui.slider(
        1, max(len(ids), 2), value=max(len(ids) // 2, 1), label="replace token", show_value=True
    )
    mo.vstack([mo.md("## Who can know of whom?"), which_change])
    return changed, which_change


@app.cell(hide_code=True)
def _(changed, mo, reply, which_change):
    mo.vstack(
        [
            reply(
                which_change,
                "this token and the later ones",
                "Attention looks at the token itself and at earlier tokens, never at later ones. So news "
                "travels to the right alone.",
                wrong={
                    "this token alone": "This would be so without attention: every other part treats "
                    "each token by itself.",
                    "all tokens": "Then a token would know what comes after it, and predicting the next "
                    "token would be no task at all.",
                    "the later ones alone": "The token has another embedding, so its own vector changes "
                    "first of all.",
                },
            ),
            changed,
        ]
    )
    return


@app.cell(hide_code=True)
def _(
    BLUE, ORANGE, changed, config, ids, mo, model, pieces, plt, record, seen, tokenizer, torch,
    visible,
):  # fmt: skip
    _place = min(changed.value, len(ids)) - 1
    _other = list(ids)
    _other[_place] = (_other[_place] + 1) % config.vocab_size
    with torch.no_grad(), record(model, "drop", "h.*") as seen_now:
        model(torch.tensor([_other]))
    _stations = ["drop", *(f"h.{n}" for n in range(config.n_layer))]
    _moved = torch.stack(
        [(seen_now[s][0] - seen[s][0]).norm(dim=-1) / seen[s][0].norm(dim=-1) for s in _stations]
    )
    _shown = range(max(0, len(ids) - 10), len(ids))
    _figure, _axes = plt.subplots(figsize=(8, 1.5 + 0.6 * len(_stations)), layout="constrained")
    _axes.imshow(
        _moved[:, _shown.start :].clamp(max=1) ** 0.5, cmap="Blues", vmin=0, vmax=1.1,
        origin="lower", aspect="auto",
    )  # fmt: skip
    for _row in range(len(_stations)):
        for _column, _token in enumerate(_shown):
            _value = _moved[_row, _token].item()
            _axes.text(
                _column, _row, f"{_value:.0%}", ha="center", va="center", fontsize=12,
                color="white" if _value > 0.3 else "#222222",
            )  # fmt: skip
    _names = [pieces[t].replace("$", "\\$") for t in _shown]
    _axes.set_xticks(range(len(_shown)), _names, rotation=30)
    if _place in _shown:
        _axes.get_xticklabels()[_place - _shown.start].set(color=ORANGE, weight="bold")
    _axes.set_yticks(
        range(len(_stations)), ["embedding", *(f"block {n + 1}" for n in range(config.n_layer))]
    )
    _axes.spines[:].set_visible(False)
    _axes.tick_params(length=0)
    _axes.set_title("How much the vector of each token changed", loc="left", color=BLUE)
    mo.vstack([
        _figure,
        mo.md(
            f"The token `{pieces[_place]}` was replaced by "
            f"`{visible(tokenizer.decode_bytes([_other[_place]]))}`. Each number says by how much a "
            "vector changed, compared with its length. In the row of the embeddings one token has "
            "changed. From the first block on, later tokens have changed as well: attention carried "
            "the news to them. Everything left of the token stays at 0%, wherever you put the slider."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(config, ids, mo, predict):
    how_many_scores = predict(
        f"Your {len(ids)} tokens have passed all blocks. The vocabulary has {config.vocab_size:,} "
        "tokens. How many scores does the model compute in this one trip?"
    )
    mo.vstack(
        [
            mo.md(
                """
            ## Station 4: scores for the next token

            After the last block comes one more layer norm. Its results are the **hidden states**:
            one vector for each token of your text. The last layer compares each of them with the
            embedding of each token of the vocabulary. It multiplies the two vectors number by
            number and adds the products up. The sum is large where both point the same way. These
            sums are the **logits**: one score for each token that could come next. This last layer
            is the **language-model head**.
            """
            ),
            how_many_scores,
        ]
    )
    return (how_many_scores,)


@app.cell(hide_code=True)
def _(config, how_many_scores, ids, reply):
    reply(
        how_many_scores,
        len(ids) * config.vocab_size,
        f"Every token predicts the token after it: {len(ids)} predictions of "
        f"{config.vocab_size:,} scores each. To write you need only those of the last token. "
        "Training uses all of them. A text of 1,000 tokens gives 999 examples: each token except "
        "the last has a next token to predict.",
        wrong={
            config.vocab_size: "These are the scores after the last token. The earlier tokens have "
            "passed the same head, so they have scores, too.",
            len(ids) * config.n_embd: "That is how many numbers the hidden states have. The head "
            "turns each vector into one score for each token of the vocabulary.",
        },
    )
    return


@app.cell
def _(logits, mo, softmax, tokenizer):
    scores = logits[0, -1]  # after the last token: one score for each token of the vocabulary
    probabilities = softmax(scores)  # all positive, sum 1; the next lesson shows how
    likeliest = probabilities.topk(5).indices.tolist()
    mo.plain_text(
        "\n".join(
            f"{scores[i]:6.2f} -> {probabilities[i]:6.1%}  {tokenizer.decode([i])!r}"
            for i in likeliest
        )
    )
    return


@app.cell(hide_code=True)
def _(ids, mo):
    looking = mo.ui.slider(
        1, max(len(ids), 2), value=max(len(ids), 1), label="follow token", show_value=True
    )
    mo.vstack(
        [
            mo.md(
                """
            A higher score means a higher probability. Scores may be negative; probabilities are
            positive, and together they are 1. You write this whole network yourself by lesson 7.

            ## The whole trip in one picture

            Read it from the bottom to the top. Each small carpet is the vector of one token at one
            station: a cell for each channel, orange where the number is positive, blue where it is
            negative. Lines are attention: the thicker a line, the more a token takes in from there. On
            top stands the likeliest next token. On the right is the shape of the data (all tokens of
            your text; the picture has room for six). Move the slider from left to right and watch
            whom a token can look at:
            """
            ),
            looking,
        ]
    )
    return (looking,)


@app.cell(hide_code=True)
def _(
    GREY, ORANGE, SIGNS, config, ids, logits, looking, pieces, plt, seen, softmax, tokenizer, visible,
):  # fmt: skip
    _first = max(0, min(looking.value, len(ids)) - 6)
    _shown = list(range(_first, min(_first + 6, len(ids))))
    _chosen = min(looking.value, len(ids)) - 1
    _stations = ["drop", *(f"h.{n}" for n in range(config.n_layer))]
    _gap = 1.7
    _figure, _axes = plt.subplots(figsize=(8, 2.8 + 1.9 * config.n_layer), layout="constrained")
    for _n, _station in enumerate(_stations):
        _stream = seen[_station][0]
        _most = _stream.abs().quantile(0.97).item()
        for _token in _shown:
            _tile = _stream[_token].view(4 if config.n_embd % 4 == 0 else 1, -1)
            _axes.imshow(
                _tile, cmap=SIGNS, vmin=-_most, vmax=_most, aspect="auto", zorder=3,
                extent=(_token - 0.42, _token + 0.42, _n * _gap - 0.25, _n * _gap + 0.25),
                alpha=1 if _token == _chosen else 0.55,
            )  # fmt: skip
        if _n == 0:
            continue
        _weights = seen[f"h.{_n - 1}.attn.weights"][0].mean(0)
        for _token in sorted(_shown, key=lambda t: t == _chosen):
            for _source in (s for s in _shown if s <= _token):
                _share = _weights[_token, _source].item()
                _axes.plot(
                    [_source, _token], [(_n - 1) * _gap + 0.27, _n * _gap - 0.27],
                    color=ORANGE if _token == _chosen else "#bbbbbb", solid_capstyle="round",
                    linewidth=0.4 + 11 * _share if _token == _chosen else 0.3 + 5 * _share,
                    alpha=0.9 if _token == _chosen else 0.6,
                )  # fmt: skip
    _top = config.n_layer * _gap
    _best = softmax(logits[0]).max(-1)
    for _token in _shown:
        _look = {"color": ORANGE, "weight": "bold"} if _token == _chosen else {"color": GREY}
        _say = [
            visible(tokenizer.decode_bytes([i])).replace("$", "\\$")
            for i in (ids[_token], int(_best.indices[_token]))
        ]
        _axes.text(_token, -0.38, _say[0], ha="center", va="top", **_look)
        _axes.text(
            _token, _top + 0.38, f"{_say[1]}\n{_best.values[_token]:.0%}", ha="center",
            va="bottom", **_look,
        )  # fmt: skip
    _left = _first - 0.6
    _labels = [
        (-0.38, "text", "top"),
        (0, "embed", "center"),
        (_top + 0.38, "next\ntoken", "bottom"),
    ]
    _labels += [(n * _gap, f"block {n}", "center") for n in range(1, config.n_layer + 1)]
    for _height, _label, _how in _labels:
        _axes.text(_left, _height, _label, ha="right", va=_how, color="#222222")
    _sizes = [(n * _gap, f"{len(ids)} x {config.n_embd}") for n in range(len(_stations))]
    for _height, _size in [*_sizes, (_top + 0.72, f"{len(ids)} x {config.vocab_size}")]:
        _axes.text(_shown[-1] + 0.55, _height, _size, ha="left", va="center", color=GREY)
    _axes.set(xlim=(_left - 0.9, _shown[-1] + 1.4), ylim=(-0.85, _top + 1.25))
    _axes.axis("off")
    _figure
    return


@app.cell(hide_code=True)
def _(config, ids, logits, mo, pieces, seen):
    def shape(name):
        return " x ".join(map(str, seen[name].shape[1:]))

    stations = [
        ("ids", str(len(ids)), "numbers of tokens"),
        ("wte", shape("wte"), "what each token is"),
        ("drop", shape("drop"), "and where it stands: the stream begins"),
    ]
    for layer in range(config.n_layer):
        stations += [
            (f"h.{layer}.ln_1", shape(f"h.{layer}.ln_1"), "brought to one size"),
            (
                f"h.{layer}.attn.weights",
                shape(f"h.{layer}.attn.weights"),
                "who looks at whom, in each attention head",
            ),
            (f"h.{layer}.attn", shape(f"h.{layer}.attn"), "what was found there, added"),
            (f"h.{layer}.ln_2", shape(f"h.{layer}.ln_2"), "brought to one size"),
            (f"h.{layer}.mlp.c_fc", shape(f"h.{layer}.mlp.c_fc"), "four times as wide inside"),
            (f"h.{layer}.mlp", shape(f"h.{layer}.mlp"), "the result, added"),
        ]
    stations += [
        ("ln_f", shape("ln_f"), "hidden states"),
        ("logits", " x ".join(map(str, logits.shape[1:])), "scores for the next token"),
    ]
    mo.md(
        "## Every station, with its shape\n\n"
        f"This went through the model just now, for {len(pieces)} tokens. The names are those of "
        "the code. `h` is the list of blocks, and Python counts from 0.\n\n"
        "| station | shape | what it is |\n|:--|--:|:--|\n"
        + "\n".join(
            f"| `{name}` | {size.replace(' ', '&nbsp;')} | {what} |"
            for name, size, what in stations
        )
        + "\n\nThe code has single letters for these sizes: `T` tokens, `C` channels, `V` tokens in the "
        "vocabulary, `nh` attention heads, `hs` channels of one attention head. `B` is the number of "
        "texts that are read at once. Here it is 1, and the table leaves it out. A table of who looks "
        "at whom has `T` rows, for the tokens that look, and `S` columns, for the tokens that they "
        "look at."
    )
    return


@app.cell(hide_code=True)
def _(config, mo, predict):
    heads = predict(
        f"This model has {config.n_layer} blocks, and `n_head` is {config.n_head}. How many parts "
        "of it are called a head?"
    )
    mo.vstack([
        mo.md(
            f"""
            ## Two things are called "head"

            The word has two meanings, and texts about GPT use both on one page.

            - An **attention head** is one of several attentions that run side by side inside a
              block. Each works in its own part of the channels
              ({config.n_embd // config.n_head} of {config.n_embd} here), so it can look for
              something else than its neighbours. Look at the table: `h.0.attn.weights` has
              {config.n_head} tables, one for each head.
            - The **language-model head** is the last layer of the whole model. It turns hidden
              states into logits. If somebody says "the head" of a model, they mean this one.
            """
        ),
        heads,
    ])  # fmt: skip
    return (heads,)


@app.cell(hide_code=True)
def _(config, heads, reply):
    reply(
        heads,
        config.n_layer * config.n_head + 1,
        f"{config.n_layer} blocks with {config.n_head} attention heads each, and one language-model "
        "head at the end.",
        wrong={
            config.n_head: "`n_head` counts the heads of one block. Every block has its own.",
            config.n_layer * config.n_head: "These are the attention heads. The last layer is "
            "called a head as well.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo, predict):
    twice = predict(
        "The same model reads the same text twice, and each time you draw a next token. What is "
        "the same both times?",
        [
            "the probabilities and the token",
            "the probabilities, but perhaps not the token",
            "neither",
        ],
    )
    mo.vstack([mo.md("## Station 5: draw, append, and again"), twice])
    return (twice,)


@app.cell(hide_code=True)
def _(mo, reply, twice):
    mo.vstack(
        [
            reply(
                twice,
                "the probabilities, but perhaps not the token",
                "The trip from ids to probabilities is arithmetic: the same numbers go in, the same come "
                "out. Chance enters when one token is drawn.",
                wrong={
                    "the probabilities and the token": "The model gives probabilities, not a token. A "
                    "token with 30% is drawn three times in ten.",
                    "neither": "Nothing in the model is random while it reads. Chance enters after it.",
                },
            ),
            mo.md(
                """
            This is all of text generation. Change the seed to draw others, or 40 to 200, and run it
            again:
            """
            ),
        ]
    )
    return


@app.cell
def _(config, ids, mo, model, softmax, tokenizer, torch):
    torch.manual_seed(1)
    written = list(ids)
    for _ in range(40):
        read = torch.tensor([written[-config.context_length :]])
        with torch.no_grad():
            chances = softmax(model(read)[0, -1])  # after the last token
        written.append(int(torch.multinomial(chances, 1)))  # draw one, append it
    mo.plain_text(tokenizer.decode(written))
    return


@app.cell(hide_code=True)
def _(config, mo):
    depth = mo.ui.slider(0, config.n_layer, value=0, label="blocks", show_value=True)
    mo.vstack([
        mo.md(
            """
            A small model with a short training writes words that look like a play, and no sense.
            More weights and more text change that. The trip stays the same.

            ## What if the trip ended early?

            The stream has the same shape everywhere. So the head can read it after any block, and
            you see what each block contributes. After no block at all, the model knows only the
            last token and its position. (This way of looking is called the logit lens.)
            """
        ),
        depth,
    ])  # fmt: skip
    return (depth,)


@app.cell(hide_code=True)
def _(BLUE, config, depth, mo, model, plt, seen, softmax, tokenizer, torch, visible):
    _station = "drop" if depth.value == 0 else f"h.{depth.value - 1}"
    with torch.no_grad():
        _chances = softmax(model.head(model.ln_f(seen[_station][:, -1])))[0]
    _best = _chances.topk(8)
    _names = [visible(tokenizer.decode_bytes([i])) for i in _best.indices.tolist()]
    _figure, _axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    _bars = _axes.barh(range(8), _best.values.tolist(), color=BLUE)
    _axes.bar_label(_bars, [f"{p:.1%}" for p in _best.values.tolist()], padding=4)
    _axes.set_yticks(range(8), [name.replace("$", "\\$") for name in _names])
    _axes.invert_yaxis()
    _axes.set_xlim(0, max(0.25, 1.2 * _best.values[0].item()))
    _axes.set_xlabel(f"probability of coming next, read after {depth.value} blocks")
    mo.vstack(
        [
            _figure,
            mo.md(
                f"After {depth.value} of {config.n_layer} blocks the likeliest next token is "
                f"`{_names[0]}`, with {_best.values[0]:.0%}."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(config, mo, self_test):
    questions = self_test(1)
    mo.vstack(
        [
            mo.md(
                f"""
            ## What you can say now

            A language model gives each token of its vocabulary a probability of coming next. A text
            arises by drawing a token, appending it and reading again. On the way, a text becomes
            ids (one number for each token), then vectors ({config.n_embd} numbers for each token),
            then logits ({config.vocab_size:,} numbers for each token). Blocks read the residual
            stream and add to it, and its shape stays the same. Attention is the only place where
            tokens meet, and it looks back, never ahead. An attention head is one of several
            attentions in a block; the language-model head is the last layer.

            ## Questions
            """
            ),
            questions,
        ]
    )
    return (questions,)


@app.cell(hide_code=True)
def _(judged, questions):
    judged(1, questions)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Every part of this trip is an exercise of its own, from lesson 2 on. A **judge** compares your
    function with the package's and names the mistake. Get the files now:

    ```sh
    nanogpt exercise start
    nanogpt learn
    ```

    The first command writes files to fill in, in the folder `my_gpt`. The second shows all lessons and
    exercises, and how far you are.

    Two experiments:

    - Write a name twice in your text, with other words between. What does the model predict after
      the first half of the name, the second time?
    - Train a model of your own and open this lesson again: it looks into your model then.

    ```sh
    nanogpt demo
    ```

    This takes a few minutes and leaves the folder `runs/demo`.

    A training reads its settings from a **recipe**, a file in `configs/` such as `demo.toml`: how
    many blocks, how many channels, which text.

    **Papers.** Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
    section 2.3, is GPT-2. Vaswani et al. 2017, "Attention Is All You Need", section 3, is the
    Transformer that it is made of. nostalgebraist 2020, "interpreting GPT: the logit lens", looks at
    the stream between the blocks.
    """)
    return


if __name__ == "__main__":
    app.run()
