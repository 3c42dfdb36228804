import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 3: tokens")


@app.cell(hide_code=True)
def _():
    import html
    import re
    from collections import Counter
    from itertools import pairwise

    import marimo as mo
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap

    from nanogpt.cli.text import visible
    from nanogpt.config import DataConfig
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.text.bpe import encode_word, merge, merge_steps, train_naive
    from nanogpt.text.formats import gpt2_tokenizer
    from nanogpt.text.sources import whole_texts
    from nanogpt.text.splitter import Splitter
    from nanogpt.text.tokenizer import Tokenizer

    return (
        Counter,
        DataConfig,
        ListedColormap,
        Splitter,
        Tokenizer,
        encode_word,
        gpt2_tokenizer,
        html,
        judged,
        merge,
        merge_steps,
        mo,
        package_code,
        pairwise,
        plt,
        predict,
        re,
        reply,
        self_test,
        train_naive,
        visible,
        whole_texts,
    )


@app.cell(hide_code=True)
def _(html, visible):
    def in_boxes(pieces, marked=()):
        """Pieces of text as boxes in one row; marked ones are orange."""
        style = "display:inline-block;margin:2px 1px;padding:1px 5px;border-radius:4px;color:#000"
        return "".join(
            f'<span style="{style};background:{"#f3c3a9" if n in marked else "#c9d9ea"}">'
            f"{html.escape(visible(piece))}</span>"
            for n, piece in enumerate(pieces)
        )

    return (in_boxes,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 3. Tokens: why subwords, and how a vocabulary is built

    After this lesson you can train a small vocabulary by hand, cut a word that was never seen, and say why merges have an order. You can also explain why a
    language model stumbles over spelling, over numbers, and over a space at the end of a prompt.

    Lesson 1 took it for granted that a text becomes a row of ids. This lesson shows how.
    """)
    return


@app.cell(hide_code=True)
def _(gpt2_tokenizer, in_boxes, mo):
    gpt2 = gpt2_tokenizer()
    _text = "The unbelievable king of Nonesuch laughed."
    _ways = {
        "characters": [character.encode() for character in _text],
        "words": [word.encode() for word in _text.split()],
        "GPT-2's tokens": [gpt2.decode_bytes([i]) for i in gpt2.encode(_text)],
    }
    mo.vstack([
        mo.md(
            """
            ## What should get a number?

            Here is one sentence, cut in three ways. Each box would get one id. A dot stands for a
            space.
            """
        ),
        *(
            mo.md(f"**{name}**: {len(pieces)} pieces<br>{in_boxes(pieces)}")
            for name, pieces in _ways.items()
        ),
        mo.md(
            """
            **Characters** make long rows. A model has a limited context length, and it computes
            something for each position. With characters, it spends a whole position on one letter,
            and one letter says almost nothing.

            **Words** make short rows. But how many words are there? Let us count in 30 plays by
            Shakespeare.
            """
        ),
    ])  # fmt: skip
    return (gpt2,)


@app.cell(hide_code=True)
def _(DataConfig, mo, whole_texts):
    with mo.status.spinner("reading the plays"):
        plays = list(whole_texts(DataConfig(max_documents=30)))
    return (plays,)


@app.cell(hide_code=True)
def _(predict):
    new_guess = predict(
        """
        You read 29 plays and write down every word: that is your vocabulary. Then you open
        the 30th play, by the same author. How many percent of its different words are not in your
        vocabulary?
        """,
        step=1,
    )
    new_guess
    return (new_guess,)


@app.cell
def _(mo, plays, re):
    words_of_plays = [set(re.findall(r"[a-z']+", play.lower())) for play in plays]
    known_words = set().union(*words_of_plays[:-1])  # all words of the first 29 plays
    new_words = words_of_plays[-1] - known_words  # words that only the last play has
    new_percent = 100 * len(new_words) / len(words_of_plays[-1])
    mo.md("New: " + ", ".join(sorted(new_words)[100:108]) + " ...")
    return known_words, new_percent, new_words


@app.cell(hide_code=True)
def _(known_words, new_guess, new_percent, new_words, reply):
    reply(
        new_guess,
        round(new_percent),
        f"You know {len(known_words):,} words by then, and {len(new_words):,} words of the last "
        "play are still new: names, plurals, rare forms. Each of them would become the same id, "
        '"unknown", and its text would be lost. Reading more helps slowly, because new '
        "words never stop coming.",
        wrong={
            2: "That would be so for the words *in running text*. There the same few words, such as "
            "`the` or `and`, stand again and again. "
            "Among the different words, most are rare, and rare words are often new.",
            50: "Half would mean that the plays share only the commonest words. They share more.",
        },
        tolerance=3,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Word ids have a second fault: *king* and *kings* share nothing.

    So we want pieces in between. A common word should be one piece, a rare word a few pieces. In the worst case we
    want single letters, so that nothing is ever unknown. Such pieces are
    called subwords. Two words share something if a piece of them is the same: *lower* = *low* + *er*. A
    frequent word is not cut, so for frequent words the second fault stays, as you will see.

    Two questions remain: what is the smallest piece, and who decides
    which larger pieces there are?

    ## The smallest piece is a byte

    A computer stores text as bytes, numbers from 0 to 255. The usual code is UTF-8. It writes an
    English letter as one byte and other characters as two, three or four:
    """)
    return


