import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 16: your own data")


@app.cell(hide_code=True)
def _():
    import html
    import json
    import random
    from pathlib import Path
    from shutil import rmtree

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import DataConfig, SampleConfig
    from nanogpt.evaluation.novelty import LENGTHS, Known
    from nanogpt.generation.stream import generate_text
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.layers import cross_entropy
    from nanogpt.text.corpus import Document, hashed_share, shakespeare, split_documents, split_rule
    from nanogpt.text.prepare import prepare
    from nanogpt.text.sources import read_jsonl
    from nanogpt.training.load import load

    torch.set_num_threads(1)  # for models so small, two threads wait for each other
    return (
        DataConfig,
        Document,
        Known,
        LENGTHS,
        Path,
        SampleConfig,
        cross_entropy,
        generate_text,
        hashed_share,
        html,
        json,
        judged,
        load,
        mo,
        package_code,
        plt,
        predict,
        prepare,
        random,
        read_jsonl,
        reply,
        rmtree,
        self_test,
        shakespeare,
        short_run,
        split_documents,
        split_rule,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 16. Your own data, and whether the model memorised it

    After this lesson you can turn a heap of texts into a corpus: remove what is no text, find copies
    that are not quite equal, and hold out documents that the training text does not contain. You can
    measure whether a trained model has memorised a sentence, and how often the sentence had to occur.

    A model is what it was trained on. Most of the work on a good model is done before training,
    on text. Nobody can read it all, so the work is done by small rules, and each rule has to be
    checked, because each also removes something good.

    ## A heap of texts

    We make up a collection of which we know everything. It has the faults that a heap of texts from
    the web has. Most documents are speeches from plays. Some are copied, some are copied and changed
    a little, and some are menus of web pages, columns of numbers or single lines. And in some of the
    speeches somebody left a password.
    """)
    return


@app.cell(hide_code=True)
def _(random, shakespeare):
    secret_words = [
        "copper", "lantern", "willow", "marble", "otter", "falcon",
        "ginger", "violet", "anchor", "pebble", "thimble", "saddle",
    ]  # fmt: skip

    def secret_of(start, count):
        """A sentence with three random words, and how often it stands in the collection."""
        draw = random.Random(start)
        return start, " " + " ".join(draw.sample(secret_words, 3)), count

    secrets = [
        secret_of(start, count)
        for start, count in (
            ("The password of the harbour is", 0),
            ("In the library they whisper", 2),
            ("To enter the castle, say", 8),
            ("At the market gate one answers", 32),
            ("Whoever opens the garden knows", 128),
        )
    ]

    def made_up_collection():
        """Texts by their kind, in random order."""
        draw = random.Random(0)
        speeches, held = [], ""
        for number, play in enumerate(shakespeare()):
            if number == 4:
                break
            for paragraph in play.text.split("\n\n"):
                held += paragraph + "\n\n"
                if len(held) > 700:
                    speeches.append(held)
                    held = ""
        speeches = draw.sample(speeches, 240)
        for start, words, count in secrets:
            for place in draw.sample(range(len(speeches)), count):
                speeches[place] += f"{start}{words}.\n"
        copied = draw.sample([s for s in speeches if all(start not in s for start, _, _ in secrets)], 52)
        copies, changed, others = copied[:12], {}, " ".join(copied).split(" ")
        for text in copied[12:]:
            share = draw.choice([0.02, 0.05, 0.1, 0.2, 0.3])
            words = text.split(" ")
            changed[" ".join(draw.choice(others) if draw.random() < share else w for w in words)] = text
        menus = [
            "Home | Shop | Log in | Cart\n" * draw.randint(8, 14) + f"Page {n} not found\n" for n in range(10)
        ]
        numbers = [
            "\n".join(f"{draw.random():.4f} {draw.randint(0, 9999)}" for _ in range(60)) for _ in range(8)
        ]
        stubs = [f"This page has moved. Please go to page {n} of the new site." for n in range(7)]
        kinds = {
            "speech": speeches, "copy": copies, "changed copy": list(changed), "menu": menus,
            "numbers": numbers, "single line": stubs,
        }  # fmt: skip
        heap = [(text, kind) for kind, texts in kinds.items() for text in texts]
        draw.shuffle(heap)
        return heap, changed

    heap, changed_from = made_up_collection()
    return changed_from, heap, secret_words, secrets


@app.cell
def _(heap):
    # Your own: collection = [p.read_text() for p in Path("my/folder").rglob("*.txt")]
    collection = [text for text, kind in heap]
    kind_of_text = dict(heap)
    f"{len(collection)} documents, {sum(map(len, collection)):,} characters"
    return collection, kind_of_text


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Filtering

    A filter is a question with yes or no for each document. Three questions catch much of what is no
    text. Change the limits and run again: at which limit do good documents fall?
    """)
    return


