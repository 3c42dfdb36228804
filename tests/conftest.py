"""What several test files share: small settings, small models, a small prepared corpus."""

import math
import random
import shutil
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

from nanogpt.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig
from nanogpt.model.gpt import BLOCKS, GPT
from nanogpt.model.layers import MLPS, NORMS
from nanogpt.model.position import POSITIONS
from nanogpt.text.corpus import Document, split_documents
from nanogpt.text.tokenfiles import write_token_file
from nanogpt.text.tokenizer import Tokenizer

# Python's doctests look into every file, and these would add their variants to the tables.
collect_ignore_glob = ["plugins/*"]

# Workers share the cores; the models here are too small to gain from several threads anyway.
torch.set_num_threads(1)

# How long an example takes depends on who else is at work on the machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

TEXT = "".join(
    f"{speaker}:\nIf {n} kings hold the crown, then {n * n} fools will pay for it.\n\n"
    for n in range(200)
    for speaker in ("DUKE", "FOOL")
)

# Settings of a run on the command line that takes a second.
SMALL = [
    "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8", "--model.context-length=8",
    "--train.max-steps=3", "--train.batch-size=2", "--train.eval-batches=1",
    "--sample.max-new-tokens=4", "--data.vocab-size=300",
]  # fmt: skip


MODERN = {
    "position": "rope", "norm": "rms", "mlp": "relu2", "qk_norm": True, "bias": False,
    "zero_init": True,
}  # fmt: skip
# GPT-2 itself, and everything in which a model can differ from it.
VARIANTS = [
    {"position": "learned", "norm": "layer", "mlp": "gelu", "block": "pre-norm"},
    *({"position": name} for name in POSITIONS if name != "learned"),
    *({"norm": name} for name in NORMS if name != "layer"),
    *({"mlp": name} for name in MLPS if name != "gelu"),
    *({"block": name} for name in BLOCKS if name != "pre-norm"),
    {"n_kv_head": 1},
    {"window": 3},
    {"window": 3, "position": "alibi", "n_kv_head": 1},
    {"attention": "short-conv"},
    {"attention": "short-conv", "window": 3, "n_kv_head": 1},
    {"head": "untied"},
    {"qk_norm": True},
    {"bias": False},
    {"zero_init": True},
    MODERN,
]


def tiny(**changes: object) -> ModelConfig:
    """Settings of a model that runs in a millisecond."""
    settings = {"vocab_size": 61, "context_length": 16, "n_layer": 2, "n_head": 3, "n_embd": 24}
    return ModelConfig(**{**settings, **changes})


@pytest.fixture
def model() -> GPT:
    """A tiny model in evaluation mode, always with the same weights."""
    torch.manual_seed(0)
    return GPT(tiny()).eval()


def prepare_text(folder: Path) -> Path:
    """Write token files and a tokenizer, as `nanogpt prepare` leaves them."""
    split = split_documents([Document("text", TEXT)], 0.1)
    tokenizer = Tokenizer.train([d.text for d in split.train], 300)
    write_token_file(folder / "train.bin", (d.text for d in split.train), tokenizer)
    write_token_file(folder / "val.bin", (d.text for d in split.val), tokenizer)
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `prepared` copies. Read it, and write nothing into it."""
    return prepare_text(tmp_path_factory.mktemp("once") / "prepared")


@pytest.fixture
def prepared(prepared_once: Path, tmp_path: Path) -> Path:
    """A folder of token files, as `nanogpt prepare` leaves them, that a test may spoil."""
    return shutil.copytree(prepared_once, tmp_path / "prepared")


def small_run(prepared: Path, **train: object) -> Config:
    """Settings of a run that takes a second."""
    steps = {"max_steps": 12, "batch_size": 4, "eval_interval": 4, "eval_batches": 2}
    rest = {"checkpoint_interval": 5, "sample_interval": 6, "warmup_steps": 2}
    # "auto" measures which precision is faster, so it differs from machine to machine.
    rest |= {"device": "cpu", "precision": "float32"}
    return Config(
        model=ModelConfig(context_length=16, n_layer=2, n_head=2, n_embd=16, dropout=0.1),
        data=DataConfig(folder=str(prepared)),
        train=TrainConfig(**{**steps, **rest, **train}),
        sample=SampleConfig(prompt="DUKE:", max_new_tokens=8),
    )


@pytest.fixture(scope="session")
def trained_run(prepared_once: Path) -> Callable[..., Path]:
    """Finished runs: `trained_run(optimizer="muon")` trains once, and later gives the same folder.

    The arguments are those of `small_run`. Read what it gives, and write nothing into it; a test
    that must write takes a copy. Each worker of pytest-xdist trains its own.
    """
    from nanogpt.training.start import Trainer

    @cache
    def train(**settings: object) -> Path:
        name = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
        folder = prepared_once.parent / f"run-{name}"
        list(Trainer.start(folder, small_run(prepared_once, **settings)).run())
        return folder

    return train


@pytest.fixture
def small_trained_run(trained_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished run of twelve steps, that a test may spoil. Its data lies elsewhere."""
    return shutil.copytree(trained_run(), tmp_path / "run")


