"""Generation: predict a token, append it, repeat.

Axes: B batch, T time, V vocabulary.
"""

import codecs
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.model import GPT
from nanogpt.sampling import next_token
from nanogpt.tokenizer import END_OF_TEXT, AnyTokenizer


@torch.no_grad()
def generate(
    model: GPT, ids: Tensor, config: SampleConfig, vocab_size: int = 0
) -> Iterator[Tensor]:
    """Continue prompts ids (B, T) without end, yielding one new token per row, (B), at a time.

    Ids from `vocab_size` on are never chosen: a model may have more rows than the tokenizer has
    tokens. The model sees the last `context_length` tokens. Its training mode is left as it was.
    """
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        was_training = model.training
        model.eval()
        logits = model(ids[:, -model.config.context_length :])[:, -1]  # (B, V)
        model.train(was_training)
        if vocab_size:
            logits[:, vocab_size:] = -math.inf
        chosen = next_token(logits, config, generator)  # (B)
        yield chosen
        ids = torch.cat([ids, chosen[:, None]], dim=1)


def generate_text(model: GPT, tokenizer: AnyTokenizer, config: SampleConfig) -> Iterator[str]:
    """Continue the prompt, piece by piece, up to max_new_tokens or the end-of-text token.

    Joined, the pieces are the new text. A piece never ends within a character: its bytes wait for
    the rest. Raises UserError for a prompt that the tokenizer cannot encode.
    """
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    start = torch.tensor([prompt_ids(tokenizer, config.prompt)], device=model.wte.weight.device)
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    stream = generate(model, start, config, tokenizer.vocab_size)
    for _, chosen in zip(range(config.max_new_tokens), stream, strict=False):
        token = int(chosen[0])
        if token == end:
            break
        if text := characters.decode(tokenizer.decode_bytes([token])):
            yield text
    if text := characters.decode(b"", final=True):
        yield text


def prompt_ids(tokenizer: AnyTokenizer, prompt: str) -> list[int]:
    """The ids to continue. An empty prompt starts a document, or at least a line.

    Raises UserError for a prompt that the tokenizer cannot encode.
    """
    if not prompt and END_OF_TEXT in tokenizer.special_tokens:
        return [tokenizer.special_tokens[END_OF_TEXT]]
    try:
        return tokenizer.encode(prompt or "\n")
    except UserError as error:
        raise UserError(f"sample.prompt={prompt!r}: {error}") from None
