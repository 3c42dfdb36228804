"""The short convolution beside attention gives what its definition says, under every mask."""

import itertools

import pytest
import torch

from nanogpt.config import TrainConfig
from nanogpt.model.attention import (
    REACH,
    ShortConvAttention,
    attention,
    attention_mask,
    same_document,
)
from nanogpt.model.gpt import GPT
from nanogpt.training.optim import Muon

from conftest import tiny

T = 2 * REACH + 3
EVERYTHING = attention_mask(T, T)
DOCUMENTS = same_document(torch.arange(T).expand(2, T) // torch.tensor([[5], [7]]), T)
MASKS = {
    "nothing": None,
    "window": attention_mask(T, T, window=3),
    "documents": attention_mask(T, T, same=DOCUMENTS),
    "numbers": torch.randn(2, T, T, generator=torch.Generator().manual_seed(0)).masked_fill(
        ~attention_mask(T, T, window=4), -torch.inf
    ),
}


@pytest.mark.parametrize("new", [T, 3, 1])
@pytest.mark.parametrize("kind", MASKS)
def test_each_head_takes_the_last_values_by_its_weights(kind, new):
    torch.manual_seed(0)
    layer = ShortConvAttention(tiny(n_head=2))
    torch.nn.init.normal_(layer.taps)
    v, mask = torch.randn(2, 2, T, 4), MASKS[kind]
    seen = EVERYTHING if mask is None else mask > -torch.inf if kind == "numbers" else mask
    expected = torch.zeros(2, 2, T, T)
    for row, head, query in itertools.product(range(2), range(2), range(T)):
        for key in range(max(0, query - REACH + 1), query + 1):
            if seen.expand(2, 2, T, T)[row, head, query, key]:
                expected[row, head, query, key] = layer.taps[head, query - key, 0]
    expected = expected[..., T - new :, :]
    mask = mask if mask is None else mask[..., T - new :, :]
    assert torch.equal(layer.fixed(new, T, mask).expand(2, 2, new, T), expected)
    q, k, causal = torch.randn(2, 2, new, 4), torch.randn(2, 2, T, 4), mask is None and new == T
    found = layer(q, k, v, mask, causal)
    fixed = found - attention(q, k, v, mask, causal)
    torch.testing.assert_close(fixed, expected @ v, rtol=0, atol=1e-5)
    shown = layer.weights(q, k, mask, causal)
    torch.testing.assert_close(shown @ v, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", range(1, REACH + 2))
def test_before_the_first_token_there_is_nothing(length):
    torch.manual_seed(0)
    layer = ShortConvAttention(tiny(n_head=2))
    torch.nn.init.normal_(layer.taps)
    q, k, v = torch.randn(3, 2, 2, length, 4)
    expected = layer.weights(q, k, causal=True) @ v
    torch.testing.assert_close(layer(q, k, v, causal=True), expected, rtol=0, atol=1e-5)
    short = layer(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=True)
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), expected, rtol=0.05, atol=0.1)


def test_without_weights_it_is_attention():
    torch.manual_seed(0)
    kernel = GPT(tiny(attention="short-conv")).h[0].attn.kernel
    q, k, v = torch.randn(3, 2, len(kernel.taps), 6, 4)
    plain = attention(q, k, v, causal=True)
    assert (kernel(q, k, v, causal=True) - plain).abs().max() > 1e-3
    torch.nn.init.zeros_(kernel.taps)
    assert (kernel(q, k, v, causal=True) - plain).abs().max() < 1e-5


def test_its_weights_are_left_to_adamw():
    """Muon turns matrices; these are numbers for each head."""
    model = GPT(tiny(attention="short-conv"))
    groups = Muon.parameter_groups(model, TrainConfig())
    turned = {id(p) for group in groups if "rows" in group for p in group["params"]}
    taps = [id(p) for name, p in model.named_parameters() if name.endswith("taps")]
    assert taps
    assert turned
    assert not turned & {*taps}
