"""Exercises about attention: one head; then all that the package's own attention can do."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt.errors import UserError
from nanogpt.learn.answers import Answer, with_gradients
from nanogpt.learn.exercise import Exercise, Mistake
from nanogpt.learn.exercises.known import checked_kernels, known, numbers
from nanogpt.learn.exercises.network import TINY
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model import attention, gpt, layers, position
from nanogpt.model.attention import AttentionContext, attention_mask, same_document
from nanogpt.model.cache import KVCache
from nanogpt.model.position import POSITIONS

HEADS, SIZE = 2, 4  # of the model TINY


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


WAYS_OF_ATTENDING = {
    "plain": "",
    "rope": ", with RoPE, which rotates queries and keys",
    "mask": ", with a mask that hides the first token from the others",
    "norm": ", with qk_norm",
    "cache": ", the last two tokens with a cache of the earlier ones",
    "rope and cache": ", with RoPE, the last two tokens with a cache of the earlier ones",
    "cache, one token": ", the last token with a cache of the earlier ones",
    "training": ", in training, with a dropout of 1",
    "training weights": ", in training, with a dropout of 1 of the attention weights",
}


def drive_heads(
    cls: type[attention.CausalSelfAttention], x: Tensor, heads: int, kv_heads: int, way: str
) -> Answer | list[Tensor]:
    """Run the whole layer with weights that all matter; with a cache, give its keys as well.

    Dropout is 1 everywhere, which shows in evaluation if it is not switched off.
    """
    config = replace(
        TINY, n_head=heads, n_kv_head=kv_heads, kernels="plain", qk_norm=way == "norm",
        position="rope" if "rope" in way else "none",
    )  # fmt: skip
    torch.default_generator.manual_seed(0)
    layer = cls(config).train("training" in way)
    layer.dropout.p, layer.kernel.rate = 1.0, 1.0
    if way == "training":
        layer.kernel.rate = 0.0
    if way == "training weights":
        layer.dropout.p = 0.0
    new, known = 2 if "cache" in way else x.shape[1], x.shape[1]
    new = 1 if "one token" in way else new
    context = AttentionContext(POSITIONS[config.position](config), torch.arange(known)[None])
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        if way == "mask":
            mask = attention_mask(known, known)
            mask[1:, 0] = False
            context = replace(context, mask=mask, causal=False)
    if "cache" not in way:
        with checked_kernels():
            return with_gradients(lambda x: layer(x, context), {"x": x}, layer)
    with torch.no_grad(), checked_kernels():
        cache, old = empty_cache(config, len(x)), context.pos[:, :-new]
        layer(x[:, :-new], replace(context, pos=old, cache=cache, layer=1))
        cache.advance(old)
        context = replace(context, pos=context.pos[:, -new:], cache=cache, layer=1)
        # Nothing is later than one new token, so it needs no mask.
        seen = replace(context, mask=attention_mask(new, known) if new > 1 else None, causal=False)
        return [layer(x[:, -new:], seen), cache.keys, torch.tensor(cache.length)]


def empty_cache(config: Any, rows: int, cls: type[KVCache] = KVCache) -> KVCache:
    """A cache whose memory is zero: a candidate that reads too far gets the same every time."""
    cache = cls(config, rows, torch.device("cpu"), torch.float32)
    for memory in (cache.keys, cache.values, cache.pos):
        memory.zero_()
    return cache


class Heads(attention.CausalSelfAttention):
    """Attention whose parts can be done differently."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        q, k, v = map(self.split_heads, self.parts(x))
        q, k = self.rotated(*self.normed(q, k), context)
        k, v = self.cached(k, v, context)
        if self.groups > 1:
            k, v = self.repeated(k), self.repeated(v)
        return self.projected(self.merged(self.attended(q, k, v, context)))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.c_attn(x).split(self.widths, dim=-1)
        return q, k, v

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (self.rms_norm(q), self.rms_norm(k)) if self.qk_norm else (q, k)

    def rotated(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return context.position.rotate(q, k, context.pos)

    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return context.cache.update(context.layer, k, v) if context.cache else (k, v)

    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.groups, dim=1)

    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = self.kernel(q, k, v, context.mask, context.causal)
        return result

    def merged(self, y: Tensor) -> Tensor:
        return y.transpose(1, 2).flatten(2)

    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.c_proj(y))
        return result


class MergedWrongly(Heads):
    def merged(self, y: Tensor) -> Tensor:
        return y.reshape(y.shape[0], y.shape[2], -1)


class MergedInTurns(Heads):
    def merged(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(2)


class ViewForTranspose(Heads):
    def split_heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, x.shape[1], self.head_size)


class SplitInTurns(Heads):
    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.head_size, -1)).permute(0, 3, 1, 2)


