import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 15: an idea of your own")


@app.cell(hide_code=True)
def _():
    import subprocess
    import sys
    from dataclasses import replace
    from hashlib import sha256
    from pathlib import Path
    from shutil import rmtree
    from textwrap import wrap

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt
    from torch import nn

    from nanogpt.config import ModelConfig, SampleConfig
    from nanogpt.generation.stream import generate_text
    from nanogpt.lab.contracts import CHECKS, cache, causality
    from nanogpt.lab.plugin import load_plugin
    from nanogpt.learn.models import short_run, small_config
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax
    from nanogpt.model.position import POSITIONS, ALiBi, Position
    from nanogpt.model.trace import record
    from nanogpt.training.load import load
    from nanogpt.training.records import Step
    from nanogpt.training.variants import added_since, snapshot

    torch.set_num_threads(1)  # for models so small, two threads wait for each other
    return (
        ALiBi,
        CHECKS,
        GPT,
        ModelConfig,
        POSITIONS,
        Path,
        Position,
        SampleConfig,
        Step,
        added_since,
        cache,
        causality,
        generate_text,
        judged,
        load,
        load_plugin,
        mo,
        nn,
        package_code,
        plt,
        predict,
        record,
        replace,
        reply,
        rmtree,
        self_test,
        sha256,
        short_run,
        small_config,
        snapshot,
        softmax,
        subprocess,
        sys,
        torch,
        wrap,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 15. A position encoding and an attention of your own

    After this lesson you can write a new position encoding and a new kind of attention. Each is a
    class of ten to twenty lines, in a file of your own. You can have them checked for mistakes that no
    loss curve shows. And you can see within a minute whether they learn.

    Ideas in this field are small. ALiBi is a straight line, and RoPE is a rotation; most large models
    of today use RoPE. The idea itself is rarely the hard part. The hard part is what surrounds it: no
    token may see the future, generation with a KV cache must give the same text as without, padding must change
    nothing. The package checks these for you.

    ## An idea: forget by the logarithm

    Here is a concrete one. A token looks back at the tokens before it, and all keys fit equally well.
    ALiBi subtracts a constant from the score for each token of distance. Softmax takes the exponential,
    so each further token of distance divides the attention weight by the same *factor*. With a factor
    of 1.28 (the first of four heads), the key at distance 40 gets 1/22,000 of what distance 0 gets. It is gone.

    Human memory does not work like this. Yesterday is much further away than an hour ago, but last
    February is hardly further away than last March. So let the score fall with the *logarithm* of the
    distance: subtract log(1 + distance).
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    half_guess = predict(
        """
        All keys fit equally well, and we subtract log(1 + distance) from each score. The key at
        distance 1 gets how many times the attention weight of the token itself, at distance 0?
        """,
        step=0.01,
    )
    half_guess
    return (half_guess,)


@app.cell(hide_code=True)
def _(half_guess, reply, weights):
    reply(
        half_guess,
        round((weights[1] / weights[0]).item(), 2),
        """
        exp(-log(1 + d)) is 1 / (1 + d): one half, one third, one quarter. It always falls, but it
        falls more and more slowly: from distance 40 to 41 by a fortieth only.
        """,
        wrong={
            0.37: "exp(-1) would be right if the score fell by 1. It falls by log 2, which is 0.69.",
            0.69: "0.69 is log 2: what is subtracted from the score. Softmax then takes its exponential.",
            0.31: "1 - 0.69. But scores become weights by the exponential, not by a difference.",
        },
        tolerance=0.02,
    )
    return


@app.cell
def _(softmax, torch):
    distance = torch.arange(5.0)  # 0, 1, 2, 3, 4 tokens back
    scores = -torch.log1p(distance)  # log1p(d) is log(1 + d)
    weights = softmax(scores)
    (weights / weights[0]).tolist()
    return (weights,)


@app.cell(hide_code=True)
def _(mo):
    strength = mo.ui.slider(0, 3, step=0.25, value=1, label="strength", show_value=True)
    mo.vstack([
        mo.md(
            """
            A *strength* multiplies the logarithm; it makes 1 / (1 + d) to the power of the strength.
            The picture shows attention weights relative to distance 0, twice. The vertical axis is
            logarithmic: equal steps upward multiply the weight by the same number. On the left the distance
            is drawn as usual: ALiBi is a straight line. On the right the distance is drawn by its
            logarithm: now the new idea is the straight line. Move the strength.
            """
        ),
        strength,
    ])  # fmt: skip
    return (strength,)


@app.cell(hide_code=True)
def _(ALiBi, ModelConfig, plt, strength, torch):
    _far = torch.arange(64)
    _alibi = ALiBi(ModelConfig(n_head=4, n_embd=64)).bias(torch.tensor([[63]]), 63 - _far[None])[0, :, 0]
    _lines = (
        ("ALiBi, head 1", _alibi[0].exp(), "#1f5a99"),
        ("ALiBi, head 2", _alibi[1].exp(), "#7fa6cf"),
        ("logarithm", torch.exp(-strength.value * torch.log1p(_far.float())), "#d1602b"),
    )
    fall, _both = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for _axes, _ in zip(_both, range(2), strict=True):
        for _name, _curve, _color in _lines:
            _axes.plot(_far + 1, _curve, color=_color, lw=2.5, label=_name)
        _axes.set(yscale="log", ylim=(1e-6, 2), xlabel="1 + distance")
        _axes.grid(alpha=0.25)
        _axes.spines[["top", "right"]].set_visible(False)
    _both[1].set(xscale="log", xlabel="1 + distance, logarithmic")
    _both[0].set_ylabel("weight, relative to distance 0")
    _both[0].legend(frameon=False, loc="lower left")
    fall
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Where it goes in

    Order can enter a Transformer in three places: it is added to the embeddings, it rotates queries and
    keys, or it is added to the scores. So a position encoding is a class with three hooks: `embed`,
    `rotate` and `bias`. Here a hook is a method that the model calls at a fixed place. The base class
    changes nothing in any of them. Our idea needs one, `bias`. All encodings of the package are in
    `model/position.py`, and its dictionary `POSITIONS` gives each a name.
    """)
    return


@app.cell(hide_code=True)
def _(ALiBi, Position, package_code):
    package_code(Position, ALiBi)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Now we write it into a file of our own. A **plugin** is a Python file of yours that adds a variant to
    one of the package's dictionaries. You need no copy of the package, and no line of it changes. Each
    head gets a strength of its own, and training finds it.

    Read the shapes. `q_pos` holds the positions of the queries, (B, T), and `k_pos` those of the keys,
    (B, S). `q_pos[:, :, None]` has the shape (B, T, 1) and `k_pos[:, None, :]` has (B, 1, S). Their
    difference has one entry for each pair: (B, T, S). `clamp(min=0)` sets later keys to distance 0;
    the mask hides them anyway.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    weights_guess = predict(
        """
        In the file below, the only new weights are the strengths. How many does the lessons' small
        model get? (2 layers, 4 heads, 96 channels, context length 64; the network has one position
        encoding, and all layers use it.)
        """,
        step=1,
    )
    weights_guess
    return (weights_guess,)


@app.cell(hide_code=True)
def _(mo):
    position_code = mo.ui.code_editor(
        value='''import torch
from torch import nn
from nanogpt.model.position import POSITIONS, Position


class LogDistance(Position):
    """Scores fall with the log of the distance."""

    def __init__(self, config):
        super().__init__(config)
        self.strength = nn.Parameter(torch.ones(config.n_head))

    def bias(self, q_pos, k_pos):
        distance = q_pos[:, :, None] - k_pos[:, None, :]
        fall = torch.log1p(distance.clamp(min=0))  # (B, T, S)
        strength = self.strength[:, None, None]  # (nh, 1, 1)
        return -strength * fall[:, None]  # (B, nh, T, S)


POSITIONS["log"] = LogDistance
''',
        language="python",
        label="a file of your own: change it, then submit",
    ).form()
    position_code
    return (position_code,)


@app.cell(hide_code=True)
def _(reply, small_config, weights_guess):
    reply(
        weights_guess,
        small_config(1).model.n_head,
        """
        One strength for each head. The learned positions of GPT-2 take 64 vectors of 96 numbers
        instead: 6,144 weights, and they know nothing beyond position 64.
        """,
        wrong={
            8: "That counts 4 heads in each of 2 layers. But the bias is computed once for the whole "
            "network and every layer adds the same.",
            1: "A single strength would be shared by all heads. Here each head has its own.",
            96: "Channels play no part: the bias is added to scores, and a head has one score for each "
            "pair of tokens.",
            6144: "These are the learned positions, 64 times 96.",
        },
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    How does the training find this file? You name it. Save it as `my_idea.py` and write

    ```sh
    nanogpt train demo --plugin my_idea.py \
        --model.position log
    ```

    `--plugin` runs the file first. Its last line enters the class into `POSITIONS` under the name `log`, and
    `model.position` chooses this name. A study has the line `plugins = ["my_idea.py"]` instead.
    """)
    return


