"""Edits: what a model computes when one of its parts is zeroed, averaged or swapped."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nanogpt.errors import UserError
from nanogpt.generation.packing import WEIGHTS
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import BLOCKS, GPT
from nanogpt.model.trace import WAYS, Edit, editable, editing, record

from conftest import tiny

DRAW = torch.Generator().manual_seed(0)
IDS = torch.randint(61, (2, 11), generator=DRAW)
OTHER = torch.randint(61, (2, 11), generator=DRAW)


def build(**change) -> GPT:
    """A model whose weights are large enough for every part to matter."""
    torch.manual_seed(2)
    return GPT(tiny(init_std=0.3, **change)).eval()


class ByHand(nn.Module):
    """A module in the place of another: it calls that one and changes its result, cell by cell."""

    def __init__(self, inner: nn.Module, edit: Edit, held: torch.Tensor):
        super().__init__()
        self.inner, self.edit, self.held = inner, edit, held

    def forward(self, *inputs):
        found = self.inner(*inputs)
        result = found.clone()
        heads = [()]
        if found.ndim == 4:
            heads = [(h,) for h in range(found.shape[1]) if self.edit.head in (None, h)]
        times = range(found.shape[-2]) if self.edit.positions is None else self.edit.positions
        for row in range(len(found)):
            for head in heads:
                for t in times:
                    every = [found[(row, *head, s)] for s in range(found.shape[-2])]
                    new = {
                        "zero": torch.zeros(found.shape[-1]),
                        "mean": torch.stack(every).mean(0),
                        "swap": self.held[(row, *head, t)],
                    }
                    result[(row, *head, t)] = new[self.edit.how]
        return result


@torch.no_grad()
def by_hand(model: GPT, edit: Edit) -> torch.Tensor:
    """Logits of the edited model, from a model in which the module itself is exchanged."""
    with record(model, edit.at) as seen:
        model(OTHER)
    inner = model.get_submodule(edit.at)
    if edit.at.startswith("h.") and edit.at.count(".") == 1:
        model.h[int(edit.at[2:])] = ByHand(inner, edit, seen[edit.at])  # a list of modules
    else:
        model.set_submodule(edit.at, ByHand(inner, edit, seen[edit.at]))
    logits = model(IDS)
    model.set_submodule(edit.at, inner)
    return logits


@torch.no_grad()
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_place_of_every_block_is_changed_as_by_hand(block, how):
    model = build(block=block)
    before = model(IDS)
    for at in editable(model):
        for positions in (None, [0, 4, 9]):
            heads = (None, 0, 2) if at.endswith("kernel") else (None,)
            for head in heads:
                edit = Edit(at, head, positions, how)
                with editing(model, [edit], OTHER):
                    found = model(IDS)
                assert torch.allclose(found, by_hand(model, edit), atol=1e-5), edit
                assert not torch.allclose(found, before, atol=1e-3), edit
    assert torch.equal(model(IDS), before)


@torch.no_grad()
@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("change", [{"n_kv_head": 1}, {"window": 4}, {"position": "alibi"}])
def test_heads_of_every_kind_of_attention_are_edited_apart(change, kernels):
    model = build(kernels=kernels, **change)
    for how in WAYS:
        for head in range(3):
            edit = Edit("h.1.attn.kernel", head, None, how)
            with editing(model, [edit], OTHER):
                found = model(IDS)
            assert torch.allclose(found, by_hand(model, edit), atol=1e-5), edit


@torch.no_grad()
def test_a_zeroed_head_is_one_whose_columns_of_c_proj_are_zero():
    model = build()
    with editing(model, [Edit("h.0.attn.kernel", head=1)]):
        found = model(IDS)
    model.h[0].attn.c_proj.weight[:, 8:16] = 0
    assert torch.allclose(found, model(IDS), atol=1e-5)


@torch.no_grad()
def test_swapping_the_last_stream_gives_the_other_text_and_earlier_places_do_so_later():
    model = build()
    with editing(model, [Edit("h.1", how="swap")], OTHER) as held:
        assert torch.equal(model(IDS), model(OTHER))
    assert set(held) == {"h.1"}
    with editing(model, [Edit("drop", positions=[10], how="swap")], OTHER):
        found = model(IDS)
    assert torch.equal(found[:, :10], model(IDS)[:, :10])
    assert torch.allclose(found, model(torch.cat([IDS[:, :10], OTHER[:, 10:]], 1)), atol=1e-5)


@torch.no_grad()
def test_one_other_text_serves_all_rows():
    model = build()
    with editing(model, [Edit("h.0.mlp", how="swap")], OTHER[:1]):
        found = model(IDS)
    with editing(model, [Edit("h.0.mlp", how="swap")], OTHER[:1].expand(2, -1)):
        assert torch.allclose(found, model(IDS), atol=1e-6)


@torch.no_grad()
def test_edits_add_up_and_one_place_may_have_several():
    model = build()
    zeros = [Edit("h.0.attn.kernel", head) for head in range(3)]
    with editing(model, zeros):
        apart = model(IDS)
    with editing(model, [Edit("h.0.attn.kernel")]):
        assert torch.equal(model(IDS), apart)
    two = [Edit("h.1.mlp", positions=[3]), Edit("h.1.mlp", how="mean")]  # in this order
    with editing(model, two), record(model, "h.1.mlp") as seen:
        model(IDS)
    with editing(model, two[:1]), record(model, "h.1.mlp") as first:
        model(IDS)
    mean = first["h.1.mlp"].mean(1, keepdim=True).expand(-1, 11, -1)
    assert torch.allclose(seen["h.1.mlp"], mean, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("outside", [True, False])
def test_a_recording_inside_or_outside_sees_the_edited_values(outside):
    model = build()
    edit = Edit("h.0.attn.kernel", head=2)
    if outside:
        with record(model) as seen, editing(model, [edit]):
            logits = model(IDS)
    else:
        with editing(model, [edit]), record(model) as seen:
            logits = model(IDS)
    assert not seen["h.0.attn.kernel"][:, 2].any()
    assert seen["h.0.attn.kernel"][:, 1].any()
    assert torch.equal(seen["lm_head"], logits)
    assert torch.equal(model.head(seen["ln_f"]), logits)


@torch.no_grad()
def test_scores_are_what_softmax_makes_weights_of():
    model = build(n_kv_head=1)
    with record(model, "*.scores", "*.weights", "*.q", "*.k") as seen:
        model(IDS)
    scores = seen["h.1.attn.scores"]
    assert scores.shape == (2, 3, 11, 11)
    one = seen["h.1.attn.q"][1, 2, 7] @ seen["h.1.attn.k"][1, 2, 4] / 8**0.5
    assert scores[1, 2, 7, 4].item() == pytest.approx(one.item(), abs=1e-5)
    hidden = torch.ones(11, 11, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    assert torch.allclose(weights, seen["h.1.attn.weights"], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("weights", WEIGHTS)
def test_packed_models_can_be_edited(weights):
    model = WEIGHTS[weights](build(n_embd=48))
    before = model(IDS)
    for how in WAYS:
        edits = [Edit("h.0.attn.kernel", 1, None, how), Edit("h.1.mlp", None, [5], how)]
        with editing(model, edits, OTHER), record(model, "h.0.attn.kernel", "h.1.mlp") as seen:
            changed = model(IDS)
        with record(model, "h.0.attn.kernel") as plain:
            model(OTHER if how == "swap" else IDS)
        given = plain["h.0.attn.kernel"][:, 1]
        wanted = {"zero": 0 * given, "mean": given.mean(1, keepdim=True), "swap": given}[how]
        room = 1e-5 if given.dtype == torch.float32 else 0.03  # a mean of 16-bit numbers
        assert torch.allclose(seen["h.0.attn.kernel"][:, 1], wanted.expand_as(given), atol=room)
        assert changed.dtype == before.dtype
        assert not torch.equal(changed, before)
    assert torch.equal(model(IDS), before)


@torch.no_grad()
def test_documents_in_one_row_and_a_cache_can_be_edited():
    model = build()
    documents = torch.tensor([[1] * 6 + [2] * 5]).expand(2, -1)
    edit = Edit("h.0.attn.kernel", head=0)
    with editing(model, [edit]):
        packed = model(IDS, documents=documents)
        alone = model(IDS[:, 6:])
        cache = KVCache(model.config, 2, model.device, model.dtype)
        model(IDS[:, 6:10], cache=cache)
        last = model(IDS[:, 10:], cache=cache)
    assert torch.allclose(packed[:, 6:], alone, atol=1e-5)
    assert torch.allclose(last, alone[:, -1:], atol=1e-5)


def test_gradients_flow_around_an_edit_and_dropout_stays_on():
    model = GPT(tiny(dropout=0.5)).train()
    with editing(model, [Edit("h.0.mlp", positions=[1], how="swap")], OTHER):
        assert model.training
        model(IDS).sum().backward()
    assert model.h[0].mlp.c_fc.weight.grad.abs().max() > 0
    with editing(model, [Edit("h.1.mlp")]):
        model.zero_grad()
        model(IDS).sum().backward()
    assert not model.h[1].mlp.c_fc.weight.grad.any()


def hooks(model: GPT) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


WRONG = [
    (Edit("h.9.mlp"), r"h\.9\.mlp"),
    (Edit("h.0.mlp.c_fc"), "did you mean h.0.mlp"),
    (Edit("h.0.attn.kernel", head=3), "head 3 at h.0.attn.kernel: use 0 to 2"),
    (Edit("h.0.attn.kernel", head=-1), "head -1"),
    (Edit("h.0.mlp", head=0), "heads are apart at h.0.attn.kernel alone"),
    (Edit("h.0.mlp", positions=[16]), "position 16 at h.0.mlp: use 0 to 15"),
    (Edit("h.0.mlp", positions=[-1]), "position -1"),
    (Edit("h.0.mlp", how="half"), "use one of zero, mean, swap"),
    (Edit("h.0.mlp", how="swap"), "needs another text"),
]


@pytest.mark.parametrize(("edit", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_an_edit_that_cannot_be_is_one_line_and_leaves_nothing(edit, message):
    model = build()
    with pytest.raises(UserError, match=message) as error, editing(model, [edit]):
        raise AssertionError
    assert "\n" not in str(error.value)
    assert not hooks(model)


@torch.no_grad()
def test_what_only_this_text_shows_is_told_when_the_model_runs_and_nothing_is_left():
    model = build()
    before = model(IDS)
    edit = Edit("h.0.mlp", positions=[11])
    message = "position 11 at h.0.mlp: use 0 to 10"
    with pytest.raises(UserError, match=message), editing(model, [edit]):
        model(IDS)
    with (
        pytest.raises(UserError, match="11 tokens and the other 7"),
        editing(model, [replace(edit, positions=None, how="swap")], OTHER[:, :7]),
    ):
        model(IDS)
    assert not hooks(model)
    assert torch.equal(model(IDS), before)
