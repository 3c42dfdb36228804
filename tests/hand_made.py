"""A model whose weights were written by hand: it has an induction head, and nothing else."""

import torch

from nanogpt.config import ModelConfig
from nanogpt.model.gpt import GPT
from nanogpt.model.position import POSITIONS, Position
from nanogpt.text.tokenizer import CharTokenizer

LETTERS = CharTokenizer("\nabcdefghijk", ["<|end|>"])
HS = 16  # head size: room for a one-hot token
WORDS, NOTES = slice(0, HS), slice(HS, 2 * HS)  # what stands in which channels of the stream


class Before(Position):
    """Head 1 looks at the token before, whatever it is."""

    def bias(self, q_pos, k_pos):
        before = q_pos[:, :, None] - k_pos[:, None, :] == 1
        return torch.stack([0.0 * before, 50.0 * before, 0.0 * before], dim=1)


def induction_by_hand(monkeypatch, copies=(2,)) -> GPT:
    """Two layers: head 1 of the first notes the token before; heads of the second look for it."""
    monkeypatch.setitem(POSITIONS, "before", Before)
    shape = {"vocab_size": 13, "context_length": 40, "n_layer": 2, "n_head": 3, "n_embd": 3 * HS}
    model = GPT(ModelConfig(**shape, position="before", norm="none")).eval()
    one = torch.eye(HS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.wte.weight[:, WORDS] = torch.eye(13, HS)
        put(model, 0, 1, q=None, k=None, out=(NOTES, one))
        for head in copies:
            put(model, 1, head, q=(WORDS, 12 * one), k=(NOTES, 12 * one), out=(WORDS, 20 * one))
    return model


def put(model: GPT, layer: int, head: int, q, k, out) -> None:
    """Write one head's weights; its values are the words."""
    attn, width = model.h[layer].attn, model.config.n_embd
    rows = slice(head * HS, (head + 1) * HS)
    for number, given in enumerate([q, k, (WORDS, torch.eye(HS))]):
        if given:
            attn.c_attn.weight[number * width :][rows, given[0]] = given[1]
    attn.c_proj.weight[out[0], rows] = out[1]
