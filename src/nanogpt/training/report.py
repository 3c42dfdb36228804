"""What a run leaves for people: loss.png, rewards.png where there are rewards, samples.md."""

from dataclasses import replace
from pathlib import Path

from nanogpt.config import Config, SampleConfig
from nanogpt.files import fenced, write_text, writing
from nanogpt.generation.stream import generate_text
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.records import read_metrics


def write_loss_plot(run: str | Path) -> Path:
    """Draw loss.png from metrics.jsonl: train and validation loss above, learning rate below."""
    run = Path(run)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    records = read_metrics(run)
    steps = [r for r in records if "loss" in r]
    validations = [r for r in records if "val_loss" in r]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=[3, 1], layout="constrained"
    )
    top.plot(
        [r["step"] for r in steps],
        [r["loss"] for r in steps],
        lw=0.7,
        color="#9db8d2",
        label="batch",
    )
    top.plot(
        [r["step"] for r in steps],
        running_mean([r["loss"] for r in steps]),
        color="#1f5a99",
        label="train, running mean",
    )
    top.plot(
        [r["step"] for r in validations],
        [r["val_loss"] for r in validations],
        "o-",
        ms=4,
        color="#d1602b",
        label="validation",
    )
    top.set_ylabel("loss, nats per token")
    top.set_title(f"{run.name}: loss and learning rate", parse_math=False)
    top.legend(frameon=False)
    bottom.plot([r["step"] for r in steps], [r["lr"] for r in steps], color="#3f7d4f")
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    for axes in (top, bottom):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with writing(run / "loss.png") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    return run / "loss.png"


def write_reward_plot(run: str | Path) -> Path | None:
    """Draw rewards.png of a run that learned from rewards; of another one nothing, and None.

    The reward with the share of right answers, the length of answers, the entropy, and the distance
    from the reference model.
    """
    run = Path(run)
    records = read_metrics(run)
    rollouts = [r for r in records if "reward" in r]
    looks = [r for r in records if "right" in r]
    if not rollouts:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    titles = {
        "reward": "reward of the answers",
        "length": "length of an answer, tokens",
        "entropy": "entropy, nats per token",
        "distance": "distance from the reference, nats per token",
    }
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        steps, values = [r["step"] for r in rollouts], [r[name] for r in rollouts]
        axes.plot(steps, values, lw=0.7, color="#9db8d2", label="each step")
        axes.plot(steps, running_mean(values, 0.9), color="#1f5a99", label="running mean")
        if name == "reward" and looks:
            places, right = [r["step"] for r in looks], [r["right"] for r in looks]
            axes.plot(places, right, "o-", ms=4, color="#d1602b", label="validation: share right")
            axes.legend(frameon=False)
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel("step")
    figure.suptitle(f"{run.name}: learning from rewards", parse_math=False)
    with writing(run / "rewards.png") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
    return run / "rewards.png"


def running_mean(values: list[float], memory: float = 0.95) -> list[float]:
    """An exponential running mean of what has been so far, without favour for the first value.

    >>> running_mean([4.0, 1.0], memory=0.5)
    [4.0, 2.0]
    """
    means: list[float] = []
    total = weight = 0.0
    for value in values:
        total, weight = memory * total + value, memory * weight + 1
        means.append(total / weight)
    return means


def three_ways(config: SampleConfig) -> dict[str, SampleConfig]:
    """Three ways to choose the next token, under their headings.

    Greedy, pure sampling, and sampling with the temperature and top-k of the settings; where those
    switch something off, with the defaults.
    """
    temperature = config.temperature or SampleConfig.temperature
    top_k = config.top_k or SampleConfig.top_k
    return {
        "greedy": replace(config, temperature=0.0),
        "temperature 1": replace(config, temperature=1.0, top_k=0),
        f"temperature {temperature}, top-k {top_k}": replace(
            config, temperature=temperature, top_k=top_k
        ),
    }


def side_by_side(
    model: GPT, tokenizer: BaseTokenizer, config: SampleConfig, chat: bool = False
) -> dict[str, str]:
    """The same prompt continued in three ways, or answered if it is a message of a chat."""
    shown = config.prompt + "\n" * chat
    return {
        name: shown + "".join(generate_text(model, tokenizer, settings, chat=chat))
        for name, settings in three_ways(config).items()
    }


def write_samples(run: str | Path, config: Config, continuations: dict[str, str]) -> Path:
    """Write samples.md: how the model's writing grew, and the final continuations."""
    run = Path(run)
    parts = [f"# Samples of {run.name}"]
    parts.append("## While it was learning")
    settings = config.sample
    parts.append(f"Temperature {settings.temperature}, top-k {settings.top_k}.")
    for record in read_metrics(run):
        if "sample" in record:
            parts.append(f"### After {record['step']} steps\n\n{fenced(record['sample'])}")
    if continuations:
        parts.append("## At the end")
    parts += [f"### {name.capitalize()}\n\n{fenced(text)}" for name, text in continuations.items()]
    write_text(run / "samples.md", "\n\n".join(parts) + "\n")
    return run / "samples.md"
