"""The forward pass of GPT-2, from ids to hidden states."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from nanogpt.config import ModelConfig, choose
from nanogpt.errors import UserError
from nanogpt.model.attention import AttentionContext, attention_mask, same_document
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import BLOCKS, HEADS, positions
from nanogpt.model.layers import KERNELS, NORMS
from nanogpt.model.position import POSITIONS


class GPT(nn.Module):
    """GPT-2. hidden_states is yours: all of the network but its head, with documents and a cache.

    Args of hidden_states:
        ids: token ids (B, T). With a cache they continue the text that it holds. Raises
            UserError (of nanogpt.errors) for ids that are not (B, T).
        documents: None, or the number of each token's document, 0 for padding. With a cache
            they cover the old tokens, too.
        cache: None, or a KVCache.

    Returns hidden states (B, T, C) of the new tokens.

    self.context(ids, documents, cache) works out where the tokens stand (context.pos) and what
    they may see, and raises UserError if they do not fit. self.wte(ids) gives token embeddings,
    self.wpe.embed(x, context.pos) adds the positions to x, and self.drop follows them. Then x
    goes through the blocks self.h, each called as block(x, context) with its own number in
    context.layer: replace(context, layer=number), counted from 0. After the last block, a cache
    has to be told that the tokens are through: cache.advance(context.pos). At the end the final
    norm self.ln_f.
    """

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
        raise NotImplementedError("your turn")

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
