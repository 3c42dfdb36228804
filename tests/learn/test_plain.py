"""The plain forms equal what the package does with more options."""

import inspect
from dataclasses import replace

import pytest
import torch
from learners_right import RIGHT
from torch import nn

from nanogpt.learn import plain
from nanogpt.learn.exercises import EXERCISES
from nanogpt.learn.exercises.network import TINY
from nanogpt.model import attention, gpt, layers, position
from nanogpt.model.cache import KVCache


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model():
    torch.manual_seed(1)
    network = gpt.GPT(TINY).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def test_embedding_is_the_models(model):
    expected = model.wpe.embed(model.wte(IDS), torch.arange(5)[None])
    assert torch.equal(plain.embed(IDS, model.wte.weight, model.wpe.weight), expected)


def test_the_loss_is_the_packages_where_all_targets_are_real():
    logits, targets = 30 * numbers(5, 7), torch.tensor([3, 0, 6, 1, 1])
    expected = layers.cross_entropy(logits, targets)
    torch.testing.assert_close(plain.cross_entropy(logits, targets), expected)


def test_the_gradient_of_the_loss_is_that_of_autograd():
    logits, targets = numbers(5, 7).requires_grad_(), torch.tensor([3, 0, 6, 1, 1])
    plain.cross_entropy(logits, targets).backward()
    torch.testing.assert_close(plain.cross_entropy_gradient(logits, targets), logits.grad)


def test_an_average_is_attention_that_finds_all_keys_alike():
    x = numbers(2, 5, 3)
    q = torch.zeros(2, 1, 5, 3)
    expected = attention.attention(q, q, x[:, None], causal=True)[:, 0]
    torch.testing.assert_close(plain.average(x), expected)


@pytest.mark.parametrize("T", [1, 2, 5])
def test_the_causal_mask_is_the_attention_mask_without_options(T):
    assert torch.equal(plain.causal_mask(T), attention.attention_mask(T, T))


def test_many_heads_are_the_layers(model):
    layer, x = model.h[0].attn, numbers(2, 5, TINY.n_embd)
    context = attention.AttentionContext(position.Position(TINY), torch.arange(5)[None])
    found = plain.multi_head_attention(x, layer.c_attn, layer.c_proj, TINY.n_head)
    torch.testing.assert_close(found, layer(x, context))


def parts(model):
    context = model.context(IDS)

    def block(layer):
        return lambda x: model.h[layer](x, replace(context, layer=layer))

    blocks = [block(layer) for layer in range(len(model.h))]
    return model.wte.weight, model.wpe.weight, blocks, model.ln_f


def test_the_forward_pass_is_the_models(model):
    torch.testing.assert_close(plain.gpt(IDS, *parts(model)), model(IDS))


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    "settings",
    [{}, {"n_kv_head": 1}, {"position": "rope", "qk_norm": True}, {"position": "sinusoidal"},
     {"position": "alibi"}],
)  # fmt: skip
def test_what_a_learner_wrote_in_plain_form_works_in_every_model(settings, number):
    """Heads and the forward pass are put in place of the package's; caches and documents go on."""
    config = replace(TINY, kernels="plain", **settings)
    torch.manual_seed(1)
    network = gpt.GPT(config).eval()
    used = set()

    def counted(name):
        mine = RIGHT[name][number]

        def call(*args):
            used.add(name)
            return mine(*args)

        return EXERCISES[name].adapt(call)

    other = counted("gpt")(config).eval()
    other.load_state_dict(network.state_dict())
    heads = counted("heads")
    for block in other.h:
        layer = heads(config).eval()
        layer.load_state_dict(block.attn.state_dict())
        block.attn = layer
    torch.testing.assert_close(other(IDS), network(IDS))
    plain_attention = settings.get("position") != "alibi"  # which is a mask of numbers
    plain_order = settings.get("position") != "sinusoidal"
    assert ("heads" in used, "gpt" in used) == (plain_attention, plain_order)
    documents = torch.tensor([[0, 1, 1, 2, 2], [1, 1, 1, 1, 1]])
    expected = network(IDS, documents=documents)
    torch.testing.assert_close(other(IDS, documents=documents), expected)
    caches = [KVCache(config, 2, torch.device("cpu"), torch.float32) for _ in range(2)]
    for part in IDS.split(2, dim=1):
        expected, found = (m(part, cache=c) for m, c in zip((network, other), caches, strict=True))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("number", range(3))
def test_a_plain_loss_works_with_targets_to_ignore(reduction, number):
    logits, targets = numbers(5, 7), torch.tensor([3, -100, 6, 1, -100])
    mine = EXERCISES["cross-entropy"].adapt(RIGHT["cross-entropy"][number])
    expected = layers.cross_entropy(logits, targets, reduction)
    torch.testing.assert_close(mine(logits, targets, reduction=reduction), expected)


@pytest.mark.parametrize("number", range(3))
def test_a_plain_mask_works_with_windows_and_documents(number):
    mine = EXERCISES["mask"].adapt(RIGHT["mask"][number])
    same = attention.same_document(torch.tensor([[0, 1, 1, 2], [1, 1, 2, 2]]), 2)
    for case in ((4, 4), (2, 4), (2, 4, 2), (2, 4, 0, same)):
        assert torch.equal(mine(*case), attention.attention_mask(*case))
    wrong = EXERCISES["mask"].adapt(lambda T: torch.eye(T, dtype=torch.bool))
    assert not torch.equal(wrong(4, 4), attention.attention_mask(4, 4))


def test_every_plain_form_has_an_exercise():
    functions = [f for _, f in inspect.getmembers(plain, inspect.isfunction)]
    forms = {f for f in functions if f.__module__ == plain.__name__}
    assert forms < {exercise.reference for exercise in EXERCISES.values()}
