"""What attention heads look at: three habits that are known to matter, and a score for each head.

Read random tokens, all different, and then the same once more. Nothing is to be understood there,
so what a head looks at in the second half is its habit:

- previous: the token just before;
- induction: the token that came after this one's first appearance, which is what comes next now
  (Elhage et al. 2021, Olsson et al. 2022). It takes two layers: in one a previous-token head notes
  beside each token what stood before it, in a later one the induction head looks for that note;
- first: the first token, where a head looks that has nothing to look for (Xiao et al. 2023).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nanogpt.errors import UserError
from nanogpt.files import as_csv, write_text, writing
from nanogpt.model.gpt import GPT
from nanogpt.model.trace import record
from nanogpt.text.tokenizer import BaseTokenizer

ROWS = 16
LONGEST = 128  # tokens before they repeat
HABITS = ("previous", "induction", "first")


@dataclass(frozen=True)
class Heads:
    """Scores of all heads, and the attention that they were read from."""

    scores: dict[str, Tensor]  # by habit (n_layer, nh): share of attention, 0 to 1
    # (with a window the first token is out of sight, and its score is 0)
    weights: Tensor  # of the first row, (n_layer, nh, T, S)
    chance: float  # the score of a head that looks everywhere alike

    def strongest(self, habit: str, number: int = 1) -> list[tuple[int, int, float]]:
        """Layer, head and score of the heads that show it most."""
        scores = self.scores[habit]
        order = scores.flatten().argsort(descending=True)[:number].tolist()
        return [(*divmod(n, scores.shape[1]), scores.flatten()[n].item()) for n in order]


def repeated_tokens(
    model: GPT, tokenizer: BaseTokenizer, length: int = LONGEST, seed: int = 0, rows: int = ROWS,
    start: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    """Different tokens in random order, twice in a row: (B, T). The same ones for the same seed.

    So many of them, or as many as fit into the context and the vocabulary. The tokens of `start`
    stand before them and are not among them. Raises UserError if context or vocabulary are too
    small for that.
    """
    special = {*tokenizer.special_tokens.values(), *start}
    ordinary = torch.tensor([i for i in tokenizer.vocabulary if i not in special])
    length = min((model.config.context_length - len(start)) // 2, len(ordinary), length)
    if model.config.window:  # what a token followed the first time should be within sight
        length = min(length, model.config.window)
    if length < 4:
        raise UserError(
            "looking at heads needs a context of 8 tokens, 4 different ones, and no window below "
            "4; name another run"
        )
    draw = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(ordinary), generator=draw)[:length] for _ in range(rows)]
    before = torch.tensor(start, dtype=torch.long).expand(rows, -1)
    return torch.cat([before, ordinary[torch.stack(orders)].repeat(1, 2)], 1).to(model.device)


@torch.no_grad()
def score_heads(model: GPT, tokenizer: BaseTokenizer, length: int = LONGEST) -> Heads:
    """Score every head of every layer. Raises UserError as repeated_tokens does."""
    ids = repeated_tokens(model.eval(), tokenizer, length)
    with record(model, "h.*.attn.weights") as seen:
        model(ids)
    half = ids.shape[1] // 2
    weights = torch.stack(list(seen.values()))
    visible = torch.arange(half + 1, 2 * half + 1).clamp(max=model.config.window or 2 * half)
    return Heads(
        habits_of(weights, half),
        torch.stack([w[0] for w in seen.values()]).float().cpu(),
        (1 / visible).mean().item(),
    )


def habits_of(weights: Tensor, length: int) -> dict[str, Tensor]:
    """The scores of attention weights (n_layer, B, nh, T, T) by habit, each (n_layer, nh).

    The last `length` tokens of each text are the `length` before them once more.
    """
    queries = torch.arange(weights.shape[-1] - length, weights.shape[-1])
    keys = {"previous": queries - 1, "induction": queries - length + 1, "first": 0 * queries}
    return {
        habit: weights[..., queries, keys[habit]].mean(dim=(1, -1)).float().cpu()
        for habit in HABITS
    }


def write_heads(folder: str | Path, heads: Heads, title: str) -> list[Path]:
    """Write heads.csv and heads.png."""
    folder = Path(folder)
    layers, number = heads.scores["first"].shape
    rows = [
        [layer, head, *(f"{heads.scores[habit][layer, head].item():.4f}" for habit in HABITS)]
        for layer in range(layers)
        for head in range(number)
    ]
    write_text(folder / "heads.csv", as_csv([["layer", "head", *HABITS], *rows]))
    draw_heads(folder / "heads.png", heads, title)
    return [folder / "heads.csv", folder / "heads.png"]


def draw_heads(path: Path, heads: Heads, title: str) -> None:
    """Above, the score of every head; below, what the strongest head of each habit looks at."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    layers, number = heads.scores["first"].shape
    figure, axes = plt.subplots(2, 3, figsize=(12, 7.5), layout="constrained")
    for (above, below), habit in zip(axes.T, HABITS, strict=True):
        scores = heads.scores[habit].numpy()
        image = above.imshow(scores, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        above.set_title(f"{habit}: score")
        above.set(xlabel="head", ylabel="layer")
        above.set_xticks(range(0, number, math.ceil(number / 12)))
        above.set_yticks(range(0, layers, math.ceil(layers / 12)))
        if scores.size <= 64:
            for layer, row in enumerate(scores):
                for head, score in enumerate(row):
                    color = "white" if score > 0.6 else "black"
                    above.text(head, layer, f"{score:.2f}", ha="center", va="center", color=color)
        layer, head, score = heads.strongest(habit)[0]
        shares = heads.weights[layer, head].clamp(min=0)  # a kernel's own shares may be negative
        below.imshow(shares.sqrt().numpy(), vmin=0, vmax=1, cmap="Blues")
        below.set_title(f"layer {layer}, head {head}: {score:.2f}")
        below.set(xlabel="looks at token", ylabel="token")
        for axis in (below.xaxis, below.yaxis):
            axis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes[0], label="share of attention")
    figure.suptitle(title, parse_math=False)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
