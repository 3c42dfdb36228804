"""Train a vocabulary: the most frequent pair becomes a token, again and again."""

from collections.abc import Mapping

from nanogpt.text.bpe import Pair


def train_naive(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Train a vocabulary: recount all pairs, merge the best one, repeat.

    Args:
        words: how often each word occurs, such as {b"low": 5}. Pairs are counted inside words
            only. A word that occurs five times counts five times; overlapping occurrences
            count, too: aaa holds the pair (a, a) twice.
        n_merges: how many merges to make, from 0. If no pair is left, there are fewer.

    Returns the merges in order, each as a pair of ids. Ids 0 to 255 are the single bytes. Merge
    number n, counted from 0, creates the id 256 + n, which stands for the byte strings of both
    parts joined. The best pair is the most frequent one. Among equally frequent pairs the one
    whose left byte string is greatest wins; if these are equal, too, the greatest right one.
    Byte strings compare as Python compares bytes.

    You may use `merge` of nanogpt.text.bpe, or your own.

    >>> train_naive({b"low": 5, b"lower": 2}, 2) == [(111, 119), (108, 256)]  # "ow", then "low"
    True
    """
    raise NotImplementedError("your turn")
