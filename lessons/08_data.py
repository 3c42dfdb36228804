import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 8: data")


@app.cell(hide_code=True)
def _():
    import tempfile
    import time
    from pathlib import Path

    import marimo as mo
    import numpy as np
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap

    from nanogpt.cli.text import visible
    from nanogpt.config import IGNORED, ModelConfig
    from nanogpt.device import resolve
    from nanogpt.evaluation.loss import token_losses
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.attention import attention_mask, same_document
    from nanogpt.model.gpt import GPT, positions
    from nanogpt.model.layers import cross_entropy
    from nanogpt.text.batches import (
        count_sliding_windows,
        cut,
        document_numbers,
        padded_batch,
        random_windows,
        sliding_windows,
    )
    from nanogpt.text.corpus import shakespeare
    from nanogpt.text.tokenfiles import end_of_text, write_token_file

    return (
        GPT,
        IGNORED,
        ListedColormap,
        ModelConfig,
        Path,
        attention_mask,
        count_sliding_windows,
        cross_entropy,
        cut,
        document_numbers,
        end_of_text,
        judged,
        mo,
        np,
        package_code,
        padded_batch,
        plt,
        positions,
        predict,
        random_windows,
        reply,
        resolve,
        same_document,
        self_test,
        shakespeare,
        sliding_windows,
        small_model,
        tempfile,
        time,
        token_losses,
        torch,
        visible,
        write_token_file,
    )


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    mo.md(
        """
        # 8. Windows, padding, packing: which token sees which

        After this lesson you can cut a text into inputs and targets, count how many predictions that
        gives, choose a stride for an evaluation and say what it costs, put texts of different length
        into one batch, and draw which token sees which.

        The model of lesson 7 takes ids of shape (B, T): B sequences of T tokens. A corpus looks different:
        it is a pile of texts, short ones and long ones. This lesson is about the way from one to the
        other. A mistake made here can stay unnoticed for weeks, because the loss falls all the same.
        """
    )
    return model, tokenizer


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Token files

    Training reads every text many times, so texts are encoded once. The ids go into a **token file**: the
    ids of all texts, one after another, as plain integers. After each text stands the end-of-text token of
    lesson 3. It marks where a text ends; nothing else does.
    """)
    return


@app.cell
def _(Path, mo, np, tempfile, tokenizer, write_token_file):
    three_texts = ["Who's there?", "Nay, answer me.", "Long live the king!"]
    token_file = write_token_file(Path(tempfile.mkdtemp()) / "example.bin", three_texts, tokenizer)

    mo.plain_text(np.array2string(token_file.ids, max_line_width=42))
    return (token_file,)


@app.cell(hide_code=True)
def _(predict, token_file):
    file_size = predict(
        f"""
        The example has {len(token_file.ids)} ids, each below 65,536. How many bytes has the file?
        """,
        step=1,
    )
    file_size
    return (file_size,)


@app.cell(hide_code=True)
def _(end_of_text, file_size, reply, token_file, tokenizer):
    count = len(token_file.ids)
    reply(
        file_size,
        token_file.path.stat().st_size,
        f"""
        Two bytes hold 65,536 different numbers, so two bytes per token are enough, for GPT-2's 50,257
        tokens as well. The text itself has {token_file.about.bytes} bytes. The three ids
        {end_of_text(tokenizer)} end the three texts.
        """,
        wrong={
            count: "One byte holds the numbers from 0 to 255 only. There are more tokens.",
            4 * count: "Four bytes would do, but two are enough for ids below 65,536.",
            8
            * count: "That is how Python and torch keep integers in memory. On disk it would be waste.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    A token file is not loaded. It is *memory-mapped*: the operating system fetches only the parts that are
    used. So a file of many gigabytes opens at once and takes hardly any memory.

    ## 2. One window, T predictions

    The model sees T tokens at once, its context length. So you cut a **window** of T tokens out of the
    file. These are the inputs. The target of each token is the next token, so the targets are the same
    window, one token later.
    """)
    return


