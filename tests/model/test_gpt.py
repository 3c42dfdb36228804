"""The network: its size, its start, its causality, its padding, its ability to learn."""

import math

import pytest
import torch

from nanogpt.config import IGNORED, PRESETS
from nanogpt.errors import UserError
from nanogpt.model.build import resize_vocabulary
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import KERNELS
from nanogpt.model.position import POSITIONS, Position
from nanogpt.model.size import flops_per_token
from nanogpt.text.batches import padded_batch
from nanogpt.training.optim import AdamW

from conftest import tiny

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


@pytest.fixture
def ids() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(61, (3, 13))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_published_number_of_parameters(name):
    with torch.device("meta"):
        assert GPT(PRESETS[name]).num_parameters() == PUBLISHED[name]


def test_flops_per_token_count_every_matrix_product():
    """Counted by torch itself, while a batch goes forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny(kernels="plain")  # torch's counter knows no fused CPU attention
    model, batch = GPT(config), torch.randint(61, (2, config.context_length))
    with FlopCounterMode(display=False) as counter:
        model.loss(model(batch), batch).backward()
    measured = counter.get_total_flops() / batch.numel()
    # Biases and norms are counted as weights by the formula and cost no matrix product.
    assert flops_per_token(model) == pytest.approx(measured, rel=0.05)


def test_names_are_those_of_the_checkpoint():
    names = set(GPT(tiny(n_layer=1)).state_dict())
    block = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    expected = {f"h.0.{part}.{kind}" for part in block for kind in ("weight", "bias")}
    assert names == expected | {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"}


def test_the_head_is_the_embedding_itself(model, ids):
    """A copy would be counted twice and drift away."""
    model(ids).sum().backward()
    unseen = next(i for i in range(61) if i not in ids)
    assert model.wte.weight.grad[unseen].abs().sum() > 0  # only the head touches this row


def test_loss_before_training_is_near_ln_v():
    """A head of the wrong scale starts with a far larger loss."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=1000, n_embd=96))
    batch = torch.randint(1000, (16, 17))
    loss = model.loss(model(batch[:, :-1]), batch[:, 1:]).item()
    assert loss == pytest.approx(math.log(1000), abs=0.1)  # observed 6.93 against 6.91


