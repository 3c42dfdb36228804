"""LoRA: what it computes, what is trained, and that it becomes a plain model again."""

import copy

import pytest
import torch

from nanogpt.config import TrainConfig
from nanogpt.errors import UserError
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import (
    LoRAEmbedding,
    LoRALinear,
    add_lora,
    lora,
    lora_tensors,
    plain_tensors,
)
from nanogpt.training.objective.next_token import NextToken

from conftest import VARIANTS, tiny

FOUR = TrainConfig(lora_rank=4)


def moved(model: GPT) -> GPT:
    """The model with random numbers in all that LoRA has added, as if it had been trained."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return model


def test_it_is_a_linear_layer_with_another_weight():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 7), torch.randn(11, 7), torch.randn(11)
    a, b = torch.randn(3, 7), torch.randn(11, 3)
    whole = torch.einsum("or,ri->oi", b, a) * 0.5 + weight
    expected = torch.einsum("oi,bti->bto", whole, x) + bias
    torch.testing.assert_close(lora(x, weight, bias, a, b, 0.5), expected, rtol=0, atol=1e-5)


def test_its_gradients_are_those_of_the_whole_weight_through_the_chain_rule():
    """dA = scale B^T dW and dB = scale dW A^T, if dW is the gradient of an ordinary layer."""
    torch.manual_seed(0)
    x, a, b = torch.randn(5, 7), torch.randn(3, 7), torch.randn(11, 3)
    weight = torch.randn(11, 7)
    ours = [t.clone().requires_grad_() for t in (a, b)]
    lora(x, weight, None, *ours, 0.5).square().sum().backward()
    whole = (weight + 0.5 * b @ a).requires_grad_()
    (x @ whole.T).square().sum().backward()
    torch.testing.assert_close(ours[0].grad, 0.5 * b.T @ whole.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1].grad, 0.5 * whole.grad @ a.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(f"{k}={v[k]}" for k in v))
def test_it_begins_as_the_plain_model_and_merges_into_one(variant):
    torch.manual_seed(0)
    plain = GPT(tiny(**variant)).eval()
    ids = torch.randint(61, (2, 9))
    model = add_lora(copy.deepcopy(plain), FOUR)
    assert torch.equal(model(ids), plain(ids))
    moved(model)
    assert not torch.allclose(model(ids), plain(ids), atol=1e-3)
    merged = build(model.config, plain_tensors(model), "merged").eval()
    assert list(merged.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(merged(ids), model(ids), rtol=0, atol=1e-4)


def test_only_what_was_added_gets_gradients(model):
    add_lora(model, FOUR)
    ids = torch.randint(61, (2, 9))
    NextToken(model)(ids, ids).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == set(lora_tensors(model))
    assert len(trained) == 2 * 4 * 2  # A and B of four matrices in two blocks


def test_gradients_of_frozen_weights_are_not_even_computed(model):
    """No matrix product of the backward pass gives a tensor of the shape of a frozen weight."""
    add_lora(model, FOUR)
    ids = torch.randint(61, (2, 9))
    loss = NextToken(model)(ids, ids)
    shapes: list[tuple[int, ...]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                shapes.append(tuple(result.shape))
            return result

    with Watch():
        loss.backward()
    frozen = {tuple(p.shape) for p in model.parameters() if not p.requires_grad and p.ndim == 2}
    assert {(4, 24), (72, 4)} <= set(shapes)  # A and B of c_attn
    assert not frozen & (set(shapes) | {shape[::-1] for shape in shapes})


def test_patterns_choose_the_layers(model):
    on = "h.1.attn.c_attn, *.mlp.c_proj"
    add_lora(model, TrainConfig(lora_rank=2, lora_on=on))
    layers = [name for name, layer in model.named_modules() if isinstance(layer, LoRALinear)]
    assert layers == ["h.0.mlp.c_proj", "h.1.attn.c_attn", "h.1.mlp.c_proj"]


@pytest.mark.parametrize(
    ("rank", "patterns", "message"),
    [
        (4, "h.9.*", r"'h\.9\.\*' fits no linear layer, such as h\.0\.attn\.c_attn"),
        (4, "wte", "'wte' fits no linear layer"),
        (4, " , ", "names no layer: use '\\*' for all"),
        (24, FOUR.lora_on, r"lora_rank=24: use less than the 24 of h\.0\.attn\.c_attn"),
    ],
)
def test_what_cannot_be_is_refused(rank, patterns, message, model):
    with pytest.raises(UserError, match=message):
        add_lora(model, TrainConfig(lora_rank=rank, lora_on=patterns))


def test_new_tokens_are_trained_and_the_old_ones_stay():
    torch.manual_seed(0)
    plain = GPT(tiny()).eval()
    model = moved(add_lora(copy.deepcopy(plain), FOUR, new_tokens=3))
    assert isinstance(model.wte, LoRAEmbedding)
    merged = build(model.config, plain_tensors(model), "merged").eval()
    assert torch.equal(merged.wte.weight[:-3], plain.wte.weight[:-3])
    assert not torch.equal(merged.wte.weight[-3:], plain.wte.weight[-3:])
    ids = torch.cat([torch.arange(50, 61)[None], torch.randint(61, (1, 11))])
    torch.testing.assert_close(merged(ids), model(ids), rtol=0, atol=1e-4)
    NextToken(model)(ids, ids).backward()
    whole = merged.train().requires_grad_()
    NextToken(whole)(ids, ids).backward()
    expected = whole.wte.weight.grad[-3:]
    torch.testing.assert_close(model.wte.lora_rows.grad, expected, rtol=1e-4, atol=1e-4)


def test_a_copy_has_rows_of_its_own():
    """The head knows the embedding that it is tied to: in a copy that must be the copy's."""
    model = moved(add_lora(GPT(tiny()).eval(), FOUR, new_tokens=3))
    other = copy.deepcopy(model)
    other.wte.lora_rows.data.zero_()
    ids = torch.zeros(1, 2, dtype=torch.long)
    assert not torch.equal(other(ids)[..., -3:], model(ids)[..., -3:])
    assert torch.equal(other(ids)[..., :-3], model(ids)[..., :-3])
