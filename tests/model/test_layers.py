"""Hand-written layers against torch's kernels, and the traps that they hide."""

import math

import pytest
import torch
import torch.nn.functional as F

from nanogpt.config import IGNORED
from nanogpt.model.attention import ATTENTION_KERNELS, attention, attention_weights
from nanogpt.model.layers import KERNELS, MLP, LayerNorm, cross_entropy, gelu, layer_norm, softmax

from conftest import tiny


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_softmax_equals_torch_and_does_not_overflow():
    x = torch.randn(5, 7) * 10
    torch.testing.assert_close(softmax(x), F.softmax(x, -1))
    assert softmax(torch.tensor([1e30, 0.0, -math.inf])).tolist() == [1, 0, 0]


def test_gelu_is_the_tanh_form():
    """nn.GELU() is the exact form, which differs by up to 4.7e-4."""
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"))
    assert 4e-4 < (gelu(x) - F.gelu(x)).abs().max() < 5e-4


def test_layer_norm_equals_torch():
    x, weight, bias = torch.randn(4, 5, 6) * 3 + 1, torch.randn(6), torch.randn(6)
    expected = F.layer_norm(x, (6,), weight, bias, 1e-5)
    torch.testing.assert_close(layer_norm(x, weight, bias), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_equals_torch_and_ignores_what_is_not_there(reduction):
    logits, targets = torch.randn(9, 5) * 50, torch.randint(5, (9,))
    targets[2] = targets[7] = IGNORED
    for kernels in KERNELS.values():
        loss = kernels.cross_entropy(logits, targets, reduction=reduction)
        torch.testing.assert_close(loss, F.cross_entropy(logits, targets, reduction=reduction))


def test_cross_entropy_survives_huge_logits():
    assert cross_entropy(torch.tensor([[1e4, 0.0]]), torch.tensor([0])).item() == 0.0


@pytest.mark.parametrize("layer", [LayerNorm, MLP])
def test_plain_and_fused_layers_agree(layer):
    x = torch.randn(2, 3, 24)
    plain, fused = layer(tiny(kernels="plain")), layer(tiny(kernels="fused"))
    fused.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(x), fused(x), rtol=0, atol=1e-6)  # observed 2.4e-7


@pytest.mark.parametrize("kind", ["none", "causal", "numbers", "booleans"])
def test_explicit_attention_equals_fused_attention_and_its_gradients(kind):
    """Two implementations that drift apart."""
    inputs = [torch.randn(2, 3, 7, 5, requires_grad=True) for _ in range(3)]
    mask = torch.randn(2, 1, 7, 7).masked_fill(torch.rand(2, 1, 7, 7) < 0.3, -math.inf)
    mask.diagonal(dim1=-2, dim2=-1).zero_()
    if kind == "booleans":
        mask = mask.isfinite()
    outputs, gradients = [], []
    for name in ("plain", "fused"):
        how = (None, kind == "causal") if kind in ("none", "causal") else (mask,)
        y = ATTENTION_KERNELS[name](tiny())(*inputs, *how)
        outputs.append(y)
        gradients.append(torch.autograd.grad(y.square().sum(), inputs))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)  # observed 4.8e-7
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)  # observed 3.8e-6


def test_a_boolean_mask_says_where_a_query_may_look():
    """Added to the scores as 0 and 1 it would hide nothing."""
    q = torch.randn(1, 1, 3, 4)
    mask = torch.tensor([[True, False, False], [True, True, False], [False, False, True]])
    weights = attention_weights(q, q, mask)
    assert torch.equal(weights[0, 0] > 0, mask)
    torch.testing.assert_close(
        weights, attention_weights(q, q, torch.zeros(3, 3).masked_fill(~mask, -math.inf))
    )


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_loss_of_fine_numbers_stays_fine_and_one_of_coarse_ones_becomes_float32(kernels):
    targets = torch.tensor([1])
    for given, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        loss = KERNELS[kernels].cross_entropy(torch.zeros(1, 3, dtype=given), targets)
        assert loss.dtype == expected


def test_attention_dropout_drops_weights_and_keeps_their_mean():
    v = torch.eye(400).expand(1, 1, 400, 400)  # the output is then the weights themselves
    q = torch.zeros(1, 1, 400, 4)
    weights = attention(q, q, v, dropout=0.25)
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert weights.sum(-1).mean().item() == pytest.approx(1, abs=0.01)