@pytest.mark.parametrize("changes", [{}, {"init_std": 0.1}])
def test_initialisation_is_that_of_gpt2(changes):
    """0.02, residual projections scaled by 1 / sqrt(2 n_layer), positions not zero."""
    torch.manual_seed(0)
    model = GPT(tiny(n_layer=8, n_embd=192, vocab_size=500, context_length=64, **changes))
    std = changes.get("init_std", 0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            assert parameter.std().item() == pytest.approx(std / 4, rel=0.05), name
        elif parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
        else:
            expected = 0 if name.endswith("bias") else 1
            assert (parameter == expected).all(), name


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("position", POSITIONS)
def test_future_tokens_never_change_earlier_logits(kernels, position, ids):
    """To the last bit."""
    torch.manual_seed(0)
    model = GPT(tiny(kernels=kernels, position=position)).eval()
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 61
    assert torch.equal(model(ids)[:, :7], model(changed)[:, :7])
    assert not torch.equal(model(ids)[:, 7:], model(changed)[:, 7:])


def test_the_mask_is_minus_infinity():
    """A model can learn to outweigh a finite number."""
    model = GPT(tiny(position="alibi"))  # which adds numbers to the scores
    mask = model.context(torch.zeros(1, 4, dtype=torch.long)).mask
    assert mask.shape == (1, 3, 4, 4)
    assert (mask == -math.inf).sum() == 3 * 6
    assert mask.isfinite().sum() == 3 * 10


@pytest.mark.parametrize("length", [1, 5, 16])
def test_shorter_sequences_are_prefixes_of_longer_ones(model, length):
    """A mask cut to the wrong size shows on every length but the full one."""
    torch.manual_seed(1)
    full = torch.randint(61, (2, 16))
    torch.testing.assert_close(model(full[:, :length]), model(full)[:, :length], rtol=0, atol=1e-6)


def test_too_long_a_sequence_is_refused(model):
    with pytest.raises(UserError, match=r"17 tokens do not fit into model\.context_length=16"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_targets_are_not_taken_for_document_numbers(model):
    """`model(x, y)` means forward and loss elsewhere; here the second argument has a name."""
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(TypeError):
        model(ids, ids)
    with pytest.raises(UserError, match=r"use \(B, T\), as in ids\[None\]"):
        model(ids[0])


def test_documents_that_leave_out_the_old_tokens_are_refused(model):
    """They would be spread over all keys, without a word."""
    ids = torch.zeros(2, 3, dtype=torch.long)
    cache = KVCache(model.config, 2, model.device, model.dtype)
    model(ids, documents=torch.ones_like(ids), cache=cache)
    with pytest.raises(UserError, match=r"documents of shape \(2, 1\): use \(2, 4\)"):
        model(ids[:, :1], documents=torch.ones_like(ids[:, :1]), cache=cache)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_gradients_are_those_of_finite_differences(kernels, position):
    """In float64, through the loss, to every parameter of a small model."""
    torch.manual_seed(0)
    shape = {"vocab_size": 7, "context_length": 4, "n_layer": 1, "n_head": 2, "n_embd": 8}
    model = GPT(tiny(**shape, kernels=kernels, position=position)).double()
    names = [name for name, _ in model.named_parameters()]
    ids = torch.tensor([[1, 5, 2, 0]])

    def loss(*parameters):
        logits = torch.func.functional_call(
            model, dict(zip(names, parameters, strict=True)), (ids,)
        )
        value = model.loss(logits, torch.tensor([[5, 2, IGNORED, 3]]))
        assert value.dtype == torch.float64
        return value

    assert torch.autograd.gradcheck(loss, tuple(model.parameters()), fast_mode=True)


def test_rotary_angles_are_worked_out_in_float32_whatever_the_model_is_made_of():
    """In bfloat16 positions above 256 cannot be told apart."""
    rope = GPT(tiny(position="rope", n_embd=96, context_length=1024)).to(torch.bfloat16).wpe
    torch.manual_seed(0)
    q = torch.rand(1, 3, 1024, 32).bfloat16()
    pos = torch.arange(1024)[None]
    expected = rope.rotate(q.float(), q.float(), pos)[0]
    error = (rope.rotate(q, q, pos)[0].float() - expected).abs().max()
    assert error < 0.02  # observed 0.011; with angles in bfloat16 2.7


@pytest.mark.parametrize(
    "changes", [{}, {"position": "rope"}, {"position": "alibi"}, {"window": 5}]
)
def test_torch_export_takes_texts_of_any_length(changes):
    model = GPT(tiny(**changes)).eval()
    length = torch.export.Dim("length", min=2, max=16)
    ids = torch.randint(61, (1, 9))
    program = torch.export.export(model, (ids,), dynamic_shapes={"ids": {1: length}})
    for other in (ids, torch.randint(61, (1, 16)), torch.randint(61, (1, 4))):
        torch.testing.assert_close(program.module()(other), model(other), rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_plain_and_fused_models_agree(position, ids):
    models = [GPT(tiny(kernels=kernels, position=position)) for kernels in ("plain", "fused")]
    models[1].load_state_dict(models[0].state_dict())
    logits = [model(ids) for model in models]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-6)  # observed 6e-8


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_positions_change_nothing(kernels, side):
    """Whatever stands there, on whichever side: each row gives the logits it gives alone."""
    torch.manual_seed(0)
    model = GPT(tiny(kernels=kernels)).eval()
    rows = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    ids, _, documents = map(torch.from_numpy, padded_batch(rows, pad_id=60))
    if side == "left":
        ids = torch.stack(
            [row.roll(5 - len(tokens)) for row, tokens in zip(ids, rows, strict=True)]
        )
        documents = documents.flip(1)
    real = documents.bool()
    logits = model(ids, documents=documents)
    garbage = model(torch.where(real, ids, 33), documents=documents)
    assert torch.equal(logits[real], garbage[real])
    assert logits.isfinite().all()
    for row, tokens in enumerate(rows):
        alone = model(torch.tensor([tokens]))[0]
        torch.testing.assert_close(logits[row][real[row]], alone, rtol=0, atol=1e-6)  # obs. 1e-7


def test_without_positions_attention_sees_a_set():
    """What position "none" means: the last logits do not depend on the order of earlier tokens."""
    torch.manual_seed(0)
    model = GPT(tiny(position="none", n_layer=1)).eval()
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[3, 1, 2, 4]])
    torch.testing.assert_close(model(one)[:, -1], model(other)[:, -1])


