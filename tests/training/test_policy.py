"""Training from rewards: it finds what is rewarded, and resumes to the same bits."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogpt.cli import main
from nanogpt.config import (
    IGNORED,
    Config,
    DataConfig,
    ModelConfig,
    PolicyConfig,
    TrainConfig,
    with_settings,
)
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import tensors
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.generation.rollouts import RollOut
from nanogpt.text.prepare import prepare
from nanogpt.training import policy
from nanogpt.training.checkpoint import find_checkpoint, load_state, load_tensors
from nanogpt.training.load import load
from nanogpt.training.objective import Policy
from nanogpt.training.policy import REFERENCE, Attempt, PolicyTrainer, alike, as_batch
from nanogpt.training.records import Answered, Rollout, Sample, Step, read_metrics
from nanogpt.training.start import Trainer

QUESTIONS = [f"{a}{b}" for a in "abcdef" for b in "abcdef"]


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of two letters, each with the answer b: token files. Write nothing into it."""
    folder = tmp_path_factory.mktemp("letters")
    lines = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "b"}]}
        for q in QUESTIONS
    ]
    (folder / "letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = str(folder / "letters.jsonl")
    prepare(DataConfig(source=source, tokenizer="char"), folder / "data", processes=1)
    return folder


def run_on(letters: Path, policy: dict | None = None, **train: object) -> Config:
    """Settings of a run that takes a second: eight answers to each of eight questions a step."""
    steps = {"max_steps": 6, "batch_size": 32, "grad_accum_steps": 2, "eval_interval": 3}
    rest = {"eval_batches": 1, "checkpoint_interval": 4, "sample_interval": 3, "warmup_steps": 0}
    rest |= {"device": "cpu", "precision": "float32", "lr": 1e-2, "min_lr": 1e-2}
    return Config(
        model=ModelConfig(context_length=16, n_layer=1, n_head=2, n_embd=16),
        data=DataConfig(folder=str(letters / "data")),
        train=TrainConfig(objective="policy", **{**steps, **rest, **train}),
        policy=PolicyConfig(**{"max_new_tokens": 3, "reward": "contains", **(policy or {})}),
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(find_checkpoint(run), "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def without_time(run: Path) -> list[dict]:
    timed = ("tokens_per_second", "data_wait")
    return [{k: v for k, v in r.items() if k not in timed} for r in read_metrics(run)]


@pytest.mark.parametrize(
    "settings", [{}, {"normalize": True}, {"clip": 0.2, "updates": 2}, {"beta": 0.01}]
)
def test_it_finds_out_what_is_rewarded(letters, tmp_path, settings):
    """Nobody shows it an answer: it starts with fresh weights and one answer in five has a b."""
    trainer = Trainer.start(tmp_path, run_on(letters, settings, max_steps=30))
    records = list(trainer.run())
    rewards = [r.reward for r in records if isinstance(r, Rollout)]
    assert len(rewards) == 30
    assert rewards[0] < 0.4
    assert np.mean(rewards[-3:]) > 0.95  # observed 0.99 and more
    steps = [r.step for r in records if isinstance(r, Rollout)]
    assert steps == list(range(1, 31))


def test_the_entropy_falls_and_the_distance_grows(letters, tmp_path):
    trainer = Trainer.start(tmp_path, run_on(letters, max_steps=30))
    found = [r for r in trainer.run() if isinstance(r, Rollout)]
    assert found[0].distance == pytest.approx(0, abs=1e-6)
    assert found[-1].distance > 0.5
    assert found[0].entropy == pytest.approx(math.log(trainer.model.config.vocab_size), abs=0.1)
    assert found[-1].entropy < found[0].entropy - 0.5


def test_the_pull_of_the_reference_keeps_the_model_near(letters, tmp_path):
    moved = []
    for beta in (0.0, 1.0):
        config = run_on(letters, {"beta": beta}, max_steps=20)
        records = Trainer.start(tmp_path / str(beta), config).run()
        moved.append([r.distance for r in records if isinstance(r, Rollout)][-1])
    assert moved[1] < moved[0] / 5


@pytest.mark.parametrize("stop_after", [1, 3, 5])
@pytest.mark.parametrize("settings", [{}, {"beta": 0.1, "clip": 0.2, "updates": 3}])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(letters, tmp_path, settings, stop_after):
    """Also where train.init goes on meanwhile: the run keeps its reference model."""
    base = tmp_path / "base"
    plain = with_settings(run_on(letters, max_steps=2), train={"objective": "answers"})
    list(Trainer.start(base, plain).run())
    config = run_on(letters, settings, init=str(base))
    list(Trainer.start(tmp_path / "whole", config).run())
    trainer = Trainer.start(tmp_path / "parts", config)
    for record in trainer.run():
        if record.step == stop_after:
            trainer.stop()
    assert trainer.state.step == stop_after
    list(Trainer.resume(base, train={"max_steps": 3}).run())
    resumed = Trainer.resume(tmp_path / "parts")
    assert isinstance(resumed, PolicyTrainer)
    list(resumed.run())
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert same(weights(whole), weights(parts))
    ends = [find_checkpoint(run) for run in (whole, parts)]
    assert same(*(load_tensors(end, "optimizer.safetensors") for end in ends))
    assert load_state(ends[0])[0].best_loss == load_state(ends[1])[0].best_loss
    assert without_time(whole) == without_time(parts)


def test_with_lora_it_resumes_to_the_same_bits_and_is_pulled_to_the_base(letters, tmp_path):
    base = tmp_path / "base"
    plain = with_settings(run_on(letters, max_steps=2), train={"objective": "answers"})
    list(Trainer.start(base, plain).run())
    config = run_on(letters, {"beta": 0.1}, init=str(base), lora_rank=2, max_steps=4)
    whole = Trainer.start(tmp_path / "whole", config)
    assert isinstance(whole, PolicyTrainer)
    list(whole.run())
    ids = torch.arange(6)[None]
    assert torch.equal(whole.reference(ids), load(base).model(ids))
    assert not torch.equal(whole.model.eval()(ids), load(base).model(ids))
    trainer = Trainer.start(tmp_path / "parts", config)
    for record in trainer.run():
        if record.step == 2:
            trainer.stop()
    list(Trainer.resume(tmp_path / "parts").run())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert without_time(tmp_path / "whole") == without_time(tmp_path / "parts")


def test_a_run_killed_without_warning_resumes_to_the_same_bits(letters, tmp_path):
    config = run_on(letters)
    list(Trainer.start(tmp_path / "whole", config).run())
    for record in Trainer.start(tmp_path / "running", config).run():
        if record.step == 5 and isinstance(record, Rollout):
            shutil.copytree(tmp_path / "running", tmp_path / "killed")
    assert read_metrics(tmp_path / "killed")[-1]["step"] == 5
    assert find_checkpoint(tmp_path / "killed").name == "step-000004"
    list(Trainer.resume(tmp_path / "killed").run())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert without_time(tmp_path / "whole") == without_time(tmp_path / "killed")


def test_looking_more_often_changes_nothing(letters, tmp_path):
    for name, interval in {"often": 1, "rarely": 6}.items():
        config = run_on(letters, eval_interval=interval, sample_interval=interval)
        list(Trainer.start(tmp_path / name, config).run())
    assert same(weights(tmp_path / "often"), weights(tmp_path / "rarely"))


def test_leaving_out_answers_without_an_advantage_changes_no_gradient(letters, tmp_path):
    """And the pull back is 0 for a model that has not moved; so all answers give the same, too."""
    gradients = []
    for beta in (0.0, 1e-20):
        config = run_on(letters, {"beta": beta, "group_size": 2})
        trainer = Trainer.start(tmp_path / str(beta), config)
        batches = trainer.load_batches(0)
        gradients.append((sum(len(b.ids) for b in batches), trainer.gradients(batches)))
        gradients[-1] += ([p.grad.clone() for p in trainer.model.parameters()],)
    assert gradients[0][0] < gradients[1][0] == 64
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
    for one, other in zip(gradients[0][2], gradients[1][2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_without_anything_to_learn_moves_no_weight(letters, tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, "all-alike", lambda answer, expected: 0.5)
    trainer = Trainer.start(tmp_path, run_on(letters, {"reward": "all-alike"}, max_steps=2))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    records = list(trainer.run())
    assert same(before, trainer.model.state_dict())
    assert [r.loss for r in records if isinstance(r, Step)] == [0.0, 0.0]


def test_the_updates_of_a_step_use_the_same_answers(letters, tmp_path):
    """And the last of them is not counted twice: one update is as ever."""
    config = run_on(letters, {"clip": 0.2, "updates": 3})
    trainer = Trainer.start(tmp_path / "three", config)
    batches = trainer.load_batches(0)
    moved = []
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda *a: (moved.append(1), step(*a))
    trainer.gradients(batches)
    assert len(moved) == 2  # the third one is that of train_step
    trainer.train_step()
    assert len(moved) == 5


def test_a_look_at_the_time_of_a_step_moves_no_weight(letters, tmp_path):
    trainer = Trainer.start(tmp_path / "run", run_on(letters, {"clip": 0.2, "updates": 3}))
    before = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    trainer.try_step()
    assert same(before, trainer.model.state_dict())
    trainer.train_step()
    assert not same(before, trainer.model.state_dict())


def test_rows_hold_questions_as_inputs_and_answers_as_targets():
    answers = [RollOut([4, 5], [-1.0, -2.0], [0.1, 0.2]), RollOut([6], [-3.0], [0.3])]
    found = as_batch(
        [Attempt([1, 2, 3], answers[0], 1.0, 0.5), Attempt([1, 2], answers[1], 0.0, -0.5)]
    )
    assert found.ids.tolist() == [[1, 2, 3, 4], [1, 2, 6, 0]]
    assert found.targets.tolist() == [
        [IGNORED, IGNORED, 4, 5],
        [IGNORED, 6, IGNORED, IGNORED],
    ]
    assert found.old.tolist() == [[0, 0, -1, -2], [0, -3, 0, 0]]
    assert found.advantage.tolist() == [0.5, -0.5]
    assert found.documents is None


def test_rows_of_one_batch_are_about_as_long():
    """One long question must not make hundreds of rows as long."""
    lengths = [3, 40, 4, 4, 12, 3, 13, 41, 4, 3, 3]
    attempts = [Attempt([1] * (n - 1), RollOut([2], [0.0], [0.0]), 0.0, 1.0) for n in lengths]
    found = [[attempt.length for attempt in part] for part in alike(attempts, 4)]
    assert found == [[3, 3, 3, 3], [4, 4, 4], [12, 13], [40, 41]]


def test_what_fits_into_the_memory_changes_no_likeliest_answer(letters, tmp_path, monkeypatch):
    """And every question gets its answers, in order, however many are drawn together."""
    trainer = Trainer.start(tmp_path, run_on(letters))
    numbers = [5, 3, 9, 3, 0]
    together = trainer.answer(trainer.questions, numbers, 2)
    monkeypatch.setattr(policy, "CACHE", 1)
    assert [a.ids for a in trainer.answer(trainer.questions, numbers, 2)] == [
        a.ids for a in together
    ]
    drawn = trainer.answer(trainer.questions, numbers, 8, [1])
    assert len(drawn) == 40
    assert len({tuple(answer.ids) for answer in drawn[8:16] + drawn[24:32]}) > 8  # other draws


def test_what_was_drawn_is_as_likely_in_the_objective(letters, tmp_path):
    """Questions of other lengths, padded on the left to answer and on the right to learn."""
    trainer = Trainer.start(tmp_path, run_on(letters, {"temperature": 1.3}))
    for batch in trainer.load_batches(0):
        logits = trainer.model(torch.from_numpy(batch.ids)) / 1.3
        now = policy.log_probabilities(logits, torch.from_numpy(batch.targets))
        torch.testing.assert_close(now.detach().numpy(), batch.old, rtol=0, atol=1e-5)


def test_the_validation_says_how_many_are_right(letters, tmp_path, monkeypatch):
    """`best` is the checkpoint with the most right answers."""
    near = {"b": 1.0}
    monkeypatch.setitem(
        REWARDS, "near", lambda answer, _: near.get(answer, 0.3 * (answer[:1] == "b"))
    )
    config = run_on(letters, {"reward": "near"}, max_steps=40, eval_interval=5)
    trainer = Trainer.start(tmp_path, config)
    looks = [r for r in trainer.run() if isinstance(r, Answered)]
    assert [r.step for r in looks] == list(range(0, 41, 5))
    assert {r.questions for r in looks} == {len(trainer.examination)}
    assert looks[0].right == 0
    assert looks[-1].right == 1
    best, _ = load_state(find_checkpoint(tmp_path, "best"))
    assert best.best_loss == 0
    assert best.step == next(r.step for r in looks if r.right == 1)


def test_a_hole_in_the_reward_is_found(letters, tmp_path):
    """A lenient reward is earned by saying the letter often, and nothing is right any more."""
    records = list(Trainer.start(tmp_path, run_on(letters, max_steps=30)).run())
    assert [r.reward for r in records if isinstance(r, Rollout)][-1] > 0.95
    assert [r.right for r in records if isinstance(r, Answered)][-1] == 0


def test_samples_are_questions_and_answers(letters, tmp_path):
    records = list(Trainer.start(tmp_path, run_on(letters)).run())
    found = [r.sample for r in records if isinstance(r, Sample)]
    assert len(found) == 3
    assert all(text.startswith("<|user|>") and "<|end|><|assistant|>" in text for text in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": {"group_size": 7}}, r"policy\.group_size=7 does not divide the 64 answers"),
        ({"policy": {"reward": "extact"}}, r"policy\.reward='extact' is unknown: .*exact"),
        ({"policy": {"max_new_tokens": 14}}, r"no question of at most 2 tokens with an answer"),
        ({"parallel": {"processes": 2}}, r"train\.objective='policy': use another one, or one"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(letters, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        config = with_settings(run_on(letters), **changes)
        config.sizes(config.parallel.processes)
        Trainer.start(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_text_without_conversations_is_refused(prepared, tmp_path):
    with pytest.raises(UserError, match="this tokenizer has no tokens for roles"):
        Trainer.start(
            tmp_path / "run", with_settings(run_on(prepared), data={"folder": str(prepared)})
        )
    assert not (tmp_path / "run").exists()


def test_a_reward_that_is_no_number_is_named(letters, tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, "broken", lambda answer, expected: math.nan)
    trainer = Trainer.start(tmp_path, run_on(letters, {"reward": "broken"}))
    with pytest.raises(UserError, match=r"policy\.reward=broken gives nan for the answer"):
        trainer.train_step()


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_reference_model_that_is_lost_is_named(letters, tmp_path, damage):
    list(Trainer.start(tmp_path, run_on(letters, max_steps=2)).run())
    path = tmp_path / REFERENCE
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"reference\.safetensors cannot be read"):
        Trainer.resume(tmp_path)


def test_a_compiled_policy_is_not_compiled_and_says_so(letters, tmp_path):
    trainer = Trainer.start(tmp_path, run_on(letters, compile="on"))
    assert trainer.not_compiled == "its batches have many shapes"
    assert isinstance(trainer.objective, Policy)


def test_from_conversations_to_a_policy_on_the_command_line(letters, tmp_path, monkeypatch, capsys):
    """Fine-tuned, then rewarded by a plugin's reward, stopped, resumed."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from nanogpt.evaluation.rewards import REWARDS\n"
        'REWARDS["short"] = lambda answer, expected: -float(len(answer))\n'
    )
    small = ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16"]
    small += ["--model.context-length", "16", "--data.tokenizer", "char"]
    common = ["--train.device", "cpu", "--train.precision", "float32", "--train.sample-interval"]
    common += ["2", "--train.max-steps", "4", "--train.batch-size", "16"]
    source = ["--data.source", str(letters / "letters.jsonl")]
    first = ["--train.objective", "answers", "--data.batches", "padded"]
    assert main(["train", "--run", "sft", *source, *small, *common, *first]) == 0
    second = ["--train.objective", "policy", "--policy.reward", "short", "--plugin", "mine.py"]
    second += ["--policy.max-new-tokens", "4"]
    assert main(["train", "--run", "rl", "--init", "sft", *source, *common, *second]) == 0
    shown = capsys.readouterr().out
    assert "reward" in shown
    assert "right" in shown
    assert (tmp_path / "rl" / "rewards.png").exists()
    assert not (tmp_path / "sft" / "rewards.png").exists()
    more = ["--train.max-steps", "5", "--plugin", "mine.py"]
    assert main(["train", "--resume", "rl", *more]) == 0
    assert read_metrics("rl")[-1]["step"] == 5
    monkeypatch.delitem(REWARDS, "short")
    assert main(["generate", "rl"]) == 0


def test_too_many_processes_are_refused_before_anything_starts(letters, tmp_path, capsys):
    command = ["train", "--run", str(tmp_path / "run"), "--data.folder", str(letters / "data")]
    command += ["--train.objective", "policy", "--parallel.processes", "2"]
    assert main(command) == 2
    assert "train.objective='policy': use another one, or one process" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_step_can_be_repeated(letters, tmp_path):
    """The answers of a step depend on weights, seed and step alone."""
    trainers = [Trainer.start(tmp_path / n, run_on(letters)) for n in "ab"]
    trainers[0].load_batches(3)
    one, other = (t.load_batches(1) for t in trainers)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True))
    changed = Trainer.start(tmp_path / "c", run_on(letters, seed=2)).load_batches(1)
    assert [b.ids.tolist() for b in one] != [b.ids.tolist() for b in changed]


def test_dropout_is_off_while_it_answers(letters, tmp_path):
    config = run_on(letters)
    config = replace(config, model=replace(config.model, dropout=0.5))
    trainer = Trainer.start(tmp_path, config)
    one = trainer.answer(trainer.questions, [0, 1], 4, [1])
    assert one == trainer.answer(trainer.questions, [0, 1], 4, [1])
    assert trainer.model.training


def test_padding_of_the_vocabulary_is_never_drawn(letters, tmp_path):
    """And the update knows that: the answers are as likely in it as when they were drawn."""
    config = run_on(letters, max_steps=2, sample_interval=1, pad_vocab_to=512)
    trainer = Trainer.start(tmp_path, config)
    known = trainer.tokenizer.vocab_size
    attempts = trainer.attempts(0)
    assert all(token < known for attempt in attempts for token in attempt.answer.ids)
    entropy = np.mean([e for attempt in attempts for e in attempt.answer.entropies])
    assert entropy == pytest.approx(math.log(known), abs=0.1)  # fresh weights know nothing
    batch = as_batch(attempts)
    ids, targets, _ = tensors(batch, trainer.compute.device)
    loss = trainer.objective(ids, targets).item()
    assert loss == pytest.approx(-batch.old.sum(), rel=1e-5)
    assert trainer.log_distributions(trainer.model, batch).shape[-1] == known
    samples = [r for r in trainer.run() if isinstance(r, Sample)]
    assert len(samples) == 3
    assert all(r.sample.startswith("<|user|>") for r in samples)


def test_a_step_that_teaches_nothing_is_no_slow_one(letters, tmp_path, monkeypatch):
    """Else a run that has learned all would look again and again for a number of threads."""
    monkeypatch.setitem(REWARDS, "contains", lambda answer, expected: 1.0)
    records = list(Trainer.start(tmp_path, run_on(letters, max_steps=2)).run())
    assert all(r.tokens_per_second > 100 for r in records if isinstance(r, Step))