class KeysFirst(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return (k, q, v) if q.shape == k.shape else (q, k, v)


class ValuesSecond(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return q, v, k


class NotProjected(Heads):
    def projected(self, y: Tensor) -> Tensor:
        return y


class ResidualInside(Heads):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.came_in = x
        return super().parts(x)

    def projected(self, y: Tensor) -> Tensor:
        return self.came_in + super().projected(y)


class NotNormed(Heads):
    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class NotRotated(Heads):
    def rotated(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return q, k


class NotCached(Heads):
    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return k, v


class CachedInTheFirstLayer(Heads):
    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        return super().cached(k, v, replace(context, layer=0))


class MaskNotGiven(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, mask=None))


class NeverCausal(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, causal=False))


class DropoutNotUsed(Heads):
    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.c_proj(y)
        return result


class DropoutBeforeProjection(Heads):
    def projected(self, y: Tensor) -> Tensor:
        result: Tensor = self.c_proj(self.dropout(y))
        return result


class DropoutAlways(Heads):
    def projected(self, y: Tensor) -> Tensor:
        return F.dropout(self.c_proj(y), self.dropout.p)


class WeightsNotDropped(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return attention.attention(q, k, v, context.mask, context.causal)


class WeightsAlwaysDropped(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return attention.attention(q, k, v, context.mask, context.causal, self.kernel.rate)


class RepeatedInTurns(Heads):
    def repeated(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.groups, 1, 1)


def heads_as(**parts: Any) -> type[Heads]:
    """Attention with some parts done differently."""
    return type("CausalSelfAttention", (Heads,), parts)


def split_as(cut: Any) -> Any:
    return heads_as(split_heads=lambda self, x: cut(x, self.head_size))


def other_roles(choose: Any) -> type[Heads]:
    """Queries, keys and values, after the cut into heads, in other roles."""
    return heads_as(
        attended=lambda self, q, k, v, c: self.kernel(*choose(q, k, v), c.mask, c.causal)
    )


def normed_before_the_cut(self: Heads, x: Tensor) -> Any:
    q, k, v = Heads.parts(self, x)
    return (self.rms_norm(q), self.rms_norm(k), v) if self.qk_norm else (q, k, v)


class RotatedLate(Heads):
    """Keys are stored as they are and rotated afterwards, at some positions."""

    def places(self, context: AttentionContext, known: int) -> Tensor:
        return context.pos

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        q, k, v = map(self.split_heads, self.parts(x))
        q, k = self.normed(q, k)
        k, v = self.cached(k, v, context)
        q, _ = context.position.rotate(q, q, context.pos)
        _, k = context.position.rotate(k, k, self.places(context, k.shape[2]))
        if self.groups > 1:
            k, v = self.repeated(k), self.repeated(v)
        return self.projected(self.merged(self.attended(q, k, v, context)))


class RotatedLateFromZero(RotatedLate):
    def places(self, context: AttentionContext, known: int) -> Tensor:
        return torch.arange(known)[None]


class RepeatedEarly(Heads):
    """The repeated key heads go into the cache."""

    def cached(self, k: Tensor, v: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor]:
        if self.groups > 1:
            k, v = Heads.repeated(self, k), Heads.repeated(self, v)
        return super().cached(k, v, context)

    def repeated(self, x: Tensor) -> Tensor:
        return x


class AlwaysCausal(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return super().attended(q, k, v, replace(context, mask=None, causal=True))


class AlwaysCausalFromTheFirst(Heads):
    def attended(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, None, is_causal=True)


def attended_with(weights_of: Any) -> type[Heads]:
    """Attention by hand in the layer, with other weights."""

    def attended(self: Heads, q: Tensor, k: Tensor, v: Tensor, c: AttentionContext) -> Tensor:
        mask = attention_mask(q.shape[2], k.shape[2]) if c.causal else c.mask
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_size)
        later = torch.zeros_like(scores).bool() if mask is None else ~mask
        result: Tensor = F.dropout(weights_of(scores, later), self.kernel.dropout) @ v
        return result

    return heads_as(attended=attended)


def usual(scores: Tensor, later: Tensor) -> Tensor:
    return layers.softmax(scores.masked_fill(later, -math.inf))


GROUPED_HEADS = Exercise(
    name="grouped-heads",
    title="Many heads: split the channels, attend in each part, join the results.",
    task=TASKS["grouped-heads"],
    reference=attention.CausalSelfAttention,
    write=("forward", "split_heads"),
    cases=lambda: [
        (numbers(1, 1, 8), 2, 2, "plain"), (numbers(1, 3, 8), 2, 2, "plain"),
        (numbers(2, 5, 8, seed=1), 2, 2, "plain"), (numbers(2, 4, 8, seed=2), 4, 2, "plain"),
        (numbers(2, 3, 8, seed=5), 4, 1, "plain"),
        *((numbers(1, 4, 8, seed=3), 2, 2, way) for way in WAYS_OF_ATTENDING),
        (numbers(2, 5, 8, seed=4), 4, 2, "norm"), (numbers(2, 5, 8, seed=4), 4, 2, "cache"),
        (numbers(2, 5, 8, seed=6), 4, 2, "rope and cache"),
    ],
    drive=drive_heads,
    describe=lambda x, heads, kv_heads, way: (
        f"{heads} query heads, {kv_heads} key heads, x of shape {tuple(x.shape)}"
        + WAYS_OF_ATTENDING[way]
    ),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "merged-without-transpose",
            "The heads are joined in the wrong order: (B, nh, T, hs) was reshaped as it lies in "
            "memory, so tokens are mixed with heads. Swap heads and tokens first.",
            MergedWrongly,
        ),
        Mistake(
            "merged-in-turns",
            "The heads are joined in turns, channel by channel. The channels of one head stay side "
            "by side.",
            MergedInTurns,
        ),
        Mistake(
            "view-for-transpose",
            "The channels were reshaped to (B, nh, T, hs) in one step, which cuts the memory in "
            "the wrong places. Cut the channels into (nh, hs) first, then swap heads and tokens.",
            ViewForTranspose,
        ),
        Mistake(
            "split-in-turns",
            "The channels are dealt out to the heads in turns. The first hs channels belong to the "
            "first head.",
            SplitInTurns,
        ),
        Mistake(
            "keys-first",
            "Queries and keys are swapped: c_attn gives queries, keys, values in this order.",
            KeysFirst,
        ),
        Mistake(
            "values-second",
            "Keys and values are swapped: c_attn gives queries, keys, values in this order.",
            ValuesSecond,
        ),
        Mistake(
            "not-projected", "c_proj is missing: it mixes the results of the heads.", NotProjected
        ),
        Mistake(
            "residual-inside", "x is added here. The block adds it, outside of attention.",
            ResidualInside,
        ),
        Mistake(
            "groups-in-turns",
            "The key heads are repeated in turns. Each of them serves a group of neighbouring "
            "query heads: use repeat_interleave.",
            RepeatedInTurns,
        ),
        Mistake(
            "not-rotated",
            "Queries and keys are not rotated. Position encodings such as RoPE work in "
            "context.position.rotate(q, k, context.pos).",
            NotRotated,
        ),
        Mistake(
            "not-cached",
            "The cache is not used. If context.cache is there, its `update` takes the new keys and "
            "values and gives those of all tokens so far.",
            NotCached,
        ),
        Mistake(
            "cached-in-the-first-layer",
            "Every layer uses the cache of layer 0. Give context.layer to the cache's `update`.",
            CachedInTheFirstLayer,
        ),
        Mistake(
            "mask-ignored",
            "The mask is not used. Give context.mask to the kernel: it says what is hidden, or "
            "what is added to the scores.",
            MaskNotGiven,
        ),
        Mistake(
            "causal-ignored",
            "The future is not hidden. Give context.causal to the kernel as well as the mask.",
            NeverCausal,
        ),
        Mistake(
            "qk-norm-ignored",
            "qk_norm is not used: if it is set, queries and keys go through rms_norm.", NotNormed,
        ),
        Mistake(
            "no-dropout",
            "self.dropout is not used: in training it follows c_proj.", DropoutNotUsed,
        ),
        Mistake(
            "dropout-before-projection",
            "Dropout comes before c_proj. It follows it.", DropoutBeforeProjection,
        ),
        Mistake(
            "dropout-in-evaluation",
            "Dropout stays on in evaluation. A module such as self.dropout knows whether it is in "
            "training; F.dropout has to be told: training=self.training.",
            (DropoutAlways, WeightsAlwaysDropped),
        ),
        Mistake(
            "weights-not-dropped",
            "In training, dropout of the attention weights is missing. self.kernel applies it; "
            "another function has to be given self.kernel.dropout.",
            WeightsNotDropped,
        ),
        known(
            "norm-before-the-cut",
            "qk_norm works on all channels at once. Norm each head by itself, after the cut.",
            heads_as(parts=normed_before_the_cut, normed=lambda self, q, k: (q, k)),
        ),
        known(
            "one-normed", "With qk_norm both queries and keys go through rms_norm.",
            heads_as(normed=lambda s, q, k: (s.rms_norm(q), k) if s.qk_norm else (q, k)),
            heads_as(normed=lambda s, q, k: (q, s.rms_norm(k)) if s.qk_norm else (q, k)),
        ),
        known(
            "always-normed", "Queries and keys are normed without qk_norm, too.",
            heads_as(normed=lambda s, q, k: (s.rms_norm(q), s.rms_norm(k))),
        ),
        known(
            "one-rotated",
            "Only the queries or only the keys are rotated. Both are: then their product depends "
            "on the distance alone.",
            heads_as(rotated=lambda s, q, k, c: (c.position.rotate(q, k, c.pos)[0], k)),
            heads_as(rotated=lambda s, q, k, c: (q, c.position.rotate(q, k, c.pos)[1])),
        ),
        known(
            "values-rotated",
            "The values are rotated. Only queries and keys are: positions belong to the scores.",
            heads_as(cached=lambda s, k, v, c: Heads.cached(
                s, k, c.position.rotate(v, v, c.pos)[0], c)),
        ),
        known(
            "positions-from-zero",
            "The rotation counts from 0 in every part of a text. context.pos has the right "
            "positions: with a cache the tokens continue a text.",
            heads_as(rotated=lambda s, q, k, c: c.position.rotate(
                q, k, torch.arange(q.shape[2])[None])),
        ),
        known(
            "positions-from-one",
            "The positions are off by one. Use context.pos as it is.",
            heads_as(rotated=lambda s, q, k, c: (
                c.position.rotate(q, q, c.pos + 1)[0], c.position.rotate(k, k, c.pos)[1])),
        ),
        known(
            "rotated-twice", "Queries and keys are rotated twice.",
            heads_as(rotated=lambda s, q, k, c: c.position.rotate(
                *c.position.rotate(q, k, c.pos), c.pos)),
        ),
        known(
            "stored-before-rotation",
            "Keys are stored before they are rotated, and rotated afterwards at the positions of "
            "the new tokens. Rotate first: a key in the cache keeps its own position.",
            RotatedLate,
            RotatedLateFromZero,
        ),
        known(
            "repeated-before-the-cache",
            "The key heads are repeated before they are stored. The cache holds n_kv_head heads: "
            "store first, then repeat.",
            RepeatedEarly,
        ),
        known(
            "not-repeated",
            "Key heads or value heads are not repeated, so there are fewer of them than query "
            "heads. Repeat each self.groups times.",
            heads_as(repeated=lambda s, x: x),
        ),
        known(
            "split-into-thirds",
            "c_attn(x) is cut into three equal parts. With fewer key heads the parts differ: split "
            "by self.widths.",
            heads_as(parts=lambda s, x: s.c_attn(x).chunk(3, dim=-1)),
            heads_as(parts=lambda s, x: s.c_attn(x).split(x.shape[-1], dim=-1)),
        ),
        known(
            "cached-values-swapped",
            "The cache is used with keys and values swapped: update(layer, k, v) gives keys, "
            "values in this order.",
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, k, v)[::-1]
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, v, k)
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: c.cache.update(c.layer, v, k)[::-1]
                     if c.cache else (k, v)),
        ),
        known(
            "update-thrown-away",
            "The cache is updated, but what `update` gives back is not used: attention needs the "
            "keys and values of all tokens so far.",
            heads_as(cached=lambda s, k, v, c: (
                c.cache.update(c.layer, k, v) if c.cache else None, (k, v))[1]),
            heads_as(cached=lambda s, k, v, c: (c.cache.update(c.layer, k, v)[0], v)
                     if c.cache else (k, v)),
            heads_as(cached=lambda s, k, v, c: (k, c.cache.update(c.layer, k, v)[1])
                     if c.cache else (k, v)),
        ),
        known(
            "advanced-inside",
            "The cache advances in the layer. The model does that, once, after all layers.",
            heads_as(cached=lambda s, k, v, c: (
                c.cache.update(c.layer, k, v), c.cache.advance(c.pos))[0]
                if c.cache else (k, v)),
        ),
        known(
            "always-causal",
            "The mask of the context is not used, and the future is hidden instead. Give both, "
            "context.mask and context.causal, to the kernel.",
            AlwaysCausal,
            AlwaysCausalFromTheFirst,
            heads_as(attended=lambda s, q, k, v, c: F.scaled_dot_product_attention(
                q, k, v, c.mask if c.mask is not None and c.cache else None,
                is_causal=not (c.mask is not None and c.cache))),
        ),
        known(
            "view-without-contiguous",
            "After a transpose the memory is not in order, and `view` refuses. Use reshape or "
            "flatten, or contiguous() before view.",
            heads_as(merged=lambda s, y: y.transpose(1, 2).view(y.shape[0], y.shape[2], -1)),
        ),
        known(
            "heads-not-transposed",
            "Heads and tokens are not swapped before attention, so each token compares its heads "
            "with each other. Attention needs (B, nh, T, hs).",
            heads_as(
                split_heads=lambda s, x: x.unflatten(-1, (-1, s.head_size)),
                merged=lambda s, y: y.flatten(2),
            ),
        ),
        known(
            "keys-mixed", "The keys are mixed in place of the values.",
            other_roles(lambda q, k, v: (q, k, k)),
        ),
        known(
            "queries-as-keys", "Queries are compared with queries. Compare them with the keys.",
            other_roles(lambda q, k, v: (q, q, v)),
            other_roles(lambda q, k, v: (k, k, v)),
        ),
        known(
            "projected-twice", "c_proj is applied twice. Apply it once, at the end.",
            heads_as(projected=lambda s, y: s.dropout(s.c_proj(s.c_proj(y)))),
        ),
        known(
            "one-head",
            "There is one head of all channels. Cut the channels into heads, and attend in each.",
            heads_as(attended=lambda s, q, k, v, c: s.split_heads(s.kernel(
                *(y.transpose(1, 2).flatten(2)[:, None] for y in (q, k, v)), c.mask, c.causal
            )[:, 0])),
        ),
        known(
            "no-scale", "The scores are not divided by sqrt(hs). self.kernel does it.",
            attended_with(lambda s, later: usual(s * 2 if s.shape[1] == 2 else s * 2**0.5, later)),
        ),
        known(
            "scaled-by-all-channels",
            "The scores are divided by sqrt(C). Each head has hs channels: divide by sqrt(hs).",
            attended_with(lambda s, later: usual(s / math.sqrt(s.shape[1]), later)),
        ),
        known(
            "softmax-over-queries", "Softmax runs over the queries. Use the last axis, the keys.",
            attended_with(lambda s, later: layers.softmax(s.masked_fill(later, -math.inf), -2)),
        ),
        known(
            "mask-after-softmax",
            "The mask is applied after softmax. Set hidden scores to minus infinity before it.",
            attended_with(lambda s, later: layers.softmax(s).masked_fill(later, 0)),
        ),
        known(
            "hidden-as-zero",
            "The scores of hidden keys are set to 0, and exp(0) is 1. Use minus infinity.",
            attended_with(lambda s, later: layers.softmax(s.masked_fill(later, 0))),
        ),
        known(
            "no-softmax", "Softmax is missing: scores are not weights.",
            attended_with(lambda s, later: s.masked_fill(later, 0)),
        ),
    ],
    hints=(
        "c_attn gives queries, keys and values side by side. Split them, then cut each into heads: "
        "(B, T, C) becomes (B, nh, T, hs).",
        "Unflatten the channels into (nh, hs), and swap the axes of tokens and heads. Then norm, "
        "rotate, update the cache, repeat the key heads, and call self.kernel.",
        "After attention, undo the cut: transpose(1, 2), flatten(2), c_proj. The context holds "
        "position, pos, mask, causal, cache and layer.",
    ),
)  # fmt: skip


