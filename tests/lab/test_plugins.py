"""Everything a learner may want to vary joins in from a file of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nanogpt.cli import main
from nanogpt.config import with_settings
from nanogpt.generation.stream import generate_text
from nanogpt.lab.contracts import check_all
from nanogpt.lab.plugin import load_plugin
from nanogpt.training.load import load
from nanogpt.training.start import Trainer
from nanogpt.training.variants import TABLES, added_since, snapshot

from conftest import SMALL, small_run

PLUGINS = sorted((Path(__file__).parent.parent / "plugins").glob("*.py"))


@pytest.fixture(autouse=True)
def tables_as_before():
    before = snapshot()
    yield
    for setting, table in TABLES.items():
        table.clear()
        table.update(before[setting])


def added_by(path: Path) -> tuple[str, str]:
    """The one variant that a file adds."""
    before = snapshot()
    load_plugin(str(path))
    (variant,) = added_since(before)
    return variant


every_plugin = pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)


def test_every_table_but_the_norms_has_a_plugin_and_none_is_long():
    assert {added_by(path)[0] for path in PLUGINS} == set(TABLES) - {"model.norm"}
    for path in PLUGINS:
        assert sum(bool(line.strip()) for line in path.read_text().splitlines()) <= 25, path


@every_plugin
def test_a_plugin_keeps_what_every_variant_must_keep(path):
    found = check_all(*added_by(path))
    assert found
    assert not any(found.values()), found


@every_plugin
def test_a_plugin_trains_writes_and_resumes(path, prepared, tmp_path):
    setting, name = added_by(path)
    section, key = setting.split(".")
    config = with_settings(small_run(prepared, max_steps=6), **{section: {key: name}})
    whole = Trainer.start(tmp_path / "whole", config)
    list(whole.run())
    half = Trainer.start(tmp_path / "half", config)
    for record in half.run():
        if record.step == 3:
            half.stop()
    assert half.state.step == 3
    resumed = Trainer.resume(tmp_path / "half")
    list(resumed.run())
    for (parameter, a), b in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(a, b), parameter
    loaded = load(tmp_path / "half")
    text = "".join(generate_text(*loaded[:2], replace(loaded.config.sample, max_new_tokens=30)))
    assert text


def test_the_balance_of_experts_is_part_of_the_training_loss_alone(prepared, tmp_path):
    path = next(p for p in PLUGINS if p.stem == "mixture_of_experts")
    _, name = added_by(path)
    config = with_settings(small_run(prepared), model={"mlp": name, "dropout": 0.0})
    trainer = Trainer.start(tmp_path, config)
    ids = torch.randint(300, (2, 16))
    with torch.no_grad():
        logits = trainer.model(ids[:, :-1])
        plain = float(trainer.model.loss(logits, ids[:, 1:], reduction="sum"))
        added = float(trainer.model.auxiliary_loss())
        total = float(trainer.objective(ids[:, :-1], ids[:, 1:]))
    assert added > 0.01  # about 0.01 for each of two layers
    assert total == pytest.approx(plain + 30 * added, rel=1e-6)


HEAD = """
import math
import numpy as np
import torch
from torch import nn
from nanogpt.generation.sampling import SAMPLERS, Sampler
from nanogpt.model.attention import ATTENTION_KERNELS, PlainAttention, attention
from nanogpt.model.gpt import BLOCKS, Block
from nanogpt.model.layers import MLP, MLPS, NORMS
from nanogpt.model.position import POSITIONS, Position
from nanogpt.text.batches import BATCHES, Batch, RandomWindows
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.training.objective import OBJECTIVES, NextToken
from nanogpt.training.optim import OPTIMIZERS, SCHEDULES, AdamW, HandWritten
"""

BROKEN = {
    "sees one token ahead": (
        """
class Ahead(PlainAttention):
    def forward(self, q, k, v, mask=None, causal=False):
        visible = torch.ones(q.shape[-2], k.shape[-2]).tril(k.shape[-2] - q.shape[-2] + 1).bool()
        return attention(q, k, v, visible)
ATTENTION_KERNELS["ahead"] = Ahead
""",
        "token 5 sees tokens that come later: changing token 7 changes it",
    ),
    "forgets the cache's offset": (
        """
class FromZero(Position):
    def rotate(self, q, k, pos):
        turned = torch.arange(q.shape[2]) / 5
        return q * turned.cos()[:, None], k * turned.cos()[:, None]
