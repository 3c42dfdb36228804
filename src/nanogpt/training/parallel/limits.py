"""What cannot be shared out among ranks, said before anything starts."""

import math

from torch import Tensor

from nanogpt.config import PIPELINES, Config, check, choose
from nanogpt.errors import UserError
from nanogpt.model.gpt import GPT
from nanogpt.training.optim import OPTIMIZERS
from nanogpt.training.parallel.mesh import ROWS


def refuse_impossible(config: Config, world: int) -> None:
    """Raise UserError for settings with which the ranks could not do what one process does."""
    sizes = config.parallel.sizes(world)
    if world == 1:
        return
    model, train = config.model, config.train
    if train.precision == "float16":
        raise UserError("train.precision='float16' works on one process: use bfloat16 or float32")
    check(not model.attention_dropout, model, "attention_dropout", "use 0 here")
    for section, name, dimensions in (
        (train, "batch_size", ROWS),
        (model, "context_length", ("context", "tensor")),
        (model, "n_head", ("tensor",)),
        (model, "n_kv_head", ("tensor",)),
    ):
        size = math.prod(sizes[dimension] for dimension in dimensions)
        settings = " x ".join(f"parallel.{dimension}" for dimension in dimensions)
        fix = f"use a multiple of {size} ranks ({settings})"
        check(getattr(section, name) % size == 0, section, name, fix)
    if sizes["pipeline"] > 1:
        check(not model.dropout, model, "dropout", "use 0 with parallel.pipeline")
        stages = sizes["pipeline"] * PIPELINES[config.parallel.schedule]
        fix = f"use at least {stages}, one for each stage"
        check(model.n_layer >= stages, model, "n_layer", fix)
        microbatches(config, world)


def microbatches(config: Config, world: int) -> int:
    """How many parts of a batch go through the pipeline one after another.

    Raises UserError if the settings say a number that cannot be.
    """
    sizes, schedule = config.parallel.sizes(world), config.parallel.schedule
    stages = sizes["pipeline"]
    rows = config.train.batch_size // math.prod(sizes[name] for name in ROWS)
    unit = stages if schedule == "interleaved" else 1  # parts come in as many as there are ranks
    fitting = [n for n in range(unit, 2 * stages + 1, unit) if rows % n == 0]
    count = config.parallel.microbatches or (fitting or [unit])[-1]
    least = 1 if schedule == "gpipe" else stages
    if rows % count or count % unit or count < least:
        multiple = f" and a multiple of {unit}" if unit > 1 else ""
        raise UserError(
            f"a rank's {rows} sequences cannot go through {schedule} in {count} parts "
            f"(parallel.microbatches): use a divisor of {rows}{multiple}, at least {least}; or "
            "another train.batch_size"
        )
    return count


def refuse_model(config: Config, model: GPT, sizes: dict[str, int]) -> None:
    """Raise UserError for a model, such as a plugin's, of which ranks cannot have parts."""
    kept = model.state_dict()
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if name not in kept or not tensor.ndim:
            raise UserError(f"{name} is no tensor that ranks can share out: use one process for it")
    for place, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                raise UserError(
                    f"{place}.{name} is a tensor that a rank would not get: make it a buffer, with "
                    f"self.register_buffer({name!r}, ...)"
                )
    kinds: dict[str, type] = {}
    if sizes["tensor"] * sizes["context"] > 1:
        kinds |= {name: type(layer) for name, layer in model.named_modules()}
    elif sizes["pipeline"] > 1:  # only the ends keep the weights of positions and of the head
        kinds |= {"wpe": type(model.wpe), "lm_head": type(model.lm_head)}
    if sizes["tensor"] * sizes["shard"] > 1:
        optimizer = choose(OPTIMIZERS, "train.optimizer", config.train.optimizer)
        kinds["train.optimizer"] = optimizer
    for name, kind in kinds.items():
        ours = kind.__module__.partition(".")[0] in ("nanogpt", "torch")
        if not (ours or getattr(kind, "parallel", False)):
            raise UserError(
                f"{kind.__name__} ({name}) may need more than a rank has: use parallel.data; or "
                "write parallel = True in the class if each token, or weight, is for itself there"
            )
