"""What makes a run fast or small changes nothing that it computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nanogpt.config import IGNORED, TrainConfig
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import generate_text
from nanogpt.model import layers
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import Batch
from nanogpt.training import execution
from nanogpt.training.execution import build_objective, checkpoint_activations, suit_compiler
from nanogpt.training.load import load
from nanogpt.training.loop import accumulate_gradients
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.plan import plan_run, with_expected_vocabulary
from nanogpt.training.start import Trainer

from conftest import small_run, tiny

CPU = resolve("cpu", "float32")


@pytest.mark.parametrize("vocab_size", [256, 384, 61])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_the_loss_for_the_compiler_equals_the_plain_one(vocab_size, reduction):
    torch.manual_seed(0)
    logits = (5 * torch.randn(40, vocab_size)).requires_grad_()
    targets = torch.randint(vocab_size, (40,))
    targets[::7] = IGNORED
    found = execution.cross_entropy(logits, targets, reduction)
    expected = layers.cross_entropy(logits, targets, reduction)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    factor = torch.randn(found.shape)
    gradients = [
        torch.autograd.grad(loss, logits, factor, retain_graph=True)[0]
        for loss in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)  # observed 2e-6


def test_the_loss_for_the_compiler_is_right_for_16_bits_and_huge_logits():
    logits = torch.tensor([[3e4, 0.0] * 64, [0.0, -3e4] * 64]).bfloat16().requires_grad_()
    targets = torch.tensor([0, 1])
    loss = execution.cross_entropy(logits, targets, "sum")
    expected = F.cross_entropy(logits.float(), targets, reduction="sum")
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16
    assert logits.grad.isfinite().all()


def test_gelu_by_sigmoid_is_the_same_function():
    x = torch.linspace(-12, 12, 9999, dtype=torch.float64)
    torch.testing.assert_close(execution.gelu(x), layers.gelu(x), rtol=0, atol=1e-12)


def batch_of(config) -> Batch:
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (3, config.context_length + 1))
    return Batch(ids[:, :-1], ids[:, 1:])


def gradients_of(model: GPT, batch: Batch, compute=CPU) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # of dropout
    model.zero_grad()
    accumulate_gradients(NextToken(model), [batch], compute)
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_a_model_that_suits_the_compiler_computes_the_same():
    config = tiny(vocab_size=128)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(GPT(config).train())
    suit_compiler(models[1])
    plain, suited = (gradients_of(model, batch_of(config)) for model in models)
    for name, gradient in plain.items():
        torch.testing.assert_close(suited[name], gradient, rtol=0, atol=1e-6)


def test_the_stream_has_16_bits_under_autocast_and_only_there():
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=128)).train()
    suit_compiler(model)
    seen = []
    model.h[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    gradients_of(model, batch_of(model.config), resolve("cpu", "bfloat16"))
    model(torch.zeros(1, 3, dtype=torch.long))
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("kind", ["block", "selective"])
def test_activations_that_are_computed_again_give_the_same_gradients(kind):
    """Dropout included, and fewer numbers are kept."""
    config = tiny(vocab_size=128, dropout=0.2, n_layer=3)
    found, kept = [], []
    for setting in ("none", kind):
        torch.manual_seed(0)
        model = GPT(config).train()
        checkpoint_activations(model, setting)
        found.append(gradients_of(model, batch_of(config)))
        kept.append(numbers_kept(model, batch_of(config)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert kept[1] < 0.8 * kept[0]


def numbers_kept(model: GPT, batch: Batch) -> int:
    """How many numbers a forward pass keeps for the backward pass, the weights aside."""
    weights = {p.data_ptr() for p in model.parameters()}
    storages = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            storages[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        NextToken(model)(torch.from_numpy(batch.ids), torch.from_numpy(batch.targets))
    return sum(tensor.numel() for tensor in storages.values())


def test_a_way_of_checkpointing_that_is_unknown_is_refused():
    with pytest.raises(UserError, match="activation_checkpointing='blok' is unknown"):
        build_objective(GPT(tiny()), TrainConfig(activation_checkpointing="blok"), CPU, 1)


def test_a_padded_vocabulary_is_never_drawn(prepared, tmp_path):
    config = small_run(prepared, pad_vocab_to=128, max_steps=2)
    trainer = Trainer.start(tmp_path / "run", config)
    size = trainer.tokenizer.vocab_size
    assert size % 128
    assert trainer.model.config.vocab_size == -(-size // 128) * 128
    assert with_expected_vocabulary(config).model.vocab_size == trainer.model.config.vocab_size
    assert (
        plan_run(with_expected_vocabulary(config), CPU).parameters["wte"]
        == trainer.model.wte.weight.numel()
    )
    with torch.no_grad():  # padding that looks likely
        trainer.model.wte.weight[size:] *= 1000
    list(trainer.run())
    model, tokenizer, config = load(tmp_path / "run")
    reader = Reader(model, [[0, 1]])
    assert int(reader.predict().argmax()) >= size
    text = "".join(generate_text(model, tokenizer, config.sample))
    assert len(tokenizer.encode(text)) > 0