def chi_square_is_fine(counts: torch.Tensor, chances: list[float]) -> bool:
    """Whether counts could come from these chances; wrong once in a million draws of counts.

    The bound is the Wilson-Hilferty approximation of the chi-square distribution's quantile.
    """
    total = float(counts.sum())
    if any(c > 0 and p == 0 for c, p in zip(counts.tolist(), chances, strict=True)):
        return False
    # Cells with few expected draws are put together: the approximation needs five or more.
    cells = sorted((p * total, c) for p, c in zip(chances, counts.tolist(), strict=True) if p > 0)
    merged, expected, count = [], 0.0, 0.0
    for more, seen in cells:
        expected, count = expected + more, count + seen
        if expected >= 5:
            merged.append((expected, count))
            expected = count = 0.0
    degrees = len(merged) - 1
    if degrees < 1:
        return True
    statistic = sum((count - expected) ** 2 / expected for expected, count in merged)
    bound = degrees * (1 - 2 / (9 * degrees) + 4.75 * math.sqrt(2 / (9 * degrees))) ** 3
    return statistic < bound


# Where a string is made of parts from every plane, and of all that a rule somewhere speaks of.
PARTS = [
    *["Hello", "don't", "WE'LL", "'s", "'re", "'", "<|endoftext|>", "<|endof", "_", "-", "..."],
    *[
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\n\n\n",
        "\u00a0",
        "\u2028",
        "\u3000",
        "\x0b",
        "\x1c",
        "\x00",
    ],
    *[
        "1",
        "23",
        "4567",
        "٣",
        "½",
        "²",
        "Ⅷ",
        "੩",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ǅ",
        "日本",
        "한글",
        "ไทย",
    ],
    *[
        "🎭",
        "👩\u200d👩\u200d👧",
        "🏳\ufe0f\u200d🌈",
        "🇩🇪",
        "1\ufe0f\u20e3",
        "👍🏽",
        "\U00010348",
        "\U0002a6d6",
    ],
    *[
        "\U000e0041",
        "\U000f0000",
        "\U0010ffff",
        "\ufeff",
        "\ufffd",
        "\u200b",
        "\u0378",
        "$",
        "€",
        "~",
    ],
]


def random_text(draw: random.Random, parts: list[str]) -> str:
    """Troublesome parts, and characters of every plane that are assigned."""
    texts = []
    for _ in range(draw.randint(0, 25)):
        character = chr((draw.choice([0, 0, 0, 1, 2, 3, 14, 15, 16]) << 16) + draw.randrange(65536))
        assigned = unicodedata.category(character) not in ("Cn", "Cs")
        texts.append(character if assigned and draw.random() < 0.5 else draw.choice(parts))
    return "".join(texts)


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """Trainings of several processes, and of one to compare them with."""
    from worlds import worlds_in  # of tests/training/parallel

    return worlds_in(tmp_path_factory.mktemp("worlds"))
