"""What a model computes, for the page: Python's half of the contract with the engine.

There is no batch axis here: a text is a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from nanogpt.config import SampleConfig, from_dict
from nanogpt.errors import UserError, did_you_mean
from nanogpt.explorer.runs import Run
from nanogpt.generation.reader import Reader
from nanogpt.generation.stream import Piece, stream
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.model.trace import Edit, activation_names, editing, record
from nanogpt.text.bpe import Pair
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer

LONGEST_TEXT = 100_000  # characters that are turned into tokens at once
MOST_PATTERNS, MOST_EDITS = 256, 256
MOST_NEW_TOKENS = 2_000
MOST_BYTES = 300_000_000  # of recorded activations in one answer
LIKELIEST = 10  # tokens that are told beside each chosen one


def tokenize(tokenizer: BaseTokenizer, text: str) -> list[dict[str, Any]]:
    """The tokens of a text: id, text, bytes, and the merges that made each, the oldest first.

    Raises UserError for a text that is too long or that the tokenizer cannot encode.
    """
    if len(text) > LONGEST_TEXT:
        raise UserError(f"a text of {len(text):,} characters: use at most {LONGEST_TEXT:,}")
    known, special = tokenizer.vocabulary, {*tokenizer.special_tokens.values()}
    ids = tokenizer.encode(text)
    merges = {i: merges_of(tokenizer, i) for i in {*ids}}
    return [described(i, known[i], i in special) | {"merges": merges[i]} for i in ids]


def vocabulary(model: GPT, tokenizer: BaseTokenizer) -> list[dict[str, Any]]:
    """Every token that a model can give, by its id."""
    special = {*tokenizer.special_tokens.values()}
    known = ((i, tokenizer.vocabulary.get(i, b"")) for i in range(model.config.vocab_size))
    return [described(i, data, i in special) for i, data in known]


def described(i: int, data: bytes, special: bool) -> dict[str, Any]:
    """A token for the page; bytes that are no character become U+FFFD in its text.

    A model may have more rows than the tokenizer has tokens; such a token has no bytes.
    """
    return {"id": i, "text": data.decode("utf-8", "replace"), "bytes": [*data], "special": special}


def merges_of(tokenizer: BaseTokenizer, i: int) -> list[list[int]]:
    """The merges that make a token, in the order of BPE: the ids of left, right and made."""
    if not isinstance(tokenizer, Tokenizer):
        return []
    pairs = pairs_of(tokenizer)
    made, open_ids = set(), [i]
    while open_ids:
        new = open_ids.pop()
        if new in pairs and new not in made:
            made.add(new)
            open_ids.extend(pairs[new])
    return [[*pairs[new], new] for new in sorted(made)]


@lru_cache(maxsize=8)
def pairs_of(tokenizer: Tokenizer) -> dict[int, Pair]:
    """The pair that each learned token joins."""
    return {new: pair for pair, new in tokenizer.ranks.items()}


def check_ids(model: GPT, ids: Sequence[int]) -> None:
    """Raise UserError unless the model can read these ids."""
    longest = model.config.context_length
    if not 0 < len(ids) <= longest:
        raise UserError(f"a text of {len(ids)} tokens: use 1 to {longest}")
    check_known(model, ids)


def check_known(model: GPT, ids: Sequence[int]) -> None:
    """Raise UserError unless all ids are in the model's vocabulary."""
    size = model.config.vocab_size
    wrong = [i for i in ids if not 0 <= i < size]
    if wrong:
        raise UserError(f"id {wrong[0]} is not in the vocabulary: use 0 to {size - 1}")


def check_size(model: GPT, patterns: Sequence[str], length: int) -> None:
    """Raise UserError if what is to be recorded is more than an answer may hold."""
    if len(patterns) > MOST_PATTERNS:
        raise UserError(f"{len(patterns)} patterns: use at most {MOST_PATTERNS}")
    config = model.config
    names = [n for n in activation_names(model) if any(fnmatchcase(n, p) for p in patterns)]
    square = sum(n.endswith((".weights", ".scores")) for n in names) * config.n_head * length
    rest = sum(config.vocab_size if n == "lm_head" else 4 * config.n_embd for n in names)
    if 4 * length * (square + rest) > MOST_BYTES:
        raise UserError("this would be more than 300 MB of activations: ask for fewer layers")


@torch.no_grad()
def compute(
    run: Run, ids: Sequence[int], patterns: Sequence[str] = (), edits: Sequence[Edit] = (),
    other: Sequence[int] = (), step: int | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Logits (T, V) and what was recorded, by name, without a batch axis.

    `edits` change what the model computes; their swaps take from the text `other`. Raises UserError
    for a text, a pattern, an edit or a step that does not exist.
    """
    if len(edits) > MOST_EDITS:
        raise UserError(f"{len(edits)} edits: use at most {MOST_EDITS}")
    with run.lock:
        model = run.model(step)
        for text in (ids, other) if other else (ids,):
            check_ids(model, text)
        check_size(model, patterns, len(ids))
        device = model.device
        swapped = torch.tensor([[*other]], device=device) if other else None
        with ExitStack() as open_now:
            open_now.enter_context(evaluating(model))
            seen: dict[str, Tensor] = {}
            if patterns:  # without one, `record` would keep all
                seen = open_now.enter_context(record(model, *patterns))
            open_now.enter_context(editing(model, edits, swapped))
            logits = model(torch.tensor([[*ids]], device=device))
        return {name: x[0] for name, x in {**seen, "logits": logits}.items()}


def as_file(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file of float32. One recorded by two names is in it twice."""
    return save({name: x.float().cpu().clone().contiguous() for name, x in tensors.items()})


def weights(
    run: Run, name: str, rows: tuple[int, int] | None = None, step: int | None = None
) -> Tensor:
    """A parameter by its name, or some of its rows. Raises UserError if there is none."""
    parameters = dict(run.model(step).named_parameters())
    if name not in parameters:
        raise UserError(f"there is no parameter {name[:80]!r}: {did_you_mean(name, parameters)}")
    parameter = parameters[name].detach()
    if rows is None:
        return parameter
    first, end = rows
    if not 0 <= first < end <= len(parameter):
        raise UserError(f"rows {first} to {end} of {name}: it has {len(parameter)}")
    return parameter[first:end]


def generate(
    run: Run, ids: Sequence[int], settings: Mapping[str, Any], step: int | None = None
) -> Iterator[dict[str, Any]]:
    """Continue a text token by token: {id, logprob, likeliest: [[id, logprob], ...]}.

    The log-probabilities are the model's own, before temperature and filters. Raises UserError for
    a setting, a text or a step that does not exist.
    """
    config = from_dict(SampleConfig, settings)
    if config.max_new_tokens > MOST_NEW_TOKENS:
        raise UserError(f"max_new_tokens={config.max_new_tokens}: use at most {MOST_NEW_TOKENS}")
    with run.lock:
        model, tokenizer = run.open(step)
    if not ids:
        raise UserError("a text without a token cannot be continued: give at least one")
    check_known(model, ids)  # it may be longer than the context
    return continuation(run, stream(Reader(model, [ids]), tokenizer, config, top=LIKELIEST))


def continuation(run: Run, pieces: Iterator[Piece]) -> Iterator[dict[str, Any]]:
    """The pieces as plain values. Between two of them, others may use the run's models."""
    while True:
        with run.lock:
            piece = next(pieces, None)
        if piece is None:
            return
        yield {"id": piece.token, "logprob": piece.log_probability, "likeliest": piece.likeliest}