@app.cell
def _(cut, mo, np, tokenizer, visible):
    sentence = np.array(tokenizer.encode("Long live the king, and long live the queen!"))
    x, y = cut(sentence, [0], length=8)  # one window of 8 tokens, from token 0 on

    window_words = [visible(tokenizer.decode_bytes([i])) for i in x[0].tolist()]
    target_words = [visible(tokenizer.decode_bytes([i])) for i in y[0].tolist()]
    mo.plain_text(f"inputs   {' '.join(window_words)}\ntargets  {' '.join(target_words)}")
    return target_words, window_words


@app.cell(hide_code=True)
def _(predict):
    exercises = predict(
        """
        How many predictions does the model make, and learn from, in this one window of 8 tokens?
        """,
        step=1,
    )
    exercises
    return (exercises,)


@app.cell(hide_code=True)
def _(exercises, reply):
    reply(
        exercises,
        8,
        """
        Each token predicts the next one. The causal mask lets it see only itself and earlier tokens, so
        none of the eight predictions knows its answer. Eight inputs and eight targets need nine tokens
        of the file.
        """,
        wrong={
            1: "That is so in generation, where only the last prediction is used. In training all count.",
            7: "The target of the last token is the ninth token of the text. It is no input, but it is "
            "a target.",
            9: "Nine tokens are read from the file; the ninth is only a target.",
        },
    )
    return


@app.cell(hide_code=True)
def _(plt, target_words, window_words):
    stairs, step = plt.subplots(figsize=(6.0, 3.4), layout="constrained")
    for row, answer in enumerate(target_words):
        for column in range(row + 1):
            step.add_patch(plt.Rectangle((column, -row), 0.94, 0.86, color="#c9d9ea", lw=0))
            step.text(column + 0.47, 0.42 - row, window_words[column], ha="center", va="center",
                      fontsize=9, parse_math=False)  # fmt: skip
        step.add_patch(plt.Rectangle((row + 1, -row), 0.94, 0.86, color="#d1602b", lw=0))
        step.text(row + 1.47, 0.42 - row, answer, ha="center", va="center", fontsize=9,
                  color="white", parse_math=False)  # fmt: skip
    step.set(xlim=(-0.1, 9.1), ylim=(-7.2, 1.6))
    step.text(0, 1.15, "what is seen", color="#1f5a99", fontsize=10)
    step.text(5.2, 0.1, "what is to be predicted", color="#d1602b", fontsize=10)
    step.axis("off")
    stairs
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Training usually takes B windows at random places of the file, new ones for each batch. This is simple,
    and with much text it is fair enough. The other way is to walk: one window after another, in shuffled
    order. When all windows have been used once, an **epoch** is over, and each target has been used
    exactly once. Then the next epoch begins, in another order.

    With little text, walking is better. When random windows have as many tokens as the text, about 37 %
    of the text has never been used, by chance, and other parts have come twice. In five passes over tiny
    Shakespeare the walk ended with a loss 0.013 nats lower, with nothing else changed (one seed;
    `docs/speedrun.md`).

    ## 3. Stride: where the next window starts

    In an evaluation nothing should be left to chance: each token should be predicted exactly once. So you
    walk through the text. The **stride** says how many tokens later the next window starts. With a stride
    of T, the windows do not overlap. With a smaller one they do, and some targets would come twice. They
    are set to -100, and the loss ignores this number. If the text does not end with a whole window, the last
    window is moved back until it does. Its old targets are ignored as well.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    moved = mo.ui.slider(1, 8, value=8, label="stride", show_value=True)
    moved
    return (moved,)


