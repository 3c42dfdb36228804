"""The plain form of what the package does with more options: what the exercises ask for first.

Each function equals the package's for the usual case, and a test says so. The package's own has
more to do: caches, documents in one row, fewer key heads, targets to ignore.

Axes: B batch, T time, C channels, V vocabulary, N targets, nh heads, hs = C / nh head size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nanogpt.model.attention import attention
from nanogpt.model.layers import softmax

Layer = Callable[[Tensor], Tensor]  # (B, T, C) -> (B, T, ...)


def embed(ids: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """The vector of each token plus the vector of its position: ids (B, T) -> (B, T, C).

    wte (V, C) has a row for each token, wpe (context length, C) a row for each position.
    """
    return wte[ids] + wpe[: ids.shape[1]]  # (B, T, C)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log(probability of the target), in nats: logits (N, V), targets (N,) -> ().

    >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))  # -log 0.5
    tensor(0.6931)
    """
    shifted = logits - logits.amax(-1, keepdim=True)  # exp cannot overflow: see softmax
    log_sums = torch.log(torch.exp(shifted).sum(-1))  # (N)
    return (log_sums - shifted.gather(-1, targets[:, None])[:, 0]).mean()


def cross_entropy_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """The gradient of the mean `cross_entropy` with respect to the logits (N, V) -> (N, V).

    It is the probability that the model gave minus the probability that is right: p - 1 for the
    target and p for all others; divided by N, because the loss is a mean.

    >>> cross_entropy_gradient(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([[ 0.5000, -0.5000]])
    """
    gradient = softmax(logits.detach())  # (N, V); a gradient is not differentiated again
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


def average(x: Tensor) -> Tensor:
    """Replace each token by the mean of itself and all earlier tokens: (B, T, C) -> (B, T, C).

    This is attention in which every visible token gets the same weight.

    >>> average(torch.tensor([[[2.0], [4.0], [9.0]]])).flatten()
    tensor([2., 3., 5.])
    """
    weights = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).tril()  # (T, T)
    return weights / weights.sum(-1, keepdim=True) @ x


def causal_mask(T: int) -> Tensor:
    """Which keys each of T queries may look at: itself and the earlier ones, (T, T), True or False.

    >>> causal_mask(2)
    tensor([[ True, False],
            [ True,  True]])
    """
    return torch.ones(T, T, dtype=torch.bool).tril()


def multi_head_attention(x: Tensor, c_attn: Layer, c_proj: Layer, n_head: int) -> Tensor:
    """Attend in n_head parts of the channels at once: (B, T, C) -> (B, T, C). No token sees later
    tokens.

    c_attn makes queries, keys and values from x: (B, T, C) -> (B, T, 3 C), side by side in this
    order. c_proj mixes the results of the heads: (B, T, C) -> (B, T, C).
    """
    q, k, v = (
        part.unflatten(-1, (n_head, -1)).transpose(1, 2)  # (B, nh, T, hs)
        for part in c_attn(x).chunk(3, dim=-1)
    )
    y = attention(q, k, v, causal=True)  # (B, nh, T, hs)
    return c_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)


def gpt(ids: Tensor, wte: Tensor, wpe: Tensor, blocks: Sequence[Layer], ln_f: Layer) -> Tensor:
    """The forward pass of GPT-2: ids (B, T) -> logits (B, T, V).

    wte (V, C) and wpe (context length, C) are the embeddings; each block takes and gives
    (B, T, C), and so does the final norm ln_f. The logits compare each result with each row of
    wte.
    """
    x = embed(ids, wte, wpe)  # (B, T, C)
    for block in blocks:
        x = block(x)  # (B, T, C)
    return ln_f(x) @ wte.T  # (B, T, V)
