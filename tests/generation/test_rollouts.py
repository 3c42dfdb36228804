"""Roll-outs: the same answers alone and together, their probabilities, and where they end."""

import pytest
import torch

from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.generation import rollouts
from nanogpt.generation.reader import Reader
from nanogpt.generation.rollouts import draw, roll_out
from nanogpt.model.gpt import GPT

from conftest import MODERN, chi_square_is_fine, tiny

END = 7
PROMPTS = [[1, 2, 3], [4, 5, 6, 8, 9], [10]]


def sharp(**changes: object) -> GPT:
    """A tiny model that does not find all tokens alike."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=13, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("changes", [{}, MODERN, {"position": "alibi", "window": 3}])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_that_reading_the_whole_gives(changes, temperature):
    """With the cache, beside shorter prompts, and after other rows have left."""
    model = sharp(**changes)
    answers = roll_out(model, PROMPTS, {END}, 9, seed=3, copies=8, temperature=temperature)
    assert len({answer.length for answer in answers}) > 3
    for number, answer in enumerate(answers):
        prompt = PROMPTS[number // 8]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer.ids]))[0, len(prompt) - 1 : -1]
        expected = (logits / temperature).log_softmax(-1)
        found = expected.gather(-1, torch.tensor(answer.ids)[:, None])[:, 0]
        entropies = -(expected.exp() * expected).sum(-1)
        torch.testing.assert_close(
            torch.tensor(answer.log_probabilities), found, rtol=0, atol=1e-5
        )  # observed 2e-6
        torch.testing.assert_close(torch.tensor(answer.entropies), entropies, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, MODERN, {"kernels": "plain"}])
def test_in_bfloat16_they_are_those_of_the_training_forward_pass(changes):
    """Else the ratio of an update would not begin at 1. In float32 they differ by 0.01 and more."""
    model, compute = sharp(**changes), resolve("cpu", "bfloat16")
    with compute.autocast(), torch.no_grad():
        for prompt, n in zip(PROMPTS, range(3), strict=True):
            for answer in roll_out(model, PROMPTS, {END}, 9, seed=3, copies=4)[4 * n : 4 * n + 4]:
                logits = model(torch.tensor([prompt + answer.ids]))[0, len(prompt) - 1 : -1]
                found = logits.float().log_softmax(-1)
                found = found.gather(-1, torch.tensor(answer.ids)[:, None])[:, 0].tolist()
                assert answer.log_probabilities == pytest.approx(found, abs=2e-3)  # observed 0


def test_an_answer_ends_with_its_end_and_nothing_follows():
    answers = roll_out(sharp(), PROMPTS, {END}, 9, seed=1, copies=40)
    assert {answer.length for answer in answers} >= {1, 2, 3, 9}
    for answer in answers:
        assert END not in answer.ids[:-1]
        assert answer.ids[-1] == END or answer.length == 9
        assert len(answer.log_probabilities) == len(answer.entropies) == answer.length


def test_any_of_several_tokens_ends_an_answer():
    ends = {END, PROMPTS[0][0]}
    answers = roll_out(sharp(), PROMPTS, ends, 9, seed=1, copies=40)
    assert {answer.ids[-1] for answer in answers if answer.length < 9} == ends
    assert not any(ends & {*answer.ids[:-1]} for answer in answers)


def test_what_a_row_draws_does_not_depend_on_who_has_left():
    """Rows that ended leave the batch; the chance of a row is its own at every step."""
    model = sharp()
    with_end = roll_out(model, PROMPTS, {END}, 9, seed=1, copies=20)
    without = roll_out(model, PROMPTS, (), 9, seed=1, copies=20)
    for one, other in zip(with_end, without, strict=True):
        assert one.ids == other.ids[: one.length]


def test_the_same_seed_gives_the_same_answers_and_another_seed_others():
    model = sharp()
    one, same, other = (roll_out(model, PROMPTS, {END}, 9, seed, copies=4) for seed in (1, 1, 2))
    assert one == same
    assert [a.ids for a in one] != [a.ids for a in other]
    assert len({tuple(answer.ids) for answer in one[:4]}) > 1  # answers to one question differ


def test_draws_are_as_frequent_as_the_model_says():
    model = sharp()
    with torch.no_grad():
        p = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1)
    answers = roll_out(model, [PROMPTS[0]], {END}, 1, seed=5, copies=20_000)
    counts = torch.bincount(torch.tensor([a.ids[0] for a in answers]), minlength=13)
    assert chi_square_is_fine(counts, p.tolist())


def test_temperature_zero_takes_the_likeliest_as_the_reader_does():
    model = sharp()
    answers = roll_out(model, PROMPTS, {END}, 9, seed=0, temperature=0.0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        reader, said = Reader(model, [prompt]), []
        while len(said) < 9 and END not in said:
            said.append(int(reader.predict().argmax()))
            reader.append(0, said[-1:])
        assert answer.ids == said


def test_a_token_of_no_probability_is_never_drawn():
    """Neither before the first, nor between, nor after the last, at the ends of all chances."""
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).repeat(3, 1)
    chance = torch.tensor([0.0, 0.5, 1 - 2**-24])
    chosen, log_probability, entropy = draw(logits, chance, 1.0)
    assert chosen.tolist() == [1, 3, 3]
    torch.testing.assert_close(log_probability, torch.full((3,), 0.5).log())
    torch.testing.assert_close(entropy, torch.full((3,), 2.0).log())


def test_answering_leaves_the_model_in_its_mode_and_without_gradients():
    model = sharp(dropout=0.5).train()
    one, other = (roll_out(model, PROMPTS, {END}, 5, seed=1) for _ in range(2))
    assert one == other  # no dropout
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("prompts", "longest", "words"),
    [
        ([[1], []], 3, "a prompt without a token"),
        ([], 3, "a prompt without a token"),
        ([[1] * 10], 7, "a question of 10 tokens and an answer of 7 do not fit"),
    ],
)
def test_what_cannot_be_answered_is_refused(prompts, longest, words):
    with pytest.raises(UserError, match=words):
        roll_out(sharp(), prompts, {END}, longest, seed=1)


def test_weights_that_are_no_numbers_are_named():
    model = sharp()
    torch.nn.init.constant_(model.ln_f.weight, torch.nan)
    with pytest.raises(UserError, match="weights are not numbers"):
        roll_out(model, PROMPTS, {END}, 3, seed=1)


def test_answers_that_ended_at_different_times_leave_together(monkeypatch):
    """One by one they are too few to make room, but those that ended stay ended."""
    model, read_rows = sharp(), []
    read = rollouts.read
    monkeypatch.setattr(
        rollouts, "read", lambda m, ids, *more: read_rows.append(len(ids)) or read(m, ids, *more)
    )
    answers = roll_out(model, [[1, 2]], {END}, 14, seed=1, copies=16)
    decoding = read_rows[-(max(answer.length for answer in answers) - 1) :]
    for step, rows in enumerate(decoding, start=1):
        going_on = sum(answer.length > step for answer in answers)
        assert going_on > rollouts.CROWDED * rows, step
    assert len({*decoding}) > 2
