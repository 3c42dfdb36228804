"""Token files on disk, and the batches that are cut from them.

A token file is the ids of one text after another, as plain little-endian integers, with a JSON
sidecar that says what they are. It is memory-mapped: a corpus of any size opens at once and takes
no memory until it is read.

Documents lie end to end, separated by the end-of-text token if the tokenizer has one. Windows may
reach across that border; the token tells the model where one document stops and the next begins.

Axes: B sequences in a batch, T positions. Arrays are int64, as embeddings and losses want them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanogpt.errors import UserError
from nanogpt.files import read_json, write_json, writing
from nanogpt.tokenizer import END_OF_TEXT, AnyTokenizer

# The target that no loss is taken for, as everywhere in PyTorch.
IGNORED = -100

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a token file says about it."""

    dtype: str  # uint16 or uint32, little-endian
    count: int  # tokens, end-of-text tokens included
    bytes: int  # UTF-8 bytes of the text they came from
    documents: int
    vocab_size: int
    tokenizer: str  # fingerprint of the tokenizer that made them
    sha256: str  # of the token file: a run remembers by it what it was trained on


@dataclass(frozen=True)
class TokenFile:
    """An open token file: its ids, memory-mapped, and its sidecar."""

    path: Path
    ids: np.memmap
    about: Sidecar

    @property
    def bytes_per_token(self) -> float:
        """How much text one token carries: what turns loss per token into bits per byte."""
        return self.about.bytes / self.about.count