POSITIONS["from-zero"] = FromZero
""",
        "are positions counted from 0 in each part?",
    ),
    "not a number for padding": (
        """
class Padded(PlainAttention):
    def forward(self, q, k, v, mask=None, causal=False):
        if mask is not None and mask.ndim == 4:
            mask = mask & ~torch.eye(q.shape[-2], k.shape[-2]).bool()
        return attention(q, k, v, mask, causal)
ATTENTION_KERNELS["padded"] = Padded
""",
        "padding before it changes a document's logits by inf",
    ),
    "no gradient": (
        """
class Cut(MLP):
    def activation(self, x):
        return torch.relu(x.detach())
MLPS["cut"] = Cut
""",
        "h.0.ln_2.bias gets no gradient",
    ),
    "mixes rows": (
        """
class Batched(nn.Identity):
    def __init__(self, config):
        super().__init__()
    def forward(self, x):
        return x - 0.5 * x.mean(0, keepdim=True)
NORMS["batched"] = Batched
""",
        "beside other rows: keep rows apart",
    ),
    "a norm over the batch, in training alone": (
        """
class Batched(nn.Identity):
    def __init__(self, config):
        super().__init__()
        self.norm = nn.BatchNorm1d(config.n_embd, affine=False)
    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)
NORMS["over-the-batch"] = Batched
""",
        "sees tokens that come later",
    ),
    "takes every mask for booleans": (
        """
class Truth(PlainAttention):
    def forward(self, q, k, v, mask=None, causal=False):
        return super().forward(q, k, v, None if mask is None else mask != 0, causal)
ATTENTION_KERNELS["truth"] = Truth
""",
        "sees tokens that come later",
    ),
    "as many key heads as query heads": (
        """
class Scaled(Position):
    def rotate(self, q, k, pos):
        gain = torch.linspace(1, 2, q.shape[1])[:, None, None]
        return q, k * gain.view(1, k.shape[1], 1, 1)
POSITIONS["scaled"] = Scaled
""",
        "RuntimeError",
    ),
    "targets that are the tokens themselves": (
        """
class Same(RandomWindows):
    def batch(self, number, batch_size, seed):
        plain = super().batch(number, batch_size, seed)
        return Batch(plain.ids, plain.ids)
BATCHES["same"] = Same
""",
        "a target is not the next token of its row",
    ),
    "always the first batch": (
        """
class First(RandomWindows):
    def batch(self, number, batch_size, seed):
        return super().batch(0, batch_size, seed)
BATCHES["first"] = First
""",
        "the number has to matter",
    ),
    "documents that are not apart": (
        """
class Joined(RandomWindows):
    documents_apart = True
    def batch(self, number, batch_size, seed):
        plain = super().batch(number, batch_size, seed)
        return Batch(plain.ids, plain.targets, np.ones_like(plain.ids))
BATCHES["joined"] = Joined
""",
        "the tokens on both sides of a border have the same document number",
    ),
    "a sampler that cannot be asked as it is asked": (
        """
class Short(Sampler):
    def __call__(self, logits):
        return super().__call__(logits)
SAMPLERS["short"] = Short
""",
        "TypeError",
    ),
    "shows other weights than it uses": (
        """
class Sharp(PlainAttention):
    def forward(self, q, k, v, mask=None, causal=False):
        return attention(2 * q, k, v, mask, causal)
ATTENTION_KERNELS["sharp"] = Sharp
""",
        "`weights` differs from what is used",
    ),
    "a schedule above 1": (
        """
SCHEDULES["high"] = lambda progress, step, config: 1.5 - progress
""",
        "at step 0 of 1 it gives 1.5: stay between 0 and 1",
    ),
    "a ruled-out token": (
        """
class Anything(Sampler):
    def filter(self, logits):
        return logits.clamp(min=-5)
SAMPLERS["anything"] = Anything
""",
        "it chose a token that was ruled out (-inf)",
    ),
    "rows that draw from one generator": (
        """
class Shared(Sampler):
    def draw(self, logits):
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generators[0])[:, 0]
SAMPLERS["shared"] = Shared
""",
        "draws other tokens beside other rows than alone: keep rows apart",
    ),
    "batches with a memory": (
        """
class Counting(RandomWindows):
    made = 0
    def batch(self, number, batch_size, seed):
        self.made += 1
        return super().batch(self.made, batch_size, seed)
BATCHES["counting"] = Counting
""",
        "batch 3 is another one if batches 0 to 2 were made before it: keep no state",
    ),
    "targets in the padding": (
        """
