import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 3: tokens")


@app.cell(hide_code=True)
def _():
    import html
    from collections import Counter
    from itertools import pairwise

    import marimo as mo
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import DataConfig
    from nanogpt.learn.notebook import source
    from nanogpt.text.bpe import encode_word, merge, train_naive
    from nanogpt.text.sources import whole_texts
    from nanogpt.text.tokenizer import Tokenizer

    return (
        Counter,
        DataConfig,
        Tokenizer,
        encode_word,
        html,
        merge,
        mo,
        pairwise,
        plt,
        source,
        train_naive,
        visible,
        whole_texts,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 3. Tokens: why subwords, and how a vocabulary is built

    After this lesson you can train a tokenizer by hand on a handful of words, say how it cuts
    a word it has never seen, and choose a size for a vocabulary knowing what it costs.

    A network computes with numbers, so text has to become numbers. There are two obvious ways,
    and both are bad.

    - **One number a character**, or a byte: there are few, and none is ever unknown. But a
      sentence becomes a long row of them, a model reads only so many, and a single letter says
      next to nothing.
    - **One number a word**: short rows. But there is no end to words; a name or a slip of the
      pen is unknown, and *king* and *kings* have nothing in common.

    Byte-pair encoding starts with bytes and builds what lies between, by one rule: *find the
    pair of neighbours that occurs most often, and make it a new token; again and again*.
    Common words end up whole, rare ones in pieces that are common themselves.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## By hand

    Four words and how often they occur, the example of Sennrich et al. 2016. Move the slider
    and watch the vocabulary grow, merge by merge.
    """)
    return


@app.cell
def _():
    frequencies = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}
    return (frequencies,)


@app.cell(hide_code=True)
def _(mo):
    merges_wanted = mo.ui.slider(0, 10, value=0, label="merges", show_value=True)
    merges_wanted
    return (merges_wanted,)


@app.cell(hide_code=True)
def _(Counter, frequencies, merge, merges_wanted, mo, pairwise, train_naive):
    learned = train_naive(frequencies, merges_wanted.value)
    spelled = [bytes([b]) for b in range(256)]
    rows = {word: list(word) for word in frequencies}
    for number, pair in enumerate(learned):
        spelled.append(spelled[pair[0]] + spelled[pair[1]])
        rows = {word: merge(row, pair, 256 + number) for word, row in rows.items()}

    pairs = Counter()
    for word, row in rows.items():
        for neighbours in pairwise(row):
            pairs[neighbours] += frequencies[word]
    best = sorted(pairs, key=lambda p: (pairs[p], spelled[p[0]], spelled[p[1]]), reverse=True)[:4]

    def text(i):
        return spelled[i].decode()

    mo.md(
        "\n".join(
            ["| word | times | tokens |", "|---|---|---|"]
            + [
                f"| {word.decode()} | {frequencies[word]} | {' · '.join(map(text, row))} |"
                for word, row in rows.items()
            ]
        )
        + "\n\nLearned so far: "
        + (", ".join(f"`{text(a)}`+`{text(b)}`" for a, b in learned) or "nothing")
        + ". Most frequent now: "
        + (", ".join(f"`{text(a)}`+`{text(b)}` {pairs[a, b]} times" for a, b in best) or "no pair")
        + "."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    count = mo.ui.number(value=None, label="your prediction:").form()
    mo.md(
        f"""
        **Predict.** All ten merges have been learned from these four words. *lowest* is not among
        them. How many tokens does it become?

        {count}
        """
    )
    return (count,)


@app.cell(hide_code=True)
def _(count, encode_word, frequencies, mo, train_naive):
    every_merge = train_naive(frequencies, 10)
    ranks = {one: 256 + n for n, one in enumerate(every_merge)}
    names = [bytes([b]) for b in range(256)]
    for left, right in every_merge:
        names.append(names[left] + names[right])
    unseen = [names[i].decode() for i in encode_word(b"lowest", ranks)]
    if count.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        right_or_not = "Yes" if count.value == len(unseen) else "Not quite"
        reply = (
            f"{right_or_not}: {len(unseen)}, **{' · '.join(unseen)}**. A word that was never seen is "
            "made of parts that were, and both of them mean something."
        )
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(merge, mo, source, train_naive):
    mo.md(
        "The package's own functions. The first is the heart of it; the second is the rule above, "
        "word for word (`train` does the same much sooner, and a test holds the two equal):\n\n"
        + source(merge, train_naive)
    )
    return


@app.cell(hide_code=True)
def _(DataConfig, Tokenizer, mo, visible, whole_texts):
    with mo.status.spinner("learning 4,096 tokens from a part of the plays"):
        plays = list(whole_texts(DataConfig(max_documents=30)))
        full = Tokenizer.train(plays, 4096)
    mo.md(
        f"""
        ## From a real text

        The same rule on {sum(map(len, plays)):,} characters of Shakespeare. Its first merges are
        the commonest pairs of English letters (a dot is a space), its last are names and rarer parts
    of words:

        first: {", ".join(f"`{visible(full.vocabulary[i])}`" for i in range(256, 268))}

        last: {", ".join(f"`{visible(full.vocabulary[i])}`" for i in range(4082, 4094))}
        """
    )
    return full, plays


@app.cell(hide_code=True)
def _(mo):
    size = mo.ui.slider(
        steps=[256, 320, 512, 768, 1024, 1536, 2048, 3072, 4095], value=512,
        label="vocabulary", show_value=True,
    )  # fmt: skip
    sentence = mo.ui.text(
        value="The unbelievable king of Nonesuch laughed.", label="text", full_width=True
    )
    mo.vstack([sentence, size])
    return sentence, size


@app.cell(hide_code=True)
def _(Tokenizer, full, html, mo, plays, plt, sentence, size):
    def of_size(n):
        return Tokenizer(full.merges[: n - 256])  # a smaller vocabulary is the beginning of it

    chosen = of_size(size.value)
    colors = ["#cfe3f5", "#f7dcc9"]
    boxes = "".join(
        f'<span style="background:{colors[n % 2]};color:#000;padding:2px 1px">'
        f"{html.escape(chosen.decode([i])).replace(' ', '&nbsp;')}</span>"
        for n, i in enumerate(chosen.encode(sentence.value))
    )

    sample = plays[0][:20000]
    sizes = [256, 320, 512, 768, 1024, 1536, 2048, 3072, 4095]
    lengths = [len(sample.encode()) / len(of_size(n).encode(sample)) for n in sizes]
    growth, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(sizes, lengths, "o-", color="#9db8d2")
    axes.plot([size.value], [lengths[sizes.index(size.value)]], "o", ms=10, color="#d1602b")
    axes.set(xlabel="tokens in the vocabulary", ylabel="bytes a token stands for")
    axes.grid(alpha=0.25)
    n_tokens = len(chosen.encode(sentence.value))
    mo.vstack([
        mo.Html(f"<div>{boxes}</div>"),
        mo.md(f"{len(sentence.value.encode())} bytes became {n_tokens} tokens."),
        growth,
        mo.md(
            "A larger vocabulary makes texts shorter, the first few hundred tokens most of all, and costs as many "
            f"rows of the embedding again: at 192 channels, 4,096 tokens are {4096 * 192:,} weights, "
            f"and a Transformer block has {12 * 192**2:,}. GPT-2 has 50,257 tokens; the demo of this "
            "package 1,024. `nanogpt lab run vocabulary` measures what is best at a small budget."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(encode_word, mo, source):
    mo.accordion({
        "How a word is cut: the earliest merge first": mo.md(source(encode_word)),
    })  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check merge
    nanogpt exercise check train
    nanogpt exercise check encode
    ```

    And look at any word with `nanogpt tokenizer explain "unbelievable"`.

    **Papers.** Sennrich, Haddow & Birch 2016, "Neural Machine Translation of Rare Words with
    Subword Units", who brought BPE to language. Radford et al. 2019, section 2.2, who put
    bytes in the place of characters. Gage 1994, who invented it to compress files.
    """)
    return


if __name__ == "__main__":
    app.run()
