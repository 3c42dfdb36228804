import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 10: an idea of your own")


@app.cell(hide_code=True)
def _():
    import subprocess
    import sys
    from hashlib import sha256
    from pathlib import Path

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.config import ModelConfig
    from nanogpt.lab.contracts import CHECKS, causality
    from nanogpt.lab.plugin import load_plugin
    from nanogpt.learn.models import short_run
    from nanogpt.learn.notebook import source
    from nanogpt.model.layers import softmax
    from nanogpt.model.position import POSITIONS, ALiBi, Position
    from nanogpt.training.records import Step
    from nanogpt.training.variants import added_since, snapshot

    return (
        ALiBi,
        CHECKS,
        ModelConfig,
        POSITIONS,
        Path,
        Position,
        Step,
        added_since,
        causality,
        load_plugin,
        mo,
        plt,
        sha256,
        short_run,
        snapshot,
        softmax,
        source,
        subprocess,
        sys,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 10. A position encoding and an attention of your own

    After this lesson you can write a new position encoding and a new kind of attention, each in
    about ten lines and in a file of your own, have them judged for soundness, and see in a minute
    whether they learn.

    Ideas in this field are small. ALiBi is a straight line, RoPE a rotation, and that rotation is in
    most large models of today. What keeps people from trying their own is not the idea but what
    surrounds it: to be sure that it does not see the future, that generation with a cache gives the
    same text, that padding changes nothing. All of that is the package's business, not yours.
    """)
    return


@app.cell(hide_code=True)
def _(Position, mo, source):
    mo.md("## Three places for order\n\nAttention sees a set. Order can enter in exactly three places, and "
          "a position encoding is a class with three hooks. It implements one of them:\n\n" + source(Position))
    return


@app.cell(hide_code=True)
def _(mo):
    here = mo.ui.slider(1, 63, value=40, label="position of the query", show_value=True)
    strength = mo.ui.slider(0, 3, step=0.25, value=1, label="strength of the logarithm", show_value=True)
    nearest = mo.ui.number(value=None, step=0.01, label="your prediction:").form()
    mo.md(
        f"""
        ## An idea: forget by the logarithm

        ALiBi lowers a score by a constant for every token of distance; softmax takes the exponent, so
        attention falls by the same *factor* for each step back, and what is far is gone. Memory does
        not work so: yesterday is much further than an hour ago, last February hardly further than last
        March. So let the score fall with the **logarithm** of the distance, as steeply as each head
        learns.

        **Predict.** All keys fit equally well, and a head of strength 1 subtracts log(1 + distance).
        The key at distance 1 gets how many times the attention weight of the token itself, at
        distance 0?

        {nearest}

        {here} {strength}
        """
    )
    return here, nearest, strength


@app.cell(hide_code=True)
def _(
    ALiBi,
    ModelConfig,
    here,
    mo,
    nearest,
    plt,
    softmax,
    source,
    strength,
    torch,
):
    keys = torch.arange(here.value + 1)
    distance = here.value - keys
    alibi = ALiBi(ModelConfig(n_head=4, n_embd=64)).bias(torch.tensor([[here.value]]), keys[None])[0, :, 0]
    curves = {
        "ALiBi, head 1": softmax(alibi[0]),
        "ALiBi, head 3": softmax(alibi[2]),
        "logarithm": softmax(-strength.value * torch.log1p(distance.float())),
    }
    fall, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for (name, curve), color in zip(curves.items(), ("#c9d9ea", "#6f9bc6", "#d1602b"), strict=True):
        axes.plot(keys, curve, color=color, label=name)
    axes.set(xlabel="position of the key", ylabel="attention weight", yscale="log", ylim=(1e-6, 1.5), xlim=(0, 63))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    if nearest.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        word = "Yes" if abs(nearest.value - 0.5) < 0.03 else "Not quite"
        reply = (
            f"{word}: 0.50. exp(-log(1 + d)) is 1 / (1 + d): a half, a third, a quarter. It falls for "
            "ever and is never gone; ALiBi's falls by the same factor each time."
        )
    mo.vstack([fall, mo.md(reply), mo.md(source(ALiBi))])
    return


@app.cell(hide_code=True)
def _(mo):
    position_code = mo.ui.code_editor(
        value='''import torch
    from torch import nn
    from nanogpt.model.position import POSITIONS, Position


    class LogDistance(Position):
        """Scores fall with the logarithm of the distance, as steeply as each head learns."""

        def __init__(self, config):
            super().__init__(config)
            self.strength = nn.Parameter(torch.ones(config.n_head))

        def bias(self, q_pos, k_pos):
            distance = (q_pos[:, :, None] - k_pos[:, None, :]).clamp(min=0)  # (B, T, S)
            return -self.strength[:, None, None] * torch.log1p(distance)[:, None]  # (B, nh, T, S)


    POSITIONS["log"] = LogDistance
    ''',
        language="python",
        label="a file of your own: change it, then submit",
    ).form()
    mo.vstack([mo.md("## In ten lines"), position_code])
    return (position_code,)


@app.cell(hide_code=True)
def _(CHECKS, Path, mo, sha256, subprocess, sys):
    def ask_the_judge(form):
        """The file with what was submitted, what the judge says, and whether it is sound."""
        code = form.value or form.element.value
        path = Path("runs/lesson-ideas") / f"idea_{sha256(code.encode()).hexdigest()[:8]}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        command = [sys.executable, "-m", "nanogpt", "lab", "check", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return path, "It took more than a minute: is there an endless loop?", False
        return path, (done.stdout + done.stderr).strip(), done.returncode == 0

    mo.md(
        f"""
        Is it sound? `nanogpt lab check my_idea.py` builds a tiny model with it and asks
        {len(CHECKS)} questions ({", ".join(CHECKS)}), the same that every variant of the package has
        to answer:
        """
    )
    return (ask_the_judge,)


@app.cell(hide_code=True)
def _(ask_the_judge, mo, position_code):
    position_file, position_verdict, position_sound = ask_the_judge(position_code)
    mo.md(f"```text\n{position_verdict}\n```")
    return position_file, position_sound


@app.cell(hide_code=True)
def _(causality, mo, source):
    mo.accordion({"One of the questions: may a token see the future?": mo.md(source(causality))})
    return


@app.cell(hide_code=True)
def _(
    Step,
    added_since,
    load_plugin,
    mo,
    plt,
    position_file,
    position_sound,
    short_run,
    snapshot,
):
    losses = {}
    if position_sound:
        known = snapshot()
        load_plugin(str(position_file))
        new = [name for setting, name in added_since(known) if setting == "model.position"]
        with mo.status.spinner("training three small models"):
            for position in dict.fromkeys(["none", "learned", *new]):
                losses[position] = short_run(80, model={"position": position})
        race, track = plt.subplots(figsize=(8, 3), layout="constrained")
        inks = ("#cccccc", "#9db8d2", "#d1602b", "#7a9a3a")
        for (position, records), ink in zip(losses.items(), inks, strict=False):
            track.plot([r.loss for r in records if isinstance(r, Step)], color=ink, label=position)
        track.set(xlabel="step", ylabel="training loss")
        track.grid(alpha=0.25)
        track.legend(frameon=False)
        ends = ", ".join(f"{name} {records[-1].val_loss:.3f}" for name, records in losses.items())
        seen = mo.vstack([
            mo.md("Does it learn? Eighty steps of the small model, the same batches for each:"),
            race,
            mo.md(
                f"Validation loss: {ends}. One seed and eighty steps prove nothing, as lesson 9 says; a "
                "study with the line `plugins = [\"my_idea.py\"]` does."
            ),
        ])
    else:
        seen = mo.md("It is not sound yet, so it is not trained.")
    seen
    return


@app.cell(hide_code=True)
def _(mo):
    block_code = mo.ui.code_editor(
        value='''import torch
    import torch.nn.functional as F
    from nanogpt.model.attention import (
        ATTENTION_KERNELS, PlainAttention, attention_mask, attention_weights,
    )


    class QuietAttention(PlainAttention):
        """Attention in which a head may look at nothing: a key of zeros, with a value of zeros."""

        def weights(self, q, k, mask=None, causal=False):
            if causal:
                mask = attention_mask(q.shape[-2], k.shape[-2], device=q.device)
            if mask is not None:  # nothing may always be looked at: True, or 0 to add to its score
                mask = F.pad(mask, (1, 0), value=float(mask.dtype == torch.bool))
            nothing = torch.zeros_like(k[..., :1, :])
            keys = torch.cat([nothing, k], dim=-2)
            return attention_weights(q, keys, mask)[..., 1:]  # (B, nh, T, S)

        def forward(self, q, k, v, mask=None, causal=False):
            return F.dropout(self.weights(q, k, mask, causal), self.dropout) @ v


    ATTENTION_KERNELS["quiet"] = QuietAttention
    ''',
        language="python",
        label="change it, then submit",
    ).form()
    mo.vstack([
        mo.md(
            """
            ## An attention of your own

            The attention weights of a query sum to 1, so a head that finds nothing has to look
            somewhere all the same. Trained models settle on the first token and make it mean nothing.
            What if there were a way out: one more key, of zeros, with a value of zeros? Attention is
            computed by a kernel, a module of its own, and a dictionary names the kernels. So another
            attention is one class and one line:
            """
        ),
        block_code,
    ])  # fmt: skip
    return (block_code,)


@app.cell(hide_code=True)
def _(ask_the_judge, block_code, mo):
    _, block_verdict, _ = ask_the_judge(block_code)
    mo.md(f"```text\n{block_verdict}\n```")
    return


@app.cell(hide_code=True)
def _(POSITIONS, mo):
    mo.md(f"""
    Now break it. Put `causal = False` as the first line of `weights` in the second, and read what the
    judge says: that is a model which sees the future. It learns wonderfully, and writes nonsense. Or
    count the distance of the first from the first query, `q_pos[:, :1, None]`: without a cache that is
    not the position of the query at all, with a cache it is another one, and the judge notices.

    There are position encodings named {", ".join(POSITIONS)} now. Norms, feed-forward layers, blocks,
    attention kernels, batches, optimizers, schedules and samplers are added in the same way; `docs/extending.md` has the list.

    ## Your turn

    ```sh
    nanogpt exercise check rope             # the rotation, by hand
    nanogpt lab check my_idea.py            # your own idea: is it sound?
    nanogpt train demo --plugin my_idea.py --model.position log --run runs/log
    ```

    **Papers.** Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding". Press,
    Smith & Lewis 2022, "Train Short, Test Long", is ALiBi. Chi et al. 2022, "KERPLE", where scores
    fall with a logarithm. Xiao et al. 2023, "Efficient Streaming Language Models with Attention
    Sinks", on heads that look at the first token. Miller 2023, "Attention Is Off By One", on looking
    at nothing.
    """)
    return


if __name__ == "__main__":
    app.run()
