"""Exercises about attention: one head, and all that a mask can hide."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import checked_kernels, known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import attention, layers
from nanogpt.model.attention import attention_mask, same_document


def attention_cases() -> list[tuple[Any, ...]]:
    def qkv(b: int, nh: int, t: int, s: int, hs: int) -> list[Tensor]:
        shapes = ((b, nh, t, hs), (b, nh, s, hs), (b, nh, s, hs))
        return [numbers(*shape, seed=n + t) for n, shape in enumerate(shapes)]

    added = numbers(2, 3, 4, 4, seed=9)
    # Scores are -5e29 and less: softmax would prefer a hidden key with -1e9.
    large, value = torch.full((1, 1, 2, 1), 1e15), torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
    low = large * torch.tensor([-0.5, -1.0]).view(1, 1, 2, 1)
    alike = torch.zeros(256, 1, 1, 4), torch.zeros(256, 1, 64, 4), torch.ones(256, 1, 64, 4)
    return [
        (*qkv(1, 1, 1, 1, 4),),
        (*qkv(1, 1, 2, 2, 4),),
        (*qkv(1, 1, 1, 3, 4),),
        (*qkv(1, 2, 3, 3, 4),),
        (*qkv(1, 2, 4, 4, 4), None, True),
        (*qkv(1, 1, 4, 4, 9), attention_mask(4, 4, window=3)),
        (*qkv(2, 3, 2, 4, 16), attention_mask(2, 4, window=2)),
        (*qkv(2, 3, 4, 4, 16), attention_mask(4, 4, window=2)),
        (*qkv(2, 3, 4, 4, 16), added),
        (*qkv(2, 3, 4, 4, 16), torch.where(attention_mask(4, 4), added, -math.inf)),
        (*qkv(1, 2, 4, 4, 8), torch.where(attention_mask(4, 4), 0.0, -math.inf)),
        (*qkv(2, 2, 3, 5, 4), added[:2, :2, :3, :1]),  # the same for all keys: it changes nothing
        (*qkv(2, 2, 3, 3, 6), None, True),
        (large, low, value, None, True),
        (large, low, value, attention_mask(2, 2, window=1)),
        (*qkv(1, 1, 3, 3, 4), None, False, 1.0),
        (*alike, None, False, 0.5),
    ]


def drive_attention(candidate: Any, *case: Any) -> Answer:
    """Half of many equal weights is a matter of luck: their sum is about 1, so it is rounded.

    The values are alike: a weight that is dropped is missing in all channels of the result.
    """
    if case[5:] == (0.5,):
        result = candidate(*case)
        same = bool((result == result[..., :1]).all())
        return Answer([torch.round(result.mean(), decimals=1), same])
    names = ("q", "k", "v", "mask", "causal", "dropout")
    inputs = dict(zip(names, case, strict=False))
    extreme = case[0].abs().max() > 1e9  # there gradients are all rounding
    with checked_kernels():
        return with_gradients(candidate, inputs, wanted=() if extreme else "qkv")


def attention_with(
    scale: Any = math.sqrt, soft: Any = layers.softmax, mixed: Any = None, when: Any = None,
    drop: Any = F.dropout, drop_scores: Any = lambda scores, p: scores,
    drop_result: Any = lambda result, p: result,
) -> Any:  # fmt: skip
    """An attention that does one thing differently.

    `mixed` gets scores, mask and softmax; `when` says whether to hide the future.
    """

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        scores = drop_scores(q @ k.transpose(-2, -1) / scale(q.shape[-1]), dropout)
        if when(mask, causal) if when else causal:
            weights = masked_before(scores, attention_mask(*scores.shape[-2:]), soft)
        elif mask is None:
            weights = soft(scores)
        else:
            weights = (mixed or masked_before)(scores, mask, soft)
        result: Tensor = drop_result(drop(weights, dropout) @ v, dropout)
        return result

    return attend


def masked_before(scores: Tensor, mask: Tensor, soft: Any, hidden: float = -math.inf) -> Tensor:
    hides = mask.dtype == torch.bool
    weights: Tensor = soft(scores.masked_fill(~mask, hidden) if hides else scores + mask)
    return weights


def masked_afterwards(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    if mask.dtype != torch.bool:
        return masked_before(scores, mask, soft)
    weights: Tensor = soft(scores).masked_fill(~mask, 0)
    return weights


def added_afterwards(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    if mask.dtype == torch.bool:
        return masked_before(scores, mask, soft)
    weights: Tensor = soft(scores) + mask
    return weights


def mask_upside_down(scores: Tensor, mask: Tensor, soft: Any) -> Tensor:
    return masked_before(scores, ~mask if mask.dtype == torch.bool else mask, soft)


def attention_of(choose: Any) -> Any:
    """Attention that takes queries, keys and values for one another."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        q, k, v = choose(q, k, v)
        return attention.attention(q, k, v, mask, causal, dropout)

    return attend


