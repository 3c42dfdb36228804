"""AdamW by hand is torch's AdamW; the schedule is the one worked out on paper."""

import pytest
import torch

from nanogpt.config import TrainConfig
from nanogpt.model.gpt import GPT
from nanogpt.training.optim import (
    OPTIMIZERS,
    SGD,
    AdamW,
    Muon,
    build_optimizer,
    learning_rate,
    orthogonalize,
)
from nanogpt.training.variants import optimizer_state_size

from conftest import tiny


def test_adamw_by_hand_equals_torch_over_100_steps():
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(5)]
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    ours = [p.clone().requires_grad_() for p in start]
    theirs = [p.clone().requires_grad_() for p in start]
    optimizers = AdamW(ours, **settings), torch.optim.AdamW(theirs, **settings)
    for step in range(100):
        gradients = [torch.randn_like(p) * 10 ** (step % 5 - 2) for p in start]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1)
            optimizer.step()
    for our, their, before in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-6)  # observed 1.2e-7
        assert (our - before).abs().max() > 0.01


def test_the_first_step_moves_every_weight_by_the_learning_rate():
    """Bias correction: without it the first step would be (1 - beta1) / sqrt(1 - beta2) as long."""
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = torch.tensor([1e-3, 1.0, -1e3])
    AdamW([weight], lr=0.5).step()
    assert weight.tolist() == pytest.approx([-0.5, -0.5, 0.5], rel=1e-4)


