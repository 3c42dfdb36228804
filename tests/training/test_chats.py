"""Training on conversations: a model gets rows for roles, and learns what the assistant says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from nanogpt.cli import main
from nanogpt.config import IGNORED, DataConfig, SampleConfig
from nanogpt.generation.replies import ask
from nanogpt.model.gpt import evaluating
from nanogpt.text.conversations import ROLE_TOKENS, Message, answers_only, has_roles
from nanogpt.text.prepare import prepare
from nanogpt.training.load import load
from nanogpt.training.loop import accumulate_gradients
from nanogpt.training.records import read_metrics
from nanogpt.training.start import Trainer

from conftest import SMALL, small_run

SHAPE = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
STEPS = ["--train.max-steps=2", "--train.batch-size=2", "--train.eval-batches=1",
         "--sample.max-new-tokens=4", "--train.compile=off"]  # fmt: skip


@pytest.fixture
def chats(tmp_path):
    """A file of conversations, sixty sums."""
    lines = [
        {"messages": [{"role": "user", "content": f"{n}+{n}?"},
                      {"role": "assistant", "content": f"{2 * n}"}]}
        for n in range(60)
    ]  # fmt: skip
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tune(tmp_path, init, chats, *more):
    """Fine-tune on conversations; the run."""
    run = tmp_path / "run"
    options = [f"--init={init}", f"--data.source={chats}", f"--run={run}", *STEPS, *more]
    assert main(["train", *options]) == 0
    return load(run)


def test_gpt2s_folder_grows_by_the_tokens_for_roles(tmp_path, chats):
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=50257, **SHAPE)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    freeze = "--train.freeze=h.*, ln_f.*, wpe.*"
    tuned = tune(
        tmp_path, tmp_path / "theirs", chats, freeze, "--train.lr=1e-9", "--train.min-lr=0"
    )
    assert tuned.model.config.vocab_size == tuned.tokenizer.vocab_size == 50261
    assert tuned.tokenizer.special_tokens["<|user|>"] == 50258
    rows, old = tuned.model.wte.weight, theirs.transformer.wte.weight
    torch.testing.assert_close(rows[:50257], old, rtol=0, atol=1e-7)
    torch.testing.assert_close(rows[50257:], old.mean(0).expand(4, -1), rtol=0, atol=1e-7)


def test_a_hugging_face_folder_learns_to_answer(tmp_path, chats):
    """The command of the docs, and then the model is asked."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=50257, **SHAPE)).save_pretrained(tmp_path / "theirs")
    more = ["--train.objective=answers", "--data.batches=padded", "--train.max-steps=40"]
    tuned = tune(
        tmp_path, tmp_path / "theirs", chats, *more, "--train.lr=1e-2", "--train.warmup-steps=2"
    )
    losses = [r["val_loss"] for r in read_metrics(tmp_path / "run") if "val_loss" in r]
    assert losses[-1] < losses[0] - 1
    asked = [[Message("user", "3+3?")]]
    (answer,) = ask(tuned.model, tuned.tokenizer, asked, SampleConfig(temperature=0))
    assert "user" not in answer
    assert len(answer) < 20, "it has learned that answers are short, and end"


def test_a_step_in_which_the_assistant_says_nothing_moves_nothing(tmp_path, chats):
    """As where a long question fills all windows of a batch."""
    prepare(DataConfig(source=str(chats), tokenizer="char"), tmp_path / "data", 1)
    config = small_run(tmp_path / "data", objective="answers", compile="off")
    trainer = Trainer.start(tmp_path / "run", replace(config, sample=SampleConfig()))
    batch = trainer.train_batches.batch(0, 4, seed=1)
    silent = replace(batch, targets=np.full_like(batch.targets, IGNORED))
    assert accumulate_gradients(trainer.objective, [silent], trainer.compute).item() == 0
    assert not any(p.grad.any() for p in trainer.model.parameters())