class Padded(RandomWindows):
    def batch(self, number, batch_size, seed):
        plain = super().batch(number, batch_size, seed)
        documents = np.ones_like(plain.ids)
        documents[:, -1] = 0
        return Batch(plain.ids, plain.targets, documents)
BATCHES["padded-targets"] = Padded
""",
        "padding has targets: set them to -100",
    ),
    "an optimizer without a memory of its momentum": (
        """
class Forgetful(HandWritten):
    state_per_weight = 0
    def update(self, parameter, gradient, group):
        if not hasattr(self, "kept"):
            self.kept = {}
        old = self.kept.get(parameter, torch.zeros_like(parameter))
        self.kept[parameter] = 0.9 * old + gradient
        parameter.sub_(group["lr"] * self.kept[parameter])
OPTIMIZERS["forgetful"] = Forgetful
""",
        "is another: keep all that matters in self.state",
    ),
    "an optimizer that climbs": (
        """
class Climb(AdamW):
    def update(self, parameter, gradient, group):
        super().update(parameter, -gradient, group)
OPTIMIZERS["climb"] = Climb
""",
        "after 30 steps the loss is",
    ),
    "an optimizer deaf to its rate": (
        """
class Deaf(HandWritten):
    state_per_weight = 0
    def update(self, parameter, gradient, group):
        parameter.sub_(0.1 * gradient)
OPTIMIZERS["deaf"] = Deaf
""",
        'parameters move at a learning rate of 0: use group["lr"] of this step',
    ),
    "an objective that is a mean": (
        """
class Mean(NextToken):
    def forward(self, ids, targets, documents=None):
        return super().forward(ids, targets, documents) / (targets >= 0).sum()
OBJECTIVES["mean"] = Mean
""",
        "sum over targets, and let the training loop divide",
    ),
    "an objective that counts padding": (
        """
class All(NextToken):
    def forward(self, ids, targets, documents=None):
        return super().forward(ids, ids.roll(-1, 1), documents)
OBJECTIVES["all"] = All
""",
        "padding changes the loss",
    ),
    "an objective that teaches nothing": (
        """
class Deaf(NextToken):
    def forward(self, ids, targets, documents=None):
        return super().forward(ids, targets, documents).detach()
OBJECTIVES["deaf"] = Deaf
""",
        "gets no gradient: call self.model, and detach nothing",
    ),
    "an objective that climbs": (
        """
class Climbs(NextToken):
    def forward(self, ids, targets, documents=None):
        loss = super().forward(ids, targets, documents)
        return 2 * loss.detach() - loss
OBJECTIVES["climbs"] = Climbs
""",
        "it goes from",
    ),
    "a reward that is a word": (
        """
REWARDS["word"] = lambda answer, expected: "good"
""",
        "gives 'good': give a finite number",
    ),
    "a reward that is drawn": (
        """
REWARDS["drawn"] = lambda answer, expected: np.random.rand()
""",
        "is worth",
    ),
    "a reward for saying nothing": (
        """
REWARDS["silence"] = lambda answer, expected: -len(answer)
""",
        "where it is right, and no answer",
    ),
    "an optimizer that keeps more than it says": (
        """
class Modest(AdamW):
    state_per_weight = 1
OPTIMIZERS["modest"] = Modest
""",
        "by state_per_weight it is",
    ),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_variant_is_refused_with_the_right_sentence(mistake, tmp_path):
    body, words = BROKEN[mistake]
    path = tmp_path / "broken.py"
    path.write_text(HEAD + body)
    found = check_all(*added_by(path))
    assert words in " ".join(found.values()), found


def test_a_new_kind_of_batch_works_in_every_command(tmp_path, monkeypatch, capsys):
    """Training, measuring, drawing and planning ask the class and no list of names."""
    monkeypatch.chdir(tmp_path)
    plugin = next(p for p in PLUGINS if p.stem == "fill_in_the_middle")
    Path("text.txt").write_text("If 3 kings hold the crown, then 9 fools will pay. " * 80)
    kind = ["--plugin", str(plugin), "--data.batches", "fill-in-the-middle"]
    assert main(["train", "--data.source", "text.txt", "--run", "run", *SMALL, *kind]) == 0
    assert main(["evaluate", "run", *kind[:2]]) == 0
    assert main(["plan", *SMALL, *kind]) == 0
    assert main(["data", "show", "run", "--kind", "fill-in-the-middle", *kind[:2]]) == 0
    assert "Half of the windows as they are" in capsys.readouterr().out
