"""Exercises in plain form: embeddings, averages, the causal mask, many heads, all of GPT-2."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt.learn import plain
from nanogpt.learn.answers import with_gradients
from nanogpt.learn.exercise import Exercise
from nanogpt.learn.exercises.known import checked_kernels, known, numbers
from nanogpt.learn.exercises.tasks import TASKS
from nanogpt.model.attention import (
    AttentionContext,
    CausalSelfAttention,
    attention,
    attention_mask,
)
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, LMHead
from nanogpt.model.layers import layer_norm, softmax
from nanogpt.model.position import Sinusoidal


def embed_cases() -> list[tuple[Any, ...]]:
    wte, wpe = numbers(7, 3), numbers(5, 3, seed=1)
    small = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return [
        (torch.tensor([[2]]), small, 10 * small),
        (torch.tensor([[2, 0]]), small, 10 * small),
        (torch.tensor([[1, 1, 1]]), small, 10 * small),
        (torch.tensor([[6, 0, 3, 3, 1]]), wte, wpe),  # all positions there are
        (torch.tensor([[4, 0, 2], [0, 4, 4]]), wte, wpe),
        (torch.tensor([[4, 0], [0, 4], [3, 1]]), wte, wpe),
        (torch.tensor([[4, 0], [2, 4]]), wte, wpe),  # as many texts as tokens
    ]


def embed_with(
    tokens: Any = lambda ids, wte, wpe: wte[ids],
    positions: Any = lambda ids, wte, wpe: wpe[: ids.shape[1]],
    joined: Any = lambda x, p: x + p,
) -> Any:
    """An embedding that does one thing differently."""

    def embedded(ids: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
        found: Tensor = joined(tokens(ids, wte, wpe), positions(ids, wte, wpe))
        return found

    return embedded


EMBED = Exercise(
    name="embed",
    title="Look up a vector for each token, and add a vector for its position.",
    task=TASKS["embed"],
    reference=plain.embed,
    cases=embed_cases,
    lesson=4,
    mistakes=[
        known(
            "no-positions",
            "The positions are not added, so the same token has the same vector everywhere.",
            embed_with(joined=lambda x, p: x),
        ),
        known(
            "no-tokens", "These are the positions alone: look up the rows of wte as well.",
            embed_with(joined=lambda x, p: p.expand_as(x)),
        ),
        known(
            "positions-by-token",
            "The rows of wpe are looked up by token. A row of wpe belongs to a position: the first "
            "token takes row 0, the second row 1, whatever they are.",
            embed_with(positions=lambda ids, wte, wpe: wpe[ids]),
            embed_with(positions=lambda ids, wte, wpe: wpe[ids.clamp(max=len(wpe) - 1)]),
        ),
        known(
            "tables-swapped",
            "The tables are swapped: wte is looked up by token, wpe by position.",
            embed_with(
                lambda ids, wte, wpe: wpe[ids], lambda ids, wte, wpe: wte[: ids.shape[1]]
            ),
            embed_with(
                lambda ids, wte, wpe: wpe[ids.clamp(max=len(wpe) - 1)],
                lambda ids, wte, wpe: wte[: ids.shape[1]],
            ),
        ),
        known(
            "positions-from-one",
            "Positions start at 1. The first token takes row 0 of wpe.",
            embed_with(positions=lambda ids, wte, wpe: wpe[1 : ids.shape[1] + 1]),
            embed_with(positions=lambda ids, wte, wpe: wpe[torch.arange(1, ids.shape[1] + 1)]),
            embed_with(positions=lambda ids, wte, wpe: wpe[
                torch.arange(1, ids.shape[1] + 1) % len(wpe)]),
            embed_with(positions=lambda ids, wte, wpe: wpe[
                torch.arange(1, ids.shape[1] + 1).clamp(max=len(wpe) - 1)]),
        ),
        known(
            "positions-of-the-texts",
            "As many rows of wpe are taken as there are texts. Take one for each token of a text: "
            "T is ids.shape[1].",
            embed_with(positions=lambda ids, wte, wpe: wpe[: len(ids)]),
            embed_with(positions=lambda ids, wte, wpe: wpe[torch.arange(len(ids))]),
        ),
        known(
            "one-position-for-all",
            "All tokens get the same position. Token number t takes row t of wpe.",
            embed_with(positions=lambda ids, wte, wpe: wpe[0]),
            embed_with(positions=lambda ids, wte, wpe: wpe[ids.shape[1] - 1]),
            embed_with(positions=lambda ids, wte, wpe: wpe[-1]),
            embed_with(positions=lambda ids, wte, wpe: wpe[: ids.shape[1]].sum(0)),
            embed_with(positions=lambda ids, wte, wpe: wpe[: ids.shape[1]].mean(0)),
        ),
        known(
            "position-by-row",
            "The position depends on the row of the batch. Each row is a text of its own and "
            "starts at position 0.",
            embed_with(positions=lambda ids, wte, wpe: wpe[: len(ids)][:, None]),
            embed_with(positions=lambda ids, wte, wpe: wpe[torch.arange(ids.numel()).view_as(ids)
                                                           % len(wpe)]),
        ),
        known(
            "positions-backwards", "The positions count backwards: the first token takes row 0.",
            embed_with(positions=lambda ids, wte, wpe: wpe[: ids.shape[1]].flip(0)),
        ),
        known(
            "last-rows", "It takes the last rows of wpe. The first token takes row 0.",
            embed_with(positions=lambda ids, wte, wpe: wpe[len(wpe) - ids.shape[1] :]),
        ),
        known(
            "multiplied", "The two vectors are multiplied. Add them.",
            embed_with(joined=lambda x, p: x * p),
        ),
        known(
            "concatenated",
            "The two vectors are joined to one of 2 C numbers. Add them: the result has C.",
            embed_with(joined=lambda x, p: torch.cat([x, p.expand_as(x)], -1)),
        ),
        known(
            "subtracted", "The positions are subtracted. Add them.",
            embed_with(joined=lambda x, p: x - p),
        ),
        known(
            "averaged", "That is the mean of the two vectors. GPT-2 adds them.",
            embed_with(joined=lambda x, p: (x + p) / 2),
        ),
        known(
            "scaled",
            "The token's vector is multiplied by sqrt(C), as in the first Transformer of 2017. "
            "GPT-2 does not do that.",
            embed_with(lambda ids, wte, wpe: wte[ids] * wte.shape[1] ** 0.5),
        ),
        known(
            "summed-over-tokens",
            "The vectors of all tokens are added up. Each token keeps its own: (B, T, C).",
            embed_with(joined=lambda x, p: (x + p).sum(1)),
            embed_with(joined=lambda x, p: (x + p).mean(1)),
        ),
        known(
            "one-row",
            "The axis of the batch is lost or doubled. ids (B, T) gives (B, T, C).",
            embed_with(joined=lambda x, p: (x + p)[0]),
            embed_with(joined=lambda x, p: (x + p)[None]),
        ),
    ],
    hints=(
        "A table is a tensor whose rows are looked up by number: wte[5] is the vector of token 5.",
        "A tensor of ids can be an index, too: wte[ids] has the shape (B, T, C). The positions of "
        "a text of T tokens are 0 to T - 1, the same in every row of the batch.",
        "Add wte[ids] and the first T rows of wpe, where T = ids.shape[1].",
    ),
)  # fmt: skip


def lower(x: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1]).tril(diagonal)


def average_with(
    weights: Any = lower,
    divided: Any = lambda w: w / w.sum(-1, keepdim=True),
    mixed: Any = lambda w, x: w @ x,
) -> Any:
    """An average that does one thing differently."""

    def averaged(x: Tensor) -> Tensor:
        found: Tensor = mixed(divided(weights(x)), x)
        return found

    return averaged


def halved_on_the_way(x: Tensor) -> Tensor:
    rows = [x[:, 0]]
    for t in range(1, x.shape[1]):
        rows.append((rows[-1] + x[:, t]) / 2)
    return torch.stack(rows, 1)


def with_the_one_before(x: Tensor) -> Tensor:
    before = torch.cat([x[:, :1], x[:, :-1]], 1)
    return (x + before) / 2


def before_itself(x: Tensor) -> Tensor:
    """The mean of the earlier tokens; the first token has only itself."""
    return torch.stack([x[:, : max(t, 1)].mean(1) for t in range(x.shape[1])], 1)


AVERAGE = Exercise(
    name="average",
    title="The mean of each token and all earlier ones, by one matrix product.",
    task=TASKS["average"],
    reference=plain.average,
    cases=lambda: [
        (torch.tensor([[[2.0], [4.0]]]),), (torch.tensor([[[2.0], [4.0], [9.0]]]),),
        (numbers(1, 1, 3),), (numbers(1, 4, 4),), (numbers(3, 3, 3),), (numbers(2, 5, 3),),
    ],
    lesson=6,
    mistakes=[
        known(
            "sum",
            "These are sums. A mean divides by the number of tokens that were added: each row of "
            "the matrix sums to 1.",
            average_with(divided=lambda w: w),
        ),
        known(
            "divided-by-all",
            "Every row is divided by T. The first token has 1 token to average, the second 2: "
            "divide row t by t + 1.",
            average_with(divided=lambda w: w / len(w)),
        ),
        known(
            "divided-by-columns",
            "The columns are divided, not the rows. sum(-1, keepdim=True) has the shape (T, 1) and "
            "divides each row by its own sum.",
            average_with(divided=lambda w: w / w.sum(-1)),
            average_with(divided=lambda w: w / w.sum(0)),
            average_with(divided=lambda w: w / w.sum(0, keepdim=True).T),
        ),
        known(
            "all-tokens",
            "It averages over all tokens, the later ones too. A token sees itself and the earlier "
            "ones: keep the lower triangle, `tril`.",
            average_with(lambda x: torch.ones(x.shape[1], x.shape[1])),
            lambda x: x.mean(1),
            lambda x: x.mean(1, keepdim=True),
        ),
        known(
            "later-tokens",
            "It averages over the later tokens. Keep the lower triangle of the matrix: row t has "
            "ones in the columns 0 to t.",
            average_with(lambda x: lower(x).T),
            average_with(lambda x: lower(x).T, lambda w: w / w.sum(-1)),
            average_with(mixed=lambda w, x: w.T @ x),
        ),
        known(
            "without-itself",
            "A token is left out of its own mean. The diagonal of the matrix is visible, too.",
            before_itself,
            average_with(lambda x: lower(x, -1)),
            average_with(lambda x: lower(x, -1), lambda w: w / w.sum(-1, True).clamp(min=1)),
            average_with(lambda x: lower(x, -1), lambda w: w / (lower(w[None]).sum(-1, True))),
        ),
        known(
            "the-next-as-well",
            "Each token sees the next token as well. Hide every column to the right of the "
            "diagonal.",
            average_with(lambda x: lower(x, 1)),
        ),
        known(
            "hidden-as-zero",
            "Softmax gives the hidden tokens a weight, too, because exp(0) is 1. Set them to "
            "minus infinity before softmax, or do without softmax.",
            average_with(divided=softmax),
        ),
        known(
            "over-channels",
            "It averages over the channels. The tokens are the axis in the middle: the matrix "
            "(T, T) stands on the left of x.",
            lambda x: x.cumsum(-1) / torch.arange(1, x.shape[-1] + 1),
            lambda x: x.mean(-1, keepdim=True),
            lambda x: x.mean(-1, keepdim=True).expand_as(x),
        ),
        known(
            "over-the-batch",
            "It averages over the rows of the batch. Each row is a text of its own.",
            lambda x: x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None, None],
            lambda x: plain.average(x).mean(0, keepdim=True).expand_as(x),
        ),
        known(
            "matrix-on-the-right",
            "The product is the wrong way round: (T, T) @ (B, T, C) mixes tokens, "
            "x @ matrix mixes channels.",
            average_with(mixed=lambda w, x: x @ w),
            average_with(mixed=lambda w, x: x @ w.T),
        ),
        known(
            "halved-on-the-way",
            "The mean so far and the new token get one half each, so earlier tokens count less and "
            "less. All tokens have the same weight.",
            halved_on_the_way,
        ),
        known(
            "two-tokens",
            "It averages each token with the one before it. Take all earlier tokens.",
            with_the_one_before,
        ),
        known(
            "one-count-ahead",
            "The division is off by one. Token number t, counted from 0, has t + 1 tokens to "
            "average.",
            average_with(divided=lambda w: w / (w.sum(-1, keepdim=True) + 1)),
            average_with(divided=lambda w: w / (w.sum(-1, keepdim=True) - 1)),
            average_with(divided=lambda w: w / (w.sum(-1, keepdim=True) - 1).clamp(min=1)),
        ),
    ],
    hints=(
        "Write the matrix for three tokens on paper: row t says how much token t takes from each "
        "token.",
        "torch.ones(T, T).tril() has a 1 where a token may look. Divide each row by its own sum.",
        "weights / weights.sum(-1, keepdim=True) @ x: (T, T) @ (B, T, C) gives (B, T, C).",
    ),
)  # fmt: skip


def causal_with(seen: Any, *finished: Any) -> list[Any]:
    """Masks of another kind; d is how far back each key is."""

    def one(finish: Any) -> Any:
        def mask(T: int) -> Tensor:
            distance = torch.arange(T)[:, None] - torch.arange(T)
            found: Tensor = finish(seen(distance))
            return found

        return mask

    return [one(finish) for finish in finished]


def visible(d: Tensor) -> Tensor:
    return d >= 0


def as_it_is(seen: Tensor) -> Tensor:
    return seen


def as_ints(seen: Tensor) -> Tensor:
    return seen.long()


def as_floats(seen: Tensor) -> Tensor:
    return seen.float()


def mask_in_the_model(mine: Any) -> Any:
    """A causal mask as the package calls it: for the last tokens, with windows and documents."""

    def mask(
        new: int, known: int, window: int = 0, same: Tensor | None = None, device: Any = None
    ) -> Tensor:
        rest = attention_mask(new, known, window, same, device)
        return rest & mine(known).to(device)[known - new :]

    return mask


CAUSAL_MASK = Exercise(
    name="mask",
    title="The causal mask: no token sees a later token.",
    task=TASKS["mask"],
    reference=plain.causal_mask,
    replaces=attention_mask,
    adapt=mask_in_the_model,
    cases=lambda: [(1,), (2,), (3,), (5,)],
    lesson=6,
    mistakes=[
        known(
            "sees-the-next",
            "Each token sees the next token, and that is the token it has to predict. Hide every "
            "key that comes after the query.",
            *causal_with(lambda d: d >= -1, as_it_is, as_ints, as_floats),
        ),
        known(
            "blind-to-itself",
            "No token sees itself, and the first token sees nothing at all: softmax over nothing "
            "is not a number. Hide only the keys after the query.",
            *causal_with(lambda d: d > 0, as_it_is, as_ints, as_floats),
        ),
        known(
            "past-hidden",
            "The past is hidden and the future is visible. It should be the other way round: the "
            "lower triangle is True.",
            *causal_with(lambda d: d <= 0, as_it_is, as_ints, as_floats),
        ),
        known(
            "upside-down",
            "The mask is True where a key is hidden. It should be True where a query may look.",
            *causal_with(lambda d: d < 0, as_it_is, as_ints, as_floats),
        ),
        known(
            "ones-and-zeros",
            "These are ones and zeros. A mask of numbers is added to the scores, and adding 0 "
            "hides nothing. Give True and False, as a comparison does.",
            *causal_with(visible, as_ints, as_floats),
        ),
        known(
            "numbers-to-add",
            "These are numbers to add to the scores: 0 and minus infinity, or a large negative "
            "number. Give True where a query may look and False elsewhere.",
            *causal_with(visible, lambda seen: seen.float().log(),
                         lambda seen: -1e9 * (~seen).float(), lambda seen: -1e10 * (~seen).float()),
        ),
        known(
            "hides-nothing", "Everything is visible, the future too.",
            *causal_with(lambda d: d == d, as_it_is, as_ints, as_floats),
        ),
        known(
            "only-itself",
            "Each token sees itself alone. It sees all earlier tokens as well.",
            *causal_with(lambda d: d == 0, as_it_is, as_ints, as_floats),
        ),
        known(
            "axes-lost",
            "For one token the axes are lost: squeeze removes every axis of length 1. The shape is "
            "(T, T), which is (1, 1).",
            *causal_with(visible, torch.squeeze),
        ),
        known(
            "more-axes",
            "The values are right, but there are axes of length 1 in front. The shape is (T, T); "
            "it broadcasts over batch and heads without them.",
            *causal_with(visible, lambda seen: seen[None], lambda seen: seen[None, None]),
        ),
    ],
    hints=(
        "Draw it for three tokens: a row for each query, a column for each key.",
        "Query number t may look at the keys 0 to t. That is the lower triangle with its diagonal.",
        "torch.ones(T, T, dtype=torch.bool).tril(), or compare torch.arange(T)[:, None] with "
        "torch.arange(T).",
    ),
)  # fmt: skip


def linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    """A linear map with weights and biases that all matter."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(numbers(outputs, inputs, seed=seed, scale=0.7))
        layer.bias.copy_(numbers(outputs, seed=seed + 1, scale=0.5))
    return layer