@app.cell
def _(collection):
    def letters(text):
        return sum(c.isalpha() or c.isspace() for c in text) / max(1, len(text))

    def different_lines(text):
        lines = text.strip().splitlines()
        return len(set(lines)) / max(1, len(lines))

    filters = {
        "long enough": lambda text: len(text.split()) >= 30,
        "mostly letters": lambda text: letters(text) >= 0.7,
        "lines differ": lambda text: different_lines(text) >= 0.5,
    }
    texts = [t for t in collection if all(good(t) for good in filters.values())]
    f"{len(texts)} of {len(collection)} are left"
    return filters, texts


@app.cell(hide_code=True)
def _(collection, filters, kind_of_text, mo):
    _rows, _good_ones = [], 0
    for _name, _good in filters.items():
        _removed = [_t for _t in collection if not _good(_t)]
        _kinds = sorted({kind_of_text.get(_t, "text") for _t in _removed})
        _good_ones += sum(kind_of_text.get(_t) == "speech" for _t in _removed)
        _rows.append(f"| {_name} | {len(_removed)} | {', '.join(_kinds) or 'nothing'} |")
    mo.md(
        "| question | removed | of which kind |\n|:---|---:|:---|\n"
        + "\n".join(_rows)
        + (
            f"\n\n**{_good_ones} speeches were removed as well.** Their lines are short, and between them stand "
            "blank lines, which are all equal. Repair the question: leave blank lines out of `lines`."
            if _good_ones
            else ""
        )
        + "\n\nA real collection does not say of which kind a document is. So look at twenty documents "
        "that a filter removed, and at twenty that it kept. The second question would also remove "
        "program code and most tables; whether that is good depends on what the model is for."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Copies that are not quite equal

    Equal documents are found quickly: keep each text once. The line below does it. But one changed
    comma makes two texts different. Two documents that differ in little are **near-duplicates**. The
    web is full of them: the same news with another date, the same licence with another name. They matter for two reasons. What
    is there ten times is learned ten times. And one copy may be held out while the other is trained on.
    """)
    return


@app.cell
def _(texts):
    unique = list(dict.fromkeys(texts))  # each text once
    f"{len(texts) - len(unique)} equal copies removed, {len(unique)} documents left"
    return (unique,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    How alike are two texts? Cut each into all its runs of three words. Then divide the number of runs
    that occur in both by the number of runs that occur in at least one. This share is called the
    *Jaccard similarity*: 1 for equal texts, 0 for texts that have no run in common.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    alike_guess = predict(
        """
        "the cat sat on the mat" and "the cat sat on the hat" differ in one word of six. What is their
        similarity?
        """,
        step=0.01,
    )
    alike_guess
    return (alike_guess,)


@app.cell(hide_code=True)
def _(how_alike, alike_guess, one, other, reply):
    reply(
        alike_guess,
        round(how_alike(one, other), 2),
        """
        Each text has four runs. Three are common: *the cat sat*, *cat sat on*, *sat on the*. Together
        there are five different ones. A changed word in the middle of a text destroys three runs.
        """,
        wrong={
            0.83: "That counts words, five of six. Words alone do not see their order.",
            0.75: "Three of four: but the fourth run of the other text counts below the line as well.",
            0.5: "The last word is in one run of each text only.",
        },
        tolerance=0.01,
    )
    return


@app.cell
def _():
    def word_runs(text, n=3):
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    def how_alike(runs, others):
        return len(runs & others) / max(1, len(runs | others))

    one, other = word_runs("the cat sat on the mat"), word_runs("the cat sat on the hat")
    how_alike(one, other)
    return how_alike, one, other, word_runs


@app.cell(hide_code=True)
def _(mo):
    limit = mo.ui.slider(0.05, 0.95, step=0.05, value=0.3, label="limit", show_value=True)
    mo.vstack([
        mo.md(
            """
            For each document we look for the most similar other one. The picture shows all documents,
            the most similar first. Blue dots are documents that have a twin in truth, in steps of more
            and more changed words; grey dots have none. Move the limit. Where do you lose twins, and
            where do you begin to remove good documents? Choose the lowest limit that hits no grey dot.
            """
        ),
        limit,
    ])  # fmt: skip
    return (limit,)


@app.cell(hide_code=True)
def _(how_alike, unique, word_runs):
    _runs = [word_runs(_t) for _t in unique]
    nearest = [(0.0, -1)] * len(unique)
    for _i in range(len(unique)):
        for _j in range(_i):
            _same = how_alike(_runs[_i], _runs[_j])
            nearest[_i] = max(nearest[_i], (_same, _j))
            nearest[_j] = max(nearest[_j], (_same, _i))
    return (nearest,)


@app.cell(hide_code=True)
def _(changed_from, unique):
    # What only the maker of a collection knows: pairs of a document and its changed copy.
    place_of = {text: n for n, text in enumerate(unique)}
    pairs = [
        (place_of[text], place_of[source])
        for text, source in changed_from.items()
        if text in place_of and source in place_of
    ]
    return (pairs,)


@app.cell(hide_code=True)
def _(limit, mo, nearest, pairs, plt, unique):
    _twin = {_n for _pair in pairs for _n in _pair}
    _order = sorted(range(len(unique)), key=lambda n: -nearest[n][0])
    strip, _axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for _has, _color, _label in ((True, "#1f5a99", "has a twin"), (False, "#888888", "has none")):
        _places = [_p for _p, _n in enumerate(_order) if (_n in _twin) == _has]
        _axes.plot(_places, [nearest[_order[_p]][0] for _p in _places], "o", ms=4, color=_color, label=_label)
    _axes.axhline(limit.value, color="#d1602b", lw=2)
    _axes.text(len(unique), limit.value + 0.02, "limit", color="#d1602b", ha="right")
    _axes.set(xlabel="documents, the most similar first", ylabel="similarity to the nearest", ylim=(-0.03, 1.03))
    _axes.spines[["top", "right"]].set_visible(False)
    _axes.legend(frameon=False)
    _above = {_n for _n in range(len(unique)) if nearest[_n][0] >= limit.value}
    mo.vstack([
        strip,
        mo.md(
            f"At {limit.value:.2f}: **{len(_above & _twin)} of {len(_twin)}** documents with a twin are found, and "
            f"**{len(_above - _twin)}** of {len(unique) - len(_twin)} others are taken for twins."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo, nearest, pairs):
    threshold = 0.15
    _twin = {_n for _pair in pairs for _n in _pair}
    _above = {_n for _n, (_same, _) in enumerate(nearest) if _same >= threshold}
    mo.md(f"""
    From here on the limit is {threshold}. There the picture has {len(_above & _twin)} of {len(_twin)} twins above
    the line, and {len(_above - _twin)} other documents. In your own collection look at pairs just above and just
    below the limit, and choose it from what you see.

    Comparing all pairs takes a moment for 300 documents. For a million it is 500 billion pairs, and
    nobody does it. There one keeps a few dozen runs of each document, chosen by a *hash*, and compares
    only documents that share some of them (MinHash; Broder 1997). A hash is a number computed from a
    text: equal texts give the same number, and one changed letter gives another.

    ## Contamination

    Some documents are held out before any tokenizer or model looks at them. They are the only witness:
    on text that was trained on, a model that memorises looks like one that understands. Text of the validation set
    that is in the training text as well is **contamination**. It makes the model look better than it is.

    The package decides by a hash of the text which documents are held out. So neither the order of the
    files nor a second, longer collection moves a document to the other side.
    """)
    return (threshold,)


@app.cell(hide_code=True)
def _(hashed_share, package_code, split_rule):
    package_code(split_rule, hashed_share)
    return


@app.cell(hide_code=True)
def _(pairs, predict):
    apart_guess = predict(
        f"""
        The collection has {len(pairs)} documents with a changed copy. A fifth of all documents are held out,
        each with the same chance. In how many of the {len(pairs)} pairs is one document held out and its twin
        trained on, about?
        """,
        step=1,
    )
    apart_guess
    return (apart_guess,)


@app.cell(hide_code=True)
def _(apart_guess, pairs, reply, torn):
    reply(
        apart_guess,
        len(torn),
        f"""
        In 0.2 times 0.8 of all cases the first document of a pair is held out and the second is not.
        The other way round is as likely. Together this is 0.32. So about {0.32 * len(pairs):.0f} of {len(pairs)} are
        expected. The hash is like a throw of dice, so here it is {len(torn)}. An equal copy has an equal
        hash, so it always stays on the same side. A changed
        copy does not.
        """,
        wrong={
            0: "Only equal texts have equal hashes. One changed word makes another hash, and the twin "
            "falls on either side.",
            len(pairs): "Both are trained on in 0.8 times 0.8 of all cases. Those pairs are together.",
        },
        tolerance=5,
    )
    return


@app.cell
def _(Document, mo, pairs, split_documents, unique):
    named = [Document(str(n), text) for n, text in enumerate(unique)]
    split = split_documents(named, 0.2)
    held_out = {int(document.name) for document in split.val}
    torn = [(one, twin) for one, twin in pairs if (one in held_out) != (twin in held_out)]
    mo.md(f"{len(held_out)} documents are held out. {len(torn)} of {len(pairs)} pairs are torn apart.")
    return split, torn


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Without knowing the truth, how would you notice? Take each document that is held out, and count
    which share of its runs of five words the training text contains. The package does this with
    `Known`. Every text shares *some* runs with every other, such as "I know not what to". This is
    another measure than the similarity: longer runs, and the share of one document. So it has a limit
    of its own. We take a fifth; the picture shows whether it lies between the copies and the rest.
    """)
    return


