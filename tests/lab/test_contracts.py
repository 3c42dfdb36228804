"""What every variant must keep to, whichever dictionary it stands in."""

import math

import pytest
import torch
import torch.nn.functional as F

from nanogpt.config import SampleConfig, TrainConfig
from nanogpt.generation.reader import Reader, generate
from nanogpt.lab.contracts import CHECKS, OTHER_CHECKS, build
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import KERNELS, MLPS, RMSNorm, SquaredReLU, rms_norm
from nanogpt.model.position import POSITIONS, RoPE
from nanogpt.training.optim import OPTIMIZERS, build_optimizer
from nanogpt.training.variants import TABLES

from conftest import VARIANTS, chi_square_is_fine, tiny

every_variant = pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items())
)


@pytest.fixture
def ids() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(61, (2, 12))


@every_variant
@pytest.mark.parametrize("check", CHECKS)
def test_every_variant_keeps_the_contract(variant, check):
    """No future, the cache, padding, gradients, kernels, collapse to nothing, weights."""
    assert CHECKS[check](variant) == ""


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (c, name)
        for setting, checks in OTHER_CHECKS.items()
        for c in checks
        for name in TABLES[setting]
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_batches_optimizers_schedules_and_samplers_keep_theirs(check, name):
    assert check(name) == ""


@every_variant
def test_hand_written_and_fused_kernels_agree_forward_and_backward(variant, ids):
    results = []
    for kernels in KERNELS:
        model = build({**variant, "kernels": kernels})
        model.loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        results.append((model(ids), [p.grad for p in model.parameters()]))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # observed 1e-6
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)  # observed 4e-7


@every_variant
def test_hand_written_and_fused_attention_agree_while_decoding(variant, ids):
    logits = []
    for kernels in KERNELS:
        model = build({**variant, "kernels": kernels})
        cache = KVCache(model.config, 2, model.device, model.dtype)
        logits.append(torch.cat([model(part, cache=cache) for part in ids.split([5, 1, 6], 1)], 1))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)  # observed 1e-6


@every_variant
def test_a_cache_with_documents_and_padding_changes_nothing(variant, ids):
    model = build(variant)
    documents = torch.tensor(
        [[0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]]
    )
    whole = model(ids, documents=documents)
    cache = KVCache(model.config, 2, model.device, model.dtype)
    ends = [(0, 5), (5, 6), (6, 12)]
    parts = [model(ids[:, a:b], documents=documents[:, :b], cache=cache) for a, b in ends]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


@every_variant
def test_a_row_reads_the_same_alone_and_beside_others(variant):
    model = build(variant)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], list(range(40))]
    together = Reader(model, prompts)
    alone = [Reader(model, [prompt]) for prompt in prompts]
    for _ in range(30):
        logits = together.predict()
        for row, reader in enumerate(alone):
            torch.testing.assert_close(logits[row], reader.predict()[0], rtol=0, atol=1e-5)
            token = int(logits[row].argmax())
            together.append(row, [token])
            reader.append(0, [token])


@every_variant
def test_first_tokens_are_drawn_as_the_model_says(variant):
    """Chi-square over many rows that share a prompt, each with a seed of its own."""
    model = build(variant)
    config = SampleConfig(temperature=1.3, top_k=20)
    steps = generate(Reader(model, [[3, 1, 4]] * 3000), config)
    chosen = next(steps).chosen
    with torch.no_grad():
        logits = model(torch.tensor([[3, 1, 4]]))[0, -1] / 1.3
    kept = logits.where(logits >= logits.topk(20).values[-1], torch.tensor(-math.inf))
    counts = torch.bincount(chosen, minlength=61)
    assert chi_square_is_fine(counts, kept.softmax(-1).tolist())


@every_variant
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_variant_learns_with_every_optimizer(variant, optimizer, ids):
    torch.manual_seed(0)
    model = GPT(tiny(n_head=2, **variant))
    lr = 0.2 if optimizer == "sgd" else 1e-2
    optimizers = build_optimizer(model, TrainConfig(optimizer=optimizer, lr=lr))
    first = None
    for _ in range(15):
        loss = model.loss(model(ids[:, :-1]), ids[:, 1:])
        first = first or loss.item()
        optimizers.zero_grad()
        loss.backward()
        optimizers.step()
    assert first == pytest.approx(math.log(61), rel=0.05)
    assert loss.item() < first - 0.3


def test_a_model_without_biases_has_none_and_with_them_is_gpt2():
    assert not [n for n, _ in GPT(tiny(bias=False)).named_parameters() if n.endswith("bias")]
    assert len([n for n, _ in GPT(tiny()).named_parameters() if n.endswith("bias")]) == 2 * 6 + 1


def test_with_zero_init_each_block_begins_as_if_it_were_not_there(ids):
    model = GPT(tiny(zero_init=True)).eval()
    x = model.wpe.embed(model.wte(ids), torch.arange(12)[None])
    torch.testing.assert_close(model(ids), F.linear(model.ln_f(x), model.wte.weight))


def test_rms_norm_equals_layer_norm_on_vectors_of_mean_zero():
    x = torch.randn(5, 8)
    x = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(rms_norm(x, torch.ones(8)), F.layer_norm(x, (8,), eps=1e-5))


