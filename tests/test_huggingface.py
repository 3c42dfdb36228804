"""Our GPT-2 is Hugging Face's GPT-2: same logits, loss, gradients, text and training curve.

Tolerances are in float32; the error observed stands beside each.
"""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from nanogpt.config import PRESETS, ModelConfig, SampleConfig, TrainConfig
from nanogpt.generate import Reader, generate
from nanogpt.huggingface import from_hugging_face, to_hugging_face
from nanogpt.model import GPT
from nanogpt.optim import build_optimizer

from conftest import tiny


def their_model(config: ModelConfig) -> GPT2LMHeadModel:
    """A randomly initialised Hugging Face model of the same shape."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    # At initialisation biases are zero and gains one: make every parameter matter.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def pair(config: ModelConfig) -> tuple[GPT, GPT2LMHeadModel]:
    theirs = their_model(config)
    ours = GPT(config)
    ours.load_state_dict(from_hugging_face(theirs.state_dict()))
    return ours, theirs


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(61, (3, 17))
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_logits_loss_and_every_gradient_agree(kernels, batch):
    ours, theirs = pair(tiny(kernels=kernels))
    ids, targets = batch
    logits = ours(ids)
    loss = ours.loss(logits, targets)
    # Hugging Face shifts labels itself: give it the whole sequence.
    labels = torch.cat([ids, targets[:, -1:]], dim=1)
    their_logits = theirs(ids).logits
    their_loss = torch.nn.functional.cross_entropy(
        their_logits.flatten(0, 1), labels[:, 1:].flatten()
    )
    torch.testing.assert_close(logits, their_logits, rtol=0, atol=1e-5)  # observed 1.2e-7
    torch.testing.assert_close(loss, their_loss, rtol=0, atol=1e-5)  # observed 0
    loss.backward()
    their_loss.backward()
    gradients = from_hugging_face({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        # observed 3.7e-8
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-6, msg=name)


def test_their_own_loss_agrees(batch):
    ours, theirs = pair(tiny())
    ids, _ = batch
    their_loss = theirs(ids, labels=ids).loss
    our_loss = ours.loss(ours(ids)[:, :-1], ids[:, 1:])
    torch.testing.assert_close(our_loss, their_loss, rtol=0, atol=1e-5)  # observed 4.8e-7


def test_padding_agrees_with_their_attention_mask(batch):
    ours, theirs = pair(tiny())
    ids, _ = batch
    mask = torch.ones_like(ids)
    mask[0, 11:] = 0
    mask[2, 5:] = 0
    real = mask.bool()
    logits, their_logits = ours(ids, real), theirs(ids, attention_mask=mask).logits
    torch.testing.assert_close(logits[real], their_logits[real], rtol=0, atol=1e-5)  # observed 6e-8


def test_greedy_text_agrees(batch):
    ours, theirs = pair(tiny(context_length=40))
    ids = batch[0][:, :5]
    their_ids = theirs.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None)
    steps = generate(Reader(ours, ids.tolist()), SampleConfig(temperature=0))
    our_ids = torch.stack([next(steps).chosen for _ in range(20)], dim=1)
    assert torch.equal(our_ids, their_ids[:, 5:])


@pytest.mark.parametrize("optimizer", ["adamw", "fused-adamw"])
def test_ten_steps_of_adamw_follow_the_same_loss_curve(optimizer, batch):
    ours, theirs = pair(tiny())
    ids, targets = batch
    settings = TrainConfig(optimizer=optimizer, lr=1e-2, weight_decay=0.1)
    optimizers = [
        (ours, build_optimizer(ours, settings)),
        (theirs, build_optimizer(theirs, TrainConfig(optimizer="fused-adamw", lr=1e-2))),
    ]
    curves = []
    for model, adamw in optimizers:
        curve = []
        for _ in range(10):
            logits = model(ids) if model is ours else model(ids).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0][-1] < curves[0][0] - 1
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)  # observed 5e-7


def test_weights_survive_the_round_trip(model):
    state = model.state_dict()
    back = from_hugging_face(to_hugging_face(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_real_124m_shape_agrees():
    ours, theirs = pair(PRESETS["gpt2"])
    torch.manual_seed(3)
    ids = torch.randint(50257, (1, 12))
    with torch.no_grad():
        logits, their_logits = ours.eval()(ids), theirs.eval()(ids).logits
    torch.testing.assert_close(logits, their_logits, rtol=0, atol=1e-4)  # observed 3e-6
    assert torch.equal(logits.argmax(-1), their_logits.argmax(-1))