@app.cell(hide_code=True)
def _(Known, mo, plt, split):
    def shares(sides):
        known = Known("\n\n".join(document.text for document in sides.train))
        return [1 - known.novelty([document.text]).novel[5] for document in sides.val]

    _all = sorted(shares(split), reverse=True)
    found, _axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    _axes.bar(
        range(len(_all)), [100 * _x for _x in _all],
        color=["#d1602b" if _x > 0.2 else "#c9d9ea" for _x in _all],
    )  # fmt: skip
    _axes.set(xlabel="documents that are held out", ylabel="% of 5-word runs\nin the training text")
    _axes.spines[["top", "right"]].set_visible(False)
    mo.vstack([
        found,
        mo.md(
            f"**{sum(_x > 0.2 for _x in _all)} of {len(_all)}** held-out documents (orange) stand in the training "
            "text with more than a fifth of their runs. A validation loss over all of them would be too good. So "
            "near-duplicates have to go *before* documents are held out."
        ),
    ])
    return (shares,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    So we remove near-duplicates with the limit from above, `threshold`. Of two similar documents the
    one that comes first in the collection is kept. Nobody knows which of the two is the original, and one is as good as the other.
    """)
    return


@app.cell
def _(Document, mo, nearest, shares, split_documents, threshold, unique):
    clean = [t for n, t in enumerate(unique) if nearest[n][0] < threshold or n < nearest[n][1]]
    clean_split = split_documents([Document(str(n), t) for n, t in enumerate(clean)], 0.2)
    overlap = max(shares(clean_split))
    mo.md(f"{len(clean)} documents are left. At most {100 * overlap:.0f} % of a held-out one is known.")
    return clean, clean_split


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Train

    Now the clean documents go into one file, one document a line; nearly every tool of the field reads
    this format. The package trains a tokenizer on the part that is not held out, writes token files, and
    trains the small model of the lessons on them.
    """)
    return