@app.cell(hide_code=True)
def _(CHECKS, Path, mo, sha256, subprocess, sys, wrap):
    def ask_the_judge(code):
        """The file with this code, what `nanogpt lab check` says, and whether it is sound."""
        path = Path("runs/lesson-ideas") / f"idea_{sha256(code.encode()).hexdigest()[:8]}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        command = [sys.executable, "-m", "nanogpt", "lab", "check", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        except subprocess.TimeoutExpired:
            return path, "It took more than a minute: is there an endless loop?", False
        lines = (done.stdout + done.stderr).strip().splitlines()
        said = [part for line in lines for part in wrap(line, 36, subsequent_indent=7 * " ")]
        return path, "\n".join(said), done.returncode == 0

    mo.md(
        f"""
        ## Is it sound?

        `nanogpt lab check my_idea.py` builds a tiny model with your variant and asks {len(CHECKS)}
        questions. The same questions go to every variant of the package.

        The first question is about the future. A token that sees what it has to predict copies it. Then
        the training loss and the validation loss are both wonderful, because the answer stands in the
        validation window, too. Only generation is bad: there the next token does not exist yet. So the
        check changes a later token and looks whether the logits of an earlier one change.
        """
    )
    return (ask_the_judge,)


@app.cell(hide_code=True)
def _(ask_the_judge, mo, position_code):
    position_file, _verdict, position_sound = ask_the_judge(
        position_code.value or position_code.element.value
    )
    mo.md(f"```text\n{_verdict}\n```")
    return position_file, position_sound


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Two of the questions need a word.

    - *Kernels.* The check builds the same model twice, with hand-written and with fused layers, and compares
      the logits. Your own part is the same in both.
    - *`collapse`.* An encoding may have a method of this name, after which it adds nothing. Then the check
      compares it with a model that has no encoding. `LogDistance` has no such method, so there is
      nothing to check, and the *yes* says nothing about it.
    """)
    return


@app.cell(hide_code=True)
def _(cache, causality, package_code):
    package_code(causality, cache)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## A careless version

    Why so many questions, if the loss says whether a model learns? Here is a mistake that nearly
    everybody makes once. The distances are counted from 0 by `torch.arange`, and the arguments `q_pos`
    and `k_pos` are not used.
    """)
    return


