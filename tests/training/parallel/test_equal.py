"""Many ranks train as one process does: weights, gradients, norms and losses are the same.

Sums are added up in another order, so numbers differ by rounding, and by no more.
"""

import itertools

import pytest
from skipping import SkippingBlock

from nanogpt.model.gpt import BLOCKS
from nanogpt.training.checkpoint import find_checkpoint

ROUNDING = 4e-7  # of gradients and first losses, which are around 1
LATER = 4e-6  # of losses after 20 steps, in which rounding grows

MODES = {
    "data": {"data": 2},
    "shard": {"shard": 2},
    "tensor": {"tensor": 2},
    "context": {"context": 2},
    "pipeline": {"pipeline": 2},
}


def largest_difference(a, b):
    """Between tensors of the same names."""
    assert a.keys() == b.keys() != set()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def check_equal(one, many):
    """Compare two outcomes, of one process and of many."""
    assert many.said == ""
    assert largest_difference(one.weights, many.weights) == 0
    zeros = {name: x for name, x in many.gradients.items() if name not in one.gradients}
    assert not any(x.any() for x in zeros.values())
    moved = {name: x for name, x in many.gradients.items() if name in one.gradients}
    scale = max(float(x.abs().max()) for x in moved.values())
    assert largest_difference(one.gradients, moved) < ROUNDING * max(1, scale)
    assert len(one.records) == len(many.records)
    for a, b in zip(one.records, many.records, strict=True):
        limit = ROUNDING if a["step"] < 2 else LATER
        for name in {"loss", "val_loss", "grad_norm"} & a.keys():
            assert b[name] == pytest.approx(a[name], rel=limit, abs=limit), (name, a["step"])
    assert largest_difference(one.trained, many.trained) < 2e-5


@pytest.fixture(scope="module")
def one(worlds):
    return worlds.alone()


# One row a rank, which skips about every second block; with half of them no rank uses a block.
SKIPPING = {
    "model": {"block": "skipping"},
    "train": {"batch_size": 2, "grad_accum_steps": 1, "weight_decay": 10.0},
}


@pytest.fixture(scope="module")
def two_ranks(worlds):
    """Every mode alone, the other orders of work in a pipeline, and two jobs of single tests."""
    layouts = {
        **MODES,
        "gpipe": {"pipeline": 2, "schedule": "gpipe"},
        "interleaved": {"pipeline": 2, "schedule": "interleaved"},
    }
    jobs = {name: {"settings": worlds.settings(p)} for name, p in layouts.items()}
    jobs["skipping"] = {"settings": worlds.settings({"data": 2}, **SKIPPING)}
    often = worlds.settings({"data": 2}, train={"checkpoint_interval": 1})
    jobs["slow disk"] = {"settings": often, "stop_at": 2, "slow_disk": True}
    return worlds.together(2, jobs)


@pytest.fixture(scope="module")
def four_ranks(worlds):
    """Every combination of two modes."""
    pairs = itertools.combinations(MODES, 2)
    jobs = {f"{a}-{b}": {"settings": worlds.settings(MODES[a] | MODES[b])} for a, b in pairs}
    return worlds.together(4, jobs)


@pytest.mark.parametrize("mode", [*MODES, "gpipe", "interleaved"])
def test_two_ranks_train_as_one_process_does(one, two_ranks, mode):
    check_equal(one, two_ranks[mode])


def test_gradients_that_some_ranks_do_not_have_are_those_of_one_process(
    worlds, two_ranks, monkeypatch
):
    monkeypatch.setitem(BLOCKS, "skipping", SkippingBlock)
    alone = worlds.alone(**SKIPPING)
    assert 0 < sum(name.endswith("c_fc.weight") for name in alone.gradients) < 4
    check_equal(alone, two_ranks["skipping"])


def test_a_fast_rank_waits_for_the_first_to_end_a_checkpoint_before_it_begins_the_next(two_ranks):
    found = {path.name for path in find_checkpoint(two_ranks["slow disk"].run).iterdir()}
    kinds = ("model", "optimizer")
    pieces = {f"{kind}-{n:05d}-of-00002.safetensors" for kind in kinds for n in (0, 1)}
    assert found == {"state.json", *pieces}


@pytest.mark.parametrize("pair", ["-".join(p) for p in itertools.combinations(MODES, 2)])
def test_four_ranks_in_two_dimensions_train_as_one_process_does(one, four_ranks, pair):
    check_equal(one, four_ranks[pair])


# Settings that between them use every entry of every table, and what the ranks must see to.
VARIANTS = {
    "modern": {
        "model": {
            "position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True, "n_kv_head": 2,
            "bias": False, "zero_init": True, "attention": "short-conv", "head": "untied",
        },
        "train": {"optimizer": "muon", "schedule": "trapezoidal", "grad_accum_steps": 3},
        "data": {"batches": "packed"},
    },
    "slopes": {
        "model": {"position": "alibi", "mlp": "relu2", "block": "post-norm", "window": 5},
        "train": {"optimizer": "sgd", "eval_batches": 0, "activation_checkpointing": "block"},
        "data": {"batches": "padded"},
    },
    "plain": {
        "model": {"position": "sinusoidal", "norm": "none", "kernels": "plain", "n_layer": 5},
        "train": {
            "optimizer": "adamw", "schedule": "constant", "batch_size": 12, "pad_vocab_to": 8,
            "freeze": "wte.*, h.1.*", "activation_checkpointing": "selective",
        },
        "data": {"batches": "sliding", "stride": 7},
    },
    "convolution": {"model": {"attention": "short-conv"}},  # without a mask, unlike "modern"
    "dropout": {
        "model": {"position": "none", "dropout": 0.2, "attention": "flex", "block": "no-residual"},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_shared_out(worlds, name):
    changes = VARIANTS[name]
    pairs = list(itertools.combinations(MODES, 2))
    if name == "dropout":
        pairs = [pair for pair in pairs if "pipeline" not in pair]
    layouts = {f"{a}-{b}": MODES[a] | MODES[b] for a, b in pairs}
    jobs = {n: {"settings": worlds.settings(p, **changes)} for n, p in layouts.items()}
    alone = worlds.alone(**changes)
    for outcome in worlds.together(4, jobs, timeout=600).values():
        check_equal(alone, outcome)


def test_every_table_is_in_one_of_the_variants():
    from nanogpt.training.variants import TABLES

    defaults = {"learned", "layer", "gelu", "pre-norm", "tied", "fused", "random"}
    defaults |= {"fused-adamw", "cosine"}
    used = {
        value for sections in VARIANTS.values() for s in sections.values() for value in s.values()
    }
    for setting, table in TABLES.items():
        # Answers are next tokens of which some are ignored; the others need one process.
        if setting not in ("sample.sampler", "train.objective", "policy.reward"):
            assert table.keys() - used - defaults == set(), setting
