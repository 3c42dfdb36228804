"""GPT-2 (Radford et al. 2019): the whole network.

    ids ── wte + wpe ──► x ──► Block ──► ... ──► Block ──► ln_f ──► x @ wte.T ──► logits

x is the residual stream: C numbers per token, to which every layer adds its part and from which
the last line predicts the next token. Submodules carry the names of OpenAI's checkpoint: wte and
wpe are the token and position embeddings, h the blocks, ln_f the final norm, c_attn, c_fc and
c_proj the linear maps inside a block.

Axes: B batch, T time, S key time, C channels, V vocabulary.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.errors import UserError
from nanogpt.model.attention import (
    AttentionContext,
    CausalSelfAttention,
    attention_mask,
    same_document,
)
from nanogpt.model.cache import KVCache
from nanogpt.model.layers import KERNELS, MLPS, NORMS
from nanogpt.model.position import POSITIONS


class Block(nn.Module):
    """A Transformer block: look around, then think. Each adds to the residual stream.

    The norms come before the layers (pre-norm): the residual path itself stays free, so gradients
    reach the first block undiminished.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        norm = choose(NORMS, "model.norm", config.norm)
        self.ln_1 = norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = norm(config)
        self.mlp = choose(MLPS, "model.mlp", config.mlp)(config)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = x + self.attn(self.ln_1(x), context)  # (B, T, C)
        return x + self.mlp(self.ln_2(x))  # (B, T, C)


class PostNormBlock(Block):
    """The order of the first Transformer (Vaswani et al. 2017): the norm after the sum.

    The norm stands in the residual path itself and divides what passes, and its gradient, by the
    size of the sum: deep networks need a long warm-up (Xiong et al. 2020). GPT-2 moved the norms.
    """

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = self.ln_1(x + self.attn(x, context))  # (B, T, C)
        return self.ln_2(x + self.mlp(x))  # (B, T, C)


class BareBlock(Block):
    """A block without residual connections, to see what they are for (He et al. 2015).

    Everything has to pass through every layer, and the gradient with it. Few layers still learn,
    slowly; many do not.
    """

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        x = self.attn(self.ln_1(x), context)  # (B, T, C)
        return self.mlp(self.ln_2(x))  # (B, T, C)


BLOCKS: dict[str, type[Block]] = {
    "pre-norm": Block,
    "post-norm": PostNormBlock,
    "no-residual": BareBlock,
}


class LMHead(nn.Module):
    """Compare hidden states with every token: (..., C) -> logits (..., V).

    The weight is the token embedding, used the other way round: what a token looks like going in
    is what it should look like coming out (Press & Wolf 2017). One matrix, one key, no copy.
    """

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)


