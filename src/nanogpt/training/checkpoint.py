"""Checkpoints: all that a run needs to go on, in plain files that are whole or absent.

    checkpoints/step-000500/model.safetensors       the weights
                            optimizer.safetensors   the optimizer's state, tensor by tensor
                            state.json              step, best loss, settings, hashes of the others
                            base.safetensors        with LoRA, the weights that never change
    checkpoints/latest, checkpoints/best            each holds the name of a folder beside it

With LoRA model.safetensors holds what was trained. base.safetensors is a link to that of the
checkpoint before, where the file system has such links. So it is on the disk once, and still
each folder is whole.

No random state is saved, for there is none: batches and dropout are pure functions of the seed and
the step.
"""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import Config, ModelConfig, config_from_dict
from nanogpt.errors import UserError
from nanogpt.files import (
    checked,
    read_json,
    read_text,
    sha256,
    write_json,
    write_text,
    writing_folder,
)
from nanogpt.model.build import build, write_tensors
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import add_lora, lora_tensors, plain_tensors
from nanogpt.text.dataset import data_folder
from nanogpt.text.formats import load_tokenizer
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.pieces import PieceFiles
from nanogpt.training.records import check_is_run

PIECES = re.compile(r"(model|optimizer)-\d+-of-\d+\.safetensors")  # of one rank of many
NAME = re.compile(r"step-[0-9]{6,18}")
UNFINISHED = re.compile(r"\.step-[0-9]{6,18}\.\w+(\.old)?")  # what a crash leaves
BASE = "base.safetensors"
FORMAT = 1  # of checkpoints; a larger number is one that this version cannot read


@dataclass(frozen=True)
class TrainState:
    """Where a run stands, apart from its tensors. Raises UserError for what cannot be."""

    step: int  # optimizer steps done
    best_loss: float | None  # lowest validation loss so far
    seconds: float  # spent training, without evaluation
    tokens: str  # fingerprint of the token files that it trains on
    scaler: dict[str, float] = field(default_factory=dict)  # of the loss, in float16
    tokenizer: str = ""  # fingerprint of tokenizer.json; older checkpoints do not say
    threads: int = 0  # of the CPU that were chosen, or 0

    def __post_init__(self) -> None:
        for name in ("step", "best_loss", "seconds", "threads"):
            if not 0 <= (getattr(self, name) or 0) < inf:
                raise UserError(f"{name} is {getattr(self, name)}, but should be 0 or more")


@dataclass(frozen=True)
class Saved:
    """What state.json holds."""

    format: int
    state: TrainState
    config: dict[str, Any]
    sha256: dict[str, str]  # of the other files, by their names

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise UserError(f"format is {self.format}, but should be {FORMAT}")


def save_checkpoint(
    folder: str | Path,
    model: GPT,
    optimizer: Optimizer,
    state: TrainState,
    config: Config,
    best: bool = False,
) -> None:
    """Write checkpoints/step-NNNNNN under a run folder; point `latest`, perhaps `best`, at it."""
    folder = Path(folder)
    checkpoints = folder / "checkpoints"
    path = checkpoints / f"step-{state.step:06d}"
    with writing_folder(path) as temporary:
        added = lora_tensors(model)
        write_tensors(temporary / "model.safetensors", added or model.state_dict())
        write_tensors(temporary / "optimizer.safetensors", optimizer_tensors(model, optimizer))
        hashes = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        if added:
            base = {name: x for name, x in model.state_dict().items() if name not in added}
            hashes[BASE] = keep_base(base, checkpoints, temporary / BASE)
        saved = Saved(FORMAT, state, asdict(config), hashes)
        write_json(temporary / "state.json", asdict(saved))
    point_at(checkpoints, path.name, best)


def keep_base(base: Mapping[str, Tensor], checkpoints: Path, path: Path) -> str:
    """Put the weights that never change into a new checkpoint, and give their hash.

    They are a hard link to those of another checkpoint of the run, or written where that fails.
    """
    for other in checkpoints.glob(f"step-*/{BASE}"):
        with suppress(OSError, KeyError, UserError):
            digest = read_saved(other.parent).sha256[BASE]
            os.link(other, path)
            return digest
    write_tensors(path, base)
    return sha256(path)


