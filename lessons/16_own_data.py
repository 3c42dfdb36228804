import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 11: your own data")


@app.cell(hide_code=True)
def _():
    import html
    import json
    import os
    from collections import Counter
    from pathlib import Path

    import marimo as mo
    from matplotlib import pyplot as plt

    import nanogpt
    from nanogpt.config import DataConfig, SampleConfig
    from nanogpt.errors import UserError
    from nanogpt.evaluation.novelty import LENGTHS, Known
    from nanogpt.evaluation.references import reference_points, text_of
    from nanogpt.generation.stream import generate_text
    from nanogpt.learn.models import short_run, small_config
    from nanogpt.learn.notebook import source
    from nanogpt.text.corpus import SplitRule
    from nanogpt.text.prepare import prepare
    from nanogpt.text.sources import read_jsonl
    from nanogpt.training.load import load
    from nanogpt.training.records import Step, Validation

    return (
        Counter,
        DataConfig,
        Known,
        LENGTHS,
        Path,
        SampleConfig,
        SplitRule,
        Step,
        UserError,
        Validation,
        generate_text,
        html,
        json,
        load,
        mo,
        nanogpt,
        os,
        plt,
        prepare,
        read_jsonl,
        reference_points,
        short_run,
        small_config,
        source,
        text_of,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 11. Your own data, from collecting it to generated text

    After this lesson you can turn a folder of anything into something a model can be trained on,
    hold out what it must not see, say whether it has learned or memorised, and do the same from the
    command line with texts a thousand times as long.

    A model is what it has read. Most of the work behind a good one is in collecting, sorting out and
    counting text; the training is a command. Here the data are the files of a folder. Until you name
    one of your own it is this package's source code, so the model below learns to write Python.
    """)
    return


@app.cell(hide_code=True)
def _(Path, mo, nanogpt):
    wanted = mo.md("{folder}\n\n{ending}").batch(
        folder=mo.ui.text(value=str(Path(nanogpt.__file__).parent), label="folder", full_width=True),
        ending=mo.ui.text(value=".py", label="files that end in"),
    ).form()
    mo.vstack([mo.md("## Collect"), wanted])
    return (wanted,)


@app.cell(hide_code=True)
def _(Counter, Path, json, mo, os, wanted):
    chosen = wanted.value or wanted.element.value
    ending = chosen["ending"].lstrip("*")
    everything = sorted(Path(chosen["folder"]).expanduser().rglob("*"))
    found = [p for p in everything if p.name.endswith(ending) and p.is_file() and os.access(p, os.R_OK)]
    texts = {str(p): p.read_text(errors="replace") for p in found[:2000]}
    times = Counter(texts.values())
    documents = {name: text for name, text in texts.items() if text.strip() and times[text] == 1}
    own = Path("runs/lesson-own")
    own.mkdir(parents=True, exist_ok=True)
    collected = own / "documents.jsonl"
    collected.write_text("".join(
        json.dumps({"name": name, "text": text}) + "\n" for name, text in documents.items()
    ))  # fmt: skip
    enough = sum(map(len, documents.values())) > 20_000 and len(documents) > 3
    mo.stop(not enough, mo.md("**That is too little**: name a folder with some twenty thousand letters in several files."))
    lengths = sorted((len(text), name) for name, text in documents.items())
    mo.md(
        f"""
        {len(texts)} files, of which {len(texts) - len(documents)} are empty or there more than once;
        left are **{len(documents)} documents** with {sum(map(len, documents.values())):,} characters. The
        longest has {lengths[-1][0]:,}: is it what you meant to collect? One huge file, a log, a licence
        text in every folder: what is there most is learned best. All of them now stand in one file,
        `{collected}`, one document a line, which every tool in the field reads.
        """
    )
    return collected, own


@app.cell(hide_code=True)
def _(SplitRule, mo, source):
    mo.vstack([
        mo.md(
            """
            ## Hold out

            Some documents are put aside before anything looks at them, the tokenizer included. They are
            the only witness: on text that it was trained on, a model that memorises looks like one that
            understands. Whole documents are held out, not lines of them, since lines of one document
            give each other away; and which ones is decided by a rule on the document itself, so that
            no order of files and no second collecting moves one to the other side.
            """
        ),
        mo.accordion({"The rule": mo.md(source(SplitRule))}),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    vocabulary = mo.ui.slider(
        steps=[300, 400, 512, 768, 1024, 2048], value=512, label="vocabulary", show_value=True
    )
    vocabulary
    return (vocabulary,)


@app.cell(hide_code=True)
def _(
    DataConfig,
    UserError,
    collected,
    mo,
    own,
    prepare,
    read_jsonl,
    source,
    vocabulary,
):
    settings = DataConfig(source=str(collected), vocab_size=vocabulary.value)
    tokens_folder = own / f"tokens-{vocabulary.value}"
    try:
        with mo.status.spinner("learning a vocabulary and writing token files"):
            prepared = prepare(settings, tokens_folder, 1)
    except UserError as error:
        mo.stop(True, mo.md(f"**{error}**"))
    sides = prepared.files
    mo.vstack([
        mo.md(
            f"""
            ## Tokens

            A tokenizer of your own cuts your own words well. Here it learned {vocabulary.value:,} tokens,
            and one of them stands for **{sides["train"].bytes_per_token:.2f} bytes** of your text. There are
            {len(sides["train"].ids):,} tokens to train on and {len(sides["val"].ids):,} held out, in plain
            files of 16-bit numbers.
            """
        ),
        mo.accordion({"How documents come out of that file": mo.md(source(read_jsonl))}),
    ])
    return sides, tokens_folder


@app.cell(hide_code=True)
def _(mo, sides, small_config):
    steps = mo.ui.slider(steps=[60, 120, 240, 480, 960], value=240, label="steps", show_value=True)
    passes = mo.ui.number(value=None, step=0.1, label="your prediction:").form()
    mo.md(
        f"""
        ## Train

        **Predict.** A step reads {small_config(1).tokens_per_step:,} tokens, and there are
        {len(sides["train"].ids):,}. In 240 steps, how often is each token read on average?

        {passes}

        {steps}
        """
    )
    return passes, steps


@app.cell(hide_code=True)
def _(
    Step,
    Validation,
    load,
    mo,
    own,
    passes,
    plt,
    short_run,
    sides,
    small_config,
    steps,
    tokens_folder,
):
    folder = own / "run"
    with mo.status.spinner("training"):
        records = short_run(
            steps.value, folder, tokens_folder, train={"eval_interval": steps.value // 6}
        )
    model, tokenizer = load(folder)[:2]
    taken = [r for r in records if isinstance(r, Step)]
    looks = [r for r in records if isinstance(r, Validation)]
    curve, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot([r.step for r in taken], [r.loss for r in taken], color="#c9d9ea", label="its own text")
    axes.plot([r.step for r in looks], [r.val_loss for r in looks], "o-", color="#d1602b", label="held out")
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    per_pass = len(sides["train"].ids) / small_config(1).tokens_per_step
    if passes.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        right = abs(passes.value - 240 / per_pass) < 0.1 + 0.05 * 240 / per_pass
        reply = f"{'Yes' if right else 'Not quite'}: {240 / per_pass:.2f} times."
    gap = looks[-1].val_loss - sum(r.loss for r in taken[-10:]) / len(taken[-10:])
    mo.vstack([
        curve,
        mo.md(
            f"{reply} At the end the held-out loss is {gap:+.2f} nats beside that of its own text. While "
            "a text is read for the first few times the two fall together; where they part, the model "
            "has begun to learn by heart, and more steps make it worse at everything else. Then more text "
            "helps, or dropout, or a smaller model."
        ),
    ])
    return looks, model, tokenizer


@app.cell(hide_code=True)
def _(looks, mo, reference_points, sides, tokenizer):
    rivals = reference_points(sides["train"], sides["val"], tokenizer)
    rivals["**this model**"] = looks[-1].bits_per_byte
    mo.md(
        "## Has it learned anything?\n\nA loss says little by itself. So ask others the same question: how many bits "
        "does each need for a byte of the held-out documents?\n\n| | bits per byte |\n|:---|---:|\n"
        + "\n".join(
            f"| {who} | {bits:.3f} |"
            for who, bits in sorted(rivals.items(), key=lambda item: -item[1])
        )
        + "\n\nxz is a compression program; primed, it has read the training documents first. On a small text "
        "it is hard to beat, because it may copy whole passages word for word. A model that trained for "
        "seconds may even fall short of a table of which token follows which; give it more steps above."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    temperature = mo.ui.slider(
        steps=[0.0, 0.3, 0.5, 0.8, 1.0, 1.3], value=0.8, label="temperature", show_value=True
    )
    prompt = mo.ui.text(value="def ", label="begins with")
    mo.hstack([temperature, prompt], justify="start")
    return prompt, temperature


@app.cell(hide_code=True)
def _(
    Known,
    LENGTHS,
    SampleConfig,
    UserError,
    generate_text,
    html,
    mo,
    model,
    plt,
    prompt,
    sides,
    temperature,
    text_of,
    tokenizer,
):
    written = []
    try:
        for seed in range(3):
            sampling = SampleConfig(
                prompt=prompt.value, max_new_tokens=200, temperature=temperature.value, seed=seed
            )
            written.append("".join(generate_text(model, tokenizer, sampling)))
    except UserError as error:
        mo.stop(True, mo.md(f"**{error}**"))
    known = Known(text_of(sides["train"], tokenizer).decode(errors="replace"))
    held_out = text_of(sides["val"], tokenizer).decode(errors="replace")
    ours, theirs = known.novelty(written), known.novelty([held_out[:5000]])

    copied, bars = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for shift, (who, novelty, color) in enumerate(
        (("the model", ours, "#d1602b"), ("held-out documents", theirs, "#9db8d2"))
    ):
        bars.bar(
            [n + 0.4 * shift for n in range(len(LENGTHS))],
            [100 * novelty.novel.get(n, 0.0) for n in LENGTHS], width=0.4, color=color, label=who,
        )
    bars.set_xticks([n + 0.2 for n in range(len(LENGTHS))], [str(n) for n in LENGTHS])
    bars.set(xlabel="words in a row", ylabel="% not in the training text", ylim=(0, 105))
    bars.legend(frameon=False)
    mo.vstack([
        mo.md(f"## Write\n\n<pre>{html.escape(prompt.value + written[0])}</pre>"),
        mo.md(
            f"## Invented or copied?\n\nThe longest passage of the three texts it wrote that stands in the "
            f"training text, too, has {ours.longest_words} words: `{ours.longest[:120]}`. A real text "
            "shares some as well, so the question is whether the model shares more:"
        ),
        copied,
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    The same from the command line, for texts of any length; each command says what it does and goes
    on where it was stopped:

    ```sh
    nanogpt prepare my_texts/           # .txt, .md, .jsonl; .parquet and the hub with [data]
    nanogpt tokenizer stats my_texts/
    nanogpt train demo --data.folder data/my_texts --run runs/my
    nanogpt evaluate runs/my --references --novelty --documents
    nanogpt generate runs/my --prompt "..."
    ```

    Little text? Begin with a model that has read much: `nanogpt train --init runs/demo --data.source
    my_texts/ --train.lr 1e-4`. And with your own functions at work: `nanogpt exercise check encode`,
    then `nanogpt exercise play`.

    **Papers.** Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better". Carlini et
    al. 2021, "Extracting Training Data from Large Language Models", on what is memorised. McCoy et al.
    2023, "How Much Do Language Models Copy From Their Training Data?", on counting it. Gebru et al.
    2021, "Datasheets for Datasets", on writing down what was collected.
    """)
    return


if __name__ == "__main__":
    app.run()
