"""GPT-2 (Radford et al. 2019): the whole network.

    ids ── wte + wpe ──► x ──► Block ──► ... ──► Block ──► ln_f ──► x @ wte.T ──► logits

x is the residual stream: C numbers per token, to which every layer adds its part and from which
the last line reads the next token. Submodules carry the names of OpenAI's checkpoint: wte and wpe
are the token and position embeddings, h the blocks, ln_f the final norm, c_attn, c_fc and c_proj
the linear maps inside a block.

Axes: B batch, T time, C channels, V vocabulary.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt.attention import CausalSelfAttention, causal_bias
from nanogpt.config import ModelConfig, choose
from nanogpt.errors import UserError
from nanogpt.layers import KERNELS, MLPS, NORMS
from nanogpt.position import POSITIONS, Position


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

    def forward(self, x: Tensor, order: Position, pos: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), order, pos, bias)  # (B, T, C)
        return x + self.mlp(self.ln_2(x))  # (B, T, C)


class GPT(nn.Module):
    """A GPT-2 with fresh weights. Raises UserError for a setting that names no known variant."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = choose(POSITIONS, "model.position", config.position)(config)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = choose(NORMS, "model.norm", config.norm)(config)
        self.cross_entropy = choose(KERNELS, "model.kernels", config.kernels).cross_entropy
        self.initialize()

    def initialize(self) -> None:
        """GPT-2's initialisation: normal with deviation 0.02, biases zero, norms one.

        2 * n_layer projections add to the residual stream; each is scaled down by the root of
        their number, so that the sum starts with the size that a single one would have. With
        `zero_init` they start at zero: each block begins as if it were not there, and grows.
        """
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        if self.config.zero_init:
            residual_std = 0.0
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Score every possible next token at every position: ids (B, T) -> logits (B, T, V).

        The mask (B, T) is 0 where a token is filling, else the number of its document (1 where
        there is only one). A token sees its own document alone, and positions are counted there,
        so each document fares as if nothing else were in its row. Raises UserError if T exceeds
        the context length.
        """
        if ids.shape[1] > self.config.context_length:
            raise UserError(
                f"{ids.shape[1]} tokens do not fit into model.context_length="
                f"{self.config.context_length}: shorten the text"
            )
        pos = positions(ids, attention_mask)
        bias = self.attention_bias(pos, attention_mask)
        x = self.drop(self.wpe.embed(self.wte(ids), pos))  # (B, T, C)
        for block in self.h:
            x = block(x, self.wpe, pos, bias)  # (B, T, C)
        x = self.ln_f(x)  # (B, T, C)
        # The head is the embedding, used the other way round: what a token looks like going in is
        # what it should look like coming out (Press & Wolf 2017). One matrix, one key, no copy.
        return F.linear(x, self.wte.weight)  # (B, T, V)

    def attention_bias(self, pos: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        """What is added to the scores (B, nh, T, S); None where attention is plainly causal."""
        bias = self.wpe.bias(pos, pos)
        if attention_mask is None and bias is None:
            return None
        step = torch.arange(pos.shape[-1], device=pos.device)
        total = causal_bias(step, step)  # (T, S)
        if bias is not None:
            total = total + bias
        if attention_mask is not None:
            # Filling may look at itself: softmax over nothing would be NaN.
            seen = same_document(attention_mask) | (step[:, None] == step)  # (B, T, S)
            total = total.masked_fill(~seen[:, None], -math.inf)
        return total

    def loss(self, logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of logits (B, T, V) against targets (B, T), -100 being ignored."""
        return self.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    def resize_vocabulary(self, vocab_size: int) -> None:
        """Make room for tokens that were added to the tokenizer; the others keep their vectors.

        A new token starts as the mean of all: unremarkable, so that it does not drown the others
        before it has learned anything (Hewitt 2021). Raises UserError for a smaller vocabulary.
        """
        old = self.wte.weight
        if vocab_size < len(old):
            raise UserError(f"vocab_size={vocab_size} would lose tokens: use at least {len(old)}")
        mean = old.data.mean(dim=0, keepdim=True)
        vectors = torch.cat([old.data, mean.repeat(vocab_size - len(old), 1)])  # (V, C)
        self.wte = nn.Embedding.from_pretrained(vectors, freeze=not old.requires_grad)
        self.config = replace(self.config, vocab_size=vocab_size)

    def num_parameters(self) -> int:
        """Number of weights. The tied head counts once, because it is there once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of training on one token (Chowdhery et al. 2022, appendix B).

        6 for each weight that takes part in a matrix product: multiply and add, forward and twice
        backward. Attention adds its scores and its weighted sum, 12 * n_layer * C * T.
        """
        config = self.config
        looked_up = sum(p.numel() for p in self.wpe.parameters())
        attention = 12 * config.n_layer * config.n_embd * config.context_length
        return 6 * (self.num_parameters() - looked_up) + attention


def positions(ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """How many tokens of its document come before each token: (T) or, with a mask, (B, T).

    >>> positions(torch.zeros(1, 6), torch.tensor([[0, 1, 1, 2, 2, 2]]))
    tensor([[0, 0, 1, 0, 1, 2]])
    """
    if attention_mask is None:
        return torch.arange(ids.shape[1], device=ids.device)
    before = same_document(attention_mask).tril(-1)  # (B, T, S)
    return before.sum(-1)


def same_document(attention_mask: Tensor) -> Tensor:
    """Which tokens are real and of one document: (B, T) -> (B, T, S)."""
    real = attention_mask[:, None, :] > 0
    return real & (attention_mask[:, :, None] == attention_mask[:, None, :])
