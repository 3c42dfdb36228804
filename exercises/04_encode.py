"""Encode a word: cut it with a trained vocabulary."""

from collections.abc import Mapping, Sequence

from nanogpt.text.bpe import Pair


def encode_word(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Encode a word with trained merges: do to it what training did, in the same order.

    Args:
        ids: the bytes of a word, as bytes or as a list of ids. It stays as it is. It may be
            empty.
        ranks: for each pair that merges, the id that it merges into. A lower id was learned
            earlier. The order of the mapping says nothing. A pair may contain ids of other
            merges. Ids can be of any size.

    Returns the ids of the tokens as a list. At each step, of all pairs that can merge, the one
    that was learned earliest merges, until no pair can merge.

    You may use `merge` of nanogpt.text.bpe, or your own.

    >>> encode_word(b"lower", {(111, 119): 256, (108, 256): 257})  # "ow", then "low"
    [257, 101, 114]
    """
    raise NotImplementedError("your turn")