def test_parameters_without_a_gradient_stay():
    weight = torch.ones(3, requires_grad=True)
    AdamW([weight], lr=0.5, weight_decay=0.5).step()
    assert weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_and_saves_the_same_state(name):
    torch.manual_seed(0)
    model, batch = GPT(tiny()), torch.randint(61, (4, 17))
    lr = 0.1 if name == "sgd" else 1e-2
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=lr))
    losses = []
    for _ in range(10):
        loss = model.loss(model(batch[:, :-1]), batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    adam, momentum = {"step", "exp_avg", "exp_avg_sq"}, {"momentum"}
    of_embeddings = momentum if name == "sgd" else adam
    of_matrices = momentum if name in ("sgd", "muon") else adam
    assert set(optimizer.state[model.wte.weight]) == of_embeddings
    assert set(optimizer.state[model.h[0].attn.c_attn.weight]) == of_matrices


def test_sgd_by_hand_is_torchs():
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizers = [SGD([ours], lr=0.1, betas=(0.8, 0.0), weight_decay=0.0)]
    optimizers.append(torch.optim.SGD([theirs], lr=0.1, momentum=0.8))
    for _ in range(6):
        gradient = torch.randn(5, 3)
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_the_decay_of_sgd_does_not_pass_through_its_momentum():
    weight = torch.ones(1, requires_grad=True)
    optimizer = SGD([weight], lr=0.5, weight_decay=0.2)
    for _ in range(3):
        weight.grad = torch.zeros(1)
        optimizer.step()
    assert weight.item() == pytest.approx(0.9**3)


def test_norms_and_biases_do_not_decay():
    """Matrices and embeddings decay, everything else does not; nothing is forgotten."""
    model = GPT(tiny())
    decayed, kept = AdamW.parameter_groups(model, TrainConfig(weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    kept_names = {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert all("ln_" in name or name.endswith("bias") for name in kept_names)
    assert {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight"} <= decayed_names
    assert decayed_names | kept_names == set(names.values())


COSINE = TrainConfig(lr=1.0, min_lr=0.2, warmup_steps=4, max_steps=12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1 / 5),  # the first step already moves
        (1, 2 / 5),
        (3, 4 / 5),
        (4, 1.0),  # the peak
        (6, 0.2 + 0.8 * (1 + 2**0.5 / 2) / 2),  # a quarter of the way: cos 45 degrees
        (8, 0.6),  # half-way: the middle between 1 and 0.2
        (12, 0.2),  # the end
        (13, 0.2),
        (1000, 0.2),
    ],
)
def test_cosine_schedule_equals_the_table_worked_by_hand(step, expected):
    assert learning_rate(step, COSINE) == pytest.approx(expected)


def test_constant_schedule_stays_at_the_peak_after_the_climb():
    settings = TrainConfig(lr=1.0, schedule="constant", warmup_steps=1, max_steps=5)
    assert [learning_rate(step, settings) for step in (0, 1, 4, 9)] == [0.5, 1, 1, 1]


def test_a_run_that_is_all_warm_up_does_not_divide_by_zero():
    settings = TrainConfig(lr=1.0, min_lr=0.0, warmup_steps=8, max_steps=4)
    assert learning_rate(3, settings) == pytest.approx(4 / 9)
    assert learning_rate(8, settings) == 1.0


def test_trapezoidal_schedule_equals_the_table_worked_by_hand():
    settings = TrainConfig(
        lr=1.0, min_lr=0.2, schedule="trapezoidal", warmup_steps=2, max_steps=12, decay_share=0.4
    )
    rates = [learning_rate(step, settings) for step in (0, 1, 2, 7, 8, 10, 12, 99)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("shape", [(16, 16), (48, 12), (12, 48), (3, 10, 10)])
def test_orthogonalizing_makes_singular_values_about_one_and_keeps_directions(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert ((values > 0.6) & (values < 1.3)).all()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    aligned = torch.einsum("...ji,...jk,...ik->...i", u, orthogonalize(matrix), v)
    assert (aligned > 0.6).all()  # each direction is stretched, none is turned


def test_muon_moves_matrices_inside_blocks_and_adamw_the_rest():
    model = GPT(tiny())
    config = TrainConfig(optimizer="muon", lr=1e-3, muon_lr=2e-2)
    groups = Muon.parameter_groups(model, config)
    names = {p: name for name, p in model.named_parameters()}
    orthogonal = {names[p] for group in groups if "rows" in group for p in group["params"]}
    assert orthogonal == {
        f"h.{n}.{part}.weight"
        for n in range(2)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert {group.get("lr_factor", 1.0) for group in groups} == {1.0, 20.0}
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_muon_equals_its_definition_written_with_svd():
    """Three square matrices, one above the other: each is made orthogonal by itself."""
    torch.manual_seed(0)
    weight = torch.randn(24, 8)
    left, right = torch.linalg.qr(torch.randn(2, 3, 8, 8)).Q
    gradient = ((left * torch.linspace(1, 5, 8)) @ right).reshape(24, 8)
    parameter = weight.clone().requires_grad_()
    parameter.grad = gradient
    group = {"params": [parameter], "rows": (8, 8, 8)}
    Muon([group], lr=0.1, weight_decay=0.5).step()
    step = (weight * (1 - 0.1 * 0.5) - parameter.detach()) / 0.1
    for part, part_of_gradient in zip(step.chunk(3), gradient.chunk(3), strict=True):
        u, _, v = torch.linalg.svd(part_of_gradient)
        stretched = u.mT @ part @ v.mT
        assert ((stretched.diagonal() > 0.6) & (stretched.diagonal() < 1.3)).all()
        assert (stretched - stretched.diagonal().diag()).abs().max() < 1e-3


def test_muon_has_momentum_and_longer_steps_for_tall_matrices():
    torch.manual_seed(0)
    first, second = torch.randn(32, 8), torch.randn(32, 8)
    parameter = torch.zeros(32, 8, requires_grad=True)
    optimizer = Muon([{"params": [parameter], "rows": (32,)}], lr=1.0, weight_decay=0.0)
    parameter.grad = first.clone()
    optimizer.step()
    after_one = parameter.detach().clone()
    assert torch.linalg.svdvals(after_one).mean() == pytest.approx(2.0, rel=0.2)  # sqrt(32 / 8)
    parameter.grad = second.clone()
    optimizer.step()
    momentum = 0.95 * 0.05 * first + 0.05 * second
    expected = 2.0 * orthogonalize(second.lerp(momentum, 0.95))
    torch.testing.assert_close(after_one - parameter.detach(), expected, rtol=0, atol=1e-4)


def test_muon_makes_queries_keys_and_values_orthogonal_each_by_itself():
    """With grouped heads c_attn is not three equal parts: its shape does not tell where to cut."""
    torch.manual_seed(0)
    model = GPT(tiny(n_head=4, n_kv_head=2))
    layer = model.h[0].attn.c_attn
    assert layer.rows == [24, 12, 12]
    config = TrainConfig(optimizer="muon", muon_lr=1.0, lr=1.0, weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn_like(before)
    optimizer.step()
    for moved in (before - layer.weight.detach()).split([24, 12, 12]):
        values = torch.linalg.svdvals(moved)
        assert ((values > 0.6) & (values < 1.3)).all()


@pytest.mark.parametrize(("name", "numbers"), [("sgd", 1), ("adamw", 2), ("fused-adamw", 2)])
def test_an_optimizer_says_how_much_it_keeps(name, numbers):
    model = GPT(tiny())
    size = optimizer_state_size(model, TrainConfig(optimizer=name))
    assert size == numbers * model.num_parameters()
