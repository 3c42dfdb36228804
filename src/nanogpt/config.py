"""Every setting of the project, in frozen dataclasses that read from and write to TOML.

The comment beside a field is its documentation: it becomes the help text of the command line and a
comment in the `config.toml` of every run. Values come from three places, the later one winning:
the defaults below, a recipe file, the command line.
"""

import inspect
import json
import math
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from nanogpt.errors import UserError, did_you_mean
from nanogpt.files import read_text

T = TypeVar("T")

IGNORED = -100  # a target that is left out of the loss, as everywhere in PyTorch

# What is made one by one has an end here, far beyond what anyone has trained: the deepest
# Transformer had 1,000 layers (Wang et al. 2022). What takes memory is compared with that of the
# machine instead: see memory.py. The others would stop the training, or end it, without a word.
LARGEST = {
    "n_layer": 10_000, "n_head": 1_000_000, "n_embd": 1_000_000, "vocab_size": 10_000_000,
    "context_length": 10**8,  # ten times the longest that was published
    "grad_accum_steps": 100_000, "eval_batches": 1_000_000, "max_new_tokens": 10_000_000,
    "processes": 1024, "data": 10**6, "shard": 10**6, "tensor": 10**6, "pipeline": 10**6,
    "context": 10**6, "microbatches": 10**6, "timeout": 10**6, "restarts": 1000,
    "snapshots": 1000, "threads": 1024, "group_size": 10_000, "updates": 1000,
    "weight_decay": 1e6, "init_std": 1e3, "eps": 1.0,
}  # fmt: skip
TINY, HUGE = 1e-30, 1e30  # the numbers between are still numbers in float32, as are their products
DIMENSIONS = ("pipeline", "data", "context", "shard", "tensor")  # of processes: see mesh.py
PIPELINES = {"1f1b": 1, "gpipe": 1, "interleaved": 2}  # schedules, and how many stages a rank has
PATHS = ("source", "folder", "tokenizer", "init")  # settings that may name a file

