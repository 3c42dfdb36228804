"""Checkpoints: all that a run needs to go on, in plain files that are whole or absent.

    checkpoints/step-000500/model.safetensors       the weights
                            optimizer.safetensors   the optimizer's state, tensor by tensor
                            state.json              step, best loss, settings, hashes of the others
    checkpoints/latest, checkpoints/best            each holds the name of a folder beside it

No random state is saved, for there is none: batches and dropout are pure functions of the seed and
the step.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from nanogpt.config import Config, ModelConfig, config_from_dict
from nanogpt.errors import UserError
from nanogpt.files import read_json, read_text, sha256, write_json, write_text, writing_folder
from nanogpt.model.build import build
from nanogpt.model.gpt import GPT

FORMAT = 1  # of checkpoints; a larger number is one that this version cannot read


@dataclass(frozen=True)
class TrainState:
    """Where a run stands, apart from its tensors."""

    step: int = 0  # optimizer steps done
    best_loss: float | None = None  # lowest validation loss so far
    seconds: float = 0.0  # spent training, without evaluation
    tokens: str = ""  # fingerprint of the token files that it trains on
    scaler: dict[str, float] = field(default_factory=dict)  # of the loss, in float16


def save_checkpoint(
    folder: str | Path,
    model: GPT,
    optimizer: Optimizer,
    state: TrainState,
    config: Config,
    best: bool = False,
) -> None:
    """Write checkpoints/step-NNNNNN under a run folder; point `latest`, perhaps `best`, at it.

    Checkpoints that neither names any more are removed, and so is what a crash left half-written.
    """
    folder = Path(folder)
    checkpoints = folder / "checkpoints"
    path = checkpoints / f"step-{state.step:06d}"
    with writing_folder(path) as temporary:
        save_file(model.state_dict(), temporary / "model.safetensors")
        save_file(optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
        hashes = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_json(
            temporary / "state.json",
            {
                "format": FORMAT,
                "state": asdict(state),
                "config": asdict(config),
                "sha256": hashes,
            },
        )
    # `best` first: the best loss in this state must never be that of another checkpoint.
    for name in ("best", "latest") if best else ("latest",):
        write_text(checkpoints / name, path.name + "\n")
    pointers = [checkpoints / name for name in ("best", "latest")]
    kept = {read_text(pointer).strip() for pointer in pointers if pointer.exists()}
    for old in [*checkpoints.glob("step-*"), *checkpoints.glob(".step-*")]:
        if old.name not in kept:
            shutil.rmtree(old)


def latest_step(run: str | Path) -> int:
    """The step of the latest checkpoint of a run; -1 if it has none."""
    pointer = Path(run) / "checkpoints" / "latest"
    digits = read_text(pointer).strip().removeprefix("step-") if pointer.exists() else ""
    return int(digits) if digits.isdecimal() else -1


def find_checkpoint(run: str | Path, name: str = "latest") -> Path:
    """The checkpoint folder that `latest` or `best` names. Raises UserError if there is none."""
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; name one that `nanogpt train` made")
    pointer = run / "checkpoints" / name
    if not pointer.exists():
        raise UserError(f"{run} has no checkpoint yet; train it first")
    path = pointer.parent / read_text(pointer).strip()
    if not path.is_dir():
        raise UserError(f"{pointer} names {path.name}, which is not there; name another by hand")
    return path


def load_tensors(checkpoint: str | Path, name: str) -> dict[str, Tensor]:
    """Read one safetensors file of a checkpoint. Raises UserError if it is missing or damaged."""
    checkpoint = Path(checkpoint)
    path = checkpoint / name
    expected = read_json(checkpoint / "state.json").get("sha256", {}).get(name)
    try:
        if sha256(path) != expected:
            raise UserError(f"{path} is damaged; restore it or use another checkpoint")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); use another checkpoint") from None


def load_state(checkpoint: str | Path) -> tuple[TrainState, Config]:
    """Read state.json. Raises UserError naming the file if it is damaged, or of a later version."""
    checkpoint = Path(checkpoint)
    path = checkpoint / "state.json"
    values = read_json(path)
    found = values.get("format", FORMAT)
    if found != FORMAT:
        raise UserError(f"{path} is of format {found}, this version reads {FORMAT}; update nanogpt")
    try:
        return TrainState(**values["state"]), config_from_dict(values["config"])
    except UserError as error:
        raise UserError(
            f"{path}: {error} Another version of nanogpt or a plugin wrote it; use that one"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); use another checkpoint") from None


def load_weights(checkpoint: str | Path, config: ModelConfig) -> GPT:
    """Build the model of a checkpoint. Raises UserError if file and settings do not fit."""
    checkpoint = Path(checkpoint)
    tensors = load_tensors(checkpoint, "model.safetensors")
    return build(config, tensors, checkpoint / "model.safetensors")


def optimizer_tensors(model: GPT, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under the names of the parameters: "ln_f.bias.exp_avg" and so on."""
    return {
        f"{name}.{key}": torch.as_tensor(value)  # a plugin's optimizer may count in plain numbers
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()  # frozen ones have none
    }


def restore_optimizer(model: GPT, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of optimizer_tensors. Torch keeps the state by the parameters' running number."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_name: dict[str, dict[str, Tensor]] = {name: {} for name in names.values()}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(".")
        by_name[name][key] = tensor
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {number: by_name[names[p]] for number, p in enumerate(parameters)}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
