"""The token files of a run: their folder, their tokenizer, and both splits, checked."""

from dataclasses import dataclass, replace
from pathlib import Path

from nanogpt.config import Config, DataConfig
from nanogpt.errors import UserError
from nanogpt.files import read_json
from nanogpt.text.formats import find_tokenizer, load_tokenizer
from nanogpt.text.remote import is_url, local_folder
from nanogpt.text.tokenfiles import TokenFile, check_ids, check_length, open_split
from nanogpt.text.tokenizer import BaseTokenizer

# The settings that a preparation depends on. It starts anew if one has changed.
ORDERED = (
    "source", "text_field", "separator", "max_documents", "tokenizer", "vocab_size",
    "val_fraction", "shard_tokens", "roles",
)  # fmt: skip
# In a folder of token files: the settings that they were made with, and whether they hold pairs.
PREPARED = "prepared.json"


def settings_of_files(data: DataConfig) -> DataConfig:
    """The settings of a run, with those that its folder of token files was made with.

    A folder from elsewhere does not say them. Then the folder itself is the source. Raises
    UserError if what the folder says is damaged.
    """
    if not data.folder:
        return data
    path = Path(local_folder(data.folder, whole=False), PREPARED)
    if not path.exists():
        return replace(data, source=data.folder)
    values = {"roles": False, **read_json(path)}  # older files do not say
    try:
        return replace(data, **{name: values[name] for name in ORDERED})
    except (KeyError, UserError) as error:
        raise UserError(f"{path}: {error}; prepare the text again") from None


def refuse_pairs(folder: str | Path, objective: str) -> None:
    """Raise UserError if an objective would learn the rejected answers of pairs, too."""
    path = Path(folder, PREPARED)
    pairs = path.exists() and read_json(path).get("pairs", False)
    if pairs and objective != "preference":
        raise UserError(
            f"train.objective={objective} would learn rejected answers, too, which {folder} holds: "
            "use train.objective=preference, or conversations with the right answers alone"
        )


def data_folder(run: str | Path, config: Config) -> Path:
    """Where the token files of a run are: in data.folder, or in the run itself.

    Those of a URL are fetched. Raises UserError if that fails.
    """
    return local_folder(config.data.folder) if config.data.folder else Path(run, "data")


def tokenizer_of(data: str | Path, config: Config) -> BaseTokenizer:
    """The tokenizer kept beside token files, or the finished one that data.tokenizer names.

    Raises UserError if there is neither.
    """
    path = Path(data, "tokenizer.json")
    if path.exists():
        return load_tokenizer(path)
    if config.data.tokenizer not in ("bpe", "char"):
        return find_tokenizer(config.data.tokenizer)
    elsewhere = is_url(config.data.folder)
    if elsewhere or any(path.parent.glob("*.bin")):
        data = config.data.folder if elsewhere else data
        raise UserError(f"{data} has no tokenizer.json; name the tokenizer with data.tokenizer")
    raise UserError(f"{data}: no such token files; make them with `nanogpt prepare`")


@dataclass(frozen=True)
class Tokens:
    """The token files of a run."""

    train: TokenFile
    val: TokenFile

    @property
    def fingerprint(self) -> str:
        """What a run keeps, to notice when its data have changed."""
        return f"{self.train.about.sha256[:16]}-{self.val.about.sha256[:16]}"


def open_tokens(folder: str | Path, config: Config, tokenizer: BaseTokenizer) -> Tokens:
    """Open both splits. Raises UserError if they do not fit the tokenizer and the settings."""
    tokens = Tokens(*(open_split(folder, name, tokenizer) for name in ("train", "val")))
    for file in (tokens.train, tokens.val):
        check_length(file, config.model.context_length)
        check_ids(file, config.model.vocab_size)
    return tokens
