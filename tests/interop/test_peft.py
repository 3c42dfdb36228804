"""LoRA as the package peft has it: the same numbers, and a folder that it opens."""

import json
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from nanogpt.cli import main
from nanogpt.config import IGNORED, TrainConfig
from nanogpt.errors import UserError
from nanogpt.interop.huggingface import export
from nanogpt.interop.names import from_hugging_face
from nanogpt.interop.peft import export_adapter
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import add_lora, lora_tensors, plain_tensors
from nanogpt.training.load import load
from nanogpt.training.objective.next_token import NextToken
from nanogpt.training.start import Trainer

from conftest import small_run, tiny

SETTINGS = TrainConfig(lora_rank=4, lora_alpha=12.0)


@pytest.fixture(scope="module")
def peft():
    with warnings.catch_warnings(action="ignore"):  # it warns while it is imported
        return pytest.importorskip("peft", reason="comes with nanogpt[test]")


def test_logits_loss_gradients_and_merged_weights_are_those_of_peft(peft):
    torch.manual_seed(0)
    shape = tiny()
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=61, n_positions=16, n_embd=24, n_layer=2, n_head=3, bos_token_id=None,
            eos_token_id=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    ours = add_lora(build(shape, from_hugging_face(theirs.state_dict()), "theirs"), SETTINGS)
    layers = ["c_attn", "c_fc", "c_proj"]
    with warnings.catch_warnings(action="ignore"):
        adapted = peft.get_peft_model(
            theirs, peft.LoraConfig(r=4, lora_alpha=12, target_modules=layers, fan_in_fan_out=True)
        )
    pairs = []
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("base_model.model.transformer.").replace(".default.weight", "")
            mine = ours.get_parameter(name.replace("lora_A", "lora_a").replace("lora_B", "lora_b"))
            pairs.append((mine, parameter))
    assert len(pairs) == len(lora_tensors(ours))
    with torch.no_grad():
        for mine, parameter in pairs:
            mine.copy_(parameter.normal_(std=0.2))
    ids = torch.randint(61, (3, 12))
    targets = torch.full_like(ids, IGNORED)
    targets[:, :-1] = ids[:, 1:]
    found = adapted(ids, labels=ids)
    torch.testing.assert_close(ours(ids), found.logits, rtol=0, atol=1e-6)  # observed 2e-7
    found.loss.backward()
    (NextToken(ours)(ids, targets) / (targets != IGNORED).sum()).backward()
    for mine, parameter in pairs:
        torch.testing.assert_close(mine.grad, parameter.grad, rtol=0, atol=1e-6)  # observed 2e-7
    merged = from_hugging_face(adapted.merge_and_unload().state_dict())
    for name, tensor in plain_tensors(ours).items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_peft_opens_what_export_writes(peft, trained_run, prepared, tmp_path, capsys):
    model, tokenizer, config = load(trained_run())
    export(tmp_path / "base", model, tokenizer, config.sample, "")
    settings = small_run(prepared, init=str(tmp_path / "base"), lora_rank=4, lr=1e-2)
    list(Trainer.start(tmp_path / "run", settings).run())
    assert not main(["export", str(tmp_path / "run"), str(tmp_path / "adapter"), "--adapter"])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    said = capsys.readouterr().out
    assert f"model = PeftModel.from_pretrained(model, {str(tmp_path / 'adapter')!r})" in said
    with warnings.catch_warnings(action="ignore"):
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.randint(256, (2, 16))
    expected = load(tmp_path / "run").model(ids)
    assert not torch.allclose(model(ids), expected, atol=1e-2)
    torch.testing.assert_close(adapted(ids).logits, expected, rtol=0, atol=1e-5)


def test_the_base_of_an_adapter_may_be_a_run(trained_run, prepared, tmp_path, capsys):
    base = trained_run()
    settings = small_run(prepared, init=str(base), lora_rank=4)
    list(Trainer.start(tmp_path / "run", settings).run())
    adapter, whole = tmp_path / "adapter", tmp_path / "adapter-base"
    assert not main(["export", str(tmp_path / "run"), str(adapter), "--adapter"])
    said = capsys.readouterr().out
    assert f"First: nanogpt export {base} {whole}\n" in said
    assert f"from_pretrained({str(whole)!r})" in said


def test_an_adapter_holds_what_was_trained_under_peft_s_names(tmp_path):
    model = add_lora(GPT(tiny()), TrainConfig(lora_rank=4, lora_on="h.1.mlp.c_fc"))
    export_adapter(tmp_path / "adapter", model, SETTINGS)
    files = {path.name: path for path in (tmp_path / "adapter").iterdir()}
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads(files["adapter_config.json"].read_text())
    assert config["target_modules"] == ["h.1.mlp.c_fc"]
    assert (config["r"], config["lora_alpha"]) == (4, 12.0)


def test_what_has_no_such_form_is_refused(tmp_path):
    plain = GPT(tiny())
    grown = add_lora(GPT(tiny()), SETTINGS, new_tokens=2)
    llama = add_lora(GPT(tiny(position="rope", norm="rms", mlp="swiglu")), SETTINGS)
    for model, message in (
        (plain, "--adapter is for a run with train.lora_rank"),
        (grown, "--adapter is for a GPT-2 whose vocabulary did not grow"),
        (llama, "--adapter is for a GPT-2"),
    ):
        with pytest.raises(UserError, match=message):
            export_adapter(tmp_path / "no", model, SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty"):
        export_adapter(tmp_path / "full", add_lora(GPT(tiny()), SETTINGS), SETTINGS)
    assert not (tmp_path / "no").exists()
