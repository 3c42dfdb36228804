"""Objectives beside the next token, each equal to an independent formula on random numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from nanogpt.config import IGNORED, PolicyConfig
from nanogpt.model.gpt import GPT
from nanogpt.training.objective import OBJECTIVES, NextToken, Policy, Preference
from nanogpt.training.objective.policy import advantages, distance, gain, log_probabilities
from nanogpt.training.objective.preference import preference_loss

from conftest import tiny


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets (4, 9): each row answers in another place, and the last one at no other."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(61, (4, 10), generator=draw)
    targets = ids[:, 1:].clone()
    for row, (start, stop) in enumerate([(2, 6), (0, 9), (5, 7), (8, 9)]):
        targets[row, :start] = targets[row, stop:] = IGNORED
    return ids[:, :-1], targets


def two_models() -> tuple[GPT, GPT]:
    torch.manual_seed(1)
    found = [GPT(tiny()), GPT(tiny())]
    with torch.no_grad():
        for model in found:
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return found[0], found[1]


def by_hand(
    model: GPT, ids: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0
) -> list[list[torch.Tensor]]:
    """The log-probabilities of the real targets of each row, one by one."""
    logits = model(ids) / temperature
    return [
        [
            logits[row, place, target] - logits[row, place].logsumexp(-1)
            for place, target in enumerate(targets[row].tolist())
            if target != IGNORED
        ]
        for row in range(len(ids))
    ]


def padded(values: list[list[torch.Tensor]], targets: torch.Tensor) -> torch.Tensor:
    """Numbers of real targets in their places, and rubbish elsewhere."""
    found = torch.full(targets.shape, 3.0)
    for row, numbers in enumerate(values):
        found[row, targets[row] != IGNORED] = torch.stack(numbers).detach()
    return found


def test_log_probabilities_are_the_negative_cross_entropy(rows):
    _, targets = rows
    logits = torch.randn(4, 9, 61)
    expected = F.cross_entropy(logits.mT, targets, reduction="none", ignore_index=IGNORED)
    torch.testing.assert_close(log_probabilities(logits, targets), -expected)


def test_with_an_advantage_of_one_the_policy_loss_is_that_of_the_next_token(rows):
    """Supervised learning takes all that it is shown for good."""
    model, _ = two_models()
    plain = NextToken(model)(*rows)
    torch.testing.assert_close(Policy(model)(*rows), plain)


@pytest.mark.parametrize("group", [2, 4])
def test_advantages_are_what_is_better_than_the_own_group(group):
    rewards = torch.rand(3 * group, generator=torch.Generator().manual_seed(2))
    found = advantages(rewards, group)
    scaled = advantages(rewards, group, normalize=True)
    for n in range(0, 3 * group, group):
        own = rewards[n : n + group].tolist()
        mean = sum(own) / group
        deviation = math.sqrt(sum((r - mean) ** 2 for r in own) / (group - 1))
        for k, r in enumerate(own):
            assert found[n + k].item() == pytest.approx(r - mean, abs=1e-6)
            assert scaled[n + k].item() == pytest.approx((r - mean) / (deviation + 1e-4), rel=1e-4)


def test_the_policy_gradient_is_the_gradient_of_the_mean_reward():
    """The line from which it follows, without drawing: all answers, weighed by their probability.

    One token, 61 possible answers, each with a reward of its own.
    """
    model, _ = two_models()
    rewards = torch.rand(61, generator=torch.Generator().manual_seed(3))
    ids, targets = torch.full((61, 1), 5), torch.arange(61)[:, None]
    p = model(ids[:1])[0, -1].softmax(-1)
    (p @ rewards).backward()
    expected = {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
    model.zero_grad()
    for baseline in (0.0, 0.7):  # taking a constant away changes nothing
        loss = Policy(model)(ids, targets, advantage=p.detach() * (rewards - baseline))
        loss.backward()
        for name, parameter in model.named_parameters():
            if name in expected:
                torch.testing.assert_close(-parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
        model.zero_grad()


@pytest.mark.parametrize("clip", [0.0, 0.2])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_policy_loss_equals_a_formula_written_out(rows, clip, beta, temperature):
    """Token by token, in plain numbers; and so are its gradients."""
    model, reference = two_models()
    _, earlier = two_models()
    with torch.no_grad():
        for parameter, before in zip(model.parameters(), earlier.parameters(), strict=True):
            before.copy_(parameter + 0.02 * torch.randn_like(parameter))  # that of an update ago
    settings = PolicyConfig(clip=clip, beta=beta, temperature=temperature)
    weights = torch.tensor([1.0, -0.5, 0.25, -2.0])
    now, old, fixed = (by_hand(one, *rows, temperature) for one in (model, earlier, reference))
    expected = torch.zeros(())
    clipped = 0
    for row, weight in enumerate(weights.tolist()):
        for a, b, c in zip(now[row], old[row], fixed[row], strict=True):
            ratio = (a - b.detach()).exp()
            bound = ratio.clamp(1 - clip, 1 + clip)
            clipped += int(bound != ratio)
            term = torch.minimum(ratio * weight, bound * weight) if clip else weight * a
            log_ratio = c.detach() - a
            expected = expected - term + beta * (log_ratio.exp() - 1 - log_ratio)
    expected.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    found = Policy(model, settings)(
        *rows, advantage=weights, old=padded(old, rows[1]), reference=padded(fixed, rows[1])
    )
    found.backward()
    assert clipped >= 3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_a_clipped_token_pulls_no_more_in_its_direction():
    now = torch.tensor([[0.5, 0.5, -0.5, -0.5]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    gain(now, torch.zeros(1, 4), advantage, clip=0.2).sum().backward()
    assert (now.grad != 0).tolist() == [[False, True, True, False]]


def test_the_distance_has_the_divergence_as_its_mean_and_is_never_negative():
    draw = torch.Generator().manual_seed(4)
    now, reference = (torch.randn(50, generator=draw).log_softmax(-1) for _ in range(2))
    terms = distance(now, reference)
    assert terms.min() >= 0
    mean = (now.exp() * terms).sum()
    expected = kl_divergence(Categorical(logits=now), Categorical(logits=reference))
    torch.testing.assert_close(mean, expected)


def test_the_preference_loss_equals_a_formula_written_out(rows):
    """Equation 7 of the paper, in plain numbers."""
    model, reference = two_models()
    own, fixed = ([sum(row).item() for row in by_hand(one, *rows)] for one in (model, reference))
    expected = 0.0
    for good, bad in ((0, 1), (2, 3)):
        margin = 0.3 * ((own[good] - fixed[good]) - (own[bad] - fixed[bad]))
        expected += math.log1p(math.exp(-margin))
    found = Preference(model, PolicyConfig(beta=0.3), reference)(*rows)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_model_that_is_its_own_reference_prefers_nothing(rows):
    model, _ = two_models()
    found = Preference(model, PolicyConfig(beta=0.3), model)(*rows)
    assert found.item() == pytest.approx(2 * math.log(2))


def test_preference_raises_the_chosen_and_lowers_the_rejected():
    chosen, rejected = (torch.zeros(3, requires_grad=True) for _ in range(2))
    preference_loss(chosen, rejected, 0.1).sum().backward()
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_modules_may_add_to_every_objective(rows, name):
    """As a mixture of experts does: once for each target, or pair."""
    model, _ = two_models()
    objective = OBJECTIVES[name](model)
    before = objective(*rows)
    model.h[0].auxiliary_loss = torch.tensor(0.5)
    units = 2 if name == "preference" else int((rows[1] != IGNORED).sum())
    assert objective(*rows).item() == pytest.approx(before.item() + 0.5 * units, rel=1e-6)
