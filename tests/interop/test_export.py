"""What we export, Transformers opens: same ids, same logits, same gradients, same text."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from nanogpt.cli import main
from nanogpt.config import ModelConfig, SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.reader import Reader, generate
from nanogpt.interop.compare import differences
from nanogpt.interop.huggingface import export, from_pretrained
from nanogpt.interop.names import ARCHITECTURES, architecture_of, config_json
from nanogpt.interop.tokenizers import to_huggingface
from nanogpt.model.attention import ATTENTION_KERNELS
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.splitter import PATTERNS
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer
from nanogpt.training.load import load

from conftest import TEXT, tiny

TOKENIZER = Tokenizer.train([TEXT], 300)
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "n_head": 4}
MODELS = {
    "gpt2": {},
    "gpt2 with a head of its own": {"head": "untied"},
    "llama": LLAMA,
    "llama with a head of its own": LLAMA | {"head": "untied"},
    "llama grouped": LLAMA | {"n_kv_head": 2},
    "llama with biases": LLAMA | {"bias": True, "n_kv_head": 1},
    "mistral": LLAMA | {"window": 4, "n_kv_head": 2},
    "qwen3": LLAMA | {"qk_norm": True, "n_kv_head": 2},
}


def model_of(name: str) -> GPT:
    """A model whose every parameter matters."""
    torch.manual_seed(0)
    model = GPT(tiny(vocab_size=300, context_length=40, **MODELS[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=MODELS)
def exported(request, tmp_path):
    """A model, its folder, and what Transformers makes of it."""
    model = model_of(request.param)
    folder = tmp_path / "out"
    export(folder, model, TOKENIZER, SampleConfig(temperature=0), "a card")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(theirs).__name__ == ARCHITECTURES[request.param.split()[0]].class_name
    return model, folder, theirs


def test_logits_loss_and_gradients_agree(exported):
    model, _, theirs = exported
    torch.manual_seed(1)
    logits, loss, gradients = differences(model, theirs, torch.randint(300, (2, 20)))
    assert logits < 1e-5  # observed 1e-6
    assert loss < 1e-5  # observed 5e-7
    assert len(gradients) >= 2 * 6 + 2
    assert max(gradients.values()) < 1e-5  # observed 2e-7


def test_no_weight_is_missing_or_unknown_there(exported):
    """Transformers only warns: it would go on with random weights."""
    model, folder, theirs = exported
    _, info = type(theirs).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert sum(p.numel() for p in theirs.parameters()) >= model.num_parameters()


def test_greedy_text_agrees(exported):
    model, _, theirs = exported
    prompt = [5, 6, 7]
    steps = generate(Reader(model, [prompt]), SampleConfig(temperature=0))
    ours = [int(next(steps).chosen) for _ in range(25)]
    ids = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=25, do_sample=False, eos_token_id=None
    )
    assert ids[0, 3:].tolist() == ours


@pytest.mark.parametrize("text", ["DUKE:\nIf 3 kings", " hello  world", "naïve 🎭\n\n", ""])
def test_token_ids_agree_both_ways(tmp_path, text):
    export(tmp_path / "out", model_of("gpt2"), TOKENIZER, SampleConfig(), "")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = TOKENIZER.encode(text)
    assert theirs(text).input_ids == ids
    assert theirs.decode(ids) == text
    assert theirs.eos_token_id == TOKENIZER.special_tokens["<|endoftext|>"]
    assert theirs.pad_token == "<|endoftext|>"
    assert theirs.model_max_length == 40


def test_transformers_pads_a_batch_with_an_exported_tokenizer(tmp_path):
    """Without a pad token it refuses to."""
    export(tmp_path / "out", model_of("gpt2"), TOKENIZER, SampleConfig(), "")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = theirs(["DUKE", "DUKE: three kings"], padding=True)
    assert len(set(map(len, batch.input_ids))) == 1
    assert 0 in batch.attention_mask[0]


def test_a_character_tokenizer_is_exported_too(tmp_path):
    characters = CharTokenizer.train([TEXT, "é🎭 "])
    model = GPT(tiny(vocab_size=characters.vocab_size))
    export(tmp_path / "out", model, characters, SampleConfig(), "")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "DUKE: é🎭\n\nIf  3"
    assert theirs(text).input_ids == characters.encode(text)
    assert theirs.decode(characters.encode(text)) == text


def test_what_is_exported_comes_back_as_it_went(exported):
    model, folder, _ = exported
    again = from_pretrained(folder)
    assert vars(again.config) | {"kernels": ""} == vars(model.config) | {"kernels": ""}
    state, back = model.state_dict(), again.state_dict()
    assert state.keys() == back.keys()
    assert all(torch.equal(state[name], back[name]) for name in state)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.equal(model(ids), again(ids))
    _, tokenizer, config = load(folder)
    assert config.model == again.config
    assert tokenizer.encode(TEXT[:99]) == TOKENIZER.encode(TEXT[:99])


def test_what_transformers_cannot_be_is_refused_with_the_nearest_that_it_can():
    with pytest.raises(UserError, match=r"LlamaForCausalLM, which needs model\.mlp=swiglu"):
        architecture_of(ModelConfig(position="rope", norm="rms", mlp="relu2"))
    with pytest.raises(UserError, match=r"GPT2LMHeadModel, which needs model\.bias=true"):
        architecture_of(ModelConfig(bias=False))
    with pytest.raises(UserError, match=r"MistralForCausalLM, which needs model\.qk_norm=false"):
        architecture_of(ModelConfig(**LLAMA | {"qk_norm": True, "window": 3}))
    assert architecture_of(ModelConfig(n_kv_head=12)) == "gpt2"


def test_a_gpt2_names_its_context_as_llama_cpp_reads_it():
    """Without n_ctx convert_hf_to_gguf.py stops at a KeyError."""
    assert config_json(tiny())["n_ctx"] == config_json(tiny())["n_positions"] == 16


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(UserError, match="exists and is not empty; name a new folder"):
        export(tmp_path, model_of("gpt2"), TOKENIZER, SampleConfig(), "")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_how_a_run_samples_is_how_transformers_will(tmp_path):
    settings = SampleConfig(temperature=0.7, top_k=9, top_p=0.8, min_p=0.1, repetition_penalty=1.5)
    export(tmp_path / "out", model_of("gpt2"), TOKENIZER, settings, "")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    assert (found.do_sample, found.temperature, found.top_k, found.top_p) == (True, 0.7, 9, 0.8)
    assert (found.min_p, found.repetition_penalty, found.max_length) == (0.1, 1.5, 40)


@pytest.mark.parametrize("name", MODELS)
def test_the_configuration_names_no_setting_that_transformers_does_not_know(name):
    values = config_json(tiny(**MODELS[name]), None)
    known = AutoConfig.for_model(values["model_type"]).to_dict().keys()
    elsewhere = {
        "n_ctx": "for llama.cpp",
        "rope_theta": "for Transformers before 5",
        "rope_scaling": "for Transformers before 5",
        "attention_bias": "of Llama and Qwen3, not of Mistral",
        "mlp_bias": "of Llama alone",
    }
    assert values.keys() - known <= elsewhere.keys()


def test_words_of_several_patterns_and_digits_are_cut_alike(tmp_path):
    for pattern in PATTERNS:
        tokenizer = Tokenizer.train([TEXT], 300, pattern=pattern)
        to_huggingface(tokenizer, tmp_path)
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        for text in ("12 3456", "1234567 kings, 12345!", "It's  9999\n\n x"):
            assert theirs(text).input_ids == tokenizer.encode(text)
        assert load_tokenizer(tmp_path / "tokenizer.json").to_dict() == tokenizer.to_dict()


def test_an_exported_character_tokenizer_comes_back(tmp_path):
    characters = CharTokenizer.train([TEXT, "é🎭 "], ["<|endoftext|>"])
    to_huggingface(characters, tmp_path)
    assert load_tokenizer(tmp_path / "tokenizer.json").to_dict() == characters.to_dict()


def test_an_empty_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(tmp_path / "link", model_of("gpt2"), TOKENIZER, SampleConfig(), "")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(Path(), model_of("gpt2"), TOKENIZER, SampleConfig(), "")
    assert (tmp_path / "here" / "config.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link", "real"]


def test_a_run_is_exported_with_a_card_that_says_what_it_is(small_trained_run, capsys):
    folder = small_trained_run.parent / "exported"
    with (small_trained_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "va')  # as a kill may leave it
    assert main(["export", str(small_trained_run), str(folder)]) == 0
    assert "holds a GPT2LMHeadModel" in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    for fact in ("| steps | 12 of 12 |", "| validation loss | ", "AutoModelForCausalLM", "seed"):
        assert fact in card
    # The code of the card runs as it stands, with the folder's name in it.
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    subprocess.run([sys.executable, "-c", code], cwd=folder.parent, check=True)
    assert main(["export", str(small_trained_run), str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["generate", str(folder), "--prompt", "DUKE", "--sample.max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("DUKE")


def test_a_model_with_a_kernel_of_its_own_is_not_exported_as_another(monkeypatch):
    monkeypatch.setitem(ATTENTION_KERNELS, "mine", ATTENTION_KERNELS["plain"])
    assert architecture_of(ModelConfig(attention="plain")) == "gpt2"
    assert architecture_of(ModelConfig(attention="flex")) == "gpt2"
    with pytest.raises(UserError, match=r"model\.attention="):
        architecture_of(ModelConfig(attention="mine"))