def attention_like(
    scores: Any = lambda q, k: q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]),
    hide: Any = lambda s, seen: s.masked_fill(~seen, -math.inf),
    add: Any = lambda s, mask: s + mask,
    soft: Any = layers.softmax,
    seen: Any = lambda t, s: attention_mask(t, s),
    mixed: Any = lambda weights, q, k, v: weights @ v,
) -> Any:
    """Attention of other parts."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:  # fmt: skip
        s = scores(q, k)
        if causal:
            mask = seen(*s.shape[-2:])
        if mask is not None:
            s = hide(s, mask) if mask.dtype == torch.bool else add(s, mask)
        result: Tensor = mixed(F.dropout(soft(s), dropout), q, k, v)
        return result

    return attend


def divided_by(number: Any) -> Any:
    return attention_like(lambda q, k: q @ k.transpose(-2, -1) / number(q, k))


def shifted_triangle(diagonal: int) -> Any:
    return lambda t, s: torch.ones(t, s, dtype=torch.bool).tril(diagonal)


ATTENTION = Exercise(
    name="attention",
    title="Compare each query with each key, and mix the values by the result.",
    task=TASKS["attention"],
    reference=attention.attention,
    cases=attention_cases,
    drive=drive_attention,
    lesson=6,
    mistakes=[
        Mistake(
            "no-scale",
            "The scores are not divided by sqrt(hs). The product of two random vectors of length "
            "hs has that standard deviation. Without the division softmax picks one key, and the "
            "gradients vanish.",
            attention_with(scale=lambda hs: 1.0),
        ),
        Mistake(
            "scale-without-root",
            "The scores are divided by hs. Divide them by the square root of hs.",
            attention_with(scale=lambda hs: hs),
        ),
        Mistake(
            "scale-upside-down", "The scores are multiplied by sqrt(hs). Divide them by it.",
            attention_with(scale=lambda hs: hs**-0.5),
        ),
        Mistake(
            "softmax-over-queries",
            "Softmax runs over the queries. The weights of one query, over all keys, sum to 1: use "
            "the last axis.",
            attention_with(soft=lambda x: layers.softmax(x, -2)),
        ),
        Mistake(
            "softmax-over-heads",
            "Softmax runs over the heads. It runs over the keys: use the last axis.",
            attention_with(soft=lambda x: layers.softmax(x, 1)),
        ),
        Mistake(
            "no-softmax", "Softmax is missing: scores are not weights.",
            attention_with(soft=lambda x: x),
        ),
        Mistake(
            "mask-after-softmax",
            "The mask is applied after softmax. The weights that are left do not sum to 1, because "
            "the hidden keys took part in the sum. Apply the mask to the scores.",
            attention_with(mixed=masked_afterwards),
        ),
        Mistake(
            "added-after-softmax",
            "A mask of numbers is added after softmax. Add it to the scores.",
            attention_with(mixed=added_afterwards),
        ),
        Mistake(
            "hidden-as-zero",
            "The scores of hidden keys are set to 0. exp(0) is 1, so these keys still count. Set "
            "them to minus infinity: its exp is 0.",
            attention_with(mixed=lambda s, m, soft: masked_before(s, m, soft, 0.0)),
        ),
        Mistake(
            "hidden-as-small-number",
            "The scores of hidden keys are set to a large negative number. A model can learn "
            "scores below any number; only minus infinity hides a key for certain.",
            attention_with(mixed=lambda s, m, soft: masked_before(s, m, soft, -1e9)),
        ),
        Mistake(
            "mask-ignored", "The mask is not used, so each query sees all keys.",
            attention_with(mixed=lambda scores, mask, soft: soft(scores)),
        ),
        Mistake(
            "mask-upside-down",
            "The mask hides what it should show: True means that a query may look at a key.",
            attention_with(mixed=mask_upside_down),
        ),
        Mistake(
            "booleans-added",
            "A boolean mask is added to the scores: True adds 1, False adds 0, and nothing is "
            "hidden. Set the scores to minus infinity where the mask is False.",
            attention_with(mixed=lambda scores, mask, soft: soft(scores + mask)),
        ),
        Mistake(
            "causal-ignored",
            "`causal` is not used: with causal=True no query sees a key after its own.",
            attention_with(when=lambda mask, causal: False),
        ),
        Mistake(
            "always-causal",
            "The future is hidden even if nobody asks for it. Without a mask, and with "
            "causal=False, each query sees all keys.",
            attention_with(when=lambda mask, causal: mask is None),
        ),
        Mistake(
            "keys-and-queries-swapped",
            "Keys and queries are swapped. Each query mixes the values; each row of the scores "
            "belongs to one query.",
            attention_of(lambda q, k, v: (k, q, v)),
        ),
        Mistake(
            "keys-and-values-swapped",
            "Keys and values are swapped: keys are compared, values are mixed.",
            attention_of(lambda q, k, v: (q, v, k)),
        ),
        Mistake(
            "dropout-ignored",
            "`dropout` is not used. It is the share of the attention weights that is set to 0.",
            attention_with(drop=lambda weights, p: weights),
        ),
        Mistake(
            "dropout-of-the-scores",
            "Dropout is applied to the scores, before softmax. A score of 0 is a weight like any "
            "other: apply dropout to the weights.",
            attention_with(drop=lambda weights, p: weights, drop_scores=F.dropout),
        ),
        Mistake(
            "dropout-of-the-result",
            "Dropout is applied to the result. It belongs to the weights, before they mix the "
            "values.",
            (
                attention_with(drop=lambda weights, p: weights, drop_result=F.dropout),
                attention_with(drop_result=F.dropout),
            ),
        ),
        Mistake(
            "dropout-unscaled",
            "The weights that dropout leaves are not scaled up by 1 / (1 - dropout), as F.dropout "
            "does it. So the result shrinks.",
            attention_with(drop=lambda weights, p: F.dropout(weights, p) * (1 - p)),
        ),
        known(
            "hides-itself",
            "With causal=True a token does not see itself, and the first one sees nothing: softmax "
            "over nothing is not a number. Hide only the keys after the query.",
            attention_like(seen=shifted_triangle(-1)),
        ),
        known(
            "sees-the-next",
            "With causal=True a token sees the next token. Hide every key after the query.",
            attention_like(seen=shifted_triangle(1)),
        ),
        known(
            "past-hidden",
            "With causal=True the past is hidden and the future visible. It should be the other "
            "way round.",
            attention_like(seen=lambda t, s: torch.ones(t, s, dtype=torch.bool).triu()),
            attention_like(seen=lambda t, s: torch.ones(t, s, dtype=torch.bool).triu(1)),
        ),
        known(
            "zero-hides",
            "A mask of numbers is taken for one that hides where it is 0. Its numbers are added to "
            "the scores: 0 changes nothing, and minus infinity hides.",
            attention_like(add=lambda s, m: s.masked_fill(m == 0, -math.inf)),
            attention_like(add=lambda s, m: s.masked_fill(m == 0, -1e9)),
            attention_like(add=lambda s, m: s.masked_fill(m < 0, -math.inf)),
            attention_like(add=lambda s, m: s.masked_fill(m != 0, -math.inf)),
        ),
        known(
            "numbers-ignored",
            "A mask of numbers is not used. Its numbers are added to the scores.",
            attention_like(add=lambda s, m: s),
        ),
        known(
            "numbers-alone",
            "Only masks of numbers are used. A boolean mask hides keys where it is False.",
            attention_like(hide=lambda s, m: s, seen=lambda t, s: torch.where(
                attention_mask(t, s), 0.0, -math.inf)),
        ),
        known(
            "numbers-multiplied",
            "The mask is multiplied with the scores. Its numbers are added, and a boolean mask "
            "sets scores to minus infinity.",
            attention_like(add=lambda s, m: s * m),
            attention_like(hide=lambda s, m: s * m, add=lambda s, m: s * m),
        ),
        known(
            "numbers-subtracted", "The numbers of the mask are subtracted. Add them.",
            attention_like(add=lambda s, m: s - m),
        ),
        known(
            "mask-before-scaling",
            "The numbers of the mask are divided by sqrt(hs), too. Scale the scores first, then "
            "add the mask.",
            attention_like(lambda q, k: q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]),
                           add=lambda s, m: s + m / 4),
        ),
        known(
            "hidden-as-small-number",
            "The scores of hidden keys are set to a large negative number. A model can learn "
            "scores below any number; only minus infinity hides a key for certain.",
            *(attention_like(hide=lambda s, m, small=small: s.masked_fill(~m, small))
              for small in (-1e3, -1e4, -1e5, -1e6, -1e9, -1e10, -1e20)),
        ),
        known(
            "hidden-as-infinity",
            "The scores of hidden keys are set to plus infinity. Set them to minus infinity.",
            attention_like(hide=lambda s, m: s.masked_fill(~m, math.inf)),
        ),
        known(
            "nothing-times-infinity",
            "0 times infinity is not a number. Use masked_fill or torch.where to set scores to "
            "minus infinity.",
            attention_like(hide=lambda s, m: s + (~m).float() * -math.inf),
            attention_like(hide=lambda s, m: s * m + (~m).float() * -math.inf),
        ),
        known(
            "keys-reshaped",
            "The keys are reshaped to (hs, S), which mixes the numbers of different keys. Swap the "
            "two axes: k.transpose(-2, -1).",
            attention_like(lambda q, k: (
                q @ k.reshape(*k.shape[:2], k.shape[3], k.shape[2]) / math.sqrt(q.shape[-1]))),
        ),
        known(
            "keys-mixed",
            "The keys are mixed in place of the values. Keys are compared with queries; what is "
            "mixed by the weights are the values.",
            attention_like(mixed=lambda w, q, k, v: w @ k),
        ),
        known(
            "queries-mixed", "The queries are mixed in place of the values.",
            attention_like(mixed=lambda w, q, k, v: w @ q),
        ),
        known(
            "queries-with-queries",
            "Queries are compared with queries. Compare them with the keys.",
            attention_like(lambda q, k: q @ q.transpose(-2, -1) / math.sqrt(q.shape[-1])),
        ),
        known(
            "keys-with-keys", "Keys are compared with keys. Compare them with the queries.",
            attention_like(lambda q, k: k @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])),
        ),
        known(
            "queries-with-values", "Queries are compared with the values. Compare them with the "
            "keys.",
            attention_of(lambda q, k, v: (q, v, v)),
        ),
        known(
            "weights-transposed",
            "The weights are transposed before they mix the values. Row t of the weights belongs "
            "to query t.",
            attention_like(mixed=lambda w, q, k, v: w.transpose(-2, -1) @ v),
        ),
        known(
            "weights-alone", "These are the weights. Mix the values by them: weights @ v.",
            attention_like(mixed=lambda w, q, k, v: w),
        ),
        known(
            "softmax-twice", "Softmax is applied twice, so the weights are nearly equal.",
            attention_like(soft=lambda s: layers.softmax(layers.softmax(s))),
        ),
        known(
            "softmax-over-everything",
            "Softmax runs over several axes. The weights of each query sum to 1: the last axis "
            "alone.",
            attention_like(soft=lambda s: layers.softmax(s.flatten(-2)).view_as(s)),
            attention_like(soft=lambda s: layers.softmax(s.flatten(1)).view_as(s)),
            attention_like(soft=lambda s: layers.softmax(s, 0)),
        ),
        known(
            "log-softmax", "These are logarithms of weights. Use softmax.",
            attention_like(soft=lambda s: torch.log_softmax(s, -1)),
        ),
        known(
            "sigmoid-for-softmax",
            "Sigmoid takes the place of softmax. The keys compete: the weights of each query sum "
            "to 1.",
            attention_like(soft=torch.sigmoid),
        ),
        known(
            "scale-after-softmax",
            "The weights are divided by sqrt(hs), not the scores. Divide before softmax.",
            attention_like(lambda q, k: q @ k.transpose(-2, -1),
                           mixed=lambda w, q, k, v: w @ v / math.sqrt(q.shape[-1])),
            attention_like(mixed=lambda w, q, k, v: w @ v / math.sqrt(q.shape[-1])),
        ),
        known(
            "scaled-by-another-size",
            "The scores are divided by the root of another size. It is hs, the last axis of q.",
            divided_by(lambda q, k: math.sqrt(q.shape[-2])),
            divided_by(lambda q, k: math.sqrt(k.shape[-2])),
            divided_by(lambda q, k: math.sqrt(q.shape[1])),
            divided_by(lambda q, k: math.sqrt(q.shape[0])),
            divided_by(lambda q, k: math.sqrt(q.shape[1] * q.shape[-1])),
        ),
        known(
            "scale-squared", "The scores are divided by hs squared. Take the root of hs.",
            divided_by(lambda q, k: q.shape[-1] ** 2),
        ),
        known(
            "scores-normalised",
            "The scores are divided by the lengths of the vectors, as in a cosine. Divide them by "
            "sqrt(hs) alone.",
            attention_like(lambda q, k: F.normalize(q, dim=-1) @ F.normalize(
                k, dim=-1).transpose(-2, -1)),
        ),
        known(
            "residual-inside",
            "The queries are added. The mixed values alone are the result.",
            attention_like(mixed=lambda w, q, k, v: w @ v + q),
        ),
    ],
    hints=(
        "Four steps: compute scores, apply the mask, apply softmax, mix the values.",
        "A score is the product of a query and a key, divided by the square root of hs. Softmax "
        "makes each row of scores sum to 1. The result is a weighted sum of the values.",
        "q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) has the shape (B, nh, T, S). "
        "`attention_weights` in the package says what the two kinds of mask mean.",
    ),
)  # fmt: skip


def mask_cases() -> list[tuple[Any, ...]]:
    return [
        (1, 1),
        (2, 2),
        (3, 3),
        (2, 4),  # the last two of four
        (4, 4, 2),
        (2, 5, 3),
        (3, 3, 0, same_document(torch.tensor([[1, 1, 2]]), 3)),
        (3, 3, 0, same_document(torch.tensor([[0, 1, 1]]), 3)),  # padding first
        (2, 4, 2, same_document(torch.tensor([[1, 1, 1, 1], [0, 1, 2, 2]]), 2)),
        (5, 5, 1),
        (4, 4, 9),  # a window wider than the text
        (1, 6, 2),
        (4, 4, 0, same_document(torch.tensor([[1, 1, 2, 2], [0, 0, 1, 1], [1, 2, 2, 3]]), 4)),
        (5, 5, 2, same_document(torch.tensor([[1, 1, 1, 2, 2]]), 5)),
        # With a cache, new padding: the token itself is not on the diagonal.
        (2, 4, 0, same_document(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]), 2)),
        (1, 3, 2, same_document(torch.tensor([[1, 1, 0]]), 1)),
    ]


def mask_with(
    seen: Any = lambda d, window: (d >= 0) & ((d < window) if window else True),
    documents: Any = lambda visible, same, d: visible & (same | (d == 0)),
    queries: Any = lambda new, known: torch.arange(known - new, known),
    result: Any = lambda visible: visible,
) -> Any:
    """An attention mask that does one thing differently; d is how far back each key is."""

    def mask(
        new: int, known: int, window: int = 0, same: Tensor | None = None, device: Any = None
    ) -> Tensor:
        distance = (queries(new, known)[:, None] - torch.arange(known)).to(device)
        visible = seen(distance, window)
        if same is not None:
            visible = documents(visible, same, distance)[:, None]
        found: Tensor = result(visible)
        return found

    return mask


FULL_MASK = Exercise(
    name="full-mask",
    title="The attention mask: hide the future, and whatever else a token may not see.",
    task=TASKS["full-mask"],
    reference=attention.attention_mask,
    cases=mask_cases,
    lesson=11,
    optional=True,
    mistakes=[
        Mistake(
            "sees-the-next",
            "Each token sees the next token, and that is the token it has to predict. Hide every "
            "key that comes after the query.",
            mask_with(seen=lambda d, w: (d >= -1) & ((d < w) if w else True)),
        ),
        Mistake(
            "blind-to-itself",
            "No token sees itself, and the first token sees nothing at all: softmax over nothing "
            "is not a number. Hide only the keys after the query.",
            mask_with(seen=lambda d, w: (d > 0) & ((d < w) if w else True)),
        ),
        Mistake(
            "past-hidden",
            "The past is hidden and the future is visible. It should be the other way round.",
            mask_with(seen=lambda d, w: (d <= 0) & ((d < w) if w else True)),
        ),
        Mistake(
            "upside-down",
            "The mask is True where a key is hidden. It should be True where a query may look.",
            mask_with(result=lambda visible: ~visible),
        ),
        Mistake(
            "queries-from-the-first",
            "The queries are taken for the first `new` of the `known` tokens. They are the last "
            "ones: with a cache, a new token sees all the old tokens.",
            mask_with(queries=lambda new, known: torch.arange(new)),
        ),
        Mistake(
            "ones-and-zeros",
            "These are ones and zeros. A mask of numbers is added to the scores, and adding 0 "
            "hides nothing. Give True and False, as a comparison does.",
            mask_with(result=lambda visible: visible.float()),
        ),
        Mistake(
            "numbers-to-add",
            "These are numbers to add to the scores: 0 and minus infinity. Give True where a query "
            "may look and False elsewhere.",
            mask_with(result=lambda visible: visible.float().log()),
        ),
        Mistake(
            "window-ignored", "The window is not used: it hides the distant past as well.",
            mask_with(seen=lambda d, w: d >= 0),
        ),
        Mistake(
            "window-too-wide",
            "The window is too wide by one: with window=2 a token sees itself and one token "
            "before it.",
            mask_with(seen=lambda d, w: (d >= 0) & ((d <= w) if w else True)),
        ),
        Mistake(
            "documents-ignored",
            "`same` is not used, so tokens see other documents and padding.",
            mask_with(documents=lambda visible, same, d: visible.expand(same.shape)),
        ),
        Mistake(
            "padding-sees-nothing",
            "Padding sees nothing, not even itself: softmax over nothing is not a number. Let "
            "each token see itself.",
            mask_with(documents=lambda visible, same, d: visible & same),
        ),
        Mistake(
            "future-of-its-document",
            "With `same`, tokens see the future of their own document. The document mask hides "
            "something in addition: combine the two masks with `&`.",
            mask_with(documents=lambda visible, same, d: same | (d == 0)),
        ),
        known(
            "ones-and-zeros",
            "These are ones and zeros. A mask of numbers is added to the scores, and adding 0 "
            "hides nothing. Give True and False, as a comparison does.",
            mask_with(result=lambda visible: visible.long()),
        ),
        known(
            "numbers-to-add",
            "These are numbers to add to the scores: 0 and minus infinity. Give True where a query "
            "may look and False elsewhere.",
            mask_with(result=lambda visible: -1e9 * (~visible).float()),
            mask_with(result=lambda visible: -1e10 * (~visible).float()),
        ),
        known(
            "no-axis-for-heads",
            "With `same` the axis for the heads is missing. Give (B, 1, T, S): insert it with "
            "[:, None].",
            mask_with(documents=lambda visible, same, d: visible & (same | (d == 0)),
                      result=lambda visible: visible[:, 0] if visible.ndim == 4 else visible),
        ),
        known(
            "axis-for-heads-in-front",
            "With `same` the axis for the heads is in the wrong place. It comes after the batch: "
            "(B, 1, T, S).",
            mask_with(result=lambda v: v.transpose(0, 1) if v.ndim == 4 else v),
        ),
        known(
            "always-four-axes",
            "Without `same` there are too many axes. The shape is then (T, S).",
            mask_with(result=lambda v: v if v.ndim == 4 else v[None, None]),
            mask_with(result=lambda v: v if v.ndim == 4 else v[None]),
        ),
        known(
            "no-window-hides-everything",
            "window=0 hides everything. 0 means that there is no window.",
            mask_with(seen=lambda d, w: (d >= 0) & (d < w)),
            mask_with(seen=lambda d, w: (d >= 0) & (d < max(w, 1))),
        ),
        known(
            "window-too-narrow",
            "The window is too narrow by one: with window=2 a token sees itself and one token "
            "before it.",
            mask_with(seen=lambda d, w: (d >= 0) & ((d < w - 1) if w else True)),
        ),
        known(
            "window-around-the-token",
            "The window reaches into the future. It hides the distant past in addition to the "
            "future: combine both with `&`.",
            mask_with(seen=lambda d, w: (d.abs() < w) if w else d >= 0),
            mask_with(seen=lambda d, w: (d < w) if w else d >= 0),
        ),
        known(
            "window-inverted",
            "The window hides the near past and shows the distant one. It should be the other way "
            "round.",
            mask_with(seen=lambda d, w: (d >= 0) & ((d >= w) if w else True)),
            mask_with(seen=lambda d, w: (d >= 0) & ((d > w) if w else True)),
        ),
        known(
            "window-of-the-first-keys",
            "The window shows the first keys. It moves with the query: `window` tokens up to the "
            "query itself.",
            mask_with(seen=lambda d, w: (d >= 0) & (
                (torch.arange(d.shape[1]) < w) if w else True)),
            mask_with(seen=lambda d, w: (d >= 0) & (
                (torch.arange(d.shape[1]) >= d.shape[1] - w) if w else True)),
        ),
        known(
            "window-not-with-documents",
            "With `same` the window is not used. Combine all three: not later, within the window, "
            "same document.",
            mask_with(documents=lambda v, same, d: (d >= 0) & (same | (d == 0))),
            mask_with(documents=lambda v, same, d: (d >= 0) & same),
        ),
        known(
            "documents-not-with-window",
            "With a window `same` is not used. Combine all three: not later, within the window, "
            "same document.",
            lambda new, known, window=0, same=None, device=None: attention_mask(
                new, known, window, None, device) if window else attention_mask(
                new, known, 0, same, device),
            lambda new, known, window=0, same=None, device=None: attention_mask(
                new, known, window, None if same is None else torch.ones_like(same), device)
            if window else attention_mask(new, known, 0, same, device),
        ),
        known(
            "documents-inverted",
            "`same` hides what it should show: it is True where both tokens are of one document.",
            mask_with(documents=lambda v, same, d: v & (~same | (d == 0))),
            mask_with(documents=lambda v, same, d: v & ~same),
        ),
        known(
            "either-one",
            "A token sees what either mask shows. It sees only what both show: use `&`.",
            mask_with(documents=lambda v, same, d: v | same),
            mask_with(seen=lambda d, w: (d >= 0) | ((d < w) if w else False)),
        ),
        known(
            "sees-the-next", "Each token sees the next token, and that is the token it has to "
            "predict. Hide every key that comes after the query.",
            mask_with(seen=lambda d, w: (d >= -1) & ((d <= w) if w else True)),
        ),
        known(
            "queries-from-the-first",
            "The queries are taken for the first `new` of the `known` tokens. They are the last "
            "ones: with a cache, a new token sees all the old tokens.",
            mask_with(seen=lambda d, w: (d >= 0) & ((d < w) if w else True),
                      queries=lambda new, known: torch.arange(new)),
            mask_with(
                queries=lambda new, known: torch.arange(new),
                documents=lambda v, same, d: v & (same | (torch.arange(d.shape[0])[:, None] + (
                    d.shape[1] - d.shape[0]) == torch.arange(d.shape[1]))),
            ),
        ),
        known(
            "itself-without-the-cache",
            "With `same` a token is taken for the wrong key where there are more keys than "
            "queries: query t is token known - new + t, so it is not on the diagonal.",
            mask_with(documents=lambda v, same, d: v & (same | torch.eye(*d.shape).bool())),
            mask_with(documents=lambda v, same, d: v & same | torch.eye(*d.shape).bool()),
        ),
        known(
            "one-off-from-the-last",
            "The queries are off by one. The last query is the last of the known tokens.",
            mask_with(queries=lambda new, known: torch.arange(known - new, known) - 1),
            mask_with(queries=lambda new, known: torch.arange(known - new, known) + 1),
        ),
        known(
            "axes-swapped", "Rows and columns are swapped: a row for each query, (T, S).",
            mask_with(result=lambda v: v.transpose(-2, -1)),
        ),
        known(
            "square",
            "It is a square of all known tokens. There is a row for each new token alone.",
            lambda new, known, window=0, same=None, device=None: attention_mask(
                known, known, window, same, device),
            lambda new, known, window=0, same=None, device=None: attention_mask(
                new, new, window, same, device),
        ),
    ],
    hints=(
        "Work out for each query and each key how far back the key is.",
        "The queries have the numbers known - new to known - 1, the keys 0 to known - 1. "
        "query[:, None] - key gives all distances, (T, S). Negative distances are the future.",
        "distance >= 0, and with a window `& (distance < window)`. With `same`, combine with "
        "`same | (distance == 0)` and add an axis for the heads: [:, None].",
    ),
)  # fmt: skip