LONGEST_RECIPE = 1_000_000  # characters
DEEPEST_RECIPE = 10  # tables inside tables
# Python reads a key of n parts in n squared steps; a text in quotes may have as many as it likes.
MOST_DOTS = 200
QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'""")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network. The defaults are the smallest GPT-2."""

    vocab_size: int = 50257  # tokens the model knows; training takes it from the tokenizer
    context_length: int = 1024  # longest sequence the model sees, in tokens
    n_layer: int = 12  # Transformer blocks
    n_head: int = 12  # attention heads in each block
    n_kv_head: int = 0  # heads of keys and values, shared by groups of queries; 0: one for each
    n_embd: int = 768  # channels of the residual stream
    window: int = 0  # how many tokens back one token sees, itself included; 0: all
    dropout: float = 0.0  # share of embeddings and residual updates zeroed in training
    attention_dropout: float = 0.0  # share of attention weights zeroed; above 0 is slow on a CPU
    position: str = "learned"  # order of tokens: learned, sinusoidal, rope, alibi, none
    block: str = "pre-norm"  # where the norms stand: pre-norm, post-norm; also no-residual
    norm: str = "layer"  # how vectors are brought to one size: layer, rms, none
    mlp: str = "gelu"  # activation of the feed-forward layer: gelu, relu2, swiglu
    head: str = "tied"  # from hidden states to scores: tied to the token embedding, or untied
    qk_norm: bool = False  # bring queries and keys to one size, so that scores cannot explode
    bias: bool = True  # constants in linear layers and layer norms
    init_std: float = 0.02  # standard deviation of fresh weights
    zero_init: bool = False  # projections into the residual stream start at zero
    kernels: str = "fused"  # "plain" runs the hand-written form of every layer, "fused" torch's
    attention: str = ""  # kernel: plain, fused, flex, short-conv, your own; empty: as `kernels`

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 1, "vocab_size", "context_length", "n_layer", "n_head", "n_embd")
        for name in ("dropout", "attention_dropout"):
            check(0 <= getattr(self, name) < 1, self, name, "use a share from 0 to below 1")
        if self.n_embd % self.n_head:
            heads = [n for n in range(1, self.n_embd + 1) if self.n_embd % n == 0]
            n_head = min(heads, key=lambda n: abs(n - self.n_head))
            n_embd = max(1, round(self.n_embd / self.n_head)) * self.n_head
            raise UserError(
                f"model.n_embd={self.n_embd} is not divisible by model.n_head={self.n_head}: "
                f"use n_head={n_head} or n_embd={n_embd}"
            )
        at_least(self, 0, "n_kv_head", "window")
        check(self.init_std > 0, self, "init_std", "use a positive number")
        if self.n_kv_head and self.n_head % self.n_kv_head:
            divisors = [str(n) for n in range(1, self.n_head + 1) if self.n_head % n == 0]
            check(False, self, "n_kv_head", f"use a divisor of n_head: {', '.join(divisors)}")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: as many as of queries, unless n_kv_head says otherwise."""
        return self.n_kv_head or self.n_head

    @property
    def head_size(self) -> int:
        """Channels of one head."""
        return self.n_embd // self.n_head


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the text comes from and how it becomes tokens."""

    source: str = "shakespeare"  # the plays, a file, a folder, hub:NAME[:CONFIG], toy:copy
    text_field: str = "text"  # where .jsonl, .parquet and hub data sets keep their text
    separator: str = ""  # text between documents in a file, such as <|endoftext|>; empty: none
    max_documents: int = 0  # read this many documents and no more; 0 for all
    folder: str = ""  # where the token files are: a folder, a URL as s3://...; empty: in the run
    tokenizer: str = "bpe"  # "bpe" or "char" train a new one; "gpt2" or a path take a finished one
    vocab_size: int = 1024  # size of a newly trained BPE vocabulary
    roles: bool = False  # the vocabulary gets tokens for the roles of a conversation
    val_fraction: float = 0.1  # share of the text held out for validation
    shard_tokens: int = 100_000_000  # tokens in one token file, about; larger corpora get several
    batches: str = "random"  # how batches are cut: "random", "sliding", "packed", "padded"
    stride: int = 0  # tokens between sliding windows; 0: the context length, no overlap

    def __post_init__(self) -> None:
        check_values(self)
        check(bool(self.source.strip()), self, "source", "name a text, as in shakespeare")
        check(
            self.vocab_size >= 257, self, "vocab_size", "use at least 257: 256 bytes and a marker"
        )
        check(0 < self.val_fraction < 1, self, "val_fraction", "use a share between 0 and 1")
        at_least(self, 0, "max_documents", "stride")
        at_least(self, 1, "shard_tokens")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the weights are found."""

    max_steps: int = 1000  # optimizer steps in the whole run
    objective: str = "next-token"  # what is learned: next-token, answers, policy, preference
    init: str = ""  # weights to begin with: a run, or a Hugging Face folder; empty: fresh ones
    freeze: str = ""  # parameters that stay as they are, by pattern: "wte.*, h.0.*"
    lora_rank: int = 0  # rows of LoRA's thin matrices, which are trained instead of all; 0: off
    lora_alpha: float = 16.0  # what LoRA adds counts alpha / rank times
    lora_on: str = "*.attn.*, *.mlp.*"  # linear layers that LoRA adds to, by pattern: "h.11.*"
    targets: str = ""  # validation losses to reach, as "1.9, 1.5"; the moments are recorded
    stop_at_target: bool = False  # end the run when the last target is reached
    batch_size: int = 16  # sequences in one forward pass
    grad_accum_steps: int = 1  # forward passes whose gradients make one step
    optimizer: str = "fused-adamw"  # fused-adamw, adamw (the same by hand), muon, sgd
    lr: float = 1e-3  # peak learning rate
    muon_lr: float = 0.02  # that of the matrices inside the blocks, where Muon moves them
    min_lr: float = 1e-4  # learning rate at the end of the schedule
    schedule: str = "cosine"  # how the rate falls after the warm-up: cosine, constant, trapezoidal
    warmup_steps: int = 50  # steps in which the rate climbs to its peak
    decay_share: float = 0.4  # share of the run in which a trapezoidal schedule falls
    weight_decay: float = 0.1  # pull of the weight matrices towards zero
    beta1: float = 0.9  # memory of the running mean of gradients; the momentum of "sgd"
    beta2: float = 0.95  # memory of the running mean of squared gradients
    eps: float = 1e-8  # keeps the division by the root of a tiny square finite
    grad_clip: float = 1.0  # longest gradient allowed, as a norm; 0 turns clipping off
    eval_interval: int = 100  # steps between measurements on the validation text
    eval_batches: int = 16  # batches in one such measurement; 0 for the whole validation text
    sample_interval: int = 250  # steps between short generated samples; 0 for none
    checkpoint_interval: int = 500  # steps between checkpoints
    snapshots: int = 0  # moments at which weights are kept, to watch the training again; 0: none
    seed: int = 1337  # same seed, settings, machine and threads: same run
    device: str = "auto"  # "cpu", "cuda", "mps", or whichever is there
    precision: str = "auto"  # "float32", "bfloat16", "float16"; "auto" takes what is faster here
    activation_checkpointing: str = "none"  # saves memory, costs time: none, selective, block
    threads: int = 0  # of the CPU; 0 takes all, or one where that is clearly faster just now
    pad_vocab_to: int = 1  # round the vocabulary up to a multiple of this; padding is never drawn
    compile: str = "auto"  # "on" fuses the model's kernels; "auto" does it where it pays
    tensorboard: bool = False  # write events for TensorBoard, too; needs the package tensorboard

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 1, "max_steps", "batch_size", "grad_accum_steps")
        at_least(self, 1, "eval_interval", "checkpoint_interval", "pad_vocab_to")
        at_least(self, 0, "eval_batches", "warmup_steps", "sample_interval", "snapshots", "seed")
        at_least(self, 0, "weight_decay", "grad_clip", "lora_rank", "threads")
        check(self.lora_alpha > 0, self, "lora_alpha", "use a positive number")
        check(0 < self.decay_share <= 1, self, "decay_share", "use a share above 0, at most 1")
        check(self.muon_lr > 0, self, "muon_lr", "use a positive number")
        self.target_losses()
        known = self.compile in ("auto", "on", "off")
        check(known, self, "compile", "use auto, on or off")
        # A default of 50 steps may be longer than a short try; the rest would never reach train.lr.
        longest = max(self.max_steps, 10_000)
        check(self.warmup_steps <= longest, self, "warmup_steps", f"use at most {longest}")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, self, name, "use a number from 0 to below 1")
        check(self.lr > 0, self, "lr", "use a positive number")
        check(self.eps > 0, self, "eps", "use a positive number")
        check(0 <= self.min_lr <= self.lr, self, "min_lr", f"use 0 to train.lr={self.lr}")

    def target_losses(self) -> list[float]:
        """The losses in `targets`, from the highest down. Raises UserError for what is no number.

        >>> TrainConfig(targets="1.5, 1.9").target_losses()
        [1.9, 1.5]
        """
        try:
            found = sorted(map(float, filter(str.strip, self.targets.split(","))), reverse=True)
        except ValueError:
            found = [math.nan]
        losses = all(0 < loss < math.inf for loss in found)
        check(losses, self, "targets", 'use losses with commas between, as "1.9, 1.5"')
        return found

    @property
    def last_target(self) -> float:
        """Validation loss that ends the run."""
        return min(self.target_losses(), default=0.0)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How the next token is chosen."""

    prompt: str = ""  # text to continue; empty: the start of a document
    max_new_tokens: int = 200  # tokens to generate
    temperature: float = 0.8  # below 1 plays safe, above 1 takes risks, 0 is greedy
    top_k: int = 50  # choose among this many likeliest tokens; 0 for all
    top_p: float = 1.0  # choose among the fewest tokens that have this probability together
    min_p: float = 0.0  # rule out tokens less than this times as likely as the likeliest
    sampler: str = "standard"  # how all of this is put together: standard, or your own
    repetition_penalty: float = 1.0  # above 1 makes tokens that are in the text less likely
    look_ahead: int = 0  # tokens to guess from the text and read at once: faster, the same text
    seed: int = 1337  # same seed, same text

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 0, "max_new_tokens", "top_k", "seed", "look_ahead")
        check(0 < self.top_p <= 1, self, "top_p", "use a share above 0, at most 1")
        check(0 <= self.min_p < 1, self, "min_p", "use a share from 0 to below 1")
        gentle = 0.01 <= self.repetition_penalty <= 100
        check(gentle, self, "repetition_penalty", "use a number from 0.01 to 100; 1 is off")
        cold = self.temperature == 0 or self.temperature >= 1e-3
        check(cold, self, "temperature", "use 0 for greedy, or at least 0.001")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How rewards and preferences teach: train.objective policy or preference."""

    reward: str = "exact"  # what an answer is worth beside the expected one: exact, contains
    group_size: int = 8  # answers to each question, compared with each other
    temperature: float = 1.0  # of the answers that are tried; above 1 they differ more
    max_new_tokens: int = 64  # longest answer, in tokens
    normalize: bool = False  # divide advantages by the standard deviation of their group (GRPO)
    clip: float = 0.0  # how far an update may change a token's probability, as 0.2; 0: no limit
    updates: int = 1  # optimizer updates with the answers of one step; with more, set clip
    beta: float = 0.0  # pull towards the model of train.init; preference needs it, as 0.1

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 2, "group_size")
        at_least(self, 1, "max_new_tokens", "updates")
        at_least(self, 0, "beta")
        check(0 <= self.clip < 1, self, "clip", "use a share from 0 to below 1")
        check(self.temperature >= 1e-3, self, "temperature", "use at least 0.001")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How many processes train together, and what each of them does."""

    processes: int = 1  # processes to start on this machine; `torchrun` starts them anywhere
    data: int = 0  # copies of the model, each with its part of every batch; 0: as many as are left
    shard: int = 1  # ranks that share out a copy's weights, gradients and optimizer state (FSDP)
    tensor: int = 1  # ranks that share out every matrix, by heads and channels
    pipeline: int = 1  # ranks that share out the layers, and hand activations on
    context: int = 1  # ranks that share out every sequence
    schedule: str = "1f1b"  # order of work in the pipeline: 1f1b, gpipe, interleaved
    microbatches: int = 0  # parts of a batch that follow each other in the pipeline; 0: two a rank
    timeout: float = 600.0  # seconds that ranks wait for one that does not answer
    restarts: int = 0  # how often a rank that died is replaced, and training goes on

    def __post_init__(self) -> None:
        check_values(self)
        at_least(self, 1, "processes", "shard", "tensor", "pipeline", "context")
        at_least(self, 0, "data", "microbatches", "restarts")
        at_least(self, 1, "timeout")
        choose(PIPELINES, "parallel.schedule", self.schedule)

    @property
    def parts(self) -> int:
        """How many ranks share out one copy of the model, and its rows and tokens."""
        return self.shard * self.tensor * self.pipeline * self.context

    def sizes(self, world: int) -> dict[str, int]:
        """How many ranks each dimension has. Raises UserError if the processes do not fit.

        >>> ParallelConfig(shard=2).sizes(world=4)
        {'pipeline': 1, 'data': 2, 'context': 1, 'shard': 2, 'tensor': 1}
        """
        found = {name: getattr(self, name) for name in DIMENSIONS}
        found["data"] = found["data"] or max(1, world // self.parts)
        needed = self.parts * found["data"]
        if needed != world:
            layout = " x ".join(f"{name} {size}" for name, size in found.items() if size > 1)
            raise UserError(
                f"parallel: {layout or 'one rank'} needs {needed} processes, not {world}: "
                f"use --parallel.processes {needed}, or torchrun with as many"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        objective, answers = self.train.objective, self.answers_per_step
        if objective == "policy" and answers % self.policy.group_size:
            raise UserError(
                f"policy.group_size={self.policy.group_size} does not divide the {answers} answers "
                "of a step: change it, train.batch_size or train.grad_accum_steps"
            )
        if objective == "preference":
            check(self.train.batch_size % 2 == 0, self.train, "batch_size", "use an even number")
            check(self.policy.beta > 0, self.policy, "beta", "use a positive number, as 0.1")

    def sizes(self, world: int) -> dict[str, int]:
        """How many ranks each dimension has: see ParallelConfig.sizes.

        Raises UserError also for what only one process can do.
        """
        if world > 1:
            fix = "{}, or one process: parallel.processes=1"
            check(not self.train.lora_rank, self.train, "lora_rank", fix.format("use 0"))
            many = self.train.objective not in ("policy", "preference")
            check(many, self.train, "objective", fix.format("use another one"))
        return self.parallel.sizes(world)

    @property
    def tokens_per_step(self) -> int:
        """How many tokens one step of training reads."""
        return self.train.batch_size * self.train.grad_accum_steps * self.model.context_length

    @property
    def answers_per_step(self) -> int:
        """How many answers one step of train.objective=policy tries."""
        return self.train.batch_size * self.train.grad_accum_steps


def section_name(cls: type) -> str:
    """The name under which a section of settings appears: ModelConfig -> model."""
    return cls.__name__.removesuffix("Config").lower()


def check_values(config: Any) -> None:
    """Raise UserError for what no setting may be: of another type, not Unicode, far too large."""
    for f in fields(config):
        value, kind = getattr(config, f.name), type(getattr(type(config), f.name))
        fits = type(value) is kind or (kind is float and type(value) is int)
        check(fits, config, f.name, f"use a value of type {kind.__name__}")
        if isinstance(value, str):
            unicode = value == value.encode("utf-8", "replace").decode()
            check(unicode, config, f.name, "use text that is valid Unicode")
            named = f.name not in PATHS or "\0" not in value
            check(named, config, f.name, "use a name without a NUL in it")
            continue
        check(value < 2**63 or kind is float, config, f.name, "use a number below 2**63")
        if kind is float:
            check(-math.inf < value < math.inf, config, f.name, "use a finite number")
        largest = LARGEST.get(f.name, HUGE)
        check(value <= largest, config, f.name, f"use at most {largest}")
        if kind is float:
            small = value <= 0 or value >= TINY  # what may not be negative is checked where it is
            check(small, config, f.name, f"use 0, or at least {TINY}")


def check(ok: bool, config: Any, name: str, fix: str) -> None:
    """Raise UserError naming the setting, its value and the fix, unless ok."""
    if not ok:
        value = shown(getattr(config, name))
        raise UserError(f"{section_name(type(config))}.{name}={value}: {fix}")


def shown(value: Any) -> str:
    """A value as an error shows it: the beginning of a long one.

    >>> shown("four"), shown("4" * 99)[:10], shown(16**9999)
    ("'four'", "'444444444", 'a number of thousands of digits')
    """
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"  # which Python refuses to write
    return text if len(text) <= 80 else text[:77] + "..."


def at_least(config: Any, minimum: float, *names: str) -> None:
    """Raise UserError for the first of the named settings that is below the minimum."""
    for name in names:
        check(getattr(config, name) >= minimum, config, name, f"use at least {minimum}")


def choose(table: Mapping[str, T], setting: str, name: str) -> T:
    """Look up a variant by name. Raises UserError with the names there are.

    >>> choose({"cosine": 1, "constant": 2}, "train.schedule", "constant")
    2
    """
    if name not in table:
        raise UserError(f"{setting}={shown(name)} is unknown: {did_you_mean(name, table)}")
    return table[name]


def explanations(cls: type) -> dict[str, str]:
    """The comment that stands beside each field of a section.

    >>> explanations(SampleConfig)["top_k"]
    'choose among this many likeliest tokens; 0 for all'
    """
    # Not getsource(cls): that parses the whole file to find the class, and took 0.1 s of a command.
    source = inspect.getsource(sys.modules[cls.__module__])
    body = source.partition(f"\nclass {cls.__name__}:")[2].partition("\n\n\n")[0]
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", body, re.MULTILINE))


def parse_value(kind: type, value: Any, key: str) -> Any:
    """Bring a value from TOML, or a string from the command line, to the type of its field.

    >>> parse_value(float, 1, "train.lr"), parse_value(bool, "false", "model.bias")
    (1.0, False)
    """
    if kind is bool and value in (True, False, "true", "false"):
        return value in (True, "true")
    if kind is bool or isinstance(value, bool) or (isinstance(value, float) and kind is int):
        raise UserError(f"{key}={shown(value)} should be of type {kind.__name__}")
    if kind is str and not isinstance(value, str):
        raise UserError(f'{key}={shown(value)} should be a string: write "{shown(value)}"')
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{key}={shown(value)} should be of type {kind.__name__}") from None


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build one section from plain values. Raises UserError for an unknown key or a wrong type."""
    section = section_name(cls)
    kinds = {f.name: type(getattr(cls, f.name)) for f in fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in kinds:
            raise UserError(f"{section}.{name} is not a setting: {did_you_mean(name, kinds)}")
    return cls(**{k: parse_value(kinds[k], v, f"{section}.{k}") for k, v in values.items()})


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Build all settings from nested plain values. Raises UserError as from_dict does."""
    sections = {name: type(section) for name, section in vars(Config()).items()}
    for name, section in values.items():
        if name not in sections:
            raise UserError(f"{name} is not a section of settings: {did_you_mean(name, sections)}")
        if not isinstance(section, Mapping):
            raise UserError(
                f"{name}={shown(section)} should be a section: write [{name}] above its keys"
            )
    return Config(**{k: from_dict(sections[k], v) for k, v in values.items()})


def with_settings(config: Config, **changes: Mapping[str, Any]) -> Config:
    """A copy with some settings changed: with_settings(config, train={"lr": 1e-4})."""
    return replace(
        config, **{name: replace(getattr(config, name), **new) for name, new in changes.items()}
    )


def to_toml(config: Config) -> str:
    """The configuration as TOML, every key explained."""
    blocks = []
    for name, section in asdict(config).items():
        help_texts = explanations(type(getattr(config, name)))
        rows = [(f"{key} = {toml_value(v)}", help_texts[key]) for key, v in section.items()]
        lines = [f"{setting:<32}  # {text}" for setting, text in rows]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def toml_value(value: str | float) -> str:
    """A string or a number as TOML. JSON's notation serves, but for one character.

    >>> print(toml_value('say "é"'), toml_value(1e-8), toml_value(12))
    "say \\"é\\"" 1e-08 12
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a recipe as nested plain values. Raises UserError if it is missing or not TOML."""
    path = Path(path)
    text = read_text(path)
    if len(text) > LONGEST_RECIPE:
        raise UserError(f"{path} is no recipe: it has {len(text):,} characters; name another file")
    try:
        crowded = (line for line in text.splitlines() if line.count(".") > MOST_DOTS)
        if any(QUOTED.sub("", line).count(".") > MOST_DOTS for line in crowded):
            raise RecursionError
        values = tomllib.loads(text)
        level: list[Any] = [values]
        for _ in range(DEEPEST_RECIPE):
            level = [value for outer in level for value in children(outer)]
        if level:
            raise RecursionError
    except RecursionError:
        raise UserError(f"{path} nests its tables too deep: a recipe has two levels") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {str(error)[:200]}") from None
    except ValueError:
        raise UserError(f"{path} holds a number or a date that cannot be; correct it") from None
    return values


def children(value: Any) -> list[Any]:
    """The values inside a table or a list; none in anything else."""
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def load_config(path: str | Path) -> Config:
    """Read a configuration file. Raises UserError naming the file and what is wrong in it."""
    path = Path(path)
    values = read_toml(path)
    try:
        return config_from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


# The four published sizes of GPT-2 (Radford et al. 2019, table 2).
PRESETS = {
    "gpt2": ModelConfig(),
    "gpt2-medium": ModelConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": ModelConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": ModelConfig(n_layer=48, n_head=25, n_embd=1600),
}
