"""One step on one text: the numbers of training itself, and the run stays as it is."""

import math

import pytest
import torch

from nanogpt.config import Config, TrainConfig
from nanogpt.errors import UserError
from nanogpt.explorer.step import train_on
from nanogpt.model.gpt import GPT
from nanogpt.training.optim import OPTIMIZERS, AdamW

from conftest import tiny

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def config(**train: object) -> Config:
    return Config(model=tiny(), train=TrainConfig(**train))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_makes_the_text_more_likely_and_leaves_the_model_alone(model, optimizer):
    weights = {name: p.clone() for name, p in model.named_parameters()}
    done = train_on(model, config(optimizer=optimizer), IDS, lr=1e-3, steps=3)
    assert len(done.losses) == 4
    assert len(done.norms) == 3
    assert done.losses[0] > done.losses[1] > done.losses[2] > done.losses[3]
    for name, p in model.named_parameters():
        assert torch.equal(p, weights[name]), name
        assert p.grad is None
    assert not model.training


def test_gradients_and_logits_are_those_of_the_optimizer_by_hand(model):
    done = train_on(model, config(optimizer="adamw", grad_clip=1.0), IDS, lr=1e-3)
    row = torch.tensor([IDS])
    assert torch.equal(done.before, model(row)[0])
    targets = torch.tensor([[*IDS[1:], -100]])
    loss = model.loss(model(row), targets)
    assert done.losses[0] == pytest.approx(loss.item(), rel=1e-6)
    loss.backward()
    squares = [p.grad.square().sum() for p in model.h[1].mlp.parameters()]
    assert done.norms[0]["h.1.mlp"] == pytest.approx(math.sqrt(sum(squares)), rel=1e-5)
    together = math.sqrt(sum(norm**2 for norm in done.norms[0].values()))
    everything = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert together == pytest.approx(everything.item(), rel=1e-5)
    by_hand = AdamW(AdamW.parameter_groups(model, config().train), lr=1e-3, betas=(0.9, 0.95))
    assert (by_hand.defaults["betas"][1], TrainConfig().beta2) == (0.95, 0.95)
    by_hand.step()
    assert torch.allclose(done.after, model(row)[0], atol=1e-6)


def test_dropout_takes_no_part_in_it():
    torch.manual_seed(0)
    model = GPT(tiny(dropout=0.5)).train()
    one, other = (train_on(model, config(), IDS, lr=1e-3).losses for _ in range(2))
    assert one == other
    assert model.training


@pytest.mark.parametrize(
    ("ids", "lr", "steps", "message"),
    [
        ([3], 1e-3, 1, "at least two tokens"),
        (IDS, 0.0, 1, "lr=0.0"),
        (IDS, math.nan, 1, "lr=nan"),
        (IDS, 1e-3, 0, "steps=0"),
        (IDS, 1e-3, 10_000, "steps=10000"),
    ],
)
def test_what_cannot_be_a_step_is_named(model, ids, lr, steps, message):
    with pytest.raises(UserError, match=message):
        train_on(model, config(), ids, lr, steps)