@app.cell
def _(POSITIONS, Position, nn, torch):
    class CarelessLog(Position):
        def __init__(self, config):
            super().__init__(config)
            self.strength = nn.Parameter(torch.ones(config.n_head))

        def bias(self, q_pos, k_pos):
            T, S = q_pos.shape[1], k_pos.shape[1]
            distance = torch.arange(T)[:, None] - torch.arange(S)  # (T, S)
            fall = torch.log1p(distance.clamp(min=0))
            return -self.strength[:, None, None] * fall[None]  # (nh, T, S)

    POSITIONS["careless"] = CarelessLog
    return


@app.cell(hide_code=True)
def _(predict):
    careless_guess = predict(
        """
        A model was trained with the sound encoding. We put its weights into a model with the careless
        one. What happens?
        """,
        choices=[
            "the loss is the same, and the generated text differs",
            "the loss is higher, and the generated text differs",
            "the loss is the same, and so is the generated text",
        ],
    )
    careless_guess
    return (careless_guess,)


@app.cell(hide_code=True)
def _(
    Step,
    added_since,
    load_plugin,
    mo,
    plt,
    position_file,
    position_sound,
    rmtree,
    short_run,
    snapshot,
):
    losses, new_run = {}, None
    if position_sound:
        known = snapshot()
        load_plugin(str(position_file))
        _new = [_name for _setting, _name in added_since(known) if _setting == "model.position"]
        new_run = position_file.with_suffix("")
        rmtree(new_run, ignore_errors=True)  # of an earlier visit
        with mo.status.spinner("training three small models"):
            for _position in dict.fromkeys(["learned", "alibi", *_new]):
                losses[_position] = short_run(
                    60, new_run if _position in _new else None, model={"position": _position}
                )
        race, _track = plt.subplots(figsize=(8, 3.2), layout="constrained")
        for (_position, _records), _ink in zip(
            losses.items(), ("#888888", "#1f5a99", "#d1602b", "#7a9a3a"), strict=False
        ):
            _curve = [_r.loss for _r in _records if isinstance(_r, Step)]
            _track.plot(_curve, color=_ink, label=f"{_position}: {_records[-1].val_loss:.3f} at the end")
        _track.set(xlabel="step", ylabel="training loss, nats")
        _track.grid(alpha=0.25)
        _track.spines[["top", "right"]].set_visible(False)
        _track.legend(frameon=False, title="validation loss")
        _shown = race
    else:
        _shown = mo.md("It is not sound yet, so it is not trained.")
    mo.vstack([
        mo.md(
            """
            So first we train: sixty steps with the small model, the same batches for learned positions,
            for ALiBi and for the new idea.
            """
        ),
        _shown,
        mo.md(
            "Does the new idea help? One seed and sixty steps prove nothing, as lesson 14 has shown. But "
            "the curves say that it learns. Now we put the weights into the careless model:"
        ),
    ])
    return (new_run,)