def drive_heads(candidate: Callable[..., Any], x: Tensor, n_head: int) -> Any:
    """Call multi_head_attention with two linear maps."""
    C = x.shape[-1]
    maps = nn.ModuleList([linear(C, 3 * C, seed=5), linear(C, C, seed=7)])
    with checked_kernels():
        return with_gradients(lambda x: candidate(x, *maps, n_head), {"x": x}, maps)


def cut(x: Tensor, n_head: int) -> Tensor:
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)


def join(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal=True)


def in_heads(qkv: Tensor, n_head: int) -> list[Tensor]:
    return [cut(part, n_head) for part in qkv.chunk(3, -1)]


def heads_with(
    parts: Any = lambda x, qkv, n: in_heads(qkv, n),
    attended: Any = attend,
    joined: Any = join,
    projected: Any = lambda y, c_proj, x: c_proj(y),
    heads: Any = lambda n: n,
) -> Any:
    """Multi-head attention that does one thing differently."""

    def attends(x: Tensor, c_attn: Any, c_proj: Any, n_head: int) -> Tensor:
        q, k, v = parts(x, c_attn(x), heads(n_head))
        found: Tensor = projected(joined(attended(q, k, v)), c_proj, x)
        return found

    return attends


def scores_with(
    scale: Any = lambda q: math.sqrt(q.shape[-1]),
    axis: int = -1,
    hidden: Any = lambda scores, later: softmax(scores.masked_fill(later, -math.inf)),
) -> Any:
    """Attention in the heads that does one thing differently."""

    def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) / scale(q)
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        found: Tensor = hidden(scores, later) @ v
        return found

    return attended