def write_token_file(path: Path, texts: Iterable[str], tokenizer: AnyTokenizer) -> TokenFile:
    """Encode texts one by one and write them as a token file and its sidecar.

    The sidecar comes last, so a token file without one is known to be unfinished.
    """
    separator = [
        tokenizer.special_tokens[t] for t in (END_OF_TEXT,) if t in tokenizer.special_tokens
    ]
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    count = n_bytes = documents = 0
    digest = hashlib.sha256()
    with writing(path) as file:
        for text in texts:
            ids = tokenizer.encode(text) + separator
            data = np.array(ids, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
            file.write(data)
            count += len(ids)
            n_bytes += len(text.encode("utf-8", "surrogatepass"))
            documents += 1
            digest.update(data)
        sidecar_path(path).unlink(missing_ok=True)  # it speaks of the file that now goes away
    about = Sidecar(
        dtype=dtype,
        count=count,
        bytes=n_bytes,
        documents=documents,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.fingerprint(),
        sha256=digest.hexdigest(),
    )
    write_json(sidecar_path(path), asdict(about))
    return read_token_file(path)


def sidecar_path(path: Path) -> Path:
    """train.bin -> train.json"""
    return path.with_suffix(".json")


def read_token_file(path: Path, tokenizer: AnyTokenizer | None = None) -> TokenFile:
    """Open a token file. Raises UserError if it is missing, damaged, or another tokenizer's."""
    again = "prepare the data again"
    if not path.is_file():
        raise UserError(f"{path}: no such token file; make it with `nanogpt prepare`")
    values = read_json(sidecar_path(path))
    try:
        about = Sidecar(**values)
        if about.dtype not in ("uint16", "uint32"):
            raise ValueError(f"dtype {about.dtype}")
        dtype = np.dtype(about.dtype).newbyteorder("<")
        expected = about.count * dtype.itemsize
    except (TypeError, ValueError) as error:
        raise UserError(f"{sidecar_path(path)} is damaged ({error}); {again}") from None
    if path.stat().st_size != expected:
        raise UserError(
            f"{path} has {path.stat().st_size} bytes where {sidecar_path(path).name} promises "
            f"{expected}; {again}"
        )
    if about.count == 0:
        raise UserError(f"{path} holds no tokens; {again} from a text that is not empty")
    if tokenizer is not None and about.tokenizer != tokenizer.fingerprint():
        raise UserError(f"{path} was made with another tokenizer; {again}")
    return TokenFile(path, np.memmap(path, dtype=dtype, mode="r"), about)


def check_ids(tokens: TokenFile, vocab_size: int) -> None:
    """Raise UserError if an id lies beyond the vocabulary, before it can crash an embedding."""
    for start in range(0, len(tokens.ids), 2**24):
        largest = int(tokens.ids[start : start + 2**24].max())
        if largest >= vocab_size:
            raise UserError(
                f"{tokens.path} holds id {largest}, beyond the vocabulary of {vocab_size}; "
                "prepare the data again"
            )


def check_length(tokens: TokenFile, context_length: int) -> None:
    """Raise UserError if the text is too short for one window and its targets."""
    if len(tokens.ids) <= context_length:
        raise UserError(
            f"{tokens.path} has {len(tokens.ids)} tokens, too few for "
            f"model.context_length={context_length}: add text or use at most {len(tokens.ids) - 1}"
        )


def cut(ids: NDArray, starts: Sequence[int] | IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Cut windows at the given starts; the targets are the same windows one token later.

    >>> x, y = cut(np.arange(10), [0, 6], length=3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [6, 7, 8]], [[1, 2, 3], [7, 8, 9]])
    """
    windows = np.stack([ids[s : s + length + 1] for s in starts]).astype(np.int64)  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]


def random_windows(
    ids: NDArray,
    context_length: int,
    batch_size: int,
    *,
    seed: int,
    step: int,
    rank: int = 0,
    micro_step: int = 0,
) -> tuple[IntArray, IntArray]:
    """A batch of windows at random places: ids (B, T) and targets (B, T).

    Which windows these are is a pure function of the arguments. There is no sampler whose state
    could be lost, so a resumed run sees exactly the batches that it would have seen.
    """
    draw = np.random.default_rng([seed, step, rank, micro_step])
    starts = draw.integers(0, len(ids) - context_length, size=batch_size)
    return cut(ids, starts, context_length)


def sliding_windows(
    ids: NDArray, context_length: int, stride: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Walk through a text in order: ids (T,) and targets (T,) of one window after another.

    Every token but the first is a target exactly once: a window that overlaps the one before it
    ignores the targets that were already due, and the last window is moved back to end with the
    text. With stride = context_length the windows do not overlap; a smaller stride gives each
    target at least context_length - stride tokens of context, for more work. Raises UserError for
    a stride that would skip targets or never move.

    >>> for x, y in sliding_windows(np.arange(8), context_length=4, stride=2):
    ...     print(x.tolist(), y.tolist())
    [0, 1, 2, 3] [1, 2, 3, 4]
    [2, 3, 4, 5] [-100, -100, 5, 6]
    [3, 4, 5, 6] [-100, -100, -100, 7]
    """
    if not 1 <= stride <= context_length:
        raise UserError(f"stride={stride}: use 1 to the context length, {context_length}")
    end = len(ids) - 1  # the last position that has a target
    context_length = min(context_length, end)
    done = 0  # targets before this position have been given out
    start = 0
    while done < end:
        start = min(start, end - context_length)
        x, y = (window[0] for window in cut(ids, [start], context_length))
        y = y.copy()  # x and y are views of the same window
        y[: done - start] = IGNORED
        yield x, y
        done = start + context_length
        start += stride


def padded_batch(
    sequences: Sequence[Sequence[int]], pad_id: int = 0
) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Sequences of different length as one batch: ids, targets and attention mask, each (B, T).

    Short rows are filled up on the right. The mask is True where a token is real; targets of the
    filling and of each row's last token are ignored. T is the longest row's length.

    >>> ids, targets, mask = padded_batch([[5, 6, 7], [8, 9]])
    >>> ids.tolist(), targets.tolist(), mask.astype(int).tolist()
    ([[5, 6, 7], [8, 9, 0]], [[6, 7, -100], [9, -100, -100]], [[1, 1, 1], [1, 1, 0]])
    """
    if not sequences or not all(len(row) for row in sequences):
        raise UserError("a padded batch needs at least one sequence, and none may be empty")
    shape = len(sequences), max(map(len, sequences))
    ids = np.full(shape, pad_id, dtype=np.int64)  # (B, T)
    targets = np.full(shape, IGNORED, dtype=np.int64)  # (B, T)
    mask = np.zeros(shape, dtype=np.bool_)  # (B, T)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = tokens
        targets[row, : len(tokens) - 1] = tokens[1:]
        mask[row, : len(tokens)] = True
    return ids, targets, mask
