"""Evaluation: exact sums, bits per byte, and no trace left in the training."""

import math

import numpy as np
import pytest
import torch

from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, estimate, evaluate, token_losses
from nanogpt.model.gpt import GPT
from nanogpt.text.batches import RandomWindows
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import CharTokenizer

from conftest import tiny

CPU = resolve("cpu", "float32")
ALPHABET = CharTokenizer(
    [chr(ord("a") + i) for i in range(26)] + [chr(0xE0 + i) for i in range(35)]
)


@pytest.fixture
def tokens(tmp_path):
    letters = [ALPHABET.characters[i * i % 61] for i in range(100)]
    return write_token_file(tmp_path / "val.bin", ["".join(letters)], ALPHABET)


def test_bits_per_byte_is_loss_over_ln_2_over_bytes_per_token():
    score = Score(loss=3 * math.log(2), tokens=10, bytes_per_token=1.5)
    assert score.bits_per_byte == pytest.approx(2.0)
    assert score.perplexity == pytest.approx(8.0)


def test_bytes_and_not_characters_are_counted(tokens):
    text = ALPHABET.decode(tokens.ids.tolist())
    assert tokens.about.bytes == len(text.encode()) > len(text)


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_the_full_evaluation_is_the_mean_over_every_token(model, tokens, stride):
    """Worked out token by token, with the context that the protocol promises."""
    score = evaluate(model, tokens, CPU, batch_size=3, stride=stride)
    ids = torch.from_numpy(tokens.ids.astype(np.int64))
    # Windows start every `stride` tokens; each target belongs to the first window that reaches it.
    starts = [*range(0, 100 - 17, stride), 83]
    total, done = 0.0, 1
    for start in starts:
        log_probabilities = model(ids[None, start : start + 16])[0].log_softmax(-1)
        for position in range(done, start + 17):
            total -= log_probabilities[position - 1 - start, ids[position]].item()
        done = start + 17
    assert score.tokens == 99
    assert score.loss == pytest.approx(total / 99, abs=1e-5)


def test_a_text_of_one_token_is_refused(model, tmp_path):
    tokens = write_token_file(tmp_path / "one.bin", ["a"], ALPHABET)
    with pytest.raises(UserError, match="nothing to predict"):
        evaluate(model, tokens, CPU)


def test_an_untrained_model_scores_as_uniform_guessing(tokens):
    torch.manual_seed(0)
    score = evaluate(GPT(tiny()), tokens, CPU)
    uniform = math.log2(61) / tokens.bytes_per_token
    assert score.bits_per_byte == pytest.approx(uniform, rel=0.02)


def test_the_estimate_always_looks_at_the_same_windows(model, tokens):
    windows = RandomWindows(tokens, 16, separator=None)
    first = estimate(model, windows, CPU, batch_size=2, count=3, seed=1)
    assert estimate(model, windows, CPU, batch_size=2, count=3, seed=1) == first
    assert estimate(model, windows, CPU, batch_size=2, count=3, seed=2) != first
    assert first.tokens == 2 * 3 * 16


def test_evaluation_leaves_mode_and_gradients_alone(model, tokens):
    model.train()
    evaluate(model, tokens, CPU)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_single_losses_come_in_order_one_for_each_token_but_the_first(model, tokens):
    for stride in (1, 7, 16):
        losses = np.concatenate(list(token_losses(model, tokens.ids, CPU, 3, stride)))
        assert len(losses) == len(tokens.ids) - 1
        score = evaluate(model, tokens, CPU, stride=stride)
        assert score.loss == pytest.approx(losses.mean(dtype=np.float64), abs=1e-6)
    ids = torch.from_numpy(tokens.ids[:17].astype(np.int64))
    with torch.no_grad():
        first = -model(ids[None, :16])[0].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    losses = next(iter(token_losses(model, tokens.ids, CPU, 1, 16)))
    assert losses == pytest.approx(first.numpy(), abs=1e-5)


@pytest.mark.parametrize("stride", [5, 16])
def test_the_score_does_not_depend_on_the_batch_size(model, tokens, stride):
    scores = [evaluate(model, tokens, CPU, size, stride) for size in (1, 2, 7, 100)]
    assert len({score.tokens for score in scores}) == 1
    assert max(s.loss for s in scores) - min(s.loss for s in scores) < 1e-6


def test_a_hand_written_and_a_fused_loss_agree_token_by_token(tokens):
    found = []
    for kernels in ("plain", "fused"):
        torch.manual_seed(0)
        model = GPT(tiny(kernels=kernels))
        found.append(np.concatenate(list(token_losses(model, tokens.ids, CPU, stride=5))))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_transformers_own_loss_agrees_on_the_same_windows(tokens):
    from transformers import GPT2Config, GPT2LMHeadModel

    from nanogpt.interop.names import from_hugging_face

    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    ours = GPT(tiny())
    ours.load_state_dict(from_hugging_face(theirs.state_dict()))
    ids = torch.from_numpy(tokens.ids.astype(np.int64))
    # Their recipe for long texts: windows, and labels of -100 for what was scored before.
    total, count, done = 0.0, 0, 1
    for start in [*range(0, 100 - 17, 5), 84]:
        window = ids[None, start : start + 16]
        labels = window.clone()
        labels[:, : max(0, done - start)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        if scored:
            with torch.no_grad():
                total += float(theirs(window, labels=labels).loss) * scored
            count += scored
        done = start + 16
    assert count == 99
    windows = 15  # theirs scores 15 tokens of a window of 16; ours reads one more to score 16
    ours_shorter = GPT(tiny(context_length=windows))
    state = ours.state_dict()
    state["wpe.weight"] = state["wpe.weight"][:windows]
    ours_shorter.load_state_dict(state)
    score = evaluate(ours_shorter, tokens, CPU, stride=5)
    assert score.loss == pytest.approx(total / count, abs=1e-5)  # observed 4e-7