def chosen(choose: Any) -> Any:
    """The parts of c_attn(x) in other roles."""
    return lambda x, qkv, n: [cut(part, n) for part in choose(*qkv.chunk(3, -1), x)]


def heads_in_the_model(mine: Any) -> type[CausalSelfAttention]:
    """Many heads as a layer of the package, which uses them where there is no mask and no cache."""

    class MyHeads(CausalSelfAttention):
        def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
            if context.mask is not None or context.cache or not context.causal:
                return super().forward(x, context)

            def c_attn(x: Tensor) -> Tensor:
                """Norm, rotation and repeated key heads are done here, so `mine` need not know."""
                q, k, v = map(self.split_heads, self.c_attn(x).split(self.widths, dim=-1))
                if self.qk_norm:
                    q, k = self.rms_norm(q), self.rms_norm(k)
                q, k = context.position.rotate(q, k, context.pos)
                k, v = (part.repeat_interleave(self.groups, dim=1) for part in (k, v))
                return torch.cat([join(part) for part in (q, k, v)], dim=-1)

            result: Tensor = self.dropout(
                mine(x, c_attn, self.c_proj, x.shape[-1] // self.head_size)
            )
            return result

    return MyHeads


HEADS = Exercise(
    name="heads",
    title="Many heads: cut the channels, attend in each part, join the results.",
    task=TASKS["heads"],
    reference=plain.multi_head_attention,
    replaces=CausalSelfAttention,
    adapt=heads_in_the_model,
    cases=lambda: [
        (numbers(1, 1, 4), 1), (numbers(1, 2, 4), 2), (numbers(1, 3, 8), 2),
        (numbers(2, 5, 8, seed=1), 2), (numbers(2, 4, 8, seed=2), 4), (numbers(3, 4, 12), 3),
    ],
    drive=drive_heads,
    describe=lambda x, n_head: (
        f"n_head={n_head}, x of shape {tuple(x.shape)}, c_attn and c_proj linear maps"
    ),
    lesson=6,
    mistakes=[
        known(
            "merged-without-transpose",
            "The heads are joined in the wrong order: (B, nh, T, hs) was reshaped as it lies in "
            "memory, so tokens are mixed with heads. Swap heads and tokens first.",
            heads_with(joined=lambda y: y.reshape(y.shape[0], y.shape[2], -1)),
        ),
        known(
            "merged-in-turns",
            "The heads are joined in turns, channel by channel. The channels of one head stay side "
            "by side.",
            heads_with(joined=lambda y: y.permute(0, 2, 3, 1).flatten(2)),
        ),
        known(
            "view-for-transpose",
            "The channels were reshaped to (B, nh, T, hs) in one step, which cuts the memory in "
            "the wrong places. Cut the channels into (nh, hs) first, then swap heads and tokens.",
            heads_with(lambda x, qkv, n: [
                p.reshape(p.shape[0], n, p.shape[1], -1) for p in qkv.chunk(3, -1)
            ]),
            heads_with(
                lambda x, qkv, n: [
                    p.reshape(p.shape[0], n, p.shape[1], -1) for p in qkv.chunk(3, -1)
                ],
                joined=lambda y: y.reshape(y.shape[0], y.shape[2], -1),
            ),
        ),
        known(
            "heads-not-transposed",
            "Heads and tokens are not swapped before attention, so each token compares its heads "
            "with each other. Attention needs (B, nh, T, hs).",
            heads_with(
                lambda x, qkv, n: [p.unflatten(-1, (n, -1)) for p in qkv.chunk(3, -1)],
                joined=lambda y: y.flatten(2),
            ),
        ),
        known(
            "split-in-turns",
            "The channels are dealt out to the heads in turns: the last axis was cut into (hs, nh) "
            "and not into (nh, hs). The first hs channels belong to the first head.",
            heads_with(lambda x, qkv, n: [
                p.unflatten(-1, (-1, n)).permute(0, 3, 1, 2) for p in qkv.chunk(3, -1)
            ]),
            heads_with(
                lambda x, qkv, n: [
                    p.unflatten(-1, (-1, n)).permute(0, 3, 1, 2) for p in qkv.chunk(3, -1)
                ],
                joined=lambda y: y.permute(0, 2, 3, 1).flatten(2),
            ),
        ),
        known(
            "sizes-swapped",
            "The number of heads and their size are swapped: there are n_head heads of C / n_head "
            "channels.",
            heads_with(lambda x, qkv, n: [
                cut(p, p.shape[-1] // n) for p in qkv.chunk(3, -1)
            ]),
        ),
        known(
            "heads-before-parts",
            "The 3 C channels are cut into heads first, and each head into queries, keys and "
            "values. GPT-2 has all queries first, then all keys, then all values: split into three "
            "parts first.",
            heads_with(lambda x, qkv, n: cut(qkv, n).chunk(3, -1)),
        ),
        known(
            "parts-in-turns",
            "Queries, keys and values are taken in turns, channel by channel. They lie side by "
            "side: the first C channels are the queries.",
            heads_with(lambda x, qkv, n: [
                cut(p, n) for p in qkv.unflatten(-1, (-1, 3)).unbind(-1)
            ]),
        ),
        known(
            "one-head",
            "There is one head of C channels. Cut the channels into n_head parts, and attend in "
            "each part.",
            heads_with(heads=lambda n: 1),
            heads_with(attended=lambda q, k, v: cut(attend(join(q)[:, None], join(k)[:, None],
                                                           join(v)[:, None])[:, 0], q.shape[1])),
        ),
        known(
            "scaled-by-all-channels",
            "The scores are divided by sqrt(C). Each head has hs = C / n_head channels: divide by "
            "sqrt(hs).",
            heads_with(attended=scores_with(lambda q: math.sqrt(q.shape[1] * q.shape[-1]))),
        ),
        known(
            "no-scale", "The scores are not divided by sqrt(hs).",
            heads_with(attended=scores_with(lambda q: 1.0)),
        ),
        known(
            "scale-without-root", "The scores are divided by hs. Divide by its square root.",
            heads_with(attended=scores_with(lambda q: q.shape[-1])),
        ),
        known(
            "causal-ignored", "The future is not hidden: no token may see a later token.",
            heads_with(attended=attention),
        ),
        known(
            "mask-after-softmax",
            "The mask is applied after softmax. Then the weights do not sum to 1: set the scores "
            "of later tokens to minus infinity before softmax.",
            heads_with(attended=scores_with(
                hidden=lambda s, later: softmax(s).masked_fill(later, 0)
            )),
        ),
        known(
            "hidden-as-zero",
            "The scores of later tokens are set to 0, and exp(0) is 1. Use minus infinity.",
            heads_with(attended=scores_with(
                hidden=lambda s, later: softmax(s.masked_fill(later, 0))
            )),
        ),
        known(
            "softmax-over-queries",
            "Softmax runs over the queries. The weights of one query, over all keys, sum to 1: use "
            "the last axis.",
            heads_with(attended=scores_with(
                hidden=lambda s, later: softmax(s.masked_fill(later, -math.inf), -2)
            )),
        ),
        known(
            "softmax-over-heads", "Softmax runs over the heads. Use the last axis, the keys.",
            heads_with(attended=scores_with(
                hidden=lambda s, later: softmax(s.masked_fill(later, -math.inf), 1)
            )),
        ),
        known(
            "no-softmax", "Softmax is missing: scores are not weights.",
            heads_with(attended=scores_with(hidden=lambda s, later: s.masked_fill(later, 0))),
        ),
        known(
            "softmax-twice", "Softmax is applied twice, so the weights are nearly equal.",
            heads_with(attended=scores_with(
                hidden=lambda s, later: softmax(softmax(s.masked_fill(later, -math.inf)))
            )),
        ),
        known(
            "keys-first",
            "Queries and keys are swapped: c_attn gives queries, keys, values in this order.",
            heads_with(chosen(lambda q, k, v, x: (k, q, v))),
        ),
        known(
            "values-second",
            "Keys and values are swapped: c_attn gives queries, keys, values in this order.",
            heads_with(chosen(lambda q, k, v, x: (q, v, k))),
            heads_with(chosen(lambda q, k, v, x: (v, k, q))),
        ),
        known(
            "keys-mixed",
            "The keys are mixed in place of the values. Keys are compared with queries; what is "
            "mixed by the weights are the values.",
            heads_with(chosen(lambda q, k, v, x: (q, k, k))),
        ),
        known(
            "x-mixed",
            "x itself is mixed by the weights. Mix the values, the last third of c_attn(x).",
            heads_with(chosen(lambda q, k, v, x: (q, k, x))),
        ),
        known(
            "x-for-queries", "x itself is used for queries, keys and values. Use c_attn(x).",
            heads_with(chosen(lambda q, k, v, x: (x, x, x))),
            heads_with(chosen(lambda q, k, v, x: (x, k, v))),
            heads_with(chosen(lambda q, k, v, x: (q, x, v))),
        ),
        known(
            "queries-as-keys", "Queries are compared with queries. Compare them with the keys.",
            heads_with(chosen(lambda q, k, v, x: (q, q, v))),
            heads_with(chosen(lambda q, k, v, x: (k, k, v))),
        ),
        known(
            "not-projected", "c_proj is missing: it mixes the results of the heads.",
            heads_with(projected=lambda y, c_proj, x: y),
        ),
        known(
            "projected-twice", "c_proj is applied twice. Apply it once, at the end.",
            heads_with(projected=lambda y, c_proj, x: c_proj(c_proj(y))),
        ),
        known(
            "residual-inside", "x is added here. The block adds it, outside of attention.",
            heads_with(projected=lambda y, c_proj, x: x + c_proj(y)),
            heads_with(projected=lambda y, c_proj, x: c_proj(x + y)),
        ),
        known(
            "first-head-alone",
            "All heads give the result of the first one. Each head has its own channels.",
            heads_with(joined=lambda y: join(y[:, :1].expand_as(y))),
        ),
        known(
            "heads-averaged",
            "The results of the heads are averaged or added up. Join them side by side: nh parts "
            "of hs channels are C channels again.",
            heads_with(joined=lambda y: join(y.mean(1, keepdim=True).expand_as(y))),
            heads_with(joined=lambda y: join(y.sum(1, keepdim=True).expand_as(y))),
        ),
    ],
    hints=(
        "c_attn gives queries, keys and values side by side. Split them, then cut each into heads: "
        "(B, T, C) becomes (B, nh, T, hs).",
        "Cut the last axis into (nh, hs) with view or unflatten, then swap the axes of tokens and "
        "heads. `attention` of nanogpt.model.attention works on all heads at once; causal=True "
        "hides the future.",
        "After attention undo the cut: y.transpose(1, 2).flatten(2), then c_proj.",
    ),
)  # fmt: skip


def parts_of_gpt(n_layer: int) -> tuple[Tensor, Tensor, list[Any], Any]:
    """Embeddings, blocks and final norm of a small GPT-2 whose every part matters."""
    wte, wpe = numbers(11, 6, seed=1), numbers(8, 6, seed=2)
    gain, shift = 1 + numbers(6, seed=3, scale=0.3), numbers(6, seed=4, scale=0.3)

    def block(layer: int) -> Callable[[Tensor], Tensor]:
        inside, out = linear(6, 6, seed=10 * layer + 5), linear(6, 6, seed=10 * layer + 7)
        return lambda x: x + out(torch.tanh(inside(plain.average(x))))

    return wte, wpe, [block(n) for n in range(n_layer)], lambda x: layer_norm(x, gain, shift)


def drive_gpt(candidate: Callable[..., Any], n_layer: int, *ids: list[int]) -> Any:
    """Give rows of ids to a candidate, with the parts of a small GPT-2."""
    wte, wpe, blocks, ln_f = parts_of_gpt(n_layer)
    return with_gradients(
        lambda wte, wpe: candidate(torch.tensor(ids), wte, wpe, blocks, ln_f),
        {"wte": wte, "wpe": wpe},
    )


def gpt_with(
    embedded: Any = plain.embed,
    through: Any = None,
    normed: Any = lambda x, ln_f: ln_f(x),
    scored: Any = lambda x, wte: x @ wte.T,
) -> Any:
    """A forward pass of GPT-2 that does one thing differently."""

    def forward(ids: Tensor, wte: Tensor, wpe: Tensor, blocks: Any, ln_f: Any) -> Tensor:
        x = embedded(ids, wte, wpe)
        if through:
            x = through(x, blocks, ln_f, lambda: embedded(ids, wte, wpe))
        else:
            for block in blocks:
                x = block(x)
        found: Tensor = scored(normed(x, ln_f), wte)
        return found

    return forward


def one_after_another(each: Any) -> Any:
    def through(x: Tensor, blocks: Any, ln_f: Any, embedded: Any) -> Tensor:
        for block in blocks:
            x = each(x, block, ln_f)
        return x

    return through


def last_result(x: Tensor, blocks: Any, ln_f: Any, embedded: Any) -> Tensor:
    found = [x]
    for block in blocks:
        found = [block(x)]
    return found[0]


def summed_results(x: Tensor, blocks: Any, ln_f: Any, embedded: Any) -> Tensor:
    return sum((block(x) for block in blocks), start=x)


def positions_each_time(x: Tensor, blocks: Any, ln_f: Any, embedded: Any) -> Tensor:
    for block in blocks:
        x = block(x + parts_of_gpt(0)[1][: x.shape[1]])
    return x


def gpt_in_the_model(mine: Any) -> type[GPT]:
    """The forward pass as the package calls it; with documents or a cache the package's own."""

    class MyGPT(GPT):
        def forward(
            self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
        ) -> Tensor:
            other = isinstance(self.wpe, Sinusoidal) or type(self.lm_head) is not LMHead
            if documents is not None or cache or other:
                return super().forward(ids, documents=documents, cache=cache)
            context = self.context(ids)

            def through(layer: int, x: Tensor) -> Tensor:
                x = self.drop(x) if layer == 0 else x
                result: Tensor = self.h[layer](x, replace(context, layer=layer))
                return result

            wte, wpe = self.wte.weight, getattr(self.wpe, "weight", None)
            if wpe is None:  # order enters somewhere else, as with RoPE
                wpe = wte.new_zeros(self.config.context_length, wte.shape[1])
            blocks = [partial(through, layer) for layer in range(len(self.h))]
            logits: Tensor = mine(ids, wte, wpe, blocks, self.ln_f)
            return logits

    return MyGPT


PLAIN_GPT = Exercise(
    name="gpt",
    title="The forward pass of GPT-2, from ids to logits.",
    task=TASKS["gpt"],
    reference=plain.gpt,
    replaces=GPT,
    adapt=gpt_in_the_model,
    cases=lambda: [
        (1, [3]), (1, [3, 1, 4]), (2, [3, 1, 4]), (3, [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]),
        (2, [3, 1, 4, 1, 5, 9, 2, 10]),
    ],
    drive=drive_gpt,
    describe=lambda n_layer, *ids: (
        f"ids {list(ids)}, {n_layer} block{'s' * (n_layer > 1)}, wte (11, 6), wpe (8, 6)"
    ),
    lesson=7,
    mistakes=[
        known(
            "no-positions",
            "The positions are not embedded, so the model does not know the order of the tokens.",
            gpt_with(lambda ids, wte, wpe: wte[ids]),
            gpt_with(
                lambda ids, wte, wpe: wte[ids],
                one_after_another(lambda x, block, ln_f: block(x)),
            ),
        ),
        known(
            "positions-by-token",
            "The rows of wpe are looked up by token. Token number t takes row t of wpe.",
            gpt_with(lambda ids, wte, wpe: wte[ids] + wpe[ids]),
            gpt_with(lambda ids, wte, wpe: wte[ids] + wpe[ids % len(wpe)]),
        ),
        known(
            "positions-from-one", "Positions start at 1. The first token takes row 0 of wpe.",
            gpt_with(lambda ids, wte, wpe: wte[ids] + wpe[torch.arange(1, ids.shape[1] + 1)]),
        ),
        known(
            "one-position-for-all",
            "All tokens get the same position. Token number t takes row t of wpe.",
            gpt_with(lambda ids, wte, wpe: wte[ids] + wpe[0]),
            gpt_with(lambda ids, wte, wpe: wte[ids] + wpe[ids.shape[1] - 1]),
        ),
        known(
            "positions-in-every-block",
            "The positions are added again in each block. Add them once, to the embeddings.",
            gpt_with(lambda ids, wte, wpe: wte[ids], positions_each_time),
            gpt_with(through=positions_each_time),
        ),
        known(
            "positions-after-the-blocks",
            "The positions are added after the blocks. Add them to the embeddings, so that "
            "attention sees them.",
            lambda ids, wte, wpe, blocks, ln_f: gpt_with(
                lambda ids, wte, wpe: wte[ids],
                normed=lambda x, ln_f: ln_f(x + wpe[: x.shape[1]]),
            )(ids, wte, wpe, blocks, ln_f),
        ),
        known(
            "blocks-backwards", "The blocks run from the last to the first.",
            gpt_with(through=lambda x, blocks, *_: one_after_another(
                lambda x, block, ln_f: block(x))(x, blocks[::-1], None, None)),
        ),
        known(
            "one-block", "The first block runs every time. Go through all blocks.",
            gpt_with(through=lambda x, blocks, *_: one_after_another(
                lambda x, block, ln_f: blocks[0](x))(x, blocks, None, None)),
        ),
        known(
            "first-block-alone",
            "Only the first block runs: a return inside the loop ends it too early.",
            gpt_with(through=lambda x, blocks, *_: blocks[0](x)),
            lambda ids, wte, wpe, blocks, ln_f: ln_f(blocks[0](plain.embed(ids, wte, wpe)))
            @ wte.T,
        ),
        known(
            "last-block-left-out", "The last block does not run.",
            gpt_with(through=lambda x, blocks, *_: one_after_another(
                lambda x, block, ln_f: block(x))(x, blocks[:-1], None, None)),
        ),
        known(
            "first-block-left-out", "The first block does not run.",
            gpt_with(through=lambda x, blocks, *_: one_after_another(
                lambda x, block, ln_f: block(x))(x, blocks[1:], None, None)),
        ),
        known(
            "blocks-ignored", "The blocks are not used, or their results are thrown away: write "
            "x = block(x).",
            gpt_with(through=lambda x, *_: x),
        ),
        known(
            "blocks-from-the-embedding",
            "Every block gets the embeddings. Each block gets the result of the one before it.",
            gpt_with(through=last_result),
            gpt_with(through=summed_results),
        ),
        known(
            "residual-outside",
            "x is added to the result of each block. The residual connections are inside the "
            "blocks already: x = block(x).",
            gpt_with(through=one_after_another(lambda x, block, ln_f: x + block(x))),
        ),
        known(
            "norm-in-the-loop",
            "ln_f is applied in each round of the loop. It comes once, after the last block.",
            gpt_with(
                through=one_after_another(lambda x, block, ln_f: ln_f(block(x))),
                normed=lambda x, ln_f: x,
            ),
            gpt_with(through=one_after_another(lambda x, block, ln_f: ln_f(block(x)))),
            gpt_with(through=one_after_another(lambda x, block, ln_f: block(ln_f(x)))),
            gpt_with(
                through=one_after_another(lambda x, block, ln_f: block(ln_f(x))),
                normed=lambda x, ln_f: x,
            ),
        ),
        known(
            "norm-before-the-blocks",
            "ln_f is applied to the embeddings. It comes after the last block.",
            gpt_with(
                through=lambda x, blocks, ln_f, _: one_after_another(
                    lambda x, block, ln_f: block(x))(ln_f(x), blocks, ln_f, None),
                normed=lambda x, ln_f: x,
            ),
        ),
        known(
            "norm-twice", "ln_f is applied twice.",
            gpt_with(normed=lambda x, ln_f: ln_f(ln_f(x))),
        ),
        known(
            "no-final-norm",
            "The final norm, ln_f, is missing. The residual stream grows from block to block, and "
            "the head needs vectors of one size.",
            gpt_with(normed=lambda x, ln_f: x),
        ),
        known(
            "head-reshaped",
            "wte is reshaped to (C, V), which mixes the numbers of different tokens. Transpose it: "
            "wte.T.",
            gpt_with(scored=lambda x, wte: x @ wte.reshape(wte.shape[1], wte.shape[0])),
        ),
        known(
            "no-head",
            "These are the hidden states (B, T, C). Compare them with each row of wte: "
            "x @ wte.T gives logits (B, T, V).",
            gpt_with(scored=lambda x, wte: x),
        ),
        known(
            "softmax-at-the-end",
            "These are probabilities. Give the logits themselves: the loss and the sampler do the "
            "softmax.",
            gpt_with(scored=lambda x, wte: softmax(x @ wte.T)),
        ),
        known(
            "log-softmax-at-the-end",
            "These are logarithms of probabilities. Give the logits themselves.",
            gpt_with(scored=lambda x, wte: torch.log_softmax(x @ wte.T, -1)),
        ),
        known(
            "last-token-alone",
            "Only the last token has logits. In training every token predicts its next token: "
            "give (B, T, V).",
            gpt_with(scored=lambda x, wte: x[:, -1] @ wte.T),
            gpt_with(scored=lambda x, wte: x[:, -1:] @ wte.T),
        ),
        known(
            "likeliest-tokens", "These are the ids of the likeliest tokens. Give the logits.",
            gpt_with(scored=lambda x, wte: (x @ wte.T).argmax(-1)),
        ),
        known(
            "head-scaled",
            "The logits are scaled. GPT-2's are the plain products x @ wte.T.",
            gpt_with(scored=lambda x, wte: x @ wte.T / math.sqrt(wte.shape[1])),
            gpt_with(lambda ids, wte, wpe: (
                wte[ids] * math.sqrt(wte.shape[1]) + wpe[: ids.shape[1]]
            )),
        ),
    ],
    hints=(
        "Embed tokens and positions, send them through the blocks, apply the final norm, compare "
        "with all tokens.",
        "The exercise embed was the first line. The blocks run one after another: each gets what "
        "the one before it gave.",
        "for block in blocks: x = block(x). Then ln_f(x) @ wte.T: (B, T, C) @ (C, V).",
    ),
)  # fmt: skip
