"""Every dictionary of variants, by the setting that chooses from it."""

from collections.abc import Mapping
from typing import Any

from nanogpt.config import Config, TrainConfig, choose
from nanogpt.evaluation.rewards import REWARDS
from nanogpt.generation.sampling import SAMPLERS
from nanogpt.model.attention import ATTENTION_KERNELS
from nanogpt.model.gpt import BLOCKS, GPT, HEADS
from nanogpt.model.layers import KERNELS, MLPS, NORMS
from nanogpt.model.position import POSITIONS
from nanogpt.text.batches import BATCHES
from nanogpt.training.objective import OBJECTIVES
from nanogpt.training.optim import OPTIMIZERS, SCHEDULES

TABLES: dict[str, dict[str, Any]] = {
    "model.position": POSITIONS,
    "model.norm": NORMS,
    "model.mlp": MLPS,
    "model.block": BLOCKS,
    "model.head": HEADS,
    "model.attention": ATTENTION_KERNELS,
    "data.batches": BATCHES,
    "train.objective": OBJECTIVES,
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
    "sample.sampler": SAMPLERS,
    "policy.reward": REWARDS,
}


def check_choices(config: Config) -> None:
    """Raise UserError for a setting that names no variant."""
    choose(KERNELS, "model.kernels", config.model.kernels)
    for setting, table in TABLES.items():
        section, name = setting.split(".")
        chosen = getattr(getattr(config, section), name)
        if chosen or setting != "model.attention":  # which may be left to model.kernels
            choose(table, setting, chosen)


def optimizer_state_size(model: GPT, config: TrainConfig) -> int:
    """How many numbers the optimizer of the settings keeps for a whole model."""
    kind = choose(OPTIMIZERS, "train.optimizer", config.optimizer)
    return sum(
        parameter.numel() * group.get("state_per_weight", kind.state_per_weight)
        for group in kind.parameter_groups(model, config)
        for parameter in group["params"]
    )


def snapshot() -> dict[str, dict[str, Any]]:
    """The variants there are now."""
    return {setting: dict(table) for setting, table in TABLES.items()}


def added_since(before: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The settings and names of variants that were added or replaced since."""
    return [
        (setting, name)
        for setting, table in TABLES.items()
        for name, variant in table.items()
        if before[setting].get(name) is not variant
    ]
