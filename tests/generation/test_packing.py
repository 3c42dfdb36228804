"""Faster forms of the linear layers: the same numbers up to rounding, or a stated loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nanogpt.config import SampleConfig
from nanogpt.generation import packing
from nanogpt.generation.packing import WEIGHTS, Int8Linear, PackedLinear, pack
from nanogpt.generation.reader import Reader, generate
from nanogpt.model.gpt import GPT, HEADS, LMHead
from nanogpt.model.position import POSITIONS

from conftest import tiny

WEIGHT, BIAS = torch.randn(48, 32, generator=torch.Generator().manual_seed(0)), torch.arange(48.0)


@pytest.mark.parametrize("shape", [(1, 32), (8, 32), (3, 40, 32)])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_a_packed_layer_is_the_layer(shape, bias):
    x = torch.randn(shape)
    packed = PackedLinear(WEIGHT, bias)(x)
    torch.testing.assert_close(packed, F.linear(x, WEIGHT, bias), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("width", [1, 7, 32, 64, 100, 192, 200, 256])
def test_an_int8_layer_is_the_layer_with_rounded_weights(rows, bias, width):
    """Also for widths at which torch's kernel would read past the end of a row."""
    weight = torch.randn(48, width, generator=torch.Generator().manual_seed(0))
    layer = Int8Linear(weight, bias)
    assert layer.rounded.dtype == torch.int8
    assert int(layer.rounded.abs().max()) == 127
    rounded = layer.rounded.float() * layer.scales.float()[:, None]
    # Half a step of the largest entry of the row, and what rounding the scale adds.
    assert ((rounded - weight).abs() <= 0.51 * weight.abs().amax(1, keepdim=True) / 127).all()
    x = torch.randn(rows, width)
    expected = F.linear(x, rounded, bias)
    # The kernel for few rows takes activations, and gives results, of 8 significant bits.
    kernel = rows < packing.ROWS_WORTH_UNPACKING and width % packing.KERNEL_WIDTH == 0
    torch.testing.assert_close(layer(x), expected, rtol=0.01, atol=0.3 if kernel else 1e-4)


def test_few_rows_are_read_by_the_kernel_for_8_bits(monkeypatch):
    used = []
    kernel = torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *a: used.append(1) or kernel(*a))
    Int8Linear(torch.randn(48, 128), None)(torch.randn(2, 128))
    assert used


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_every_position_encoding_bears_every_form_of_weights(position, name):
    """Angles and slopes are no weights: in 16 bits they would be wrong from position 256 on."""
    torch.manual_seed(0)
    model = GPT(tiny(n_embd=48, context_length=700, position=position)).eval()
    ids = torch.randint(61, (1, 700))
    with torch.no_grad():
        before = model(ids)[:, -20:]
        after = WEIGHTS[name](copy.deepcopy(model))(ids)[:, -20:].float()
    torch.testing.assert_close(after, before, rtol=0, atol=0.02)


def test_a_row_of_zeros_stays_zero():
    assert torch.equal(Int8Linear(torch.zeros(4, 8), None)(torch.ones(1, 8)), torch.zeros(1, 4))


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_every_form_of_weights_gives_nearly_the_same_logits(name, head, monkeypatch):
    monkeypatch.setattr(packing, "WEIGHTS_WORTH_PACKING", 0)
    torch.manual_seed(0)
    model = GPT(tiny(n_embd=48, head=head)).eval()
    ids = torch.randint(61, (2, 9))
    before = model(ids)
    after = WEIGHTS[name](copy.deepcopy(model))(ids).float()
    exact = name in ("plain", "float32")
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5 if exact else 0.02)
    assert exact or not torch.equal(after, before)


def test_packing_replaces_every_linear_layer_and_the_head_but_not_the_embedding(monkeypatch):
    monkeypatch.setattr(packing, "WEIGHTS_WORTH_PACKING", 0)
    model = pack(GPT(tiny()))
    assert not [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert isinstance(model.lm_head.linear, PackedLinear)
    assert isinstance(model.wte, nn.Embedding)


def test_a_head_that_computes_something_else_stays(monkeypatch):
    monkeypatch.setattr(packing, "WEIGHTS_WORTH_PACKING", 0)

    class Half(LMHead):
        def forward(self, x, weight):
            return super().forward(x, weight) / 2

    monkeypatch.setitem(HEADS, "half", Half)
    model = GPT(tiny(head="half")).eval()
    before = model(torch.tensor([[1, 2]]))
    torch.testing.assert_close(pack(model)(torch.tensor([[1, 2]])), before, rtol=0, atol=1e-5)


def test_small_layers_are_left_as_they_are():
    model = GPT(tiny())
    assert pack(model) is model
    assert not [m for m in model.modules() if isinstance(m, PackedLinear)]


def test_greedy_text_does_not_depend_on_packing(monkeypatch):
    monkeypatch.setattr(packing, "WEIGHTS_WORTH_PACKING", 0)
    torch.manual_seed(0)
    model = GPT(tiny()).eval()
    texts = []
    for form in ("plain", "float32"):
        reader = Reader(WEIGHTS[form](copy.deepcopy(model)), [[1, 2, 3], [4]])
        steps = generate(reader, SampleConfig(temperature=0))
        texts.append([next(steps).chosen.tolist() for _ in range(30)])
    assert texts[0] == texts[1]


def test_where_onednn_is_missing_the_model_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(packing, "WEIGHTS_WORTH_PACKING", 0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = pack(GPT(tiny()).train())
    assert not [m for m in model.modules() if isinstance(m, PackedLinear)]
    assert not model.training
