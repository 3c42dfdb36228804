"""What cannot be shared out among ranks, said before anything starts."""

from nanogpt.config import Config, check, choose
from nanogpt.device import Compute
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.training.optim import OPTIMIZERS
from nanogpt.training.parallel.mesh import ROWS, Ranks


def refuse_impossible(config: Config, model: GPT, ranks: Ranks, compute: Compute) -> None:
    """Raise UserError for settings with which the ranks could not do what one process does."""
    if compute.precision == "float16":
        raise UserError("train.precision='float16' works on one process: use bfloat16 or float32")
    check(not config.model.attention_dropout, config.model, "attention_dropout", "use 0 here")
    for section, name, dimensions in (
        (config.train, "batch_size", ROWS),
        (config.model, "context_length", ("context", "tensor")),
    ):
        size, settings = ranks.size(*dimensions), " x ".join(f"parallel.{d}" for d in dimensions)
        fix = f"use a multiple of {size} ranks ({settings})"
        check(getattr(section, name) % size == 0, section, name, fix)
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if name not in model.state_dict() or not tensor.ndim:
            raise UserError(f"{name} is no tensor that ranks can share out: use one process for it")
    kinds: dict[str, type] = {}
    if ranks.size("tensor", "context") > 1:
        kinds |= {name: type(layer) for name, layer in model.named_modules()}
    elif ranks.size("pipeline") > 1:  # only the first stage keeps the weights of positions
        kinds["wpe"] = type(model.wpe)
    if ranks.size("tensor", "shard") > 1:
        optimizer = choose(OPTIMIZERS, "train.optimizer", config.train.optimizer)
        kinds["train.optimizer"] = optimizer
    for name, kind in kinds.items():
        ours = kind.__module__.partition(".")[0] in ("nanogpt", "torch")
        if not (ours or getattr(kind, "parallel", False)):
            raise UserError(
                f"{kind.__name__} ({name}) may need more than a rank has: use parallel.data; or "
                "write parallel = True in the class if each token, or weight, is for itself there"
            )
