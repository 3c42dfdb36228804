"""Open anything that was trained: a run, a Hugging Face folder, a model by its name."""

from pathlib import Path

from nanogpt.config import PRESETS, Config
from nanogpt.errors import UserError
from nanogpt.interop.huggingface import fetch, from_pretrained
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import find_tokenizer, load_tokenizer
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.checkpoint import find_checkpoint, load_state, load_weights


def load_run(run: Path, name: str = "latest") -> tuple[GPT, BaseTokenizer, Config]:
    """Model, tokenizer and settings, ready to generate.

    `run` is a run folder, a folder of Hugging Face's, or a published size of GPT-2 by name, or
    hub:NAME, which are fetched. Raises UserError if it is none of them.
    """
    folder = hugging_face_folder(run)
    if folder:
        model, tokenizer = from_pretrained(folder), find_tokenizer(own_tokenizer(folder))
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, but the model "
                f"{model.config.vocab_size:,}; put its own tokenizer.json into the folder"
            )
        return model, tokenizer, Config(model=model.config)
    checkpoint = find_checkpoint(run, name)
    _, config = load_state(checkpoint)
    return (
        load_weights(checkpoint, config.model).eval(),
        load_tokenizer(run / "tokenizer.json"),
        config,
    )


def hugging_face_folder(source: Path) -> Path | None:
    """The folder of Hugging Face's that is meant, fetched if need be; None if it is a run."""
    if (source / "config.json").exists():
        return source
    name = str(source)
    if name.startswith("hub:") or (name in PRESETS and not source.exists()):
        return fetch(name.removeprefix("hub:"))
    return None


def own_tokenizer(folder: Path) -> str:
    """The tokenizer in a folder of Hugging Face's, by its path; GPT-2's if it has none."""
    files = ("tokenizer.json", "vocab.json")
    return str(folder) if any((folder / file).exists() for file in files) else "gpt2"
