import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 9: change one thing")


@app.cell(hide_code=True)
def _():
    import random
    from hashlib import sha256
    from pathlib import Path
    from statistics import mean

    import marimo as mo
    from matplotlib import pyplot as plt

    from nanogpt.cli.settings import recipe_folder
    from nanogpt.config import ModelConfig, read_toml
    from nanogpt.errors import UserError
    from nanogpt.lab.judge import LEVEL, Difference, differences
    from nanogpt.lab.report import write_report
    from nanogpt.lab.runner import run_study
    from nanogpt.lab.study import load_study
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT
    from nanogpt.model.size import flops_per_token
    from nanogpt.workers import usable_cores

    return (
        Difference,
        GPT,
        LEVEL,
        ModelConfig,
        Path,
        UserError,
        differences,
        flops_per_token,
        load_study,
        mean,
        mo,
        plt,
        random,
        read_toml,
        recipe_folder,
        run_study,
        sha256,
        source,
        usable_cores,
        write_report,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 9. Change one thing: hyperparameters, and whether to believe it

    After this lesson you can say what each size of a model costs, run a study that changes one
    thing and nothing else, and tell a difference from luck.

    A **hyperparameter** is a number that training does not find by itself: how many layers, how
    wide, how long a context, how fast to learn. There is no formula for most of them. One changes
    one, looks, and changes it back; and the art is in not fooling oneself on the way.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    layers = mo.ui.slider(1, 24, value=2, label="layers", show_value=True)
    channels = mo.ui.slider(64, 1024, step=64, value=192, label="channels", show_value=True)
    vocabulary = mo.ui.slider(
        steps=[256, 512, 1024, 4096, 16384, 50257], value=1024, label="vocabulary", show_value=True
    )
    context = mo.ui.slider(
        steps=[32, 64, 128, 256, 512, 1024], value=64, label="context", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## What the sizes cost

            Weights have to be kept, and every token costs about six operations for each weight that
            takes part in a matrix product: two on the way forward, four on the way back. Attention
            adds some that grow with the context. Move the sliders; watch what grows with the square.
            """
        ),
        mo.hstack([layers, channels], justify="start"),
        mo.hstack([vocabulary, context], justify="start"),
    ])  # fmt: skip
    return channels, context, layers, vocabulary


@app.cell(hide_code=True)
def _(
    GPT,
    ModelConfig,
    channels,
    context,
    flops_per_token,
    layers,
    mo,
    plt,
    vocabulary,
):
    import torch

    shape = ModelConfig(
        vocab_size=vocabulary.value, context_length=context.value, n_layer=layers.value, n_head=4,
        n_embd=channels.value,
    )
    with torch.device("meta"):  # shapes without memory
        sized = GPT(shape)
    parts = {"tokens": 0, "positions": 0, "attention": 0, "feed-forward": 0, "norms": 0}
    kinds = {"wte": "tokens", "wpe": "positions", "attn": "attention", "mlp": "feed-forward"}
    for name, weight in sized.named_parameters():
        kind = next((part for key, part in kinds.items() if key in name), "norms")
        parts[kind] += weight.numel()
    weights, axes = plt.subplots(figsize=(8, 2.4), layout="constrained")
    axes.barh(list(parts), [n / 1e6 for n in parts.values()], color="#9db8d2")
    axes.set_xlabel("million weights")
    axes.invert_yaxis()
    total, flops = sized.num_parameters(), flops_per_token(sized)
    mo.vstack([
        weights,
        mo.md(
            f"**{total:,} weights**, {flops / 1e6:,.1f} million operations for each token of training, "
            f"of which attention's own share is {12 * shape.n_layer * shape.n_embd * shape.context_length / flops:.0%}. "
            "Twice the channels are four times the weights of a block; twice the layers are twice as "
            "many; a longer context costs a row of channels for each position, and work. `nanogpt plan RECIPE` says what a recipe takes "
            "in memory, time and money before anything runs."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    lucky = mo.ui.number(value=None, step=1, label="your prediction, of 100:").form()
    mo.md(
        f"""
        ## Luck

        Run the same recipe twice with another seed, and the two end at different losses: other fresh
        weights, other batches. So a difference between two settings may be nothing but that.

        **Predict.** Two settings make no difference at all. Each is run with three seeds. In how many
        of 100 such experiments are *all three* runs of one setting better than *all three* of the
        other, which looks like a clear victory?

        {lucky}
        """
    )
    return (lucky,)


@app.cell(hide_code=True)
def _(LEVEL, differences, lucky, mo, random):
    dice = random.Random(0)
    trials, swept, called = 400, 0, 0
    for _ in range(trials):
        pair = {arm: [dice.gauss(2.5, 0.01) for _ in range(3)] for arm in "ab"}
        swept += max(pair["a"]) < min(pair["b"]) or max(pair["b"]) < min(pair["a"])
        called += differences(pair)[0].real
    if lucky.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        word = "Yes" if abs(lucky.value - 10) <= 2 else "Not quite"
        reply = (
            f"{word}: 10. There are 20 ways to put three a's and three b's in a row, all equally likely, "
            f"and two of them are sweeps. Drawn {trials} times just now: {100 * swept / trials:.0f} of "
            "100. Whoever tries twenty ideas that do nothing finds one that \"clearly works\". The lab's "
            f"judge asks how often chance alone would do it, and calls a difference real below "
            f"{100 * LEVEL:.0f} in 100: here {100 * called / trials:.1f} of 100."
        )
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(mo):
    apart = mo.ui.slider(0, 5, step=0.5, value=1.5, label="true difference, in noises", show_value=True)
    seeds = mo.ui.slider(2, 12, value=3, label="seeds", show_value=True)
    mo.vstack([
        mo.md("Three settings; *b* is truly better by so much, *c* is the same as *a*. How many seeds "
              "does it take to see that?"),
        mo.hstack([apart, seeds], justify="start"),
    ])  # fmt: skip
    return apart, seeds


@app.cell(hide_code=True)
def _(apart, differences, mean, mo, plt, random, seeds):
    chance = random.Random(1)
    middles = {"a": 2.5, "b": 2.5 - 0.01 * apart.value, "c": 2.5}
    values = {n: [chance.gauss(m, 0.01) for _ in range(seeds.value)] for n, m in middles.items()}
    strip, ground = plt.subplots(figsize=(8, 2.4), layout="constrained")
    for row, losses in enumerate(values.values()):
        ground.plot(losses, [row] * len(losses), "o", color="#9db8d2", alpha=0.8)
        ground.plot([mean(losses)], [row], "|", ms=24, mew=3, color="#d1602b")
    ground.set_yticks(range(3), list(values))
    ground.set(xlabel="loss; the stroke is the mean", xlim=(2.42, 2.54), ylim=(-0.6, 2.6))
    ground.grid(alpha=0.25)
    mo.vstack([
        strip,
        mo.md(
            "\n".join(
                f"- {d.one} and {d.other}: "
                + ("**a real difference**" if d.real else "within the noise")
                + f" (chance would do as much in {100 * d.p:.1f} of 100 studies)"
                for d in differences(values)
            )
        ),
    ])
    return


@app.cell(hide_code=True)
def _(Difference, differences, mo, source):
    mo.accordion({"How the judge counts": mo.md(source(Difference, differences))})
    return


@app.cell(hide_code=True)
def _(mo):
    written = mo.ui.code_editor(
        value="""question = "How fast should it learn?"
    seeds = [1, 2]

    [budget]
    steps = 40

    [settings]
    "model.context_length" = 64
    "model.n_layer" = 2
    "model.n_head" = 4
    "model.n_embd" = 64
    "data.vocab_size" = 512
    "data.max_documents" = 20
    "train.min_lr" = 0.0
    "train.warmup_steps" = 10

    [vary]
    "train.lr" = [3e-4, 3e-3, 3e-2]
    """,
        language="toml",
        label="a study: what is the same, what varies, how many seeds, one budget for all",
    ).form()
    mo.vstack([
        mo.md(
            """
            ## A study, run now

            A study is a short file. Change it and submit: another setting under `vary`, or a second
            one. (`nanogpt train --help` lists the settings.) Six runs take some twenty seconds on two
            cores; each is a process of its own.
            """
        ),
        written,
    ])  # fmt: skip
    return (written,)


@app.cell(hide_code=True)
def _(
    Path,
    UserError,
    load_study,
    mo,
    run_study,
    sha256,
    usable_cores,
    write_report,
    written,
):
    toml = written.value or written.element.value
    place = Path("runs/lesson-studies") / sha256(toml.encode()).hexdigest()[:8]
    place.mkdir(parents=True, exist_ok=True)
    (place / "study.toml").write_text(toml)
    try:
        with mo.status.spinner("running the study"):
            study = load_study(place / "study.toml")
            results = run_study(study, place, usable_cores(), lambda line: None)
        report = write_report(place, study, results)
        tables, _, _ = report.partition("## What they write")
        shown = mo.vstack([
            mo.md(tables.replace("# ", "### ").replace("![validation loss against steps](curves.png)", "")),
            mo.image(str(place / "curves.png")),
        ])  # fmt: skip
    except UserError as error:
        shown = mo.md(f"**{error}**")
    shown
    return


@app.cell(hide_code=True)
def _(mo, read_toml, recipe_folder):
    ready = sorted((recipe_folder() / "studies").glob("*.toml"))
    mo.md(
        "## Studies that are ready\n\nEach takes five to ten minutes on two cores. Guess the answer before you "
        "run one; what came out on our machine is in `docs/lab.md`.\n\n| | |\n|:---|:---|\n"
        + "\n".join(f"| `nanogpt lab run {p.stem}` | {read_toml(p)['question']} |" for p in ready)
        + "\n\nAnd `nanogpt lab scaling` asks the question behind all of them: how does the loss fall with "
        "size and with text? It trains a ladder of small models, fits a law, predicts a larger one, and "
        "trains that to see."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    Write down a guess about one setting, with a number. Then let the lab answer, in a file of your
    own with three seeds, and see whether the judge calls the difference real:

    ```sh
    nanogpt lab run my_study.toml
    ```

    With your own functions inside, `nanogpt exercise check schedule` first, then
    `nanogpt exercise play --steps 300`.

    **Papers.** Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and Hoffmann et al.
    2022, "Training Compute-Optimal Large Language Models", on sizes. Tukey 1949, "Comparing
    Individual Means in the Analysis of Variance", is the judge. Dodge et al. 2020, "Fine-Tuning
    Pretrained Language Models: Weight Initializations, Data Orders, and Early Stopping", on how much
    a seed can do. Smith 2018, "A Disciplined Approach to Neural Network Hyper-Parameters".
    """)
    return


if __name__ == "__main__":
    app.run()
