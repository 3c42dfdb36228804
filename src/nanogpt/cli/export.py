"""nanogpt export: a folder that Hugging Face Transformers opens."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt.cli.screen import Screen
from nanogpt.cli.settings import Parser, named_path
from nanogpt.cli.streams import shown_meanwhile
from nanogpt.cli.weights import check_model
from nanogpt.config import Config
from nanogpt.text.conversations import has_roles
from nanogpt.text.tokenizer import END_OF_TEXT, BaseTokenizer
from nanogpt.training.records import read_metrics

if TYPE_CHECKING:
    from nanogpt.model.gpt import GPT


def main(arguments: Sequence[str]) -> None:
    """Write the folder."""
    parser = Parser("export", "Write a model as a folder that Transformers opens.")
    parser.add_argument("run", type=named_path, help="a run folder, such as runs/demo")
    parser.add_argument(
        "folder", type=named_path, help="the folder to write; it must be new or empty"
    )
    parser.add_argument("--checkpoint", default="latest", choices=["latest", "best"])
    parser.add_argument(
        "--adapter", action="store_true", help="of a run with LoRA: only that, for the package peft"
    )
    options = parser.parse(arguments)
    check_model(options.run)
    if options.adapter:
        write_adapter(options.run, options.checkpoint, options.folder)
        return
    with shown_meanwhile("loading the model ..."):
        from nanogpt.interop.huggingface import export
        from nanogpt.training.load import load

        model, tokenizer, config = load(options.run, options.checkpoint)
    folder = options.folder.resolve()
    card = model_card(options.run, options.checkpoint, folder, model, tokenizer, config)
    export(options.folder, model, tokenizer, config.sample, card)
    name = class_name(config)
    console = Screen(soft_wrap=True, highlight=False)
    console.print(f"{options.folder} holds a {name}. In Python:\n")
    console.print(usage(options.folder))


def write_adapter(run: Path, checkpoint: str, folder: Path) -> None:
    """Write what LoRA has trained, and say how to open it."""
    with shown_meanwhile("loading the model ..."):
        from nanogpt.interop.peft import export_adapter
        from nanogpt.training.checkpoint import find_checkpoint, load_for_training, load_state

        path = find_checkpoint(run, checkpoint)
        config = load_state(path)[1]
        export_adapter(folder, load_for_training(path, config.model), config.train)
    console, base = Screen(soft_wrap=True, highlight=False, markup=False), config.train.init
    console.print(f"{folder} holds an adapter for {base}.")
    if (Path(base) / "config.toml").exists():  # a run, which Transformers cannot open
        whole = f"{folder}-base"
        console.print(f"First: nanogpt export {shlex.quote(base)} {shlex.quote(whole)}")
        base = whole
    console.print(f"""\
In Python:

from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(model, {str(folder)!r})""")


def class_name(config: Config) -> str:
    """What the model is in Transformers."""
    from nanogpt.interop.names import ARCHITECTURES, architecture_of

    return ARCHITECTURES[architecture_of(config.model)].class_name


def usage(folder: Path | str) -> str:
    """How to open it."""
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(folder)!r})
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})"""


def example(tokenizer: BaseTokenizer, prompt: str) -> str:
    """How to make it write: continue a prompt, or answer one if it knows roles."""
    if has_roles(tokenizer):
        return f"""\
messages = [{{"role": "user", "content": {prompt or "Hello"!r}}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
print(tokenizer.decode(model.generate(**prompt)[0]))"""
    start = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else "\n"
    return f"""\
ids = tokenizer({prompt or start!r}, return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids)[0]))"""


def model_card(
    run: Path, checkpoint: str, folder: Path, model: "GPT", tokenizer: BaseTokenizer, config: Config
) -> str:
    """README.md: what the model is, what it was trained on and for how long, how good it is."""
    shape = model.config
    training = trained(run, checkpoint, config)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {run.resolve().name}

A language model of {model.num_parameters():,} parameters:
{shape.n_layer} layers, {shape.n_head} heads, {shape.n_embd} channels, a context of
{shape.context_length} tokens, a vocabulary of {tokenizer.vocab_size:,}.
In Transformers it is a `{class_name(config)}`.

{training}
## Use

```python
{usage(folder.name)}
{example(tokenizer, config.sample.prompt)}
```

It writes up to its context of {shape.context_length} tokens; Transformers does not go past it.

It continues text in the manner of what it has read. It knows nothing beyond that, may repeat it
word for word, and can be wrong about everything.
"""


def trained(run: Path, checkpoint: str, config: Config) -> str:
    """The part of the card about training; empty for weights that came from elsewhere."""
    metrics = run / "metrics.jsonl"
    if not metrics.exists():
        return ""
    from nanogpt.training.checkpoint import find_checkpoint, load_state

    state, _ = load_state(find_checkpoint(run, checkpoint))
    train = config.train
    tokens = config.tokens_per_step * state.step
    losses = [r for r in read_metrics(run) if "val_loss" in r and r["step"] <= state.step]
    loss = ""
    if losses:
        value, step = losses[-1]["val_loss"], losses[-1]["step"]
        loss = f"| validation loss | {value:.4f} nats per token at step {step} |\n"
    return f"""## Training

| | |
|---|---|
| data | {Path(config.data.folder).name or config.data.source} |
| steps | {state.step:,} of {train.max_steps:,} |
| tokens seen | {tokens:,} |
{loss}| optimizer | {train.optimizer}, peak learning rate {train.lr:g}, {train.schedule} schedule |
| time | {state.seconds:,.0f} s on {train.device} in {train.precision} |
| seed | {train.seed} |
"""