def point_at(checkpoints: Path, step: str, best: bool) -> None:
    """Point `latest`, perhaps `best`, at a checkpoint.

    Checkpoints that neither names any more are removed, and so is what a crash left half-written.
    """
    # `best` first: the best loss in this state must never be that of another checkpoint.
    for name in ("best", "latest") if best else ("latest",):
        write_text(checkpoints / name, step + "\n")
    pointers = [checkpoints / name for name in ("best", "latest")]
    kept = {read_text(pointer).strip() for pointer in pointers if pointer.exists()}
    for old in sorted(checkpoints.iterdir()):  # hidden ones first
        # Only what this function made: a copy that a person gave another name stays.
        ours = NAME.fullmatch(old.name) or UNFINISHED.fullmatch(old.name)
        if ours and old.name not in kept and old.is_dir() and not old.is_symlink():
            # Renamed first, so that a kill cannot leave half a checkpoint under its name.
            hidden = old if old.name[0] == "." else old.rename(checkpoints / f".{old.name}.old")
            shutil.rmtree(hidden, ignore_errors=True)


def latest_step(run: str | Path) -> int:
    """The step of the latest checkpoint of a run; -1 if it has none that says so."""
    pointer = Path(run) / "checkpoints" / "latest"
    return step_of(read_text(pointer).strip() if pointer.exists() else newest(pointer.parent))


def step_of(name: str) -> int:
    """The step in the name of a checkpoint of ours; -1 for any other name."""
    return int(name.removeprefix("step-")) if NAME.fullmatch(name) else -1


def newest(checkpoints: Path) -> str:
    """The name of the checkpoint of the last step; empty if there is none."""
    found = [p.name for p in checkpoints.glob("step-*") if p.is_dir() and not p.is_symlink()]
    return max((name for name in found if step_of(name) >= 0), key=step_of, default="")


def has_checkpoint(run: str | Path) -> bool:
    """Whether a run has come as far as a checkpoint, whatever became of that."""
    checkpoints = Path(run) / "checkpoints"
    return (checkpoints / "latest").exists() or bool(newest(checkpoints))


def find_checkpoint(run: str | Path, name: str = "latest") -> Path:
    """The checkpoint folder that `latest` or `best` names. Raises UserError if there is none.

    Without a file `latest`, which a crash may leave unwritten, it is that of the last step.
    """
    run = Path(run)
    check_is_run(run)
    if not has_checkpoint(run):
        raise UserError(f"{run} has no checkpoint yet; train it first")
    checkpoints = run / "checkpoints"
    pointer, last = checkpoints / name, newest(checkpoints)
    if name != "latest" and not pointer.exists():
        raise UserError(f"{pointer} is missing; use the latest checkpoint")
    named = read_text(pointer).strip() if pointer.exists() else last
    # Only the name of a folder beside it: a path could lead to another run.
    if named not in {path.name for path in checkpoints.iterdir() if path.is_dir()}:
        fix = f"write {last} into it" if last else "there is none; start the run again"
        raise UserError(f"{pointer} names {named[:40]!r}, which is no checkpoint beside it; {fix}")
    return checkpoints / named


def load_tensors(checkpoint: str | Path, name: str) -> dict[str, Tensor]:
    """Read one safetensors file of a checkpoint. Raises UserError if it is missing or damaged."""
    checkpoint = Path(checkpoint)
    path = checkpoint / name
    hashes = read_saved(checkpoint).sha256
    expected = hashes.get(name)
    if any(PIECES.fullmatch(other) for other in hashes):
        return put_together(checkpoint, path.stem, hashes)
    try:
        if sha256(path) != expected:
            raise UserError(f"{path} is damaged; restore it or use another checkpoint")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); use another checkpoint") from None


def check_intact(checkpoint: Path, hashes: Mapping[str, str]) -> None:
    """Raise UserError for a file that is missing, or is not what it was."""
    for name, digest in hashes.items():
        path = checkpoint / name
        if not path.is_file() or sha256(path) != digest:
            raise UserError(f"{path} is damaged or missing; restore it or use another checkpoint")