class Distance(Position):
    """A bias that differs per head, as ALiBi's does."""

    def bias(self, q_pos, k_pos):
        distance = (k_pos[None, :] - q_pos[:, None]).float()
        return distance * torch.tensor([0.5, 0.25, 0.125])[:, None, None]


def test_a_new_position_encoding_is_one_class_and_one_line(monkeypatch, ids):
    monkeypatch.setitem(POSITIONS, "distance", Distance)
    models = [GPT(tiny(kernels=k, position="distance")).eval() for k in ("plain", "fused")]
    models[1].load_state_dict(models[0].state_dict())
    torch.testing.assert_close(models[0](ids), models[1](ids), rtol=0, atol=1e-6)
    assert not torch.allclose(models[0](ids), GPT(tiny(position="none")).eval()(ids))


def test_it_overfits_one_batch():
    torch.manual_seed(0)
    model = GPT(tiny(n_embd=48))
    batch = torch.randint(61, (4, 17))
    adamw = AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model.loss(model(batch[:, :-1]), batch[:, 1:])
        adamw.zero_grad()
        loss.backward()
        adamw.step()
    assert loss.item() < 0.05  # observed 0.02


def test_dropout_is_off_in_evaluation_and_on_in_training(ids):
    torch.manual_seed(0)
    model = GPT(tiny(dropout=0.2, attention_dropout=0.2))
    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


def test_an_unknown_variant_is_named():
    with pytest.raises(
        UserError, match=r"model\.position='learnt' is unknown: did you mean learned"
    ):
        GPT(tiny(position="learnt"))


def test_an_untied_head_has_rows_of_its_own():
    torch.manual_seed(0)
    tied, model = GPT(tiny()), GPT(tiny(head="untied"))
    assert model.num_parameters() == tied.num_parameters() + 61 * 24
    assert flops_per_token(model) == flops_per_token(tied)  # the embedding is only looked up
    count = flops_per_token(model)
    model.wte.requires_grad_(False)
    assert flops_per_token(model) == count  # nor does it matter there whether it is frozen
    model.wte.requires_grad_(True)
    ids = torch.tensor([[1, 2, 3]])
    model.loss(model(ids), ids).backward()
    used = model.wte.weight.grad.abs().sum(1).nonzero().flatten()
    assert used.tolist() == [1, 2, 3]  # a tied embedding moves at every row, as the head does
    assert (model.lm_head.weight.grad.abs().sum(1) > 0).all()
    x = torch.randn(2, 24)
    torch.testing.assert_close(model.head(x), x @ model.lm_head.weight.T, rtol=0, atol=1e-6)


def test_an_untied_head_starts_at_zero_where_projections_do():
    model = GPT(tiny(head="untied", zero_init=True))
    assert not model(torch.tensor([[1, 2, 3]])).any()  # all tokens are equally likely
    other = GPT(tiny(head="untied"))  # two layers: smaller by the root of their four projections
    assert other.lm_head.weight.detach().std() == pytest.approx(0.02 / 2, rel=0.2)


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_larger_vocabulary_keeps_all_that_was_learned(head):
    """Special tokens are added after training; nothing else changes."""
    torch.manual_seed(0)
    model = GPT(tiny(head=head)).eval()
    ids = torch.randint(61, (2, 9))
    before = model(ids)
    resize_vocabulary(model, 64)
    after = model(ids)
    assert after.shape == (2, 9, 64)
    torch.testing.assert_close(after[..., :61], before, rtol=0, atol=1e-6)
    assert model.config.vocab_size == 64
    assert (after[..., 61:] <= before.max(dim=-1, keepdim=True).values).all()  # never the likeliest
    model.loss(model(torch.full((1, 9), 63)), torch.full((1, 9), 62)).backward()
    assert model.wte.weight.grad[62:].abs().sum() > 0
    with pytest.raises(UserError, match="vocab_size=10 would lose tokens: use at least 64"):
        resize_vocabulary(model, 10)
