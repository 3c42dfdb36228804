"""A study: a recipe, the settings that vary, seeds, and one budget that is the same for all.

studies/NAME/data/...            token files, one folder for each way of cutting the text
             runs/ARM-SEED/...   ordinary runs, each with a result.json when it is finished
             report.md, report.html, curves.png, results.csv
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from nanogpt.config import Config, choose, config_from_dict, read_toml, shown, with_settings
from nanogpt.errors import UserError, did_you_mean

KEYS: dict[str, type] = {
    "question": str, "recipe": str, "settings": dict, "vary": dict, "arms": list, "seeds": list,
    "budget": dict, "plugins": list, "measure": str, "text": str,
}  # fmt: skip
BUDGETS = ("steps", "tokens", "seconds")


@dataclass(frozen=True)
class Measure:
    """What the arms of a study are compared by."""

    name: str  # above its column
    meaning: str
    more: bool  # whether more of it is better


# By the name that it has in metrics.jsonl. All but the first are of runs that answer questions.
MEASURES = {
    "bits_per_byte": Measure(
        "bits/byte",
        "Bits per byte of the whole held-out text, so that vocabularies compare; less is better.",
        more=False,
    ),
    "right": Measure(
        "right",
        "The share of validation questions with the right answer; more is better.",
        more=True,
    ),
    "entropy": Measure(
        "entropy",
        "How undecided the policy is about the next token: nats, over the last tenth of the steps; "
        "where it is 0, all answers to a question are one.",
        more=True,
    ),
}
MOST_ARMS = 1000
LONGEST_NAME = 150  # of an arm: it becomes the name of a folder


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared: its name and its settings."""

    name: str
    config: Config


@dataclass(frozen=True)
class Study:
    """What is to be run."""

    name: str
    question: str
    arms: list[Arm]
    seeds: list[int]
    budget: tuple[str, float]  # "steps", "tokens" or "seconds", and how many
    plugins: list[str]
    measure: str = "bits_per_byte"  # one of MEASURES
    text: str = ""  # another source than the arms learn from, on whose held-out part to measure


@dataclass(frozen=True)
class Order:
    """What one run is to do: its settings.json."""

    config: dict[str, Any]
    seconds: float  # its budget of time; 0: its settings say how many steps
    plugins: list[str]
    threads: int
    precision: str = "auto"  # where the settings say "auto": the same for all runs of a study
    measure: str = "bits_per_byte"
    text: str = ""  # the folder of the token files to measure on; empty: the run's own
    plugin_hashes: list[str] = field(default_factory=list)  # so that all runs are of one code


@dataclass(frozen=True)
class Result:
    """What a report needs to know of a finished run: its result.json."""

    val_loss: float
    bits_per_byte: float
    parameters: int
    steps: int
    seconds: float
    tokens_per_second: float
    memory_mb: float
    curve: list[list[float]]  # steps, and what is measured, after so many
    sample: str
    measured: float


def load_study(path: str | Path, recipe_values: Mapping[str, Any] | None = None) -> Study:
    """Read a study. `recipe_values` are the settings of the recipe that it names.

    Raises UserError naming what is missing, unknown or impossible.
    """
    path = Path(path)
    values = read_toml(path)
    try:
        check_shape(values)
        budget = checked_budget(values.get("budget", {}))
        seeds = checked_seeds(values.get("seeds", [1, 2, 3]))
        base = merged(recipe_values or {}, nested(values.get("settings", {})))
        arms = [
            Arm(name, arm_config(base, settings, budget))
            for name, settings in arms_of(values).items()
        ]
        check_names([arm.name for arm in arms])
        measure, text = values.get("measure", "bits_per_byte"), values.get("text", "")
        check_measure(measure, text, arms)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    question = str(values.get("question", path.stem))
    return Study(
        path.stem, question, arms, seeds, budget, list(values.get("plugins", [])),
        measure, text,
    )  # fmt: skip


def check_shape(values: Mapping[str, Any]) -> None:
    """Raise UserError for a key that is unknown or whose value is of another type."""
    for key, value in values.items():
        if key not in KEYS:
            raise UserError(f"{key} is not a key of a study: {did_you_mean(key, KEYS)}")
        kind = KEYS[key]
        if not isinstance(value, kind):
            names = {"dict": "table", "str": "string"}
            name = names.get(kind.__name__, kind.__name__)
            raise UserError(f"{key}={shown(value)} should be a {name}")
    for key, part in (("arms", dict), ("plugins", str)):
        if not all(isinstance(value, part) for value in values.get(key, [])):
            name = "[[arms]] above the settings of each" if key == "arms" else "the names of files"
            raise UserError(f"{key}={shown(values[key])}: write {name}")


def checked_seeds(values: Any) -> list[int]:
    """The seeds. Raises UserError unless they are some different whole numbers."""
    whole = all(type(seed) is int and 0 <= seed < 2**63 for seed in values)
    if not whole or not values or len(set(values)) < len(values):
        raise UserError(f"seeds={shown(values)}: use some different whole numbers, as [1, 2, 3]")
    return values