@app.cell
def _(mo):
    mo.plain_text("\n".join(f"{c}  {list(c.encode())}" for c in "aé猫🙂"))
    return


@app.cell(hide_code=True)
def _(predict):
    bytes_guess = predict(
        "A tokenizer has only 256 tokens, one for each byte. How many tokens are the seven "
        "characters `naïve 🙂`?",
        step=1,
    )
    bytes_guess
    return (bytes_guess,)


@app.cell(hide_code=True)
def _(bytes_guess, reply):
    _right = len("naïve 🙂".encode())
    reply(
        bytes_guess,
        _right,
        "Four English letters and a space are one byte each, ï is two, 🙂 is four.",
        wrong={
            7: "That is the number of characters. A byte has only 256 values, and there are far "
            "more characters than that, so most characters need several bytes.",
            28: "UTF-8 does not spend four bytes on each character. English letters take one.",
            8: "ï takes two bytes, as you counted. 🙂 is further away in the list of all "
            "characters, and takes four.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Unicode, the list of all characters, has about 155,000. A vocabulary that starts with
    characters needs a place for each, or it meets unknown ones. A vocabulary that starts with the
    256 bytes can write every text in every language, every emoji, even a damaged file. **Nothing is ever unknown.**
    The price: text in scripts other than the Latin one starts with more pieces per character.

    ## Larger pieces: byte-pair encoding

    The larger pieces are learned from a text by one rule. **Byte-pair encoding**, **BPE** for short, says: *find the
    pair of neighbours that occurs most often, make it a new token, and repeat*.

    Let us do it by hand. A tiny text has only four different words: *low* 5 times, *lower* twice,
    *newest* 6 times, *widest* 3 times (the example of Sennrich et al. 2016). A pair counts as often as
    its words occur: `l`+`o` is in *low* and in *lower*, so it occurs 5 + 2 = 7 times.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    pair_guess = predict(
        "How often does the most frequent pair of neighbours occur in this text?", step=1
    )
    pair_guess
    return (pair_guess,)


@app.cell(hide_code=True)
def _(Counter, frequencies, pair_guess, pairwise, reply):
    _counts = Counter()
    for _word, _times in frequencies.items():
        for _pair in pairwise(_word.decode()):
            _counts["".join(_pair)] += _times
    _most = max(_counts.values())
    _names = " and ".join(f"`{p[0]}`+`{p[1]}`" for p, n in _counts.items() if n == _most)
    reply(
        pair_guess,
        _most,
        f"{_names} are in *newest* and in *widest*. Where two pairs are equally frequent, a rule must decide. "
        "This package takes the one that comes later in the alphabet.",
        wrong={
            2: "That counts each word once. The text contains *newest* six times, and each time "
            "counts.",
            6: "Those are the pairs of *newest* alone. Two of its pairs are in *widest* as well.",
            7: "That is `l`+`o`, from *low* and *lower*. Look at the ends of *newest* and *widest*.",
            8: "That is `w`+`e`, from *lower* and *newest*. Another pair is more frequent.",
        },
    )
    return


@app.cell
def _(mo, train_naive):
    frequencies = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}
    learned = train_naive(frequencies, 10)  # change the words or their numbers, and run again
    mo.plain_text("\n".join(map(str, learned)))
    return frequencies, learned


@app.cell(hide_code=True)
def _(learned, mo):
    merges_wanted = mo.ui.slider(0, len(learned), value=1, label="merges", show_value=True)
    mo.vstack([
        mo.md(
            """
            That is all that training gives: a list of pairs, in the order in which they were
            found. Each entry is a rule, called a **merge**: these two tokens become that one. Ids 0 to 255 are
            the bytes, so the first merge makes token 256, the second token 257, and so on. `(115,
            116)` is `s`+`t`.

            You stop after as many merges as you want. The vocabulary is then the 256 bytes, one token for
            each merge, and any special tokens (the end of this lesson explains them). For GPT-2 that is
            256 + 50,000 + 1 = 50,257.

            Move the slider and watch the words close up. Orange is the
            newest token.
            """
        ),
        merges_wanted,
    ])  # fmt: skip
    return (merges_wanted,)


@app.cell(hide_code=True)
def _(
    Counter,
    frequencies,
    in_boxes,
    learned,
    merge,
    merges_wanted,
    mo,
    pairwise,
):
    _spelled = [bytes([b]) for b in range(256)]
    _rows = {word: list(word) for word in frequencies}
    for _n, _pair in enumerate(learned[: merges_wanted.value]):
        _spelled.append(_spelled[_pair[0]] + _spelled[_pair[1]])
        _rows = {word: merge(row, _pair, 256 + _n) for word, row in _rows.items()}
    _counts = Counter()
    for _word, _row in _rows.items():
        for _pair in pairwise(_row):
            _counts[_pair] += frequencies[_word]
    _newest = len(_spelled) - 1 if merges_wanted.value else -1
    _lines = [
        f"| {frequencies[word]} | "
        + in_boxes([_spelled[i] for i in row], [n for n, i in enumerate(row) if i == _newest])
        + " |"
        for word, row in _rows.items()
    ]
    _best = sorted(
        _counts, key=lambda p: (_counts[p], _spelled[p[0]], _spelled[p[1]]), reverse=True
    )[:3]
    _next = ", ".join(
        f"`{_spelled[a].decode()}`+`{_spelled[b].decode()}` {_counts[a, b]} times" for a, b in _best
    )
    mo.md(
        "| times | tokens |\n|--:|:--|\n"
        + "\n".join(_lines)
        + f"\n\nMost frequent now: {_next or 'no pair is left'}."
    )
    return


@app.cell(hide_code=True)
def _(merge, mo, package_code, train_naive):
    mo.vstack([
        mo.md(
            """
            In a long text a merge must replace every occurrence of its pair, from left to right.
            In `aaa` the pair `a`+`a` occurs at two places that overlap; only the first is replaced,
            and the result is `aa`+`a`. The package's two functions follow, folded. You will
            write both yourself, so try before you look.
            """
        ),
        package_code(merge, train_naive),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Encoding: merges in order of rank

    Training is done once. From then on, the list of merges is applied to new texts: that is
    encoding. The place of a merge in the list is its **rank**. The rule: look at all pairs of neighbours
    in the word, apply the merge with the lowest rank among them, and look again, until no merge fits.

    Suppose that these three were learned,
    in this order:

    | rank | merge | new id |
    |---|---|---|
    | 1 | `n` + `d` | 256 |
    | 2 | `a` + `nd` | 257 |
    | 3 | `h` + `a` | 258 |
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    hand_guess = predict(
        "How is the word *hand* cut?", choices=["ha + nd", "h + and", "hand", "ha + n + d"]
    )
    hand_guess
    return (hand_guess,)


@app.cell(hide_code=True)
def _(hand_guess, hand_steps, reply):
    _names = {256: "nd", 257: "and", 258: "ha"}
    reply(
        hand_guess,
        " + ".join(_names.get(i) or chr(i) for i in hand_steps[-1]),
        "The lowest rank that fits comes first: `nd`. Then rank 2 fits, `a`+`nd`. Now there is no "
        "`a` left for rank 3. The lists of ids below are the steps.",
        wrong={
            "ha + nd": "That works from left to right: `h`+`a` stands first in the word. But its rank "
            "is 3. At the start `n`+`d` fits as well, with rank 1. After it `a`+`nd` fits, with rank 2.",
            "hand": "No merge joins `h` and `and`. Encoding never invents a merge.",
            "ha + n + d": "`n`+`d` has the lowest rank of all, so it is applied in any case.",
        },
    )
    return


@app.cell
def _(merge_steps, mo):
    hand_ranks = {(ord("n"), ord("d")): 256, (ord("a"), 256): 257, (ord("h"), ord("a")): 258}
    hand_steps = list(merge_steps(b"hand", hand_ranks))
    mo.plain_text("\n".join(map(str, hand_steps)))
    return (hand_steps,)


@app.cell(hide_code=True)
def _(predict, train_naive):
    # not `learned`, which the reader may have changed
    ten_merges = train_naive({b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}, 10)
    spelled = [bytes([b]) for b in range(256)]
    for _a, _b in ten_merges:
        spelled.append(spelled[_a] + spelled[_b])
    _list = ", ".join(f"`{spelled[a].decode()}`+`{spelled[b].decode()}`" for a, b in ten_merges)
    lowest_guess = predict(
        f"Back to the four words. Their ten merges are, in order of rank: {_list}. The word *lowest* "
        "is not among the four. How many tokens does it become?",
        step=1,
    )
    lowest_guess
    return lowest_guess, spelled, ten_merges


@app.cell(hide_code=True)
def _(encode_word, in_boxes, lowest_guess, mo, reply, spelled, ten_merges):
    _pieces = [
        spelled[i]
        for i in encode_word(b"lowest", {pair: 256 + n for n, pair in enumerate(ten_merges)})
    ]
    mo.vstack([
        reply(
            lowest_guess,
            len(_pieces),
            "A word that was never seen is made of parts that were, and both parts mean something.",
            wrong={
                1: "No merge joins `low` and `est`, because no word of the text had them side by side.",
                6: "An unknown word does not fall back to bytes. Each merge that fits is applied.",
                3: "Is it `l o west`? When `est` is there, `w` can join either neighbour. `o`+`w` "
                "has a lower rank than `w`+`est`, so it comes first.",
            },
        ),
        mo.accordion({"How it is cut": mo.md(in_boxes(_pieces))}),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(Tokenizer, mo, plays):
    with mo.status.spinner("learning 4,096 tokens from the plays"):
        full = Tokenizer.train(plays, 4096)
    return (full,)


@app.cell
def _(Counter, full, pairwise, plays):
    def from_the_left(ids):
        """What encoding would be without ranks: always merge the first pair that has a merge."""
        for n, pair in enumerate(pairwise(ids)):
            if pair in full.ranks:
                return from_the_left([*ids[:n], full.ranks[pair], *ids[n + 2 :]])
        return ids

    running = Counter(
        full.split(plays[0])
    )  # the words of the first play, and how often each occurs
    changed = [w for w in running if from_the_left(list(w.encode())) != full.encode_word(w)]
    changed_percent = 100 * sum(running[w] for w in changed) / sum(running.values())
    return changed, changed_percent, from_the_left, running


@app.cell(hide_code=True)
def _(
    changed,
    changed_percent,
    encode_word,
    from_the_left,
    full,
    in_boxes,
    mo,
    package_code,
    running,
):
    _rows = []
    for _word in sorted(changed, key=running.get, reverse=True)[:3]:
        _ranked, _left = full.encode_word(_word), from_the_left(list(_word.encode()))
        _rows.append(
            f"| {in_boxes([full.vocabulary[i] for i in _ranked])} "
            f"| {in_boxes([full.vocabulary[i] for i in _left])} |"
        )
    mo.vstack([
        mo.md(
            f"""
            Does the order matter in practice? The cell above learned 4,096 tokens from the plays. Then it
            cut the first play in another order: from the left, without ranks. **{changed_percent:.0f}% of
            the words** in the text come out differently, the commonest words first of all:

            | by rank | from the left |
            |:--|:--|
            """
            + "\n            ".join(_rows)
            + """

            There are two reasons for the order of rank.

            1. **Late merges need early ones.** `a`+`nd` can only be applied after `nd` exists. If an
               early merge is skipped, everything that was built on it never appears.
            2. **Training cut its own text in this order.** The model will learn its weights on texts
               that were cut in the same way. If you cut a new text in another way, the model meets
               rows of tokens that it has never seen.
            """
        ),
        package_code(encode_word),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Before all that, the text is split

    There is one step before BPE. A **splitter**, also called a **pre-tokenizer**, cuts the text
    into words, numbers and punctuation. Merges happen inside these pieces and never across their
    borders. Here is GPT-2's. A space belongs to the word after it.
    """)
    return


@app.cell
def _(Splitter, in_boxes, mo):
    words_first = Splitter("gpt2")("It's 2 o'clock. The king's dogs, 1234567!")
    mo.md(in_boxes(word.encode() for word in words_first))
    return


@app.cell(hide_code=True)
def _(Tokenizer, in_boxes, mo, plays, re):
    def reaches_over(token):
        """Whether a token has letters together with a comma, a full stop or a space after them."""
        return re.search(rb"[A-Za-z'][^A-Za-z']", token)

    with mo.status.spinner("learning with and without a splitter"):
        _part = plays[1][:100_000]
        _whole = Tokenizer.train([_part], 768, pattern=r"[^\n]+|\n")  # each line is one "word"
        _split = Tokenizer.train([_part], 768)
    _over = [t for t in _whole.vocabulary.values() if len(t) > 1 and reaches_over(t)]
    _over = [t for t in _over if not t.startswith(b"<|")]
    _none = [t for t in _split.vocabulary.values() if reaches_over(t) and not t.startswith(b"<|")]
    _long = sorted(_over, key=len)[-12:]
    mo.md(
        f"""
        **Why split?** Here is what happens without it. From one and the same part of a play, 511 merges
        were learned with GPT-2's splitter, and 511 with whole lines as "words". Without the splitter,
        **{len(_over)} of the 511** new tokens reach over the border of a word; with it,
        {len(_none)} do. The longest of them:

        {in_boxes(_long)}

        Such tokens waste places in the vocabulary: *dog*, *dog.*, *dog,* and *dog!* would be four tokens
        with nothing in common, and the model would have to learn each of them separately. With the splitter, all
        four share one token for *dog*.

        There is a second reason: speed. A text has far fewer different words than words. Training counts
        each different word once, and encoding looks up words that it has cut before.
        """
    )
    return


@app.cell(hide_code=True)
def _(mo):
    size = mo.ui.slider(
        steps=[256, 320, 512, 768, 1024, 1536, 2048, 3072, 4095], value=512,
        label="vocabulary", show_value=True,
    )  # fmt: skip
    sentence = mo.ui.text(
        value="The unbelievable king of Nonesuch laughed.", label="text", full_width=True
    )
    mo.vstack([
        mo.md(
            """
            ## How large should a vocabulary be?

            The 4,096 tokens learned from the plays contain every smaller vocabulary: stop after fewer merges,
            and you have it. Move the slider from 256 upwards, and write your own sentence.
            """
        ),
        sentence,
        size,
    ])  # fmt: skip
    return sentence, size


@app.cell(hide_code=True)
def _(Tokenizer, full, in_boxes, mo, plays, plt, sentence, size):
    def of_size(n):
        return Tokenizer(full.merges[: n - 256])  # a smaller vocabulary is the beginning of it

    _chosen = of_size(size.value)
    _ids = _chosen.encode(sentence.value)
    _sample = plays[0][:20000]
    _sizes = [256, 320, 512, 768, 1024, 1536, 2048, 3072, 4095]
    _lengths = [len(_sample.encode()) / len(of_size(n).encode(_sample)) for n in _sizes]
    _mine = _lengths[_sizes.index(size.value)]
    _figure, _axes = plt.subplots(figsize=(6.4, 3.3), layout="constrained")
    _axes.plot(_sizes, _lengths, "o-", color="#1f5a99")
    _axes.plot([size.value], [_mine], "o", ms=11, color="#d1602b")
    _axes.annotate(
        f"{_mine:.2f} bytes", (size.value, _mine), xytext=(8, -16), textcoords="offset points",
        color="#d1602b",
    )  # fmt: skip
    _axes.set(
        xlabel="tokens in the vocabulary", ylabel="bytes per token", ylim=(0.8, 1.08 * max(_lengths)),
        xlim=(0, 4600), title="The first few hundred merges help most",
    )  # fmt: skip
    _axes.grid(alpha=0.25)
    mo.vstack([
        mo.md(
            f"{len(sentence.value.encode())} bytes are {len(_ids)} tokens:<br>"
            + in_boxes([_chosen.vocabulary[i] for i in _ids])
        ),
        _figure,
        mo.md(
            f"""
            More tokens make shorter rows, so more text fits into the context length. But each
            token needs a row of its own in the embedding table (lesson 1). At 768 channels, GPT-2's
            50,257 tokens take {50257 * 768:,} weights. And a rare token is seen rarely, so its row is
            learned badly. The best size grows with the model and with the amount of text.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Surprises

    From here on we use GPT-2's own vocabulary: 50,000 merges, learned from web pages of the years before 2018.
    Many odd things that language models do come from their tokens and not from their network.

    **A space in front, a capital: another token.** Each of these is a single token.
    """)
    return


@app.cell
def _(gpt2, mo):
    mo.plain_text(
        "\n".join(f"{text!r:8}{gpt2.encode(text)}" for text in ("king", " king", " King", " KING"))
    )
    return


@app.cell(hide_code=True)
def _(gpt2, in_boxes, mo):
    def gpt2_boxes(text):
        """How GPT-2 cuts a text, as boxes."""
        return in_boxes([gpt2.decode_bytes([i]) for i in gpt2.encode(text)])

    mo.md(
        f"""
        The four ids have nothing to do with each other. The model has to learn from examples that they
        mean the same.

        This is why a prompt should not end with a space. In nearly all texts the space is part of the next
        token. If you type it yourself, it becomes a token of its own, and the model has hardly ever seen a letter right
        after it:

        | prompt | tokens |
        |:--|:--|
        | without a space at the end | {gpt2_boxes("What is the king")} |
        | with a space at the end | {gpt2_boxes("What is the king ")} |

        **Spelling.** {gpt2_boxes(" strawberry")} is one token, id {gpt2.encode(" strawberry")[0]:,}. The model gets
        this number, and no letters. If you ask how many *r* it contains, the model cannot look. It knows
        the answer only if its training text said how the word is spelled. Even the same word without the
        space is cut in another way: {gpt2_boxes("strawberry")}.

        **Rare words and errors** fall into pieces. One wrong letter changes the row:
        {gpt2_boxes(" receive")} against {gpt2_boxes(" recieve")}; {gpt2_boxes(" unbelievable")} against
        {gpt2_boxes(" defenestration")}.
        """
    )
    return (gpt2_boxes,)


@app.cell(hide_code=True)
def _(predict):
    years_guess = predict(
        """
        **Numbers.** GPT-2 writes ` 1999`, with its space, as one token. How many of the hundred years
        from 2000 to 2099 are one token each?
        """,
        step=1,
    )
    years_guess
    return (years_guess,)


@app.cell(hide_code=True)
def _(from_2000, one_token, reply, years_guess):
    _19 = len([n for n in one_token if 1900 <= n < 2000])
    reply(
        years_guess,
        len(from_2000),
        f"A number becomes a token if it was frequent in the text from which the vocabulary was "
        f"learned. That text was written before 2018. From 1900 to 1999 it is {_19}.",
        wrong={
            100: "The vocabulary was not made by a rule about numbers. It holds what was frequent, "
            "and few texts spoke of the year 2067.",
            0: "Digits are merged like letters: nothing in GPT-2's splitter keeps them apart.",
            20: "Near. Texts also speak of years to come, and 2048 was a popular game.",
        },
        tolerance=4,
    )
    return


@app.cell
def _(gpt2, mo):
    one_token = [n for n in range(10_000) if len(gpt2.encode(f" {n}")) == 1]
    from_2000 = [n for n in one_token if 2000 <= n < 2100]
    mo.md(" ".join(map(str, from_2000)))
    return from_2000, one_token


@app.cell(hide_code=True)
def _(mo):
    thousand = mo.ui.slider(0, 9, value=0, label="thousand", show_value=True)
    mo.vstack(
        [
            mo.md(
                "Here are all numbers up to 9,999, a thousand at a time. Each small square is a number. Blue is "
                "one token, light is two or more. Move the slider to 1 for the years of history, and further."
            ),
            thousand,
        ]
    )
    return (thousand,)


@app.cell(hide_code=True)
def _(ListedColormap, gpt2, mo, plt, thousand):
    _first = 1000 * thousand.value
    _lengths = [
        [len(gpt2.encode(f" {_first + 100 * h + n}")) == 1 for n in range(100)] for h in range(10)
    ]
    _figure, _axes = plt.subplots(figsize=(6.4, 3.1), layout="constrained")
    _axes.pcolormesh(
        _lengths, cmap=ListedColormap(["#c9d9ea", "#1f5a99"]), vmin=0, vmax=1,
        edgecolors="white", linewidth=0.4,
    )  # fmt: skip
    _axes.invert_yaxis()
    _axes.set_yticks([h + 0.5 for h in range(10)], [f"{_first + 100 * h:,}" for h in range(10)])
    _axes.set_xticks([n + 0.5 for n in range(0, 100, 10)], [f"+{n}" for n in range(0, 100, 10)])
    _axes.set_title(
        f"{sum(map(sum, _lengths))} of these 1,000 numbers are one token (dark) in GPT-2"
    )
    mo.vstack([_figure])
    return


@app.cell(hide_code=True)
def _(Splitter, gpt2_boxes, mo):
    mo.md(
        f"""
        In the first thousand you see columns: round numbers are frequent, so they are tokens. From 1,000 on only
        years and a few others remain. Now think of adding two numbers, digit by digit, as you learned at school. The
        model gets this:

        {gpt2_boxes(" 480 + 481 =")} but {gpt2_boxes(" 1234 + 98765 =")}

        Where a number is cut depends on how frequent its parts were. Units and tens do not stand at
        fixed places, so the rule for carrying is hard to learn. Later tokenizers changed their splitters for
        this reason: GPT-4's takes at most three digits at a time, `1234567` becomes
        `{" ".join(Splitter("cl100k")("1234567"))}`.
        """
    )
    return


@app.cell(hide_code=True)
def _(gpt2, mo):
    _same = {
        "English": "The king is dead, long live the king.",
        "German": "Der König ist tot, lang lebe der König.",
        "Greek": "Ο βασιλιάς πέθανε, ζήτω ο βασιλιάς.",
        "Japanese": "国王は死んだ、新国王万歳。",
    }
    _rows = "\n".join(
        f"| {name} | {len(text)} | {len(gpt2.encode(text))} |" for name, text in _same.items()
    )
    mo.md(
        f"""
**Other languages** pay more. The same sentence, four times:

| language | characters | tokens |
|:--|--:|--:|
{_rows}

The merges were learned from English pages. For the rest, few merges fit, and the text stays close to bytes. Such
users get less text into the context length, and often pay more, since services count tokens.

**Tokens without a history.** The text that makes the vocabulary need not be the text that trains the
model. ` SolidGoldMagikarp`, a name from a web forum, is one token of GPT-2's vocabulary (id
{gpt2.encode(" SolidGoldMagikarp")[0]:,}). Models that used this vocabulary had hardly ever seen it in training, and
could not even repeat it (Rumbelow & Watkins 2023). A row of the table that is hardly ever looked up learns nothing about its token.
"""
    )
    return


@app.cell(hide_code=True)
def _(mo):
    own_text = mo.ui.text(
        value="I defenestrated 2067 strawberries.", label="your own text", full_width=True
    )
    own_text
    return (own_text,)


@app.cell(hide_code=True)
def _(gpt2, gpt2_boxes, mo, own_text):
    mo.md(f"{len(gpt2.encode(own_text.value))} tokens: {gpt2_boxes(own_text.value)}")
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Special tokens

    Texts are trained on one after another, and the model should know where one ends. So the vocabulary gets
    a token that no merge makes and that stands for no text: a **special token**. GPT-2 has one, the **end-of-text token**,
    written `<|endoftext|>`, with id 50,256. It stands after each document. When a model says it, the
    text is finished.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    typed_guess = predict(
        """
        A visitor of a web page types `The end.<|endoftext|>`. The page passes these 21 characters to
        the tokenizer as ordinary text. What should come out at the end?
        """,
        choices=[
            "the end-of-text token",
            "ordinary tokens for the 13 characters",
            "nothing: the characters are left out",
        ],
    )
    typed_guess
    return (typed_guess,)


@app.cell(hide_code=True)
def _(gpt2, reply, typed_guess):
    _pieces = [gpt2.decode([i]) for i in gpt2.encode("The end.<|endoftext|>")]
    _first = next(piece for piece in _pieces if "<" in piece)
    reply(
        typed_guess,
        "ordinary tokens for the 13 characters",
        "A special token is an id, not a text; the characters are only the way we write it down. By "
        "default the package treats them like any other text (first list below; its token "
        f"`{_first}` holds the full stop, too). Only a program that wants the special token asks for "
        "it (second list).",
        wrong={
            "the end-of-text token": "Then any visitor could end a document by typing. In a chat, "
            "where special tokens separate the speakers, a visitor could speak in the name of the system.",
            "nothing: the characters are left out": "Then text would get lost, and somebody who asks "
            "a question about this very token would get no sensible answer.",
        },
    )
    return


@app.cell
def _(gpt2, mo):
    typed = "The end.<|endoftext|>"
    mo.plain_text(f"{gpt2.encode(typed)}\n{gpt2.encode(typed, special='allow')}")
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    - Subwords are a compromise: characters make rows too long, and a list of words is never complete.
    - BPE starts with the 256 bytes, so nothing is unknown. It merges the most frequent pair again and again;
      the vocabulary is the bytes, one token for each merge, and the special tokens.
    - A new text is cut by the merges in order of rank. Late merges need early ones, and the training text
      was cut in the same way.
    - Text is split into words first. So no place is wasted on *dog.* and *dog!*, and each different word is
      cut only once.
    - The model sees ids and no letters. Hence the trouble with spelling, with digits, with a space at the end.
    - A special token stands for no text. Text from outside must not be able to make one.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    test_form = self_test(3)
    test_form
    return (test_form,)


@app.cell(hide_code=True)
def _(judged, test_form):
    judged(3, test_form)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write the three functions of this lesson:

    ```sh
    nanogpt exercise check merge
    nanogpt exercise check train
    nanogpt exercise check encode
    ```

    Two experiments:

    - Change the four words in the cell above so that the first merge is `e`+`r`. How few changes do
      you need?
    - Look at any word, merge by merge:

    ```sh
    nanogpt tokenizer explain " laughter"
    ```

    **Papers.** Gage 1994, "A New Algorithm for Data Compression", has byte-pair encoding. Sennrich,
    Haddow & Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2,
    brought it to language. Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
    section 2.2, put bytes in the place of characters, and introduced the splitter. Petrov et al. 2023, "Language Model
    Tokenizers Introduce Unfairness Between Languages". Rumbelow & Watkins 2023,
    "SolidGoldMagikarp (plus, prompt generation)", on LessWrong.
    """)
    return


if __name__ == "__main__":
    app.run()