def put_together(checkpoint: Path, kind: str, hashes: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that many ranks wrote, and have not merged yet."""
    ours = {name: digest for name, digest in hashes.items() if name.startswith(f"{kind}-")}
    check_intact(checkpoint, ours)
    files = PieceFiles(checkpoint, kind, ours)
    return {name: files.whole(name) for name in files.shapes}


def merge(checkpoint: Path) -> None:
    """Make of what many ranks wrote the two files that one process would have written.

    The new files count from the moment that state.json names them; then the others go.
    """
    saved = read_saved(checkpoint)
    if not any(PIECES.fullmatch(name) for name in saved.sha256):
        return
    hashes: dict[str, str] = {}
    for kind in ("model", "optimizer"):
        path = checkpoint / f"{kind}.safetensors"
        write_tensors(path, put_together(checkpoint, kind, saved.sha256))
        with path.open("rb") as opened:
            os.fsync(opened.fileno())
        hashes[path.name] = sha256(path)
    write_json(checkpoint / "state.json", asdict(replace(saved, sha256=hashes)))
    for name in saved.sha256:
        (checkpoint / name).unlink()


def read_saved(checkpoint: str | Path) -> Saved:
    """Read state.json. Raises UserError naming the file if it is damaged, or of a later version."""
    path = Path(checkpoint) / "state.json"
    values = read_json(path)
    found = values.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"{path} is of format {str(found)[:9]}, this version reads {FORMAT}; update nanogpt"
        )
    try:
        return checked(Saved, values)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}; use another checkpoint") from None


def load_state(checkpoint: str | Path) -> tuple[TrainState, Config]:
    """The state and the settings in state.json.

    Raises UserError naming the file if it is damaged, or if another version or a plugin wrote it.
    """
    saved = read_saved(checkpoint)
    try:
        absent = vars(Config()).keys() - saved.config.keys() - {"policy", "parallel"}  # newer
        if absent:
            raise UserError(f"the settings have no section {min(absent)}.")
        return saved.state, config_from_dict(saved.config)
    except UserError as error:
        raise UserError(
            f"{Path(checkpoint) / 'state.json'}: {error} Another version of nanogpt or a plugin "
            "wrote it; use that one"
        ) from None


def load_tokenizer_of(run: str | Path, state: TrainState, config: Config) -> BaseTokenizer:
    """The tokenizer of a run. Raises UserError if it is not the one that the run began with."""
    path = Path(run) / "tokenizer.json"
    tokenizer = load_tokenizer(path)
    exchanged = state.tokenizer and tokenizer.fingerprint() != state.tokenizer
    if exchanged or tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"{path} is not the tokenizer that the run began with; restore it, for example from "
            f"{data_folder(run, config)}"
        )
    return tokenizer


def load_weights(checkpoint: str | Path, config: ModelConfig) -> GPT:
    """The model of a checkpoint, a plain GPT: what LoRA has added is part of the weights.

    Raises UserError if file and settings do not fit.
    """
    model = load_for_training(checkpoint, config)
    if lora_tensors(model):
        return build(config, plain_tensors(model), Path(checkpoint) / "model.safetensors")
    return model


def load_for_training(checkpoint: str | Path, config: ModelConfig) -> GPT:
    """The model of a checkpoint as it is trained: with LoRA beside its weights, if the run has it.

    Raises UserError if file and settings do not fit.
    """
    checkpoint = Path(checkpoint)
    path = checkpoint / "model.safetensors"
    tensors = load_tensors(checkpoint, path.name)
    if BASE not in read_saved(checkpoint).sha256:
        return build(config, tensors, path)
    new_tokens = len(tensors.get("wte.lora_rows", ()))
    train = load_state(checkpoint)[1].train
    tensors |= load_tensors(checkpoint, BASE)
    return build(config, tensors, path, lambda shape: add_lora(GPT(shape), train, new_tokens))


def optimizer_tensors(model: GPT, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under the names of the parameters: "ln_f.bias.exp_avg" and so on."""
    return {
        f"{name}.{key}": torch.as_tensor(value)  # a plugin's optimizer may count in plain numbers
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()  # frozen ones have none
    }


def restore_optimizer(model: GPT, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of optimizer_tensors. Torch keeps the state by the parameters' running number.

    Raises UserError for tensors that are not what the optimizer keeps for these parameters.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    left = dict(tensors)
    states: list[dict[str, Tensor]] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            wanted = state_after_a_step(optimizer, group, parameter)
            found = {key: left.pop(f"{name}.{key}") for key in wanted if f"{name}.{key}" in left}
            for key in wanted if found else ():  # a parameter that never moved has no state
                kinds = [kind_of(state.get(key)) for state in (found, wanted)]
                if kinds[0] != kinds[1]:
                    raise UserError(f"{name}.{key} is {kinds[0]}, not {kinds[1]}")
            states.append(found)
    if left:
        raise UserError(f"{min(left)} belongs to no parameter that this optimizer moves")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(enumerate(states))})


def state_after_a_step(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor
) -> dict[str, Tensor]:
    """What the optimizer keeps for a parameter: seen on a copy, which it moves once."""
    copy = parameter.detach().clone()
    copy.grad = torch.zeros_like(copy)
    settings = {key: optimizer.defaults[key] for key in ("lr", "betas", "eps")}
    probe = type(optimizer)([{**group, "params": [copy]}], **settings)
    probe.step()
    return {key: torch.as_tensor(value) for key, value in probe.state[copy].items()}


def kind_of(tensor: Tensor | None) -> str:
    """Shape and type of a tensor, in words."""
    return "absent" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
