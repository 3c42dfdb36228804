"""What `import nanogpt` gives: from text to a trained model and back to text, in a call each.

Each function here puts together what the packages have; for more than that, use those.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt.config import Config, DataConfig, SampleConfig, config_from_dict, from_dict
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score
from nanogpt.evaluation.loss import evaluate as evaluate_tokens
from nanogpt.files import read_text
from nanogpt.generation.stream import generate_text
from nanogpt.interop.huggingface import export as export_folder
from nanogpt.model.gpt import GPT
from nanogpt.text.dataset import data_folder
from nanogpt.text.prepare import Prepared
from nanogpt.text.prepare import prepare as prepare_corpus
from nanogpt.text.tokenfiles import Sidecar, TokenFile
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.load import with_shape_of
from nanogpt.training.records import Record
from nanogpt.training.start import Trainer, refuse_to_overwrite
from nanogpt.training.variants import check_choices
from nanogpt.workers import world


def prepare(
    source: str | Path, folder: str | Path, processes: int = 1, **settings: Any
) -> Prepared:
    """Turn text into token files: a file, a folder, hub:NAME, toy:NAME, or "shakespeare".

    `settings` are those of the section `data`, such as vocab_size=1024. Where `processes` is above
    1, call this below `if __name__ == "__main__":`. Raises UserError if the source is missing,
    damaged or too short, or a setting is unknown.
    """
    data = from_dict(DataConfig, {"source": str(source), **settings})
    return prepare_corpus(data, Path(folder), processes)


def train(
    run: str | Path,
    config: Config | None = None,
    show: Callable[[Record], None] = lambda record: None,
    **sections: Mapping[str, Any],
) -> Trainer:
    """Train a model in a run folder, to the end. Text that is not prepared yet is prepared there.

    Settings come as a Config, or by section: train("runs/my", data={"source": "my.txt"},
    model={"n_layer": 4}, train={"max_steps": 500}). Without a section `model`, train.init brings
    shape and tokenizer along. `show` is told every record. Raises UserError
    for an impossible setting, missing text, or a folder that holds a run; one that was interrupted
    goes on with `list(Trainer.resume(run).run())`.
    """
    run = Path(run)
    if config and sections:
        raise UserError("give settings as a Config or by section, not both")
    refuse_to_overwrite(run)
    if config is None:
        config = config_from_dict(sections)  # or say what is wrong with them
        if config.train.init:
            config = config_from_dict(with_shape_of(sections, config.train.init))
    check_choices(config)
    if config.parallel.processes > world():
        raise UserError(
            f"parallel.processes={config.parallel.processes}, but there is {world()}: start them "
            "with `nanogpt train`, or with torchrun"
        )
    if not config.data.folder:
        prepare_corpus(config.data, data_folder(run, config), processes=1)
    trainer = Trainer.start(run, config)
    for record in trainer.run():
        show(record)
    return trainer


def generate(model: GPT, tokenizer: BaseTokenizer, prompt: str = "", **settings: Any) -> str:
    """The prompt and its continuation.

    `settings` are those of the section `sample`, such as temperature=0.8, top_k=50, seed=1.
    Raises UserError for an unknown setting, or a prompt that the tokenizer cannot encode.
    """
    config = from_dict(SampleConfig, {**settings, "prompt": prompt})
    return prompt + "".join(generate_text(model, tokenizer, config))


def evaluate(model: GPT, tokenizer: BaseTokenizer, text: str | Path, stride: int = 0) -> Score:
    """Loss, perplexity and bits per byte of a text, or of a file if a Path is given.

    Each token but the first is predicted once, in windows that move on by `stride` tokens, by
    default half the context. Raises UserError if there is nothing to predict.
    """
    text = read_text(text) if isinstance(text, Path) else text
    ids = np.asarray(tokenizer.encode_array(text))
    size = len(text.encode("utf-8", "surrogatepass"))
    about = Sidecar(str(ids.dtype), len(ids), size, 1, tokenizer.vocab_size, "", "")
    tokens = TokenFile(Path("text"), ids, about)
    return evaluate_tokens(model, tokens, resolve(str(model.device), "float32"), stride=stride)


def export(model: GPT, tokenizer: BaseTokenizer, folder: str | Path) -> None:
    """Write a folder that Hugging Face Transformers opens.

    Raises UserError if it exists and is not empty, or if Transformers has no such architecture.
    """
    card = f"# {Path(folder).name}\n\nTrained with nanogpt.\n"
    export_folder(Path(folder), model, tokenizer, SampleConfig(), card)