ROWS_DIFFER = -1  # in a list of parts: each row has positions of its own
CLEAR = 0  # in a list of parts: the cache is emptied, as it is when a text outgrows the context


def drive_cache(cls: type[KVCache], *sizes: int) -> list[Tensor]:
    """Add parts of so many tokens to both layers, as a model does; collect what comes back."""
    cache = empty_cache(TINY, 2, cls)
    found: list[Tensor] = []
    for number, size in enumerate(sizes):
        if size == ROWS_DIFFER:
            continue
        if size == CLEAR:
            cache.clear()
            continue
        pos = 3 * torch.arange(size)[None] + 5 * number + 1  # (1, T), any numbers will do
        if ROWS_DIFFER in sizes:
            pos = torch.cat([pos, pos + 1])  # (B, T)
        found.append(cache.key_positions(pos).clone())
        for layer in range(TINY.n_layer):
            k = numbers(2, HEADS, size, SIZE, seed=10 * number + layer)
            keys, values = cache.update(layer, k, -k)
            found += [keys.clone(), values.clone()]
        cache.advance(pos)
    return found


class Stale(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer, :, :, : k.shape[2]] = k
        self.values[layer, :, :, : k.shape[2]] = v
        end = self.length + k.shape[2]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class OnlyNew(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        return k, v


class OnlyOld(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        end = self.length
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class EverythingGiven(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k, v)
        return self.keys[layer], self.values[layer]


class OneLayer(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().update(0, k, v)


class Swapped(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = super().update(layer, k, v)
        return values, keys


class CountsEveryLayer(KVCache):
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found = super().update(layer, k, v)
        self.length += k.shape[2]
        return found

    def advance(self, pos: Tensor) -> None:
        self.pos[:, self.length - pos.shape[1] : self.length] = pos


class OnlyNewPositions(KVCache):
    def key_positions(self, pos: Tensor) -> Tensor:
        return pos.expand(len(self.pos), -1)


class PositionsNotStored(KVCache):
    def advance(self, pos: Tensor) -> None:
        self.length += pos.shape[1]


class NeverAdvances(KVCache):
    def advance(self, pos: Tensor) -> None:
        self.pos[:, self.length : self.length + pos.shape[1]] = pos


class NeverCleared(KVCache):
    """Keeps everything it was ever given."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.kept: dict[Any, Tensor] = {}

    def appended(self, key: Any, x: Tensor, dim: int) -> Tensor:
        self.kept[key] = torch.cat([self.kept[key], x], dim) if key in self.kept else x
        return self.kept[key]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.appended(("k", layer), k, 2), self.appended(("v", layer), v, 2)

    def key_positions(self, pos: Tensor) -> Tensor:
        return self.appended("pos", pos.expand(len(self.pos), -1), 1)


def cache_with(**parts: Any) -> type[KVCache]:
    """A cache with some methods done differently."""
    return type("KVCache", (KVCache,), parts)


def update_with(
    start: Any = lambda self, k: self.length,
    end: Any = lambda self, k: self.length + k.shape[2],
    stored: Any = lambda k, v: (k, v),
    layer_of: Any = lambda layer: layer,
    until: Any = None,
) -> type[KVCache]:
    """An `update` that does one thing differently."""

    def update(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        first, last, at = start(self, k), end(self, k), layer_of(layer)
        self.keys[at, :, :, first:last], self.values[at, :, :, first:last] = stored(k, v)
        cut = until(self, k) if until else last
        return self.keys[at, :, :, :cut], self.values[at, :, :, :cut]

    return cache_with(update=update)


def advance_with(
    pos_of: Any = lambda self, pos: pos,
    length: Any = lambda self, pos: self.length + pos.shape[1],
    start: Any = lambda self, pos: self.length,
) -> type[KVCache]:
    """An `advance` that does one thing differently."""

    def advance(self: KVCache, pos: Tensor) -> None:
        first = start(self, pos)
        self.pos[:, first : first + pos.shape[1]] = pos_of(self, pos)
        self.length = length(self, pos)

    return cache_with(advance=advance)


def update_one_token(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """As if tokens came one by one."""
    self.keys[layer, :, :, self.length] = k[:, :, -1]
    self.values[layer, :, :, self.length] = v[:, :, -1]
    end = self.length + k.shape[2]
    return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def update_at_the_end(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The last token goes to its place, the others nowhere."""
    end = self.length + k.shape[2]
    self.keys[layer, :, :, end - 1], self.values[layer, :, :, end - 1] = k[:, :, -1], v[:, :, -1]
    return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


def update_in_front(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = KVCache.update(self, layer, k, v)
    old = self.length
    return (torch.cat([k, keys[:, :, :old]], 2), torch.cat([v, values[:, :, :old]], 2))


def update_returning(choose: Any) -> type[KVCache]:
    """Stores everything rightly and gives something else."""
    return cache_with(
        update=lambda self, layer, k, v: choose(*KVCache.update(self, layer, k, v), k, v)
    )


CACHE = Exercise(
    name="cache",
    title="The KV cache: store keys and values, so that old tokens are not computed again.",
    task=TASKS["cache"],
    reference=KVCache,
    write=("update", "key_positions", "advance"),
    cases=lambda: [
        (1,), (3,), (1, 1), (3, 1), (2, 3, 1), (3, 1, CLEAR, 2, 1), (2, 1, ROWS_DIFFER),
    ],
    drive=drive_cache,
    describe=lambda *sizes: (
        f"parts of {', '.join(str(n) for n in sizes if n > 0)} tokens"
        f"{', cleared after the second' if CLEAR in sizes else ''}"
        f"{', with positions that differ by row' if ROWS_DIFFER in sizes else ''}: for each part "
        "the positions, then keys and values by layer"
    ),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "stale-place",
            "New keys overwrite the first ones. They belong after the `length` tokens that are in "
            "the cache.",
            Stale,
        ),
        Mistake(
            "only-new",
            "`update` gives the new keys alone. Attention needs the keys of all tokens so far.",
            OnlyNew,
        ),
        Mistake(
            "only-old",
            "`update` gives the old keys alone. A token sees itself, so it needs the new keys, "
            "too: cut at length + T.",
            OnlyOld,
        ),
        Mistake(
            "all-memory",
            "`update` gives the memory of the whole context. The places after the new tokens hold "
            "nothing yet: cut at length + T.",
            EverythingGiven,
        ),
        Mistake(
            "one-layer",
            "All layers use the same memory. Each layer has keys and values of its own.", OneLayer,
        ),
        Mistake("swapped", "`update` gives keys and values in the wrong order.", Swapped),
        Mistake(
            "counts-every-layer",
            "`update` changes the length, so it grows with every layer. All layers see the same "
            "new tokens: only `advance` changes the length, once, after all layers.",
            CountsEveryLayer,
        ),
        Mistake(
            "not-advanced",
            "`advance` does not change the length, so the next tokens overwrite these.",
            NeverAdvances,
        ),
        Mistake(
            "positions-not-stored",
            "`advance` does not store the positions of the new tokens. `key_positions` needs them "
            "later: write them to self.pos.",
            PositionsNotStored,
        ),
        Mistake(
            "only-new-positions",
            "`key_positions` gives the new positions alone, not those of all keys.",
            OnlyNewPositions,
        ),
        Mistake(
            "never-cleared",
            "Old keys come back after `clear` has set the length to 0. Only the first `length` "
            "tokens are in the cache.",
            NeverCleared,
        ),
        known(
            "keys-as-values", "The keys are stored as values, too.",
            update_with(stored=lambda k, v: (k, k)),
            update_with(stored=lambda k, v: (v, v)),
            update_returning(lambda keys, values, k, v: (keys, keys)),
        ),
        known(
            "swapped", "`update` gives keys and values in the wrong order.",
            update_with(stored=lambda k, v: (v, k)),
        ),
        known(
            "stale-place",
            "New keys overwrite the first ones. They belong after the `length` tokens that are in "
            "the cache.",
            update_with(start=lambda self, k: 0, end=lambda self, k: k.shape[2],
                        until=lambda self, k: self.length + k.shape[2]),
        ),
        known(
            "one-place-off", "New keys are off by one place: the first one goes to self.length.",
            update_with(start=lambda self, k: self.length + 1,
                        end=lambda self, k: self.length + 1 + k.shape[2]),
            update_with(until=lambda self, k: self.length + k.shape[2] - 1),
            update_with(until=lambda self, k: self.length + k.shape[2] + 1),
        ),
        known(
            "last-token-alone",
            "Only the last of the new tokens is stored. A part may have several: store all T.",
            cache_with(update=update_one_token),
            cache_with(update=update_at_the_end),
        ),
        known(
            "new-tokens-in-front", "New keys come before the old ones. They come after them.",
            cache_with(update=update_in_front),
        ),
        known(
            "another-axis-counted",
            "The new tokens are counted on the wrong axis. k is (B, nkv, T, hs): T is k.shape[2].",
            update_with(end=lambda self, k: self.length + k.shape[1]),
            update_with(end=lambda self, k: self.length + k.shape[0]),
            update_with(end=lambda self, k: self.length + k.shape[3]),
            update_with(until=lambda self, k: self.length + k.shape[1]),
            cache_with(update=lambda self, layer, k, v: (
                self.keys[layer, :, :, : self.length + k.shape[1]].copy_(k),
                KVCache.update(self, layer, k, v))[1]),
        ),
        known(
            "one-layer",
            "All layers use the same memory. Each layer has keys and values of its own.",
            update_with(layer_of=lambda layer: -1),
        ),
        known(
            "one-row", "Only the first row of the batch is stored or given.",
            update_returning(lambda keys, values, k, v: (keys[:1], values[:1])),
        ),
        known(
            "nothing-given", "`update` gives nothing: a return is missing.",
            update_returning(lambda keys, values, k, v: None),
        ),
        known(
            "only-keys-given", "`update` gives the keys alone. Give both: keys, values.",
            update_returning(lambda keys, values, k, v: keys),
        ),
        known(
            "one-of-both-new",
            "`update` gives all keys, but the new values alone, or the other way round.",
            update_returning(lambda keys, values, k, v: (keys, v)),
            update_returning(lambda keys, values, k, v: (k, values)),
        ),
        known(
            "rows-not-expanded",
            "pos may be (1, T), one row for all. Expand it to the rows of the cache before you "
            "join it with the old ones.",
            cache_with(key_positions=lambda self, pos: torch.cat(
                [self.pos[:, : self.length], pos], dim=1)),
        ),
        known(
            "one-row-of-positions",
            "`key_positions` gives one row. The rows may differ: give (B, S).",
            cache_with(key_positions=lambda self, pos: KVCache.key_positions(self, pos)[:1]),
            cache_with(key_positions=lambda self, pos: torch.cat(
                [self.pos[:1, : self.length], pos], dim=1)),
        ),
        known(
            "only-old-positions",
            "`key_positions` gives the old positions alone. The new tokens are keys, too.",
            cache_with(key_positions=lambda self, pos: self.pos[:, : self.length]),
        ),
        known(
            "all-places", "`key_positions` gives the whole memory. Cut it at the keys there are.",
            cache_with(key_positions=lambda self, pos: self.pos),
        ),
        known(
            "counted-positions",
            "The positions are counted, not stored: they differ from the places in the cache, for "
            "example with documents. Store `pos`.",
            advance_with(lambda self, pos: torch.arange(
                self.length, self.length + pos.shape[1]).expand(len(self.pos), -1)),
            cache_with(key_positions=lambda self, pos: torch.arange(
                self.length + pos.shape[1]).expand(len(self.pos), -1)),
            advance_with(lambda self, pos: torch.arange(pos.shape[1]).expand(len(self.pos), -1)),
        ),
        known(
            "positions-in-front", "The new positions come before the old ones.",
            cache_with(key_positions=lambda self, pos: torch.cat(
                [pos.expand(len(self.pos), -1), self.pos[:, : self.length]], dim=1)),
        ),
        known(
            "first-row-of-positions",
            "The positions of the first row are stored for all rows. They may differ.",
            advance_with(lambda self, pos: pos[:1]),
            cache_with(key_positions=lambda self, pos: KVCache.key_positions(self, pos[:1])),
        ),
        known(
            "length-replaced",
            "The length is set to the number of new tokens. Add it: they come after the old ones.",
            advance_with(length=lambda self, pos: pos.shape[1]),
        ),
        known(
            "length-of-another-axis",
            "The length grows by the wrong number. pos is (B, T): T is pos.shape[1].",
            advance_with(length=lambda self, pos: self.length + pos.shape[0]),
            advance_with(length=lambda self, pos: self.length + 1),
            advance_with(length=lambda self, pos: self.length + pos.numel()),
            advance_with(length=lambda self, pos: self.length + len(self.pos)),
        ),
        known(
            "length-from-positions",
            "The length is taken from the positions. They differ from the places in the cache: add "
            "the number of new tokens, pos.shape[1].",
            advance_with(length=lambda self, pos: int(pos.max()) + 1),
            advance_with(length=lambda self, pos: int(pos[0, -1]) + 1),
        ),
        known(
            "positions-in-the-first-places",
            "The positions of new tokens overwrite the first ones. Write them from self.length on.",
            advance_with(start=lambda self, pos: 0),
        ),
        known(
            "length-before-the-positions",
            "The length grows before the positions are written, so they land after the new "
            "tokens. Write first, then set the length.",
            advance_with(start=lambda self, pos: min(
                self.length + pos.shape[1], self.pos.shape[1] - pos.shape[1])),
        ),
    ],
    hints=(
        "The memory is already there: self.keys has a place for every layer, row, head and token.",
        "New tokens go to the places from self.length on. `update` gives everything up to and "
        "including the new tokens.",
        "end = self.length + k.shape[2]; write to [layer, :, :, self.length:end], give "
        "[layer, :, :, :end]. `advance` does the same with self.pos and then sets self.length.",
    ),
)  # fmt: skip


def rotary_cases() -> list[tuple[Any, ...]]:
    quarter = (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    angles = torch.arange(3)[:, None] * torch.tensor([1.0, 0.1])
    return [
        (torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4), *quarter),
        (torch.tensor([1.0, 5.0, 2.0, 7.0]).view(1, 1, 1, 4), *quarter),
        (numbers(2, 2, 3, 4), angles.cos(), angles.sin()),
        (numbers(1, 1, 1, 2), torch.tensor([0.6]), torch.tensor([0.8])),
        (numbers(2, 1, 5, 6), *waves(numbers(5, 3, seed=1))),
        # Rows that stand at different positions, as with documents.
        (numbers(2, 3, 4, 6), *waves(numbers(2, 1, 4, 3, seed=2))),
        (numbers(2, 4, 4, 8), *waves(numbers(4, 4, seed=3))),
        (numbers(1, 1, 3, 4).double(), *waves(numbers(3, 2, seed=4).double())),
    ]


def drive_rotary(candidate: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Answer:
    """The rotated numbers; those of 64 bits with their type, which stays."""
    if x.dtype == torch.float64:
        result = candidate(x, cos, sin)
        return Answer([result, str(result.dtype)])
    inputs = {"x": x, "cos": cos, "sin": sin}
    return with_gradients(candidate, inputs, wanted=("x",))


def waves(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_with(first: Any, second: Any) -> Any:
    """A rotation with other formulas for its two halves."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([first(a, b, cos, sin), second(a, b, cos, sin)], dim=-1)

    return rotated


def rotate_half_with(swap: Any, widened: Any = lambda c: torch.cat([c, c], -1)) -> Any:
    """x * cos + swapped x * sin, as in Hugging Face's code."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        found: Tensor = x * widened(cos) + swap(x) * widened(sin)
        return found

    return rotated


def swapped_halves(x: Tensor, sign: int = -1) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([sign * b, a], -1)


def swapped_neighbours(x: Tensor, sign: int = -1) -> Tensor:
    return torch.stack([sign * x[..., 1::2], x[..., ::2]], -1).flatten(-2)


def rotate_parts(cut: Any, join: Any) -> Any:
    """A rotation that takes pairs apart in one layout and puts them together in another."""

    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = cut(x)
        found: Tensor = join(a * cos - b * sin, a * sin + b * cos)
        return found

    return rotated


def halves(x: Tensor) -> Any:
    return x.chunk(2, dim=-1)


def neighbours(x: Tensor) -> Any:
    return x[..., ::2], x[..., 1::2]


def side_by_side(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], -1)


def in_turns(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], -1).flatten(-2)


def rotate_stale(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The second half is made from the first one after its rotation."""
    a, b = x.chunk(2, dim=-1)
    a = a * cos - b * sin
    return torch.cat([a, a * sin + b * cos], -1)


def rotate_as(angle: Any) -> Any:
    """A rotation by another angle."""
    return lambda x, cos, sin: position.apply_rotary(x, *waves(angle(torch.atan2(sin, cos))))


ROTATION = Exercise(
    name="rope",
    title="Rotary positions (RoPE): rotate pairs of channels.",
    task=TASKS["rope"],
    reference=position.apply_rotary,
    cases=rotary_cases,
    drive=drive_rotary,
    lesson=11,
    mistakes=[
        Mistake(
            "neighbours",
            "Neighbouring channels are paired. Here channel i is paired with i + hs / 2. Both "
            "ways work, but weights trained with one do not work with the other.",
            rotate_neighbours,
        ),
        Mistake(
            "backwards", "It rotates in the wrong direction: the signs of sin are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
        ),
        Mistake(
            "not-a-rotation",
            "The second half has the wrong sign, so it is not a rotation. A rotation gives "
            "a cos - b sin and a sin + b cos.",
            rotate_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: a * sin - b * cos
            ),
        ),
        Mistake(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            rotate_with(
                lambda a, b, cos, sin: a * cos + b * sin, lambda a, b, cos, sin: a * sin + b * cos
            ),
        ),
        Mistake(
            "halves-swapped", "The two halves of the result are swapped.",
            rotate_with(
                lambda a, b, cos, sin: a * sin + b * cos, lambda a, b, cos, sin: a * cos - b * sin
            ),
        ),
        Mistake(
            "half-rotated", "Only the first half is rotated. The second half changes, too.",
            rotate_with(lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b),
        ),
        Mistake(
            "sin-and-cos-swapped", "sin and cos are swapped: an angle of 0 should change nothing.",
            rotate_with(
                lambda a, b, cos, sin: a * sin - b * cos, lambda a, b, cos, sin: a * cos + b * sin
            ),
        ),
        known(
            "neighbours",
            "Neighbouring channels are paired. Here channel i is paired with i + hs / 2. Both "
            "ways work, but weights trained with one do not work with the other.",
            rotate_half_with(swapped_neighbours, lambda c: c.repeat_interleave(2, -1)),
        ),
        known(
            "neighbours-backwards",
            "Neighbouring channels are paired, and they rotate in the wrong direction. Here "
            "channel i is paired with i + hs / 2.",
            rotate_half_with(lambda x: swapped_neighbours(x, 1) * torch.tensor([1.0, -1.0]).repeat(
                x.shape[-1] // 2), lambda c: c.repeat_interleave(2, -1)),
        ),
        known(
            "two-layouts",
            "Pairs are taken apart in one layout and put together in another. Channel i is paired "
            "with i + hs / 2, before and after: cut into halves, join the halves.",
            rotate_parts(halves, in_turns),
            rotate_parts(neighbours, side_by_side),
            rotate_half_with(swapped_neighbours),
            rotate_half_with(swapped_halves, lambda c: c.repeat_interleave(2, -1)),
            rotate_half_with(lambda x: swapped_neighbours(x, 1)),
        ),
        known(
            "changed-on-the-way",
            "The second half is computed from the first half after its rotation. Both come from "
            "the old values: keep them.",
            rotate_stale,
        ),
        known(
            "backwards", "It rotates in the wrong direction: the signs of sin are swapped.",
            rotate_half_with(lambda x: torch.cat([x.chunk(2, -1)[1], -x.chunk(2, -1)[0]], -1)),
        ),
        known(
            "both-plus", "Both signs are plus. One of them is minus: a cos - b sin.",
            rotate_half_with(lambda x: swapped_halves(x, 1)),
        ),
        known(
            "both-minus", "Both signs are minus. The second is plus: a sin + b cos.",
            rotate_with(
                lambda a, b, cos, sin: a * cos - b * sin, lambda a, b, cos, sin: b * cos - a * sin
            ),
            rotate_half_with(lambda x: -swapped_halves(x, 1)),
        ),
        known(
            "halves-not-swapped",
            "Each half is multiplied by cos and sin of its own. In a rotation each half takes part "
            "of the other: a cos - b sin and a sin + b cos.",
            rotate_half_with(lambda x: x),
            rotate_with(
                lambda a, b, cos, sin: a * cos - a * sin, lambda a, b, cos, sin: b * sin + b * cos
            ),
            rotate_with(lambda a, b, cos, sin: a * cos, lambda a, b, cos, sin: b * sin),
        ),
        known(
            "only-cos", "sin is not used.",
            rotate_with(lambda a, b, cos, sin: a * cos, lambda a, b, cos, sin: b * cos),
        ),
        known(
            "half-rotated", "Only one half is rotated. Both change.",
            rotate_with(lambda a, b, cos, sin: a, lambda a, b, cos, sin: a * sin + b * cos),
        ),
        known(
            "first-row-for-all",
            "The angles of the first row are used for all rows. The rows may stand at different "
            "positions: let cos and sin broadcast with x.",
            lambda x, cos, sin: position.apply_rotary(
                x, cos[:1] if cos.ndim == 4 else cos, sin[:1] if sin.ndim == 4 else sin),
        ),
        known(
            "first-angle-for-all",
            "All pairs, or all tokens, rotate by the same angle. Each pair has its own speed, and "
            "each token its own position.",
            lambda x, cos, sin: position.apply_rotary(x, cos[..., :1], sin[..., :1]),
            lambda x, cos, sin: position.apply_rotary(
                x, *(y[..., :1, :] if y.ndim > 1 else y for y in (cos, sin))),
        ),
        known(
            "added", "The rotation is added to x. It takes the place of x.",
            lambda x, cos, sin: x + position.apply_rotary(x, cos, sin),
        ),
        known(
            "twice", "It is rotated by twice the angle.",
            rotate_as(lambda angle: 2 * angle),
        ),
        known(
            "cos-and-sin-again",
            "cos and sin are taken of cos and sin. The arguments are the cosines and sines "
            "themselves.",
            lambda x, cos, sin: position.apply_rotary(x, torch.cos(cos), torch.sin(sin)),
        ),
        known(
            "another-type", "The numbers come back in another type than that of x.",
            lambda x, cos, sin: position.apply_rotary(x, cos, sin).float(),
        ),
    ],
    hints=(
        "Each pair of channels is a point in the plane. Rotate it by its angle.",
        "Cut x into two halves: a holds the first channel of each pair, b the second.",
        "a becomes a cos - b sin, b becomes a sin + b cos. Concatenate the two halves.",
    ),
)  # fmt: skip


WAYS_OF_READING = {
    "whole": "the ids {}",
    "cache": "the ids {} with a cache, two at a time",
    "documents": "the ids {}; the first row holds one token of padding, then two documents",
    "documents, cache": "the same with a cache, two at a time: {}",
    "alibi": "the ids {} with ALiBi, which adds to the scores",
    "training": "the ids {} in training, where the dropout of the embeddings is 1",
    "flat": "ids of one axis, {}",
}


def drive_gpt(cls: type[gpt.GPT], way: str, *ids: list[int]) -> Answer | list[Tensor]:
    """The hidden states of rows of ids, all at once or in parts with a cache.

    Dropout of the embeddings is 1, which shows in evaluation if it is not switched off.
    """
    torch.default_generator.manual_seed(0)
    network = cls(replace(TINY, position="alibi") if way == "alibi" else TINY)
    network.train(way == "training").drop.p = 1.0
    rows = torch.tensor(ids[0] if way == "flat" else ids)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        documents = None
        if "documents" in way:  # padding, then two documents; the other rows are one document
            documents = torch.ones_like(rows)
            documents[0] = torch.tensor([0, 1, 1, *[2] * (rows.shape[1] - 3)])
    if "cache" not in way:
        return with_gradients(lambda: network.hidden_states(rows, documents=documents), {}, network)
    with torch.no_grad():
        cache = empty_cache(network.config, len(rows))
        found, end = [], 0
        for part in rows.split(2, dim=1):
            end += part.shape[1]
            seen = None if documents is None else documents[:, :end]
            found.append(network.hidden_states(part, documents=seen, cache=cache))
        return [*found, torch.tensor(cache.length), cache.keys]


class OtherGPT(gpt.GPT):
    """A GPT-2 whose forward pass can be done differently, part by part."""

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        self.check(ids)
        context = self.seen(ids, documents, cache)
        x = self.dropped(self.embedded(ids, context))
        for layer, block in self.blocks():
            x = block(x, self.of_layer(context, layer))
        if cache:
            self.finish(cache, context)
        return self.normed(x)

    def check(self, ids: Tensor) -> None:
        if ids.ndim != 2:
            raise UserError("use (B, T)")

    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, documents, cache)

    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        return self.wpe.embed(self.wte(ids), context.pos)

    def dropped(self, x: Tensor) -> Tensor:
        result: Tensor = self.drop(x)
        return result

    def blocks(self) -> Any:
        return enumerate(self.h)

    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        return replace(context, layer=layer)

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        cache.advance(context.pos)

    def normed(self, x: Tensor) -> Tensor:
        result: Tensor = self.ln_f(x)
        return result


class NoPositions(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = self.wte(ids)
        return result


class CountsFromZero(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        return self.wpe.embed(self.wte(ids), torch.arange(ids.shape[1])[None])


class CountsThroughDocuments(OtherGPT):
    def embedded(self, ids: Tensor, context: AttentionContext) -> Tensor:
        old, new = context.cache.length if context.cache else 0, ids.shape[1]
        return self.wpe.embed(self.wte(ids), gpt.positions(new, old + new))


class DocumentsIgnored(OtherGPT):
    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, None, cache)


class CacheNotUsed(OtherGPT):
    def seen(self, ids: Tensor, documents: Any, cache: Any) -> AttentionContext:
        return self.context(ids, None if documents is None else documents[:, -ids.shape[1] :])

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class NeverAdvanced(OtherGPT):
    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class AdvancedByEveryBlock(OtherGPT):
    def blocks(self) -> Any:
        for layer, block in enumerate(self.h):
            yield layer, block
            if self.latest.cache:
                self.latest.cache.advance(self.latest.pos)

    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        self.latest = super().of_layer(context, layer)
        return self.latest

    def finish(self, cache: KVCache, context: AttentionContext) -> None:
        pass


class LayerNotGiven(OtherGPT):
    def of_layer(self, context: AttentionContext, layer: int) -> AttentionContext:
        return context


class BlocksBackwards(OtherGPT):
    def blocks(self) -> Any:
        return reversed(list(enumerate(self.h)))


class FirstBlockOnly(OtherGPT):
    def blocks(self) -> Any:
        return ((layer, self.h[0]) for layer, _ in enumerate(self.h))


class NotDropped(OtherGPT):
    def dropped(self, x: Tensor) -> Tensor:
        return x


class AlwaysDropped(OtherGPT):
    def dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.drop.p)


class NoFinalNorm(OtherGPT):
    def normed(self, x: Tensor) -> Tensor:
        return x


def gpt_as(**parts: Any) -> type[OtherGPT]:
    """A GPT-2 with some parts done differently."""
    return type("GPT", (OtherGPT,), parts)


class Between(OtherGPT):
    """Something happens around each block."""

    def around(self, block: Any, x: Tensor, context: AttentionContext) -> Tensor:
        result: Tensor = block(x, context)
        return result

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        self.check(ids)
        context = self.seen(ids, documents, cache)
        x = self.dropped(self.embedded(ids, context))
        for layer, block in self.blocks():
            x = self.around(block, x, self.of_layer(context, layer))
        if cache:
            self.finish(cache, context)
        return self.normed(x)


def around(each: Any, **parts: Any) -> type[Between]:
    return type("GPT", (Between,), {"around": each, **parts})


def unnormed(self: Any, x: Tensor) -> Tensor:
    return x


class EmbeddingsEachTime(Between):
    start: Tensor

    def around(self, block: Any, x: Tensor, context: AttentionContext) -> Tensor:
        first = context.layer == 0
        self.start = x if first else self.start
        result: Tensor = block(self.start, context)
        return result


class FlatIds(gpt.GPT):
    """Ids of one row are accepted without the axis of the batch."""

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        ids = ids if ids.ndim == 2 else ids[None]
        return super().hidden_states(ids, documents=documents, cache=cache)


def assert_two_axes(ids: Tensor) -> None:
    if ids.ndim != 2:
        raise ValueError("use (B, T)")


class UncheckedIds(OtherGPT):
    """Whatever error comes up for ids that are not (B, T)."""

    def check(self, ids: Tensor) -> None:
        pass


GPT_CACHED = Exercise(
    name="gpt-cached",
    title="The forward pass of GPT-2, from ids to hidden states.",
    task=TASKS["gpt-cached"],
    reference=gpt.GPT,
    write=("hidden_states",),
    cases=lambda: [
        ("whole", [3]), ("whole", [3, 1, 4]), ("whole", [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]),
        ("cache", [3, 1, 4, 1, 5]), ("documents", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]),
        ("documents, cache", [3, 1, 4, 1, 5], [2, 7, 1, 8, 2]), ("alibi", [3, 1, 4, 1, 5]),
        ("training", [3, 1, 4]), ("whole", [*range(8)]), ("whole", [*range(9)]),  # one too many
        ("cache", [*range(8)]), ("cache", [*range(9)]), ("flat", [3, 1, 4]),
        ("cache", [3, 1]),
    ],
    drive=drive_gpt,
    describe=lambda way, *ids: WAYS_OF_READING[way].format(ids),
    lesson=12,
    optional=True,
    mistakes=[
        Mistake(
            "no-positions",
            "The positions are not embedded, so the model does not know the order of the tokens.",
            NoPositions,
        ),
        Mistake(
            "positions-from-zero",
            "Positions start at 0 in every part of a text, and count on across documents. "
            "context.pos has the right ones: with a cache the ids continue a text.",
            CountsFromZero,
        ),
        Mistake(
            "positions-across-documents",
            "Positions count on from one document of a row into the next. context.pos starts each "
            "document at 0.",
            CountsThroughDocuments,
        ),
        Mistake(
            "documents-ignored",
            "`documents` is not used, so tokens see the other documents of their row. Give it to "
            "self.context.",
            DocumentsIgnored,
        ),
        Mistake(
            "cache-not-used",
            "The cache is not used: every part is computed as if nothing came before it. Give the "
            "cache to self.context.",
            CacheNotUsed,
        ),
        Mistake(
            "not-advanced",
            "The cache does not advance, so the next part overwrites this one. Call cache.advance "
            "after the blocks.",
            NeverAdvanced,
        ),
        Mistake(
            "advanced-by-every-block",
            "The cache advances after every block. All blocks see the same new tokens: advance "
            "once, after the last block.",
            AdvancedByEveryBlock,
        ),
        Mistake(
            "layer-not-given",
            "All blocks use the cache of layer 0. Tell each block its number: "
            "replace(context, layer=layer).",
            LayerNotGiven,
        ),
        Mistake(
            "blocks-backwards", "The blocks run from the last to the first. Go through self.h in "
            "order.",
            BlocksBackwards,
        ),
        Mistake(
            "one-block", "The first block runs every time. Go through all of self.h.",
            FirstBlockOnly,
        ),
        Mistake(
            "no-final-norm",
            "The final norm, ln_f, is missing. The residual stream grows from block to block, and "
            "the head needs vectors of one size.",
            NoFinalNorm,
        ),
        Mistake(
            "no-dropout",
            "self.drop is not used: in training it follows the embeddings.", NotDropped,
        ),
        Mistake(
            "dropout-in-evaluation",
            "Dropout stays on in evaluation. self.drop knows whether the model is in training; "
            "F.dropout has to be told: training=self.training.",
            AlwaysDropped,
        ),
        known(
            "embeddings-scaled",
            "The token embeddings are multiplied by sqrt(C), as in the first Transformer of 2017. "
            "GPT-2 does not do that.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(
                s.wte(ids) * math.sqrt(s.config.n_embd), c.pos)),
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wte(ids), c.pos) * math.sqrt(
                s.config.n_embd)),
        ),
        known(
            "positions-from-one", "Positions start at 1. Use context.pos as it is.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wte(ids), c.pos + 1)),
        ),
        known(
            "positions-twice", "The positions are added more than once.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(s.wpe.embed(s.wte(ids), c.pos), c.pos)),
            around(lambda s, block, x, c: block(s.wpe.embed(x, c.pos), c)),
        ),
        known(
            "tokens-forgotten", "The tokens are not embedded: these are the positions alone.",
            gpt_as(embedded=lambda s, ids, c: s.wpe.embed(0 * s.wte(ids), c.pos)),
        ),
        known(
            "last-block-left-out", "The last block does not run.",
            gpt_as(blocks=lambda s: list(enumerate(s.h))[:-1]),
        ),
        known(
            "first-block-left-out", "The first block does not run.",
            gpt_as(blocks=lambda s: list(enumerate(s.h))[1:]),
        ),
        known(
            "blocks-ignored",
            "The blocks are not used, or their results are thrown away: write x = block(...).",
            around(lambda s, block, x, c: (block(x, c), x)[1]),
            around(lambda s, block, x, c: x),
        ),
        known(
            "blocks-from-the-embedding",
            "Every block gets the embeddings. Each block gets the result of the one before it.",
            EmbeddingsEachTime,
        ),
        known(
            "residual-outside",
            "x is added to the result of each block. The residual connections are inside the "
            "blocks already.",
            around(lambda s, block, x, c: x + block(x, c)),
        ),
        known(
            "norm-in-the-loop",
            "ln_f is applied in each round of the loop. It comes once, after the last block.",
            around(lambda s, block, x, c: s.ln_f(block(x, c)), normed=unnormed),
            around(lambda s, block, x, c: s.ln_f(block(x, c))),
            around(lambda s, block, x, c: block(s.ln_f(x), c)),
            around(lambda s, block, x, c: block(s.ln_f(x), c), normed=unnormed),
        ),
        known(
            "norm-before-the-blocks", "ln_f is applied to the embeddings. It comes after the last "
            "block.",
            gpt_as(dropped=lambda s, x: s.ln_f(s.drop(x)), normed=unnormed),
        ),
        known(
            "norm-twice", "ln_f is applied twice.",
            gpt_as(normed=lambda s, x: s.ln_f(s.ln_f(x))),
        ),
        known(
            "logits",
            "These are logits. hidden_states ends before the head: give ln_f(x), (B, T, C).",
            gpt_as(normed=lambda s, x: s.head(s.ln_f(x))),
            gpt_as(normed=lambda s, x: s.ln_f(x) @ s.wte.weight.T),
        ),
        known(
            "last-token-alone", "Only the last token has hidden states. Give all, (B, T, C).",
            gpt_as(normed=lambda s, x: s.ln_f(x[:, -1:])),
            gpt_as(normed=lambda s, x: s.ln_f(x)[:, -1]),
        ),
        known(
            "layer-not-given",
            "All blocks use the cache of one layer. Tell each block its number: "
            "replace(context, layer=layer).",
            gpt_as(of_layer=lambda s, c, layer: replace(c, layer=len(s.h) - 1)),
        ),
        known(
            "layers-from-one",
            "The layers are counted from 1. The cache counts them from 0.",
            gpt_as(of_layer=lambda s, c, layer: replace(c, layer=layer + 1)),
        ),
        known(
            "advanced-before",
            "The cache advances before the blocks have run, so their keys land after an empty "
            "place. Advance after the last block.",
            gpt_as(dropped=lambda s, x: s.drop(x), seen=lambda s, ids, d, cache: (
                c := gpt.GPT.context(s, ids, d, cache), cache.advance(c.pos) if cache else None
            )[0], finish=lambda s, cache, c: None),
        ),
        known(
            "advanced-twice", "The cache advances twice.",
            gpt_as(finish=lambda s, cache, c: (cache.advance(c.pos), cache.advance(c.pos))),
        ),
        known(
            "documents-of-the-new",
            "With a cache only the documents of the new tokens are given. self.context needs those "
            "of the old tokens, too.",
            gpt_as(seen=lambda s, ids, d, cache: s.context(
                ids, None if d is None else d[:, -ids.shape[1] :], cache)),
        ),
        known(
            "flat-ids",
            "Ids of one axis are accepted. They have to be (B, T): raise UserError otherwise, "
            "which says what to do.",
            FlatIds,
        ),
        known(
            "ids-not-checked",
            "Ids that are not (B, T) raise some other error. Check ids.ndim first, and raise "
            "UserError of nanogpt.errors.",
            UncheckedIds,
            gpt_as(check=lambda s, ids: assert_two_axes(ids)),
        ),
        known(
            "context-from-nothing",
            "Neither documents nor cache are given to self.context.",
            gpt_as(seen=lambda s, ids, d, cache: s.context(ids)),
        ),
    ],
    hints=(
        "Embed tokens and positions, send them through the blocks, apply the final norm.",
        "self.context(ids, documents, cache) says where the tokens stand (context.pos) and what "
        "they may see. Every block gets x and the context with the number of its layer.",
        "for layer, block in enumerate(self.h): x = block(x, replace(context, layer=layer)). "
        "After the blocks call cache.advance(context.pos) if there is a cache.",
    ),
)  # fmt: skip