@app.cell
def _(GPT, SampleConfig, generate_text, load, mo, new_run, replace, torch):
    mo.stop(new_run is None, mo.md("*This needs an encoding that is sound.*"))
    sound, tokenizer, settings = load(new_run)
    mo.stop(settings.model.position != "log", mo.md("*This needs the encoding that is called log.*"))

    careless = GPT(replace(sound.config, position="careless")).eval()
    _ = careless.load_state_dict(sound.state_dict())

    ids = torch.tensor([tokenizer.encode("The king is dead, and all the court in tears.")])
    greedy = SampleConfig(prompt="The king", max_new_tokens=24, temperature=0)
    compared = {}
    for _name, _model in (("sound", sound), ("careless", careless)):
        with torch.no_grad():
            _loss = _model.loss(_model(ids[:, :-1]), ids[:, 1:]).item()
        compared[_name] = (_loss, "".join(generate_text(_model, tokenizer, greedy)))
    compared
    return (compared,)


@app.cell(hide_code=True)
def _(careless_guess, compared, reply):
    _same_loss = abs(compared["sound"][0] - compared["careless"][0]) < 1e-4
    _same_text = compared["sound"][1] == compared["careless"][1]
    _answers = {
        (True, False): "the loss is the same, and the generated text differs",
        (False, False): "the loss is higher, and the generated text differs",
        (True, True): "the loss is the same, and so is the generated text",
    }
    _right = _answers.get((_same_loss, _same_text), _answers[True, False])
    _reasons = {
        _answers[True, False]: "The cache reads one new token at a time, so positions matter there.",
        _answers[False, False]: "The loss is computed on a whole text at once. There the first token "
        "really is at position 0, and `arange` gives the right distances.",
        _answers[True, True]: "With the KV cache the new token comes alone: T is 1, and `arange(1)` says "
        "that it stands at position 0. It stands at the end.",
    }
    reply(
        careless_guess,
        _right,
        """
        Training and evaluation read whole windows, and there both are the same function. Generation
        reads the prompt at once and then one token at a time. For this token `arange` gives position 0,
        so every distance becomes 0 and the head no longer forgets anything. You would see good losses,
        poor text, and no error.
        """,
        wrong={_guess: _why for _guess, _why in _reasons.items() if _guess != _right},
    )
    return