class UntiedHead(nn.Embedding):
    """A head with rows of its own: what a token looks like going out is learned apart."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight)


HEADS: dict[str, type[nn.Module]] = {"tied": LMHead, "untied": UntiedHead}


class GPT(nn.Module):
    """A GPT-2 with fresh weights. Raises UserError for a setting that names no known variant."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = choose(POSITIONS, "model.position", config.position)(config)
        self.drop = nn.Dropout(config.dropout)
        block = choose(BLOCKS, "model.block", config.block)
        self.h = nn.ModuleList(block(config) for _ in range(config.n_layer))
        self.ln_f = choose(NORMS, "model.norm", config.norm)(config)
        head = choose(HEADS, "model.head", config.head)
        self.lm_head = head(config.vocab_size, config.n_embd)
        self.cross_entropy = choose(KERNELS, "model.kernels", config.kernels).cross_entropy
        self.initialize()

    def initialize(self) -> None:
        """GPT-2's initialisation: normal with standard deviation init_std, biases 0, norms 1.

        2 * n_layer projections add to the residual stream; each is scaled down by the root of
        their number, so that the sum starts with the size that a single one would have. With
        `zero_init` they start at zero: each block begins as if it were not there, and grows. So
        does an untied head: at first it takes all tokens for equally likely.
        """
        std = self.config.init_std
        residual_std = 0.0 if self.config.zero_init else std / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith(("c_proj.weight", "lm_head.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.ndim >= 2:
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Score every possible next token at every position: ids (B, T) -> logits (B, T, V).

        See `hidden_states` for documents and cache.
        """
        return self.head(self.hidden_states(ids, documents=documents, cache=cache))  # (B, T, V)

    def head(self, x: Tensor) -> Tensor:
        """The last step alone: hidden states (..., C) -> logits (..., V)."""
        return self.lm_head(x, self.wte.weight)

    def hidden_states(
        self, ids: Tensor, *, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """All of the network but its head: ids (B, T) -> (B, T, C).

        `documents` (B, T) is 0 where a token is padding, else the number of its document (1 where
        there is only one). A token sees its own document alone, and positions are counted there,
        so each document is read as if nothing else were in its row.

        With a cache, ids continue the text that it holds and are added to it; documents then
        cover the old tokens, too: (B, S). Raises UserError if S exceeds the context length, or
        for ids that are not (B, T).
        """
        if ids.ndim != 2:
            raise UserError(f"ids of shape {tuple(ids.shape)}: use (B, T), as in ids[None]")
        context = self.context(ids, documents, cache)
        x = self.drop(self.wpe.embed(self.wte(ids), context.pos))  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, replace(context, layer=layer))  # (B, T, C)
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)  # (B, T, C)

    def context(
        self, ids: Tensor, documents: Tensor | None = None, cache: KVCache | None = None
    ) -> AttentionContext:
        """Where the new tokens stand and what they may see: the same for every layer."""
        new, config = ids.shape[1], self.config
        causal = not (cache and cache.length)  # the new tokens see each other and nothing else
        known = new + (cache.length if cache else 0)
        if known > config.context_length:
            raise UserError(
                f"{known} tokens do not fit into model.context_length="
                f"{config.context_length}: shorten the text"
            )
        if documents is not None and documents.shape != (len(ids), known):
            raise UserError(f"documents of shape {tuple(documents.shape)}: use {(len(ids), known)}")
        same = None if documents is None else same_document(documents, new)
        pos = positions(new, known, same, ids.device)
        bias = self.wpe.bias(pos, cache.key_positions(pos) if cache else pos)
        window = config.window if config.window < config.context_length else 0
        if same is None and bias is None and not window and (causal or new == 1):
            return AttentionContext(self.wpe, pos, None, causal, cache)
        visible = attention_mask(new, known, window, same, ids.device)
        mask = visible if bias is None else torch.where(visible, bias, -math.inf)
        return AttentionContext(self.wpe, pos, mask, False, cache)

    def loss(self, logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of logits (B, T, V) against targets (B, T), -100 being ignored."""
        return self.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    def auxiliary_loss(self) -> Tensor | float:
        """What modules add to the loss of training, such as the balance of a mixture of experts.

        A module says so by setting `self.auxiliary_loss` in its forward pass.
        """
        return sum((getattr(module, "auxiliary_loss", 0.0) for module in self.h.modules()), 0.0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The numbers that activations are made of."""
        return self.wte.weight.dtype

    def num_parameters(self) -> int:
        """Number of weights. A tied head counts once, because it is there once."""
        return sum(parameter.numel() for parameter in self.parameters())


def positions(
    new: int, known: int, same: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    """How many tokens of its document come before each of the last `new` of `known` tokens.

    (1, T), the same for all rows; with documents, see `attention.same_document`, (B, T).

    >>> positions(2, 5)
    tensor([[3, 4]])
    >>> positions(6, 6, same_document(torch.tensor([[0, 1, 1, 2, 2, 2]]), 6))
    tensor([[0, 0, 1, 0, 1, 2]])
    """
    if same is None:
        return torch.arange(known - new, known, device=device)[None]  # (1, T)
    return same.tril(known - new - 1).sum(-1)  # (B, T)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients inside; afterwards the model is in the mode it was in."""
    was_training = model.training
    if was_training:  # to go through all modules takes longer than a small model takes for a token
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if was_training:
            model.train()
