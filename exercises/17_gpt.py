"""The forward pass of GPT-2, from ids to logits."""

from collections.abc import Sequence

from torch import Tensor

from nanogpt.learn.plain import Layer


def gpt(ids: Tensor, wte: Tensor, wpe: Tensor, blocks: Sequence[Layer], ln_f: Layer) -> Tensor:
    """The forward pass of GPT-2: from ids to a score for each possible next token.

    Args:
        ids: token ids, whole numbers (B, T).
        wte: the token embeddings, (V, C).
        wpe: the position embeddings, (context length, C); the first token is at position 0.
        blocks: a list of functions, each (B, T, C) -> (B, T, C). They have their residual
            connections and norms inside.
        ln_f: the final norm, (B, T, C) -> (B, T, C). It follows after the last block.

    Returns logits (B, T, V): the dot product of each final vector with each row of wte. No
    softmax: the loss and the sampler do that.
    """
    raise NotImplementedError("your turn")
