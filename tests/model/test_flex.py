"""Attention that skips what the mask hides computes the same. Compiled, it needs a GPU."""

import math

import pytest
import torch

from nanogpt.model import flex
from nanogpt.model.attention import (
    ATTENTION_KERNELS,
    attention,
    attention_mask,
    same_document,
)

from conftest import tiny

T = 200  # no multiple of a block


def masks() -> dict[str, torch.Tensor]:
    documents = torch.arange(T).expand(2, T) // torch.tensor([[60], [90]])  # 0 is padding
    packed = attention_mask(T, T, same=same_document(documents, T))
    numbers = torch.randn(3, T, T)
    return {
        "window": attention_mask(T, T, window=30),
        "documents": packed,
        "bias by head": torch.where(attention_mask(T, T), numbers, -math.inf),
        "bias by head and row": torch.where(packed, numbers, -math.inf),
    }


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", ["window", "documents", "bias by head", "bias by head and row"])
def test_flex_attention_equals_the_explicit_form(kind, monkeypatch):
    torch.manual_seed(0)
    mask = masks()[kind]
    q, k, v = torch.randn(3, 2, 3, T, 16)
    monkeypatch.setattr(flex, "compiled_kernel", uncompiled)
    with torch.no_grad():
        found = flex.masked_attention(q, k, v, mask)
    torch.testing.assert_close(found, attention(q, k, v, mask), rtol=0, atol=1e-5)


def uncompiled():
    """Torch's own explicit form of its kernel, without a gradient."""
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the compiled kernel needs a GPU")
@pytest.mark.parametrize("kind", ["window", "documents"])
def test_the_compiled_kernel_and_its_gradients_equal_the_explicit_form(kind):
    torch.manual_seed(0)
    mask = masks()[kind].cuda()
    inputs = [x.requires_grad_() for x in torch.randn(3, 2, 3, T, 16, device="cuda")]
    outputs = [ATTENTION_KERNELS[n](tiny()).eval()(*inputs, mask) for n in ("flex", "plain")]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    grads = [torch.autograd.grad(y.square().sum(), inputs) for y in outputs]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