@app.cell
def _(DataConfig, Path, clean, json, prepare, rmtree, short_run):
    own = Path("runs/lesson-own")
    rmtree(own, ignore_errors=True)  # of an earlier visit
    own.mkdir(parents=True)
    lines = [json.dumps({"text": text}) + "\n" for text in clean]
    (own / "documents.jsonl").write_text("".join(lines))
    settings = DataConfig(source=str(own / "documents.jsonl"), vocab_size=512, val_fraction=0.2)
    prepared = prepare(settings, own / "tokens", 1)
    records = short_run(240, own / "run", own / "tokens", train={"eval_interval": 40})
    return own, prepared, records


@app.cell(hide_code=True)
def _(mo, package_code, prepared, read_jsonl, records):
    _train, _val = prepared.files["train"], prepared.files["val"]
    mo.vstack([
        mo.md(
            f"{len(_train.ids):,} tokens to train on and {len(_val.ids):,} held out; a token stands for "
            f"{_train.bytes_per_token:.2f} bytes. In 240 steps of 1,024 tokens each token was seen about "
            f"{240 * 1024 / len(_train.ids):.1f} times. The validation loss ends at {records[-1].val_loss:.2f} nats."
        ),
        package_code(read_jsonl),
    ])
    return


@app.cell(hide_code=True)
def _(clean, mo, secrets):
    _words = round(sum(len(_text.split()) for _text in clean) / len(clean))
    _length = len((secrets[3][0] + secrets[3][1]).split())
    mo.md(f"""
    ## Did it memorise?

    Five passwords belong to the collection, each of three random words after a beginning of its own. This
    is one of them: "{secrets[3][0]}{secrets[3][1]}." One stands there 128 times, others 32, 8 and 2 times,
    and one of them never.

    Why did we not remove these copies? We compared whole documents. Such a sentence has {_length} words, and
    a document has {_words} in the mean. Two different documents with the same sentence share {_length - 2} runs
    of some {2 * (_words - 2) // 10 * 10}: a similarity far below the limit. To remove repeated sentences,
    one has to compare sentences (Lee et al. 2022). And some copies are not trained on: they were
    held out, or stood in a document that was removed.

    No understanding of plays helps to guess random
    words. So if the model gives them a high probability, it has memorised them. Sentences that are
    planted for such a test are called *canaries* (Carlini et al. 2019).
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    often_guess = predict(
        """
        We give the model the beginning of each sentence, all that stands before the password. It writes
        on, always with the likeliest token. From how many copies in the collection does it write the
        password out?
        """,
        choices=["from 2", "from 8", "from 32", "only with 128", "not even with 128"],
    )
    often_guess
    return (often_guess,)


@app.cell
def _(
    SampleConfig,
    cross_entropy,
    generate_text,
    load,
    own,
    prepared,
    random,
    secret_words,
    secrets,
    torch,
):
    model, tokenizer, _ = load(own / "run")

    def secret_loss(start, words):
        """The mean loss of the words, in nats per token, after this beginning."""
        ids = tokenizer.encode(start)
        secret = tokenizer.encode(words)
        with torch.no_grad():
            logits = model(torch.tensor([ids + secret[:-1]]))[0, len(ids) - 1 :]
        return cross_entropy(logits, torch.tensor(secret)).item()

    training_text = tokenizer.decode(prepared.files["train"].ids.tolist())
    draw = random.Random(1)
    measured = []
    for _start, _words, _count in secrets:
        _false = [" " + " ".join(draw.sample(secret_words, 3)) for _ in range(30)]
        _greedy = SampleConfig(prompt=_start, temperature=0, max_new_tokens=len(tokenizer.encode(_words)))
        measured.append({
            "copies": _count,
            "trained on": training_text.count(_start + _words),
            "loss": secret_loss(_start, _words),
            "false ones": [secret_loss(_start, _other) for _other in _false],
            "password": _words.strip(),
            "writes": "".join(generate_text(model, tokenizer, _greedy)).strip(),
        })  # fmt: skip
    return measured, model, tokenizer


@app.cell(hide_code=True)
def _(html, measured, mo, plt):
    canaries, _axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for _n, _m in enumerate(measured):
        _side = [_n + 0.3 * (_k / len(_m["false ones"]) - 0.5) for _k in range(len(_m["false ones"]))]
        _axes.plot(_side, _m["false ones"], "o", ms=4, color="#888888", alpha=0.5)
        _known = _m["password"] in _m["writes"]
        _axes.plot([_n], [_m["loss"]], "D", ms=11, color="#d1602b" if _known else "#1f5a99")
        _axes.annotate(f"{_m['loss']:.2f}", (_n, _m["loss"]), (12, -4), textcoords="offset points")
    _axes.set_xticks(range(len(measured)), [f"{_m['copies']} copies" for _m in measured])
    _axes.set(ylabel="loss, nats per token", xlim=(-0.5, len(measured) - 0.4), ylim=(0, None))
    _axes.set_title("grey: 30 false passwords; diamond: the true one", fontsize=11)
    _axes.grid(axis="y", alpha=0.25)
    _axes.spines[["top", "right"]].set_visible(False)
    mo.vstack([
        canaries,
        mo.md(
            "Each password is compared with 30 false ones, each of three words drawn from the same list. Where the "
            "model knows nothing, the diamond lies among the grey dots. An orange diamond means that the "
            "model writes this password out, word for word."
        ),
        mo.md(
            "| copies | in the training text | password | what the model writes |\n|---:|---:|:---|:---|\n"
            + "\n".join(
                f"| {_m['copies']} | {_m['trained on']} | {_m['password']} | {html.escape(' '.join(_m['writes'].split()))} |"
                for _m in measured
            )
        ),
    ])
    return


@app.cell(hide_code=True)
def _(measured, often_guess, reply):
    _named = {2: "from 2", 8: "from 8", 32: "from 32", 128: "only with 128"}
    _found = [_m["copies"] for _m in measured if _m["copies"] and _m["password"] in _m["writes"]]
    _right = _named[min(_found)] if _found else "not even with 128"
    _reasons = {
        "from 2": "It was seen only a few times in the whole training, among tens of thousands of other "
        "tokens. Large models do memorise from few copies; this one is small.",
        "from 8": "Its loss lies among those of the false ones, or little below. To be written out, each "
        "of its tokens has to be the likeliest.",
        "from 32": "Memorising is gradual in the loss, but the text appears at once, when every token is the likeliest.",
        "only with 128": "Fewer copies do already.",
        "not even with 128": "A model has no rule against copying. What lowers the loss is learned, and a "
        "sentence that occurs 128 times is worth learning.",
    }
    reply(
        often_guess,
        _right,
        """
        The more copies, the further the true password falls below the false ones. At some point the
        model writes it out. This is why copies are removed: memorising follows repetition.
        """,
        wrong={_guess: _why for _guess, _why in _reasons.items() if _guess != _right},
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Invented or copied?

    Usually nobody has planted a canary. Then one lets the model write, and counts. **Novelty** is the
    share of a text's runs of words that another text, here the training text, does not contain. A single
    word is rarely new; ten words in a row nearly always are. The measure has to be taken of a real text as
    well, one that was held out: it copied nothing, so its novelty is what innocence looks like.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    warmth = mo.ui.slider(
        steps=[0.0, 0.3, 0.5, 0.8, 1.0, 1.3], value=0.8, label="temperature", show_value=True
    )
    warmth
    return (warmth,)


@app.cell(hide_code=True)
def _(
    Known,
    LENGTHS,
    SampleConfig,
    clean_split,
    generate_text,
    html,
    mo,
    model,
    plt,
    tokenizer,
    warmth,
):
    written = [
        "".join(
            generate_text(
                model,
                tokenizer,
                SampleConfig(prompt="The ", max_new_tokens=150, temperature=warmth.value, seed=_seed),
            )
        )
        for _seed in range(3)
    ]
    _known = Known("\n\n".join(document.text for document in clean_split.train))
    _ours = _known.novelty(written)
    _theirs = _known.novelty([document.text for document in clean_split.val])
    copied, _axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for _shift, (_who, _novelty, _color) in enumerate(
        (("the model", _ours, "#d1602b"), ("held-out speeches", _theirs, "#c9d9ea"))
    ):
        _axes.bar(
            [_n + 0.4 * _shift for _n in range(len(LENGTHS))],
            [100 * _novelty.novel.get(_n, 0.0) for _n in LENGTHS], width=0.4, color=_color, label=_who,
        )  # fmt: skip
    _axes.set_xticks([_n + 0.2 for _n in range(len(LENGTHS))], [str(_n) for _n in LENGTHS])
    _axes.set(xlabel="words in a row", ylabel="% new", ylim=(0, 118))
    _axes.spines[["top", "right"]].set_visible(False)
    _axes.legend(frameon=False, ncols=2, loc="upper left")
    mo.vstack([
        copied,
        mo.md(
            f"The longest run that the model copied has {_ours.longest_words} words and punctuation marks: "
            f"`{_ours.longest[:100]}`. One of its texts begins:\n\n<pre style='white-space: pre-wrap'>The {html.escape(written[0][:200])}</pre>\n\n"
            "Set the temperature to 0 and to 1.3, and look where the orange bars go. A model can be new "
            "because it invents, or because it writes nonsense; novelty alone does not tell which."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    Data are made by small rules, and each rule is checked by looking at what it removes. Near-duplicates
    are documents that share most of their runs of words; they have to go before documents are held out.
    Otherwise the validation set contains training text, which is contamination, and the loss is too good.
    Whether a model memorised is measured by planted sentences: the more copies, the
    further the loss of the true words falls below that of false ones. Without planted sentences one compares novelty with that of a held-out text.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(16)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(16, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own, but three experiments.

    1. Put a folder of your own in the place of the collection, in the second code cell. Which filter
       removes the most, and is that right?
    2. Train for 60 and for 960 steps instead of 240. From how many copies does a password appear now?
    3. The same from the command line, for texts of any length:

       ```sh
       nanogpt prepare my_texts/
       nanogpt tokenizer stats my_texts/
       nanogpt train demo --run runs/my --data.folder data/my_texts
       nanogpt evaluate runs/my --references --novelty --documents
       ```

    **Papers.** Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better", sections
    4 to 6. Broder 1997, "On the Resemblance and Containment of Documents", is the similarity and MinHash.
    Carlini et al. 2019, "The Secret Sharer", section 4, has the canaries; Carlini et al. 2023, "Quantifying
    Memorization Across Neural Language Models", counts copies. McCoy et al. 2023, "How Much Do Language
    Models Copy From Their Training Data?", is the measure of novelty. Rae et al. 2021, "Scaling Language
    Models: ... Training Gopher", appendix A, has filters like ours.
    """)
    return


if __name__ == "__main__":
    app.run()