@app.cell(hide_code=True)
def _(IGNORED, mo, moved, np, plt, sliding_windows):
    numbered = np.arange(25)  # a text whose ids are its places
    walked = list(sliding_windows(numbered, 8, moved.value))
    walk, path = plt.subplots(figsize=(6.8, 0.9 + 0.17 * max(len(walked), 6)), layout="constrained")
    for level, (inputs, outputs) in enumerate(walked):
        for place, target in zip(inputs.tolist(), outputs.tolist(), strict=True):
            counts = target != IGNORED
            path.add_patch(plt.Rectangle((place, -level), 0.92, 0.85, color="#c9d9ea", lw=0))
            if counts:
                path.plot([place + 0.46], [0.42 - level], "o", ms=5, color="#d1602b")
    path.set(
        xlim=(-0.2, 25),
        ylim=(-len(walked) + 0.8, 1.2),
        yticks=[],
        xlabel="place in a text of 25 tokens",
    )
    path.spines[["left", "right", "top"]].set_visible(False)
    least = min(
        int(np.argmax(outputs != IGNORED)) + 1 for _, outputs in walked[1:]
    )  # the place of the first new target, counted from 1
    mo.vstack(
        [
            walk,
            mo.md(
                f"Each row is a window of 8 tokens (blue). A dot: the target of this token counts. **{len(walked)} windows, "
                f"{8 * len(walked)} tokens computed for 24 targets.** From the second window on, each prediction "
                f"sees at least **{least}** token{'s' * (least > 1)}."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The first prediction of a window sees a single token. Seven tokens later the prediction sees eight. With
    overlap, the badly informed predictions are left out, because an earlier window has made them already,
    with more to see. The price is work: half the stride, twice the windows.

    How much does it help? Here is a text that makes the answer easy to see. Each token repeats the token 16
    places before it; only one in ten is new. A model of one block with a context length of 64 has just
    learned it. Left: its mean loss at each place of a window, without overlap. Right: the same for the
    lessons' small model, on a play.
    """)
    return


@app.cell(hide_code=True)
def _(GPT, ModelConfig, mo, np, random_windows, torch):
    GAP, KINDS = 16, 32

    def echoes(length, seed):
        """Each token repeats the one GAP places before it, but for one in ten."""
        draw = np.random.default_rng(seed)
        made, new = draw.integers(0, KINDS, length), draw.random(length) < 0.1
        for n in range(GAP, length):
            if not new[n]:
                made[n] = made[n - GAP]
        return made.astype(np.uint16)

    torch.manual_seed(0)
    echo_model = GPT(
        ModelConfig(
            vocab_size=KINDS, context_length=64, n_layer=1, n_head=2, n_embd=64, init_std=0.05
        )
    )
    _optimizer = torch.optim.AdamW(echo_model.parameters(), lr=5e-3, weight_decay=0.0)
    with mo.status.spinner("a model of one block learns to look 16 tokens back"):
        _text = echoes(60_000, seed=1)
        for _n in range(200):
            _optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (_n + 1) / 20) * (1 - _n / 200)
            _ids, _targets = map(torch.from_numpy, random_windows(_text, 64, 16, seed=0, number=_n))
            _optimizer.zero_grad()
            echo_model.loss(echo_model(_ids), _targets).backward()
            _optimizer.step()
    echo_text = echoes(12_801, seed=2)
    return echo_model, echo_text


@app.cell(hide_code=True)
def _(echo_model, echo_text, model, np, plt, resolve, shakespeare, token_losses, tokenizer):
    *_, play = shakespeare()  # the last one, "Timon of Athens"
    play_ids = np.array(tokenizer.encode(play.text[:30_000]))
    here = resolve("cpu", "float32")

    def losses_of(network, ids, stride):
        return np.concatenate(list(token_losses(network, ids, here, stride=stride)))

    length = model.config.context_length
    by_place = {
        "repeats after 16 tokens": losses_of(echo_model, echo_text, 64).reshape(-1, 64).mean(0),
        "a play": losses_of(model, play_ids[: (len(play_ids) - 1) // length * length + 1], length)
        .reshape(-1, length)
        .mean(0),
    }
    places, sides = plt.subplots(1, 2, figsize=(5.6, 2.8), layout="constrained")
    for side, (text_name, losses) in zip(sides, by_place.items(), strict=True):
        side.bar(range(1, len(losses) + 1), losses, width=1.0, color="#1f5a99")
        side.set(title=text_name, xlabel="place in the window", ylim=(0, 5))
        side.grid(alpha=0.25, axis="y")
    sides[0].set_ylabel("loss, nats")
    places
    return by_place, losses_of, play_ids


@app.cell(hide_code=True)
def _(predict):
    enough = predict(
        """
        Start with a stride of 64, no overlap, and make it smaller. The loss of the repeating text falls at
        first. Look at the left picture: at which stride does it stop falling?
        """,
        step=1,
    )
    enough
    return (enough,)


@app.cell(hide_code=True)
def _(enough, reply):
    reply(
        enough,
        49,
        """
        The first new prediction of a window sees 64 - stride + 1 tokens. It needs 16 to look 16 places
        back from the token that it predicts. 64 - 49 + 1 = 16. Smaller strides cost more and tell this
        model nothing that it can use.
        """,
        wrong={
            16: "A stride of 16 leaves 49 tokens in view. Only 16 are needed.",
            32: "Half the context length is a good habit, and the package's default. Here even less "
            "overlap is enough.",
            1: "A stride of 1 gives each prediction all 64 tokens. This model can use only the last 16.",
        },
        tolerance=2,
    )
    return


@app.cell(hide_code=True)
def _(
    by_place,
    count_sliding_windows,
    echo_model,
    echo_text,
    losses_of,
    mo,
    model,
    play_ids,
    plt,
    time,
):
    strides, lengths = (
        (64, 56, 48, 32, 16, 8),
        {"repeats after 16 tokens": 64, "a play": model.config.context_length},
    )
    some = {
        "repeats after 16 tokens": (echo_model, echo_text[:6401]),
        "a play": (model, play_ids[:4097]),
    }
    measured, seconds = {}, {}
    with mo.status.spinner("measuring with six strides"):
        for _name, (_network, _ids) in some.items():
            for _stride in strides:
                _began = time.perf_counter()
                measured[_name, _stride] = losses_of(_network, _ids, _stride).mean()
                seconds[_name, _stride] = time.perf_counter() - _began
    gains, (fall, work) = plt.subplots(1, 2, figsize=(5.6, 2.8), layout="constrained")
    for _name, _hue in zip(some, ("#d1602b", "#1f5a99"), strict=True):
        fall.plot(strides, [measured[_name, s] for s in strides], "o-", color=_hue, label=_name)
        work.plot(
            strides,
            [count_sliding_windows(some[_name][1], lengths[_name], s) * lengths[_name] / (len(some[_name][1]) - 1)
             for s in strides],
            "o-", color=_hue,
        )  # fmt: skip
    fall.set(xlabel="stride", ylabel="mean loss, nats", title="what it gives", ylim=(0, 5))
    work.set(
        xlabel="stride", title="what it costs: tokens\ncomputed for each target", ylim=(0, None)
    )
    fall.legend(frameon=False, fontsize=9)
    for _panel in (fall, work):
        _panel.grid(alpha=0.25)
        _panel.invert_xaxis()
    _echo = [measured["repeats after 16 tokens", s] for s in (64, 48, 8)]
    _play = [measured["a play", s] for s in (64, 8)]
    _why = (
        "The model of the play gains nothing from more context. It was trained so shortly that it knows "
        "which tokens are frequent and which follow each other. It uses hardly anything further back."
        if _play[0] - _play[1] < 0.05
        else "This model uses context, so more of it lowers the loss."
    )
    _half = len(by_place["a play"]) // 2
    _middle, _late = (part.mean() for part in (by_place["a play"][8:_half], by_place["a play"][_half:]))
    if _play[0] < _play[1] and _middle < _late:
        _why += (
            " The loss is even a little higher. The right picture shows why: late places are predicted "
            f"slightly worse, with a mean of {_late:.2f} in the second half of the window and "
            f"{_middle:.2f} from place 9 to the middle. A small stride uses late places almost only."
        )
    mo.vstack(
        [
            gains,
            mo.md(
                f"""
            The repeating text: {_echo[0]:.2f} nats at stride 64, {_echo[1]:.2f} at 48, {_echo[2]:.2f} at 8.
            The play: {_play[0]:.2f} at 64 and {_play[1]:.2f} at 8, in
            {seconds["a play", 8] / seconds["a play", 64]:.0f} times the seconds. {_why}

            So a smaller stride gives what the model gains from context. A good model gains much: the
            documentation of Transformers reports for GPT-2 Large on WikiText-2 a perplexity of 19.44 at a
            stride of 1,024, and of 16.45 at 512. It is the same model, and the same text. So two losses can
            only be compared if the stride was the same.
            """
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(count_sliding_windows, mo, package_code, sliding_windows):
    mo.vstack([
        mo.md(
            "The package's code follows, folded. You will write `sliding_windows` and, at the end of the "
            "lesson, the loss yourself, so try before you look."
        ),
        package_code(sliding_windows, count_sliding_windows),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. Padding: rows of one length

    A batch is a rectangle, and texts are not. The simple way is **padding**: short rows are filled with
    some token up to the length of the longest row. These tokens mean nothing, so two things are recorded
    beside the ids: the targets of the padding are -100, and its document number is 0. A document number
    says to which text of a row a token belongs: 1 for the first text, 2 for the next (section 5). Here
    each row holds a single text.
    """)
    return


@app.cell
def _(mo, padded_batch):
    padded_ids, padded_targets, padded_documents = padded_batch([[5, 6, 7, 8], [9, 10]])

    mo.plain_text(f"ids\n{padded_ids}\ntargets\n{padded_targets}\ndocuments\n{padded_documents}")
    return


@app.cell(hide_code=True)
def _(predict):
    real = predict(
        """
        Three texts of 5, 3 and 8 tokens are padded to one batch. How many targets count in the loss?
        """,
        step=1,
    )
    real
    return (real,)


@app.cell(hide_code=True)
def _(padded_batch, real, reply):
    _, three_targets, _ = padded_batch([range(5), range(3), range(8)])
    reply(
        real,
        int((three_targets >= 0).sum()),
        "Each token but the first of its text is a target: 4 + 2 + 7. The batch has 3 x 8 = 24 places, so "
        "almost half of the work is for nothing.",
        wrong={
            24: "That is the whole rectangle, padding included.",
            16: "The last token of each text has no next token, so each text has one target less.",
            21: "That counts seven targets in every row, padding included.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Why does the loss ignore padding? After one padding token comes another one: nothing is easier to
    predict. Take 10 real targets with a loss of 4 nats and 30 targets of padding, which the model has
    learned to predict with a loss of 0. The mean over all 40 is 1.0, and looks wonderful. The model would
    spend its training on padding. So the sum of the real losses is divided by the number of real targets, which
    is 10 here. Dividing by 40 is a common mistake. The exercise `masked-loss` asks for the right mean.

    And what does padding do to the real tokens? Try it on the small model.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    seen_padding = predict(
        """
        Five padding tokens are put after a text, and nobody tells the model. What happens to the logits
        at the tokens of the text?
        """,
        choices=[
            "nothing",
            "they change, because attention mixes the padding in",
            "they change, because the positions change",
        ],
    )
    seen_padding
    return (seen_padding,)


@app.cell(hide_code=True)
def _(reply, seen_padding):
    reply(
        seen_padding,
        "nothing",
        """
        The causal mask hides all later tokens, and padding on the right is later. It is different for
        padding on the left, as you see below.
        """,
        wrong={
            "they change, because attention mixes the padding in": "It would, if the padding came before "
            "the text. No token sees a later one.",
            "they change, because the positions change": "The text still begins at position 0.",
        },
    )
    return


@app.cell
def _(mo, model, tokenizer, torch):
    text = torch.tensor([tokenizer.encode("Long live the king")])
    pad, size = torch.zeros(1, 5, dtype=torch.long), text.shape[1]
    real_ones, zeros = torch.ones(1, size, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long)

    model.eval()
    with torch.no_grad():
        alone = model(text)
        on_the_right = model(torch.cat([text, pad], dim=1))[:, :size]
        on_the_left = model(torch.cat([pad, text], dim=1))[:, 5:]
        marked = torch.cat([zeros, real_ones], dim=1)
        told = model(torch.cat([pad, text], dim=1), documents=marked)[:, 5:]
    mo.plain_text(
        f"largest change of a logit\non the right:            {(alone - on_the_right).abs().max():.6f}\n"
        f"on the left, not told:   {(alone - on_the_left).abs().max():.6f}\n"
        f"on the left, with documents: {(alone - told).abs().max():.6f}"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Padding on the left is needed when several texts are continued at once: all of them have to end in the
    same column. Then the mask must hide the padding, and positions must be counted from the first real
    token. The document numbers tell the model both.

    ## 5. Packing: no place wasted

    Padding wastes work. The other way is to lay texts one after another, and to cut the long row into
    windows. Then all places are real. But should a token of one text see the text before it, which has
    nothing to do with it? In a **packed batch** it does not: each token has the number of its document, and
    the mask lets it see tokens with the same number only. Positions start at 0 in each document.

    The end-of-text token has two tasks. It is the last target of its text, so the model learns when to
    stop. And it is the first input of the next text, so the model learns how a text begins.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    pairs = predict(
        """
        A packed row holds documents of 3, 4 and 5 tokens. How many pairs of a token and a token that it
        sees are there, each token seeing itself included?
        """,
        step=1,
    )
    pairs
    return (pairs,)


@app.cell(hide_code=True)
def _(attention_mask, pairs, reply, same_document, torch):
    packed_numbers = torch.tensor([[1] * 3 + [2] * 4 + [3] * 5])
    reply(
        pairs,
        int(attention_mask(12, 12, same=same_document(packed_numbers, 12)).sum()),
        "A document of n tokens has 1 + 2 + ... + n pairs: 6 + 10 + 15.",
        wrong={
            78: "That is the causal triangle of a single text of 12 tokens.",
            50: "That lets tokens see later ones of their document: 9 + 16 + 25.",
            144: "That lets everything see everything.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    layout = mo.ui.radio(
        ["one long text", "packed", "padded on the right", "padded on the left"],
        value="packed", inline=True,
    )  # fmt: skip
    looking = mo.ui.slider(1, 12, value=6, label="the token that looks", show_value=True)
    mo.vstack([
        mo.md("**Which token sees which?** Rows look, columns are seen. Choose a layout and move the slider."),
        layout, looking,
    ])  # fmt: skip
    return layout, looking


@app.cell(hide_code=True)
def _(
    ListedColormap,
    attention_mask,
    document_numbers,
    layout,
    looking,
    mo,
    np,
    plt,
    positions,
    same_document,
    torch,
):
    END = "<end>"
    row_words = [
        "Who",
        "goes",
        "there",
        END,
        "The",
        "king",
        END,
        "A",
        "ghost",
        "walks",
        "here",
        END,
    ]
    if layout.value.startswith("padded"):
        row_words = [END, "A", "ghost", "walks", "here"]
        filler = ["·"] * (12 - len(row_words))
        row_words = row_words + filler if layout.value.endswith("right") else filler + row_words
        numbers = np.array([[int(word != "·") for word in row_words]])
    else:
        is_end = np.array([[0 if word == END else 1 for word in row_words]])
        numbers = document_numbers(is_end, separator=0)
    same = None if layout.value == "one long text" else same_document(torch.tensor(numbers), 12)
    sees = attention_mask(12, 12, same=same).reshape(12, 12)
    stands = positions(12, 12, same)[0].tolist()

    chosen = looking.value - 1
    shown_mask, grid = plt.subplots(figsize=(6.0, 5.4), layout="constrained")
    tints = np.where(sees, 1.0, 0.0)
    tints[chosen] = np.where(sees[chosen], 2.0, 0.0)
    grid.imshow(tints, cmap=ListedColormap(["#f4f4f4", "#7fa3cb", "#d1602b"]), vmin=0, vmax=2)
    grid.set_xticks(
        range(12), [f"{word}" for word in row_words], rotation=60, ha="right", fontsize=10
    )
    grid.set_yticks(range(12), row_words, fontsize=10)
    grid.set_xticks(np.arange(-0.5, 12), minor=True)
    grid.set_yticks(np.arange(-0.5, 12), minor=True)
    grid.grid(which="minor", color="white", lw=2)
    grid.tick_params(which="both", length=0)
    grid.spines[:].set_visible(False)
    seen_words = [row_words[n] for n in range(12) if sees[chosen, n]]
    mo.vstack(
        [
            shown_mask,
            mo.md(
                f"`{row_words[chosen]}` (row {looking.value}) stands at position {stands[chosen]} and sees "
                + ", ".join(f"`{word}`" for word in seen_words)
                + ". "
                + (
                    "Padding sees itself, because a softmax over nothing is not a number. Its result is never used."
                    if row_words[chosen] == "·"
                    else ""
                )
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Packed, the picture shows one triangle for each document, along the diagonal. As one long text, it is a
    single triangle, and `A ghost` sees `The king`. GPT-3 was trained in the second way: several texts in
    one window, nothing hidden, with the end-of-text token between them (Brown et al. 2020, appendix B). The
    model learns that what stands before this token does not matter. Llama 3 hides other documents
    (Grattafiori et al. 2024, section 3.2).

    The package has four ways to make batches. The setting `data.batches` chooses:

    | setting | a batch is | for |
    |:--|:--|:--|
    | `random` | windows at random places | training on much text |
    | `sliding` | windows one after another, shuffled | each target once an epoch |
    | `packed` | windows as in `sliding`; a token sees only its own document | many short texts |
    | `padded` | one document a row | texts that must stay whole |
    """)
    return


@app.cell(hide_code=True)
def _(
    cross_entropy,
    document_numbers,
    package_code,
    padded_batch,
    same_document,
):
    package_code(padded_batch, document_numbers, same_document, cross_entropy)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    A token file holds the ids of all texts, with an end-of-text token after each. A window of T tokens gives
    T predictions, and its targets are the same window one token later. In an evaluation, windows may overlap.
    Then each prediction from the second window on has at least some context; targets that came before
    are set to -100. Half the stride costs twice the work, and gives what the model gains from context.
    That may be much or nothing. Padding makes rows equally
    long; the loss ignores it, and where it comes before the text, the mask has to hide it. A packed batch
    lays documents one after another, and no token sees another document than its own.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(8)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(8, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check windows
    nanogpt exercise check masked-loss
    ```

    Draw batches of a text of your own, with the targets and the mask of one row. And evaluate a model
    with two strides:

    ```sh
    nanogpt data show --kind packed
    nanogpt data show my-data --context-length 16
    nanogpt evaluate runs/lesson --stride 64
    nanogpt evaluate runs/lesson --stride 8
    ```

    In the notebook: change `GAP` to 32 in the cell of the repeating text (open its code first). Which stride
    is enough now?

    **Papers.** Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section
    4.1, on windows of one long text. Brown et al. 2020, "Language Models are Few-Shot Learners", appendix B.
    Grattafiori et al. 2024, "The Llama 3 Herd of Models", section 3.2. Hugging Face, "Perplexity of
    fixed-length models", for the two perplexities of GPT-2 Large. Krell et al. 2021, "Efficient Sequence
    Packing without Cross-contamination".
    """)
    return


if __name__ == "__main__":
    app.run()