def test_rms_norm_equals_torch():
    x, weight = torch.randn(4, 5, 8) * 3 + 1, torch.randn(8)
    torch.testing.assert_close(rms_norm(x, weight), F.rms_norm(x, (8,), weight, 1e-5))
    layer = RMSNorm(tiny(n_embd=24))
    assert [tuple(p.shape) for p in layer.parameters()] == [(24,)]


def test_squared_relu_is_the_square_of_relu():
    activation = SquaredReLU(tiny()).activation
    assert activation(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0, 0, 9]


def test_rope_makes_scores_depend_on_the_distance_alone():
    rope = RoPE(tiny(n_head=2))
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 1, 12), torch.randn(1, 2, 1, 12)

    def score(query: int, key: int) -> torch.Tensor:
        rotated_q, _ = rope.rotate(q, k, torch.tensor([[query]]))
        _, rotated_k = rope.rotate(q, k, torch.tensor([[key]]))
        return (rotated_q * rotated_k).sum(-1)

    torch.testing.assert_close(score(5, 2), score(13, 10), rtol=0, atol=1e-5)
    torch.testing.assert_close(score(4, 4), (q * k).sum(-1), rtol=0, atol=1e-5)
    assert (score(5, 2) - score(5, 3)).abs().min() > 1e-3


def test_rope_equals_transformers():
    """Against the rotation that Hugging Face's Llama applies."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rope = RoPE(tiny(n_head=2))
    q, k = torch.randn(1, 2, 9, 12), torch.randn(1, 2, 9, 12)
    angles = torch.arange(9)[:, None] * 10_000.0 ** (-torch.arange(0, 12, 2) / 12)
    doubled = torch.cat([angles, angles], -1)[None]
    theirs = apply_rotary_pos_emb(q, k, doubled.cos(), doubled.sin())
    for ours, their in zip(rope.rotate(q, k, torch.arange(9)[None]), theirs, strict=True):
        torch.testing.assert_close(ours, their, rtol=0, atol=1e-5)


def test_qk_norm_bounds_the_scores(ids):
    """However large the weights grow, no score exceeds sqrt(hs)."""
    model = GPT(tiny(n_head=2, qk_norm=True, kernels="plain")).eval()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight.mul_(1e4)
    seen = []

    def record(kernel, inputs, output):
        q, k, *_ = inputs
        seen.append((q @ k.mT / math.sqrt(q.shape[-1])).abs().max().item())

    for block in model.h:
        block.attn.kernel.register_forward_hook(record)
    model(ids)
    assert seen
    assert max(seen) <= math.sqrt(12) + 1e-3


def test_one_key_head_for_each_query_head_is_multi_head_attention(ids):
    torch.testing.assert_close(build({"n_kv_head": 2})(ids), build({})(ids), rtol=0, atol=0)


def test_grouped_heads_are_multi_head_attention_with_the_keys_repeated(ids):
    grouped, full = build({"n_kv_head": 1}), build({})
    state = grouped.state_dict()
    for name, tensor in state.items():
        if ".c_attn." in name:
            q, k, v = tensor.split([24, 12, 12])
            state[name] = torch.cat([q, k, k, v, v])
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(ids), full(ids), rtol=0, atol=1e-6)


def test_a_window_as_long_as_the_text_is_no_window(ids):
    torch.testing.assert_close(build({"window": 12})(ids), build({})(ids), rtol=0, atol=1e-6)


def test_a_window_hides_what_is_further_back():
    """One layer sees 3 tokens; two layers see 5."""
    ids = torch.randint(61, (1, 12))
    changed = ids.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 61
    model = build({"window": 3})
    assert torch.equal(model(ids)[:, 5:], model(changed)[:, 5:])
    assert not torch.equal(model(ids)[:, 4], model(changed)[:, 4])


def test_the_slopes_of_alibi_are_those_of_the_paper():
    wpe = POSITIONS["alibi"](tiny(n_head=8, n_embd=24))
    pos = torch.arange(4)[None]
    bias = wpe.bias(pos, pos)[0]  # (nh, T, S)
    assert bias[:, 1, 0].tolist() == [-(2.0**-n) for n in range(1, 9)]
    assert bias[0, 3].tolist() == [-1.5, -1.0, -0.5, 0.0]


def test_sinusoids_are_those_of_the_paper():
    x = (
        POSITIONS["sinusoidal"](tiny()).embed(torch.zeros(1, 5, 6), torch.arange(5)[None])[0, 3]
        / 0.02
    )
    speeds = [1.0, 10_000 ** (-2 / 6), 10_000 ** (-4 / 6)]
    expected = [f(3 * speed) for speed in speeds for f in (math.sin, math.cos)]
    torch.testing.assert_close(x, torch.tensor(expected))


def test_swiglu_has_about_as_many_parameters_as_gelu():
    sizes = [
        sum(p.numel() for p in MLPS[name](tiny(n_embd=96, bias=False)).parameters())
        for name in ("gelu", "swiglu")
    ]
    assert sizes[0] == sizes[1] == 8 * 96 * 96


def test_swiglu_equals_its_definition():
    layer = MLPS["swiglu"](tiny()).eval()
    x = torch.randn(2, 24)
    gate, value = (
        F.linear(x, w, b)
        for w, b in zip(layer.c_fc.weight.chunk(2), layer.c_fc.bias.chunk(2), strict=True)
    )
    torch.testing.assert_close(layer(x), layer.c_proj(F.silu(gate) * value))