def checked_budget(values: Mapping[str, Any]) -> tuple[str, float]:
    """The one budget. Raises UserError if there is none, several, or it is not positive."""
    if len(values) != 1 or next(iter(values)) not in BUDGETS:
        raise UserError(f"budget={shown(dict(values))}: give one of {', '.join(BUDGETS)}")
    kind, amount = next(iter(values.items()))
    if type(amount) not in (int, float) or not 0 < amount < 1e30:
        raise UserError(f"budget.{kind}={shown(amount)}: use a positive number")
    return kind, float(amount)


def arms_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each arm by its name: a grid of what varies, or arms written out.

    >>> arms_of({"vary": {"model.n_layer": [1, 2], "train.lr": [0.1]}})
    {'n_layer 1, lr 0.1': {'model.n_layer': 1, 'train.lr': 0.1}, 'n_layer 2, lr 0.1': ...}
    """
    if ("vary" in values) == ("arms" in values):
        raise UserError("a study has either [vary], settings with lists, or several [[arms]]")
    if "arms" in values:
        named = {str(arm.get("name", "")): arm for arm in values["arms"]}
        if "" in named or len(named) < max(2, len(values["arms"])):
            raise UserError("there should be two or more [[arms]], each with a name of its own")
        return {n: {k: v for k, v in arm.items() if k != "name"} for n, arm in named.items()}
    grid = flat(values["vary"])
    for key, choices in grid.items():
        if not isinstance(choices, list) or not choices:
            raise UserError(f"vary.{key}={shown(choices)}: use a list of values")
    if math.prod(map(len, grid.values())) > MOST_ARMS:
        raise UserError(f"vary makes more than {MOST_ARMS} arms: let fewer settings vary")
    combinations = [dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())]
    named = {
        ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items()): settings
        for settings in combinations
    }
    if len(named) < 2:
        raise UserError("nothing varies: give two values or more")
    return named


def check_measure(measure: str, text: str, arms: Sequence[Arm]) -> None:
    """Raise UserError for a measure that is unknown, or that the arms cannot have."""
    choose(MEASURES, "measure", measure)
    objectives = {arm.config.train.objective for arm in arms}
    if measure == "bits_per_byte":
        if len(objectives) > 1 and not text:
            raise UserError(
                "arms with different train.objective measure different targets: name a `text` on "
                "which all are measured"
            )
        return
    if text:
        raise UserError(f"text={shown(text)}: only bits_per_byte is measured on another text")
    if objectives != {"policy"}:
        raise UserError(f"measure={shown(measure)} needs train.objective=policy in every arm")


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for arms whose runs would share a folder, or have no possible one."""
    folders: dict[str, str] = {}
    for name in names:
        if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
            raise UserError(f"the arm {shown(name)} has too long a name: give it one of its own")
        other = folders.setdefault(run_name(name, 0).casefold(), name)
        if other != name:
            raise UserError(f"the arms {other!r} and {name!r} would share a folder: rename one")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys.

    >>> flat({"model": {"n_layer": 2}, "train.lr": 1})
    {'model.n_layer': 2, 'train.lr': 1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted keys as sections: the inverse of flat. Raises UserError for a key without a section.

    >>> nested({"model.n_layer": 2})
    {'model': {'n_layer': 2}}
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in flat(values).items():
        section, dot, name = key.partition(".")
        if not dot:
            raise UserError(f'{key} is not a setting: write its section too, as "model.n_layer"')
        sections.setdefault(section, {})[name] = value
    return sections


def merged(
    base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Sections of settings, the changes winning."""
    names = [*base, *(name for name in changes if name not in base)]
    return {name: {**base.get(name, {}), **changes.get(name, {})} for name in names}


def arm_config(
    base: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], budget: tuple[str, float]
) -> Config:
    """All settings of an arm, with as many steps as the budget allows."""
    config = config_from_dict(merged(base, nested(settings)))
    kind, amount = budget
    steps = {"steps": amount, "tokens": amount / config.tokens_per_step}.get(
        kind, config.train.max_steps
    )
    return with_steps(config, max(1, round(steps)))


def with_steps(config: Config, steps: int) -> Config:
    """The same settings for so many steps: ten looks at the validation text, and nothing else."""
    return with_settings(
        config,
        train={
            "max_steps": steps,
            "warmup_steps": min(config.train.warmup_steps, steps // 4),
            "eval_interval": max(1, steps // 10),
            "sample_interval": 0,
            "checkpoint_interval": max(1, steps // 4),
        },
    )


def data_name(config: Config) -> str:
    """A name for the token files of these settings: arms that cut alike share them."""
    data = {
        k: v for k, v in asdict(config.data).items() if k not in ("folder", "batches", "stride")
    }
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def run_name(arm: str, seed: int) -> str:
    """A folder's name for a run.

    >>> run_name("n_layer 2, lr 0.1", 3)
    'n_layer-2_lr-0.1-seed-3'
    """
    plain = arm.replace(", ", "_").replace(" ", "-")
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in plain)
    return f"{safe}-seed-{seed}"