@pytest.mark.parametrize("kind", ["random", "packed"])
def test_the_whole_validation_text_is_measured_by_its_answers(kind, tmp_path, chats):
    """Every answer's token is due once, but for those at the very beginning of a window."""
    prepare(DataConfig(source=str(chats), tokenizer="char"), tmp_path / "data", 1)
    config = small_run(tmp_path / "data", objective="answers", compile="off")
    config = replace(config, data=replace(config.data, batches=kind), sample=SampleConfig())
    config = replace(config, model=replace(config.model, context_length=48))
    trainer = Trainer.start(tmp_path / "run", config)
    val, special = trainer.tokens.val.ids[:].astype(np.int64), trainer.tokenizer.special_tokens
    marks = [special["<|assistant|>"], special["<|end|>"]]
    due = answers_only(val[None, :-1], val[None, 1:], *marks)[0]
    score = trainer.evaluate(stride=1)
    assert score.tokens == (due != IGNORED).sum()
    if kind == "random":  # here a target is predicted from the 48 tokens before it
        ids = torch.from_numpy(val)
        with evaluating(trainer.model):
            losses = [
                -trainer.model(ids[None, max(0, n - 47) : n + 1])[0, -1].log_softmax(-1)[due[n]]
                for n in np.flatnonzero(due != IGNORED)
                if n >= 47
            ]
            first = trainer.model(ids[None, :48])[0].log_softmax(-1)
        losses += [-first[n, due[n]] for n in range(47) if due[n] != IGNORED]
        assert score.loss == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_lora_trains_the_rows_of_new_tokens_and_no_others(tmp_path, chats):
    """All new rows begin alike: frozen, no reply could end, as <|end|> were like any other."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=50257, **SHAPE)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tuned = tune(
        tmp_path,
        tmp_path / "theirs",
        chats,
        "--train.lora-rank=2",
        "--train.lr=1e-2",
        "--train.objective=answers",
    )
    rows, old = tuned.model.wte.weight, theirs.transformer.wte.weight
    assert torch.equal(rows[:50257], old)
    assert len({tuple(row) for row in rows[50257:].tolist()}) == 4
    again = main(["train", "--resume", str(tmp_path / "run"), "--train.max-steps=3"])
    assert again == 0
    longer = load(tmp_path / "run").model.wte.weight
    assert torch.equal(longer[:50257], old)
    assert not torch.equal(longer[50257:], rows[50257:])


def test_a_run_without_roles_grows_and_one_with_roles_does_not(tmp_path, chats):
    (tmp_path / "sums.txt").write_text("".join(f"{n}+{n}={2 * n}? " for n in range(600)))
    for roles in ("false", "true"):
        base = tmp_path / f"base-{roles}"
        options = [f"--data.source={tmp_path / 'sums.txt'}", "--data.tokenizer=char"]
        options += [f"--data.roles={roles}", f"--run={base}", *SMALL]
        assert main(["train", *options]) == 0
        before = load(base)
        assert has_roles(before.tokenizer) == (roles == "true")
        run = tmp_path / f"tuned-{roles}"
        options = [f"--init={base}", f"--data.source={chats}", f"--run={run}", *STEPS]
        assert main(["train", *options]) == 0
        after = load(run)
        assert has_roles(after.tokenizer)
        assert after.model.config.vocab_size == after.tokenizer.vocab_size
        grown = after.tokenizer.vocab_size - before.tokenizer.vocab_size
        assert grown == (0 if roles == "true" else len(ROLE_TOKENS) + 2)


def test_weights_do_not_grow_for_another_tokenizer(tmp_path, chats, capsys):
    (tmp_path / "sums.txt").write_text("".join(f"{n}+{n}={2 * n}? " for n in range(600)))
    options = [f"--data.source={tmp_path / 'sums.txt'}", "--data.tokenizer=char"]
    assert main(["train", *options, f"--run={tmp_path / 'base'}", *SMALL]) == 0
    options = [f"--init={tmp_path / 'base'}", f"--data.source={chats}", "--data.tokenizer=bpe"]
    assert main(["train", *options, f"--run={tmp_path / 'run'}", *STEPS]) == 2
    assert "prepare it with --data.tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.toml").exists()


@pytest.mark.parametrize("letters", ["bcdefghijklmnopq", "xyz"])
def test_a_text_of_other_tokens_is_refused_also_where_there_are_no_more(tmp_path, letters, capsys):
    """Every row would come to mean something else."""
    for name, text in (("first", "abcdefghijklmnop"), ("second", letters)):
        (tmp_path / f"{name}.txt").write_text(f"{text} " * 200)
    first, second = (
        [f"--data.source={tmp_path / name}.txt", "--data.tokenizer=char"]
        for name in ("first", "second")
    )
    assert main(["train", *SMALL, *first, f"--run={tmp_path / 'base'}"]) == 0
    run = [f"--init={tmp_path / 'base'}", *STEPS, f"--run={tmp_path / 'run'}"]
    assert main(["train", *second, *run]) == 2
    assert "was trained on other tokens" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.toml").exists()


def test_the_vocabulary_of_weights_may_be_padded_anew(tmp_path):
    (tmp_path / "text.txt").write_text("abcdefgh " * 300)
    data = [f"--data.source={tmp_path / 'text.txt'}", "--data.tokenizer=char"]
    assert main(["train", *SMALL, *data, f"--run={tmp_path / 'base'}"]) == 0
    more = ["--train.pad-vocab-to=16", f"--data.source={tmp_path / 'text.txt'}", *STEPS]
    assert main(["train", f"--init={tmp_path / 'base'}", *more, f"--run={tmp_path / 'run'}"]) == 0
    before, after = load(tmp_path / "base"), load(tmp_path / "run")
    assert before.model.config.vocab_size < after.model.config.vocab_size == 16
    assert after.tokenizer.to_dict() == before.tokenizer.to_dict()


@pytest.mark.parametrize("lora", [[], ["--train.lora-rank=2", "--train.lr=0.01"]])
def test_tokens_for_roles_may_fit_into_the_padding_of_the_vocabulary(tmp_path, chats, lora):
    """The rows were there, but stood for nothing; with LoRA, they would be frozen as they are."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n}+{n}?{2 * n}\n" for n in range(600)))
    base = ["--data.tokenizer=char", "--train.pad-vocab-to=64", f"--run={tmp_path / 'base'}"]
    long = "--model.context-length=32"
    assert main(["train", *SMALL, *base, long, f"--data.source={text}"]) == 0
    before = load(tmp_path / "base").model.wte.weight
    tuned = tune(tmp_path, tmp_path / "base", chats, "--data.batches=padded", *lora)
    roles = [tuned.tokenizer.special_tokens[name] for name in ROLE_TOKENS.values()]
    assert max(roles) < len(before) == len(tuned.model.wte.weight) == 64
    system, user, assistant = tuned.model.wte.weight[roles]
    mean = before[: min(roles) - 1].mean(0)  # <|endoftext|> is new, too
    assert torch.allclose(system, mean, atol=0.05)  # nobody has this role
    assert not torch.equal(user, assistant)
    assert not torch.equal(user, system)


