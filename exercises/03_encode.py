"""Encode a word: cut it with a trained vocabulary."""

from collections.abc import Mapping, Sequence

from nanogpt.text.bpe import Pair


def encode_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """The last of the `merge_steps`, sooner: what a merge did not touch is not looked at again.

    `ranks` maps a pair to the id that it merges into; a lower id was learned earlier.

    >>> encode_word(b"lower", {(111, 119): 256, (108, 256): 257})  # "ow", then "low"
    [257, 101, 114]
    """
    raise NotImplementedError("your turn")
