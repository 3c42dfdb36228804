"""The models that the explorer shows: which there are, and each one's weights at each moment."""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from nanogpt.config import PRESETS, ModelConfig, load_config
from nanogpt.errors import UserError, did_you_mean
from nanogpt.explorer.places import places
from nanogpt.model.gpt import GPT
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer
from nanogpt.training.checkpoint import find_checkpoint, has_checkpoint, load_state
from nanogpt.training.load import load
from nanogpt.training.records import read_metrics
from nanogpt.training.snapshots import find_snapshots, load_snapshot

ENDLESS = (math.inf, -math.inf)
KEPT = 4  # opened models of a run: the slider of the replay goes back and forth

# A larger model would take a page too long to fetch and to compute: Python computes for it.
LARGEST_IN_PAGE = 20_000_000
# What the engine in JavaScript knows. Whatever a plugin adds, only Python can run.
IN_PAGE = {
    "position": {"learned", "sinusoidal", "rope", "alibi", "none"},
    "block": {"pre-norm", "post-norm", "no-residual"},
    "norm": {"layer", "rms", "none"},
    "mlp": {"gelu", "relu2", "swiglu"},
    "head": {"tied", "untied"},
    "kernels": {"plain", "fused"},
    "attention": {"", "plain", "fused", "flex", "short-conv"},
}


class Run:
    """A trained model, or one that is being trained now. Nothing is read before it is asked for.

    `lock` is held by whoever runs one of its models: what is recorded there is recorded for all.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source, self.folder = name, source, Path(source)
        self.lock = threading.Lock()
        self._tokenizer: BaseTokenizer | None = None
        self._opening = threading.Lock()  # held while the models that are open change
        self._opened: OrderedDict[str, tuple[GPT, BaseTokenizer]] = OrderedDict()

    def steps(self) -> list[int]:
        """The steps at which snapshots of the weights were taken, in order."""
        return list(find_snapshots(self.folder))

    def snapshot(self, step: int) -> Path:
        """The file of a snapshot. Raises UserError if none was taken at that step."""
        taken = find_snapshots(self.folder)
        if step not in taken:
            there = ", ".join(map(str, taken)) or "none; train with --train.snapshots 12"
            raise UserError(f"{self.name} has no snapshot of step {step}; there are {there}")
        return taken[step]

    def model(self, step: int | None = None) -> GPT:
        """The model of the latest checkpoint, or of a snapshot, as evaluation uses it."""
        return self.open(step)[0]

    def tokenizer(self) -> BaseTokenizer:
        """The run's tokenizer. It is read without the weights where it lies beside them."""
        if self._tokenizer is None:
            own = (self.folder / "config.toml").exists()
            self._tokenizer = (
                load_tokenizer(self.folder / "tokenizer.json") if own else self.open()[1]
            )
        return self._tokenizer

    def open(self, step: int | None = None) -> tuple[GPT, BaseTokenizer]:
        """Model and tokenizer. Raises UserError if there is no such moment, or it is damaged.

        A run that is young has no checkpoint yet; its latest snapshot takes its place.
        """
        is_run = (self.folder / "config.toml").exists()
        if step is None and is_run and not has_checkpoint(self.folder):
            taken = self.steps()
            if not taken:
                raise UserError(f"{self.name} has no weights yet; wait for its first checkpoint")
            step = taken[-1]
        key = f"snapshot {step}"
        if step is None:
            key = find_checkpoint(self.folder).name if is_run else "only"
        with self._opening:
            if key not in self._opened:
                if step is None:
                    loaded = load(self.source)
                    self._opened[key] = (loaded.model.eval(), loaded.tokenizer)
                else:
                    path = self.snapshot(step)
                    config = load_config(self.folder / "config.toml").model
                    self._opened[key] = (load_snapshot(path, config), self.tokenizer())
            self._opened.move_to_end(key)
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
            return self._opened[key]

    def weights_file(self, step: int | None = None) -> bytes:
        """The weights as a safetensors file: a snapshot as it is, else of the latest checkpoint."""
        if step is not None:
            return self.snapshot(step).read_bytes()
        return save({name: x.contiguous() for name, x in self.model().state_dict().items()})

    def metrics(self) -> list[dict[str, Any]]:
        """The records of the training so far; none of a model that was not trained here.

        A loss that is no number any more is None: JSON has no NaN, and a page could not read it.
        """
        there = (self.folder / "metrics.jsonl").exists()
        rows = read_metrics(self.folder) if there else []
        return [{k: None if x in ENDLESS or x != x else x for k, x in row.items()} for row in rows]

    def shape(self) -> GPT:
        """The model without its weights, where the settings can be read alone; else the model."""
        if not (self.folder / "config.toml").exists() or not has_checkpoint(self.folder):
            return self.model()
        config = load_state(find_checkpoint(self.folder))[1].model
        with torch.device("meta"):
            return GPT(config)

    def about(self) -> dict[str, Any]:
        """What a list of runs says of it."""
        model = self.shape()
        return {
            "name": self.name,
            "config": shape_of(model.config),
            "n_params": model.num_parameters(),
            "steps": self.steps(),
            "metrics": (self.folder / "metrics.jsonl").exists(),
            "remote_only": is_remote_only(model),
        }

    def info(self) -> dict[str, Any]:
        """All that the page has to know before the first text."""
        model, tokenizer = self.shape(), self.tokenizer()
        kind = "bpe" if isinstance(tokenizer, Tokenizer) else "char"
        about = {"kind": kind, "vocab_size": tokenizer.vocab_size}
        return {**self.about(), "tokenizer": about, "places": places(model)}


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """The settings of a model, with the number of key heads said rather than implied."""
    return {**asdict(config), "n_kv_head": config.kv_heads}


def is_remote_only(model: GPT) -> bool:
    """Whether the engine of the page cannot run it: a plugin's variant, or too large."""
    config = asdict(model.config)
    foreign = any(config[name] not in known for name, known in IN_PAGE.items())
    parts = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return foreign or bool(parts - {"nanogpt", "torch"}) or model.num_parameters() > LARGEST_IN_PAGE


def find_runs(sources: Iterable[str | Path]) -> dict[str, Run]:
    """Runs by their names. A source is a run, a folder of runs, or what else `load` opens.

    Raises UserError for a source that is none of these, or two runs of one name.
    """
    found: dict[str, Run] = {}
    for source in map(str, sources):
        folder = Path(source)
        inside = [folder]
        if not is_run(folder) and folder.is_dir():
            inside = [path for path in sorted(folder.iterdir()) if is_run(path)]
            if not inside:
                raise UserError(f"{source} holds no run; name a folder that `nanogpt train` made")
        elif not folder.is_dir() and source not in PRESETS and not source.startswith("hub:"):
            raise UserError(f"{source}: no such run; name a folder that `nanogpt train` made")
        for path in inside:
            name = path.resolve().name if path.is_dir() else source.rpartition("/")[2]
            name = os.fsencode(name).decode("utf-8", "replace")  # JSON is UTF-8, a name need not be
            if name in found:
                raise UserError(f"two runs are called {name}: rename one of the folders")
            found[name] = Run(name, str(path) if path.is_dir() else source)
    return found


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, or a model in the Hugging Face format."""
    return (folder / "config.toml").exists() or (folder / "config.json").exists()


def find_run(runs: dict[str, Run], name: str) -> Run:
    """A run by its name. Raises UserError with those there are."""
    if name not in runs:
        raise UserError(f"there is no run {name[:80]!r}: {did_you_mean(name, runs)}")
    return runs[name]