def test_several_ranks_learn_and_measure_answers_as_one_does(tmp_path):
    """Also in a step whose windows all begin inside a long question: it has no target."""
    path = tmp_path / "chats.jsonl"
    with path.open("w") as file:
        for n in range(60):
            question = {"role": "user", "content": f"{n} and two and three and four and five? "}
            messages = [question, {"role": "assistant", "content": "ok"}]
            file.write(json.dumps({"messages": messages}) + "\n")
    shape = [
        "--model.n-layer=1",
        "--model.n-head=1",
        "--model.n-embd=8",
        "--model.context-length=8",
    ]
    steps = ["--train.max-steps=8", "--train.batch-size=2", "--train.eval-batches=0",
             "--train.eval-interval=4", "--train.sample-interval=0", "--train.compile=off",
             "--train.precision=float32", "--train.objective=answers"]  # fmt: skip
    source = [f"--data.source={path}", "--data.vocab-size=270"]
    found = []
    for ranks in (1, 2):
        run = tmp_path / f"run-{ranks}"
        more = [f"--run={run}", f"--parallel.processes={ranks}"]
        assert main(["train", *source, *shape, *steps, *more]) == 0
        records = read_metrics(run)
        found.append([r.get("val_loss", r.get("loss")) for r in records if "step" in r])
    assert 0.0 in found[0]  # a step without a target
    assert found[1] == pytest.approx(found[0], abs=1e-4)