@app.cell(hide_code=True)
def _(ask_the_judge, mo):
    _, _said, _ = ask_the_judge('''import torch
from torch import nn
from nanogpt.model.position import POSITIONS, Position


class CarelessLog(Position):
    def __init__(self, config):
        super().__init__(config)
        self.strength = nn.Parameter(torch.ones(config.n_head))

    def bias(self, q_pos, k_pos):
        distance = torch.arange(q_pos.shape[1])[:, None] - torch.arange(k_pos.shape[1])
        return -self.strength[:, None, None] * torch.log1p(distance.clamp(min=0))[None]


POSITIONS["careless"] = CarelessLog
''')
    mo.md(f"`nanogpt lab check` finds it, and its second *no* reports the changed text:\n\n```text\n{_said}\n```")
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## An attention of your own

    The attention weights of a query sum to 1. So a head that finds nothing has to look somewhere all
    the same. Take a query with three keys and the scores -2, -3 and -4: none of them fits. Softmax makes
    them 0.67, 0.24 and 0.09. The head takes two thirds from a token that does not fit. Trained models
    often solve this by looking at the first token, whatever it is (Xiao et al. 2023).

    What if there were a way out? We add one more key, of zeros, with a value of zeros. Its score is
    always 0, and what it gives is nothing. In the example the weights become 0.11, 0.04 and 0.02, and
    the rest, 0.83, goes to nothing.
    """)
    return


@app.cell(hide_code=True)
def _(predict):
    quiet_guess = predict(
        """
        A query has three keys, and all three scores are 0. With the key of zeros beside them, what do
        the attention weights of the three real keys sum to?
        """,
        step=0.01,
    )
    quiet_guess
    return (quiet_guess,)


@app.cell(hide_code=True)
def _(quiet_guess, reply):
    reply(
        quiet_guess,
        0.75,
        """
        Four scores of 0 share equally: a quarter each. The head is never quite silent and never has to
        speak: with a score of 5 a key takes nearly everything, as before.
        """,
        wrong={
            1: "All four weights sum to 1, the one of nothing included. The real keys get the rest.",
            0: "A score of 0 is not a weight of 0. Softmax makes exp(0) = 1 of it.",
            0.5: "Nothing counts as one key among four, not as much as the others together.",
        },
        tolerance=0.01,
    )
    return


@app.cell
def _(softmax, torch):
    real_scores = torch.tensor([0.0, 0.0, 0.0])  # change them: -2, -3, -4, or 5, 0, 0
    with_nothing = softmax(torch.cat([torch.zeros(1), real_scores]))
    {"nothing": with_nothing[0].item(), "real keys": with_nothing[1:].tolist()}
    return


@app.cell(hide_code=True)
def _(mo):
    block_code = mo.ui.code_editor(
        value='''import torch
import torch.nn.functional as F
from nanogpt.model.attention import (
    ATTENTION_KERNELS, PlainAttention,
    attention_mask, attention_weights,
)


class QuietAttention(PlainAttention):
    """A head may look at nothing: a key of zeros."""

    def weights(self, q, k, mask=None, causal=False):
        if causal:
            T, S = q.shape[-2], k.shape[-2]
            mask = attention_mask(T, S, device=q.device)
        if mask is not None:
            # a column for the key of zeros: True for a mask
            # of booleans, 0 for one that is added to scores
            free = float(mask.dtype == torch.bool)
            mask = F.pad(mask, (1, 0), value=free)
        nothing = torch.zeros_like(k[..., :1, :])
        keys = torch.cat([nothing, k], dim=-2)
        return attention_weights(q, keys, mask)[..., 1:]

    def forward(self, q, k, v, mask=None, causal=False):
        weights = self.weights(q, k, mask, causal)
        return F.dropout(weights, self.dropout) @ v


ATTENTION_KERNELS["quiet"] = QuietAttention
''',
        language="python",
        label="change it, then submit",
    ).form()
    mo.vstack([
        mo.md(
            """
            In the package attention is computed by a *kernel*, a module of its own that gets queries,
            keys, values and the mask. A dictionary names the kernels. So another attention is again one
            class and one entry. The value of zeros adds nothing to the sum, so we may leave it out: we
            drop the first column of the weights. The mask needs a column for the new key as well:
            `F.pad(mask, (1, 0), value=free)` puts one column before the first and none after the last.
            """
        ),
        block_code,
    ])  # fmt: skip
    return (block_code,)


@app.cell(hide_code=True)
def _(ask_the_judge, block_code, mo):
    quiet_file, _said, quiet_sound = ask_the_judge(block_code.value or block_code.element.value)
    mo.md(f"```text\n{_said}\n```")
    return quiet_file, quiet_sound


@app.cell(hide_code=True)
def _(
    added_since,
    load,
    load_plugin,
    mo,
    plt,
    quiet_file,
    quiet_sound,
    record,
    rmtree,
    short_run,
    snapshot,
    torch,
):
    mo.stop(not quiet_sound, mo.md("It is not sound yet, so it is not trained."))
    _before = snapshot()
    load_plugin(str(quiet_file))
    _names = [_name for _setting, _name in added_since(_before) if _setting == "model.attention"]
    mo.stop(not _names, mo.md("There is no attention kernel in this file."))
    rmtree(quiet_file.with_suffix(""), ignore_errors=True)
    with mo.status.spinner("training with it"):
        _records = short_run(60, quiet_file.with_suffix(""), model={"attention": _names[0]})
    _model, _tokenizer, _ = load(quiet_file.with_suffix(""))
    _ids = torch.tensor([_tokenizer.encode("The king is dead, and all the court in tears. Long live the king!")])
    with torch.no_grad(), record(_model, "h.*.attn.weights") as _seen:
        _model(_ids)
    _silence = torch.stack([1 - _w[0].sum(-1).mean(-1) for _w in _seen.values()]).flatten()
    _equal = sum(1 / (_t + 2) for _t in range(_ids.shape[1])) / _ids.shape[1]
    heads, _axes = plt.subplots(figsize=(8, 3), layout="constrained")
    _labels = [f"layer {_l + 1}\nhead {_h + 1}" for _l in range(2) for _h in range(4)]
    _axes.bar(_labels, _silence, color=["#1f5a99"] * 4 + ["#d1602b"] * 4)
    for _n, _share in enumerate(_silence.tolist()):
        _axes.text(
            _n, _share + 0.01, f"{_share:.2f}", ha="center", va="bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    _axes.axhline(_equal, color="#888888", ls="--", lw=1, zorder=0)
    _axes.set(ylabel="attention given to nothing", ylim=(0, max(0.3, 1.2 * _silence.max().item())))
    _axes.spines[["top", "right"]].set_visible(False)
    mo.vstack([
        mo.md(
            f"Sixty steps with it end at a validation loss of {_records[-1].val_loss:.3f}. The picture shows "
            "how much attention each head leaves unused, in the mean over the tokens of a sentence. If all "
            f"scores were 0, each head would leave {_equal:.2f}. A head above the "
            "dashed line has learned to stay silent."
        ),
        heads,
    ])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What you can say now

    An idea becomes a variant by one class and one entry in a dictionary, in a plugin. A position encoding
    uses one of three hooks: it adds to the embeddings, rotates queries and keys, or adds to the scores.
    Soundness and usefulness are two questions. `nanogpt lab check` answers the first, because a mistake
    with the cache or the padding leaves the loss as it is. A study with several seeds answers the second.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(15)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(15, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    This lesson has no exercise of its own, but three experiments.

    1. Break it. Put `causal = False` as the first line of `weights` in the second file and submit. Which
       check fails first? What would the training loss of this model look like, and what its texts?
    2. Change the idea: let the score fall with the *root* of the distance, or let each head have a
       distance beyond which it sees nothing. Is it sound?
    3. Find out whether it helps. Save the first file as `my_idea.py`. Write a study as in lesson 14,
       with the line `plugins = ["my_idea.py"]`. Under `[vary]` put `"model.position" = ["alibi", "log"]`:

       ```sh
       nanogpt lab check my_idea.py
       nanogpt lab run my_study.toml
       ```

    `docs/extending.md` lists everything that can be replaced in this way: norms, feed-forward layers,
    blocks, batches, optimizers, schedules, samplers.

    **Papers.** Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
    section 3. Press, Smith & Lewis 2022, "Train Short, Test Long", section 3, is ALiBi. Chi et al. 2022,
    "KERPLE", has scores that fall with a logarithm. Xiao et al. 2023, "Efficient Streaming Language Models
    with Attention Sinks", section 3, on heads that look at the first token. Miller 2023, "Attention Is Off
    By One", on looking at nothing.
    """)
    return


if __name__ == "__main__":
    app.run()
