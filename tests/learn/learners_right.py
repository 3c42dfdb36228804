"""Correct solutions of the exercises, as different people write them: all of them must pass."""

import functools
import math
from collections import Counter
from dataclasses import replace
from types import FunctionType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nanogpt.errors import UserError
from nanogpt.learn import autograd, collectives
from nanogpt.model import layers
from nanogpt.model.attention import AttentionContext, CausalSelfAttention, attention_weights
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, Block
from nanogpt.text import bpe
from nanogpt.training import optim


def merge_flag(ids, pair, new_id):
    out, skip = [], False
    for i in range(len(ids)):
        if skip:
            skip = False
        elif i < len(ids) - 1 and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new_id)
            skip = True
        else:
            out.append(ids[i])
    return out


def merge_recursive(ids, pair, new_id):
    if len(ids) < 2:
        return list(ids)
    if tuple(ids[:2]) == pair:
        return [new_id, *merge_recursive(ids[2:], pair, new_id)]
    return [ids[0], *merge_recursive(ids[1:], pair, new_id)]


def merge_in_a_copy(ids, pair, new_id):
    ids = list(ids)
    i = 0
    while i + 1 < len(ids):
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def train_loops(words, n_merges):
    texts = {i: bytes([i]) for i in range(256)}
    split = [([*word], n) for word, n in words.items()]
    found = []
    for number in range(n_merges):
        counts = {}
        for ids, n in split:
            for a, b in zip(ids, ids[1:], strict=False):
                counts[a, b] = counts.get((a, b), 0) + n
        if not counts:
            break
        best = None
        for pair, count in counts.items():
            key = (count, texts[pair[0]], texts[pair[1]])
            if best is None or key > best[0]:
                best = (key, pair)
        found.append(best[1])
        texts[256 + number] = texts[best[1][0]] + texts[best[1][1]]
        split = [(merge_flag(ids, best[1], 256 + number), n) for ids, n in split]
    return found


def train_sorted(words, n_merges):
    tokens = [[bytes([b]) for b in word] for word in words]
    weights = list(words.values())
    ids = {bytes([b]): b for b in range(256)}
    merges = []
    spelled = []
    while len(merges) < n_merges:
        counts = {}
        for word, n in zip(tokens, weights, strict=True):
            for pair in zip(word[:-1], word[1:], strict=True):
                counts[pair] = counts.get(pair, 0) + n
        if not counts:
            return merges
        (a, b), _ = sorted(counts.items(), key=lambda item: (item[1], item[0]))[-1]
        merges.append((ids[a], ids[b]))
        spelled.append((a, b))
        ids.setdefault(a + b, 256 + len(spelled) - 1)
        for word in tokens:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == (a, b):
                    word[i : i + 2] = [a + b]
                i += 1
    return merges


def encode_ranks(ids, ranks):
    ids = list(ids)
    while len(ids) >= 2:
        pairs = set(zip(ids, ids[1:], strict=False))
        best = min(pairs, key=lambda p: ranks.get(p, float("inf")))
        if best not in ranks:
            break
        ids = merge_flag(ids, best, ranks[best])
    return ids


def encode_in_order_of_learning(ids, ranks):
    ids = list(ids)
    for pair, new_id in sorted(ranks.items(), key=lambda item: item[1]):
        ids = merge_flag(ids, pair, new_id)
    return ids


def encode_one_place_at_a_time(ids, ranks):
    ids = list(ids)
    while True:
        options = [
            (ranks[p], i) for i, p in enumerate(zip(ids, ids[1:], strict=False)) if p in ranks
        ]
        if not options:
            return ids
        new_id, i = min(options)
        ids = ids[:i] + [new_id] + ids[i + 2 :]


def windows_list(ids, context_length, stride):
    if stride < 1 or stride > context_length:
        raise UserError("no such stride")
    ids = [int(i) for i in ids]
    length = min(context_length, len(ids) - 1)
    out, done, start = [], 0, 0
    while done < len(ids) - 1:
        start = min(start, len(ids) - 1 - length)
        x = ids[start : start + length]
        y = [ids[p + 1] if p >= done else -100 for p in range(start, start + length)]
        out.append((np.array(x), np.array(y)))
        done = start + length
        start += stride
    return out


def windows_generator(ids, context_length, stride):
    if not 0 < stride <= context_length:
        raise UserError("no such stride")
    ids = np.array(ids, dtype=np.int64)
    last = len(ids) - 1
    context_length = min(context_length, last)
    given, start = 0, 0
    while given < last:
        begin = min(start, last - context_length)
        y = np.array(ids[begin + 1 : begin + context_length + 1])
        y[: given - begin] = -100
        yield np.array(ids[begin : begin + context_length]), y
        given = begin + context_length
        start += stride


def windows_tensors(ids, context_length, stride):
    found = []
    for x, y in windows_list(ids, context_length, stride):
        found.append((torch.from_numpy(x), torch.from_numpy(y)))
    return found


def norm_library(x, weight, bias=None, eps=1e-5):
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def norm_by_moments(x, weight, bias=None, eps=1e-5):
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    y = weight * (x - mean) * torch.rsqrt(variance + eps)
    return y + bias if bias is not None else y


def norm_rows(x, weight, bias=None, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        y = (row - row.mean()) / (row.var(unbiased=False) + eps) ** 0.5 * weight
        rows.append(y if bias is None else y + bias)
    return torch.stack(rows).reshape(x.shape)


def gelu_library(x):
    return F.gelu(x, approximate="tanh")


def gelu_numbers(x):
    flat = [
        0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        for v in x.flatten()
    ]
    return torch.stack(flat).reshape(x.shape)


def gelu_sigmoid(x):
    return x * torch.sigmoid(2 * 0.7978845608 * (x + 0.044715 * x.pow(3)))


def softmax_library(x, dim=-1):
    return x.softmax(dim)


def softmax_log(x, dim=-1):
    return torch.exp(x - torch.logsumexp(x, dim, keepdim=True))


def softmax_max(x, dim=-1):
    e = (x - x.max(dim=dim, keepdim=True)[0]).exp()
    return e / torch.sum(e, dim=dim, keepdim=True)


def hidden_scores(scores, mask, causal):
    if causal:
        return scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
    if mask is None:
        return scores
    return torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else scores + mask


def attention_einsum(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) * q.shape[-1] ** -0.5
    weights = F.dropout(hidden_scores(scores, mask, causal).softmax(-1), dropout)
    return torch.einsum("bhts,bhsd->bhtd", weights, v)


def attention_library(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)


def attention_loops(q, k, v, mask=None, causal=False, dropout=0.0):
    B, nh, T, hs = q.shape
    S = k.shape[2]
    if mask is not None:
        mask = mask.expand(B, nh, T, S)
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(nh):
            for t in range(T):
                scores = list(k[b, h] @ q[b, h, t] / math.sqrt(hs)) if S < 100 else q.new_zeros(S)
                for s in range(S if mask is not None or causal else 0):
                    if causal and s > t:
                        scores[s] = torch.tensor(-math.inf)
                    elif mask is not None and mask.dtype == torch.bool:
                        scores[s] = scores[s] if mask[b, h, t, s] else torch.tensor(-math.inf)
                    elif mask is not None:
                        scores[s] = scores[s] + mask[b, h, t, s]
                scores = torch.stack(scores) if isinstance(scores, list) else scores
                keep = torch.rand(S) >= dropout
                weights = torch.softmax(scores, 0) * keep / max(1 - dropout, 1e-9)
                out[b, h, t] = weights @ v[b, h]
    return out


class HeadsChunks(CausalSelfAttention):
    def forward(self, x, context):
        hs = self.head_size
        q, k, v = (torch.stack(y.split(hs, -1), 1) for y in self.c_attn(x).split(self.widths, -1))
        if self.qk_norm:
            q, k = F.rms_norm(q, (hs,), eps=1e-5), F.rms_norm(k, (hs,), eps=1e-5)
        q, k = context.position.rotate(q, k, context.pos)
        if context.cache is not None:
            k, v = context.cache.update(context.layer, k, v)
        k = torch.stack([one for one in k.unbind(1) for _ in range(self.groups)], 1)
        v = torch.stack([one for one in v.unbind(1) for _ in range(self.groups)], 1)
        y = attention_einsum(q, k, v, context.mask, context.causal, self.kernel.dropout)
        return self.dropout(self.c_proj(torch.cat(y.unbind(1), -1)))


class HeadsView(CausalSelfAttention):
    def forward(self, x, context):
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(self.widths, dim=2)
        q = q.view(B, T, -1, self.head_size).transpose(1, 2)
        k = k.view(B, T, -1, self.head_size).transpose(1, 2)
        v = v.view(B, T, -1, self.head_size).transpose(1, 2)
        if self.qk_norm:
            q = q * (q.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
            k = k * (k.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
        q, k = context.position.rotate(q, k, context.pos)
        k, v = context.cache.update(context.layer, k, v) if context.cache else (k, v)
        k = k.repeat_interleave(self.groups, 1)
        v = v.repeat_interleave(self.groups, 1)
        y = F.scaled_dot_product_attention(
            q, k, v, context.mask, self.kernel.dropout, is_causal=context.causal
        )
        y = self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return F.dropout(y, self.dropout.p, training=self.training)


class HeadsOneByOne(CausalSelfAttention):
    def forward(self, x, context):
        q, k, v = (self.split_heads(part) for part in self.c_attn(x).split(self.widths, dim=2))
        if self.qk_norm:
            q, k = (self.rms_norm(part) for part in (q, k))
        q, k = context.position.rotate(q, k, context.pos)
        if context.cache:
            k, v = context.cache.update(context.layer, k, v)
        outs = []
        for h in range(q.shape[1]):
            g = h // self.groups
            one, key, value = q[:, h : h + 1], k[:, g : g + 1], v[:, g : g + 1]
            outs.append(self.kernel(one, key, value, context.mask, context.causal)[:, 0])
        return self.dropout(self.c_proj(torch.cat(outs, dim=-1)))


def mask_loops(new, known, window=0, same=None, device=None):
    rows = []
    for b in range(1 if same is None else len(same)):
        rows.append(torch.zeros(new, known, dtype=torch.bool))
        for t in range(new):
            query = known - new + t
            for key in range(known):
                if key > query or (window and query - key >= window):
                    continue
                if same is None or same[b, t, key] or key == query:
                    rows[-1][t, key] = True
    return rows[0] if same is None else torch.stack(rows)[:, None]


def mask_tril(new, known, window=0, same=None, device=None):
    ones = torch.ones(known, known, dtype=torch.bool, device=device)
    visible = ones.tril() & ones.triu(1 - window) if window else ones.tril()
    if same is not None:
        itself = torch.eye(known, dtype=torch.bool, device=device)[-new:]
        return (visible[-new:] & (same | itself)).unsqueeze(1)
    return visible[-new:]


def mask_lists(new, known, window=0, same=None, device=None):
    seen = [
        [q - (window or known) < k <= q for k in range(known)] for q in range(known - new, known)
    ]
    seen = torch.tensor(seen, device=device)
    if same is None:
        return seen
    seen = torch.logical_and(seen, same)
    return torch.diagonal_scatter(
        seen, torch.ones(len(same), new, dtype=torch.bool), known - new, 1, 2
    ).view(-1, 1, new, known)


class BlockOneLine(Block):
    def forward(self, x, context):
        x = x + self.attn(self.ln_1(x), context)
        return x + self.mlp(self.ln_2(x))


class BlockSteps(Block):
    def forward(self, x, context):
        residual = x
        x = self.ln_1(x)
        x = self.attn(x, context)
        x = residual + x
        residual = x
        x = self.ln_2(x)
        x = self.mlp(x)
        return residual + x


class BlockSums(Block):
    def forward(self, x, context):
        attended = self.attn(self.ln_1(x), context)
        processed = self.mlp(self.ln_2(x + attended))
        return torch.stack([x, attended, processed]).sum(0)


class GPTPlain(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        if ids.dim() != 2:
            raise UserError("ids are (B, T)")
        context = self.context(ids, documents, cache)
        x = self.drop(self.wpe.embed(self.wte(ids), context.pos))
        for n, block in enumerate(self.h):
            x = block(x, replace(context, layer=n))
        if cache is not None:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTWhile(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        if ids.dim() != 2:
            raise UserError("ids are (B, T)")
        context = self.context(ids, documents=documents, cache=cache)
        x = self.drop(self.wpe.embed(F.embedding(ids, self.wte.weight), context.pos))
        n = 0
        while n < len(self.h):
            x = self.h[n](x, AttentionContext(**{**vars(context), "layer": n}))
            n += 1
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTOwnPositions(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        if ids.dim() != 2:
            raise UserError("ids are (B, T)")
        start = cache.length if cache else 0
        pos = torch.arange(start, start + ids.shape[1])[None]
        if documents is not None:
            rows = []
            for row in documents.tolist():
                rows.append([row[:i].count(d) if d else 0 for i, d in enumerate(row)])
            pos = torch.tensor(rows)[:, -ids.shape[1] :]
        context = self.context(ids, documents, cache)
        x = self.drop(self.wpe.embed(self.wte(ids), pos))
        for n, block in enumerate(self.h):
            x = block(x, replace(context, pos=pos, layer=n))
        if cache:
            cache.advance(pos)
        return self.ln_f(x)


def loss_library(logits, targets, reduction="mean"):
    if reduction == "none":
        return F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")[
            targets != -100
        ]
    return F.cross_entropy(logits, targets, ignore_index=-100, reduction=reduction)


def loss_loop(logits, targets, reduction="mean"):
    losses = []
    for row, target in zip(logits, targets.tolist(), strict=True):
        if target != -100:
            losses.append(torch.logsumexp(row, 0) - row[target])
    losses = torch.stack(losses)
    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()


def loss_log_softmax(logits, targets, reduction="mean"):
    keep = targets != -100
    picked = logits[keep].log_softmax(-1)[torch.arange(int(keep.sum())), targets[keep]]
    return -picked if reduction == "none" else -getattr(picked, reduction)()


class AdamPlain(optim.HandWritten):
    def update(self, parameter, gradient, group):
        s = self.state[parameter]
        if len(s) == 0:
            s["step"], s["exp_avg"] = 0, torch.zeros_like(parameter)
            s["exp_avg_sq"] = torch.zeros_like(parameter)
        s["step"] += 1
        b1, b2 = group["betas"]
        s["exp_avg"] = b1 * s["exp_avg"] + (1 - b1) * gradient
        s["exp_avg_sq"] = b2 * s["exp_avg_sq"] + (1 - b2) * gradient * gradient
        m_hat = s["exp_avg"] / (1 - b1 ** s["step"])
        v_hat = s["exp_avg_sq"] / (1 - b2 ** s["step"])
        parameter -= group["lr"] * group["weight_decay"] * parameter
        parameter -= group["lr"] * m_hat / (torch.sqrt(v_hat) + group["eps"])


class AdamStepSize(optim.HandWritten):
    def update(self, parameter, gradient, group):
        s = self.state[parameter]
        step = s["step"] = s.get("step", 0) + 1
        lr, (b1, b2) = group["lr"], group["betas"]
        m = s.setdefault("exp_avg", torch.zeros_like(parameter)).lerp_(gradient, 1 - b1)
        v = s.setdefault("exp_avg_sq", torch.zeros_like(parameter)).mul_(b2)
        v.addcmul_(gradient, gradient, value=1 - b2)
        parameter.mul_(1 - lr * group["weight_decay"])
        denominator = (v / (1 - b2**step)).sqrt().add_(group["eps"])
        parameter.addcdiv_(m, denominator, value=-lr / (1 - b1**step))


class AdamLibrary(torch.optim.AdamW):
    pass


def schedule_plain(step, config):
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    if step >= config.max_steps:
        return config.min_lr
    ratio = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    if config.schedule == "trapezoidal":
        share = min(1, (1 - ratio) / config.decay_share)
        return config.min_lr + share * (config.lr - config.min_lr)
    return config.min_lr + 0.5 * (1 + math.cos(math.pi * ratio)) * (config.lr - config.min_lr)


def schedule_table(step, config):
    climb = [config.lr * n / (config.warmup_steps + 1) for n in range(1, config.warmup_steps + 1)]
    length = max(1, config.max_steps - config.warmup_steps)
    share, first = optim.SCHEDULES[config.schedule], config.warmup_steps
    fall = [share(n / length, first + n, config) for n in range(length + 1)]
    rates = climb + [config.min_lr + s * (config.lr - config.min_lr) for s in fall]
    return rates[min(step, len(rates) - 1)]


def schedule_tensor(step, config):
    if step < config.warmup_steps:
        return torch.tensor(config.lr * (step + 1) / (config.warmup_steps + 1))
    done = torch.tensor(
        (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    )
    share = optim.SCHEDULES[config.schedule](done.clamp(max=1).item(), step, config)
    return config.min_lr + share * (config.lr - config.min_lr)


def top_k_sort(logits, k):
    if not k:
        return logits
    k = min(k, logits.size(-1))
    threshold = logits.sort(-1, descending=True)[0][:, k - 1, None]
    return torch.where(logits >= threshold, logits, -torch.inf)


def top_k_rows(logits, k):
    rows = []
    for row in logits.tolist():
        least = sorted(row, reverse=True)[min(k, len(row)) - 1] if k else -math.inf
        rows.append([v if v >= least else -math.inf for v in row])
    return torch.tensor(rows)


def top_k_copy(logits, k):
    logits = logits.clone()
    if 0 < k < logits.shape[1]:
        logits[logits < torch.topk(logits, k, dim=-1)[0][..., [-1]]] = -float("Inf")
    return logits


class CacheConcat(KVCache):
    def __init__(self, config, rows, device, dtype):
        super().__init__(config, rows, device, dtype)
        self.kept = {}
        self.places = None

    def update(self, layer, k, v):
        if self.length and layer in self.kept:
            old_k, old_v = self.kept[layer]
            k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
        self.kept[layer] = k, v
        return k, v

    def key_positions(self, pos):
        pos = pos.repeat(len(self.pos) // len(pos), 1)
        return torch.cat([self.places, pos], -1) if self.length else pos

    def advance(self, pos):
        self.places = self.key_positions(pos)
        self.length = self.places.shape[1]


class CacheIndex(KVCache):
    def update(self, layer, k, v):
        at = torch.arange(self.length, self.length + k.shape[2])
        self.keys[layer].index_copy_(2, at, k)
        self.values[layer].index_copy_(2, at, v)
        stop = self.length + k.shape[2]
        return self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]


class CacheTokenByToken(KVCache):
    def update(self, layer, k, v):
        place = self.length
        for t in range(k.size(2)):
            self.keys[layer, :, :, place] = k[:, :, t]
            self.values[layer, :, :, place] = v[:, :, t]
            place += 1
        return self.keys[layer, ..., :place, :], self.values[layer, ..., :place, :]

    def key_positions(self, pos):
        pos = pos.expand(len(self.pos), -1)
        old = self.pos[:, : self.length]
        return torch.stack([torch.cat(pair) for pair in zip(old, pos, strict=True)])

    def advance(self, pos):
        for t in range(pos.size(1)):
            self.pos[:, self.length] = pos[:, t]
            self.length += 1


def rotate_complex(x, cos, sin):
    a, b = x.chunk(2, -1)
    z = torch.complex(a.contiguous(), b.contiguous()) * torch.complex(cos, sin)
    return torch.cat([z.real, z.imag], -1)


def rotate_half(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * torch.cat([cos, cos], -1) + rotated * torch.cat([sin, sin], -1)


def rotate_pairs(x, cos, sin):
    y, half = x.clone(), x.shape[-1] // 2
    for i in range(half):
        y[..., i] = x[..., i] * cos[..., i] - x[..., i + half] * sin[..., i]
        y[..., i + half] = x[..., i] * sin[..., i] + x[..., i + half] * cos[..., i]
    return y


def attention_of_the_package(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.dropout(attention_weights(q, k, mask, causal), dropout) @ v


def a_value(**methods):
    """The package's Value as a class of its own, with the methods that a learner wrote."""
    scope = dict(vars(autograd))

    def rebound(part):  # a method whose Value is the new class
        if isinstance(part, staticmethod):
            return staticmethod(rebound(part.__func__))
        if not isinstance(part, FunctionType):
            return part
        return FunctionType(part.__code__, scope, argdefs=part.__defaults__)

    own = {
        n: rebound(p)
        for n, p in vars(autograd.Value).items()
        if n not in ("__dict__", "__weakref__")
    }
    cls = scope["Value"] = type("Value", (), {**own, **methods})
    cls.__radd__, cls.__rmul__ = cls.__add__, cls.__mul__
    return cls


def value_sum(self, other):
    other = self.of(other)
    return type(self)(self.data + other.data, ((self, 1.0), (other, 1.0)))


def value_product(self, other):
    other = self.of(other)
    return type(self)(self.data * other.data, [(self, other.data), (other, self.data)])


def value_tanh(self):
    e = math.exp(2 * self.data)
    y = (e - 1) / (e + 1)
    return type(self)(y, [(self, (1 - y) * (1 + y))])


def value_tanh_cosh(self):
    return type(self)(math.tanh(self.data), [(self, math.cosh(self.data) ** -2)])


def backward_topological(self):
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for source, _ in value.inputs:
                visit(source)
            order.append(value)

    visit(self)
    self.grad = 1.0
    for value in reversed(order):
        for source, derivative in value.inputs:
            source.grad += derivative * value.grad


def backward_path_by_path(self):
    def push(value, gradient):
        value.grad += gradient
        for source, derivative in value.inputs:
            push(source, derivative * gradient)

    push(self, 1.0)


def backward_counting(self):
    """Each number waits until all numbers that were computed from it are done."""
    order = autograd.in_order(self)
    waiting = Counter(source for value in order for source, _ in value.inputs)
    self.grad, ready = 1.0, [self]
    while ready:
        value = ready.pop()
        for source, derivative in value.inputs:
            source.grad += derivative * value.grad
            waiting[source] -= 1
            if not waiting[source]:
                ready.append(source)


def embed_library(ids, wte, wpe):
    B, T = ids.shape
    pos = torch.arange(T).expand(B, T)
    return F.embedding(ids, wte) + F.embedding(pos, wpe)


def embed_one_hot(ids, wte, wpe):
    return F.one_hot(ids, len(wte)).to(wte.dtype) @ wte + wpe[None, : ids.size(1), :]


def embed_loops(ids, wte, wpe):
    rows = [[wte[i] + wpe[t] for t, i in enumerate(row)] for row in ids.tolist()]
    return torch.stack([torch.stack(row) for row in rows])


def plain_loss_library(logits, targets):
    return F.cross_entropy(logits, targets)


def plain_loss_loop(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets.tolist(), strict=True):
        total = total + torch.logsumexp(row, 0) - row[target]
    return total / len(targets)


def plain_loss_one_hot(logits, targets):
    logs = logits.log_softmax(dim=1)
    return -(logs * F.one_hot(targets, logits.shape[1])).sum() / targets.shape[0]


def gradient_one_hot(logits, targets):
    return (logits.softmax(-1) - F.one_hot(targets, logits.shape[-1])) / logits.shape[0]


def gradient_loops(logits, targets):
    N, V = logits.shape
    p, g = torch.softmax(logits, 1), torch.zeros(N, V)
    for n in range(N):
        for v in range(V):
            g[n, v] = (p[n, v] - (1.0 if v == targets[n] else 0.0)) / N
    return g


def gradient_scatter(logits, targets):
    g = torch.exp(logits - torch.logsumexp(logits, 1, keepdim=True))
    return g.scatter_add(1, targets.view(-1, 1), -torch.ones(len(targets), 1)).div(len(targets))


def average_cumsum(x):
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1).view(1, -1, 1)


def average_softmax(x):
    T = x.size(1)
    scores = torch.zeros(T, T).masked_fill(torch.ones(T, T).tril() == 0, float("-inf"))
    return torch.einsum("ts,bsc->btc", F.softmax(scores, dim=-1), x)


def average_loop(x):
    return torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.shape[1])], dim=1)


def causal_compare(T):
    i = torch.arange(T)
    return i[:, None] >= i[None, :]


def causal_lists(T):
    return torch.tensor([[s <= t for s in range(T)] for t in range(T)])


def causal_triu(T):
    return ~torch.triu(torch.ones((T, T)), diagonal=1).bool()


def heads_nanogpt(x, c_attn, c_proj, n_head):
    B, T, C = x.size()
    q, k, v = c_attn(x).split(C, dim=2)
    k = k.view(B, T, n_head, C // n_head).transpose(1, 2)
    q = q.view(B, T, n_head, C // n_head).transpose(1, 2)
    v = v.view(B, T, n_head, C // n_head).transpose(1, 2)
    att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    att = att.masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))
    y = F.softmax(att, dim=-1) @ v
    return c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


def heads_one_by_one(x, c_attn, c_proj, n_head):
    hs, T = x.shape[-1] // n_head, x.shape[1]
    q, k, v = c_attn(x).chunk(3, -1)
    outs = []
    for h in range(n_head):
        part = slice(h * hs, (h + 1) * hs)
        scores = q[..., part] @ k[..., part].mT / hs**0.5
        weights = (scores + torch.full((T, T), -torch.inf).triu(1)).softmax(-1)
        outs.append(weights @ v[..., part])
    return c_proj(torch.cat(outs, -1))


def heads_library(x, c_attn, c_proj, n_head):
    qkv = c_attn(x).unflatten(-1, (3, n_head, -1)).permute(2, 0, 3, 1, 4)
    return c_proj(F.scaled_dot_product_attention(*qkv, is_causal=True).transpose(1, 2).flatten(2))


def gpt_steps(ids, wte, wpe, blocks, ln_f):
    tokens = wte[ids]
    positions = wpe[torch.arange(ids.size(1))]
    x = tokens + positions
    for block in blocks:
        x = block(x)
    return torch.matmul(ln_f(x), wte.transpose(0, 1))


def gpt_reduce(ids, wte, wpe, blocks, ln_f):
    x = F.embedding(ids, wte) + wpe[: ids.shape[-1]].unsqueeze(0)
    return F.linear(ln_f(functools.reduce(lambda x, block: block(x), blocks, x)), wte)


def gpt_recursive(ids, wte, wpe, blocks, ln_f):
    def through(x, rest):
        return through(rest[0](x), rest[1:]) if rest else ln_f(x)

    return torch.einsum("btc,vc->btv", through(wte[ids] + wpe[: ids.shape[1]], list(blocks)), wte)


def all_reduce_to_all(x, rank):
    others = [r for r in range(rank.size) if r != rank.number]
    for r in others:
        rank.send(x, to=r)
    return x + sum(rank.receive(source=r) for r in others)


def all_reduce_at_a_root(x, rank):
    if rank.number == 0:
        for r in range(1, rank.size):
            x = x + rank.receive(r)
        for r in range(1, rank.size):
            rank.send(x, r)
        return x
    rank.send(x, 0)
    return rank.receive(0)


def all_reduce_whole_ring(x, rank):
    left, right = (rank.number - 1) % rank.size, (rank.number + 1) % rank.size
    total, passing = x.clone(), x
    for _ in range(rank.size - 1):
        rank.send(passing, right)
        passing = rank.receive(left)
        total += passing
    return total


def all_reduce_own_ring(x, rank):
    n, me = rank.size, rank.number
    sizes = [x.numel() // n + (i < x.numel() % n) for i in range(n)]
    parts = [part.clone() for part in x.reshape(-1).split(sizes)]
    for step in range(2 * (n - 1)):
        rank.send(parts[(me - step) % n], (me + 1) % n)
        came, place = rank.receive((me - 1) % n), (me - step - 1) % n
        parts[place] = parts[place] + came if step < n - 1 else came
    return torch.cat(parts).reshape(x.shape)


def average_tensor_by_tensor(gradients, targets, rank):
    total = all_reduce_at_a_root(torch.tensor([float(targets)]), rank)
    return [all_reduce_to_all(g * targets, rank) / total for g in gradients]


def average_by_share(gradients, targets, rank):
    share = targets / collectives.all_reduce(torch.tensor(targets), rank).item()
    return [collectives.all_reduce(g * share, rank) for g in gradients]


def average_in_one_vector(gradients, targets, rank):
    flat = torch.hstack([(g * targets).ravel() for g in gradients] + [torch.tensor([targets])])
    flat = collectives.all_reduce(flat, rank)
    found, start = [], 0
    for g in gradients:
        found.append((flat[start : start + g.numel()] / flat[-1]).reshape(g.shape))
        start += g.numel()
    return found


def mlp_chunks(x, w_fc, b_fc, w_proj, b_proj, rank):
    def mine(w, dim=0):
        return w.chunk(rank.size, dim)[rank.number]

    x = collectives.copied(x, rank)
    h = F.gelu(F.linear(x, mine(w_fc), mine(b_fc)), approximate="tanh")
    return collectives.summed(F.linear(h, mine(w_proj, 1)), rank) + b_proj


def mlp_bias_of_one_rank(x, w_fc, b_fc, w_proj, b_proj, rank):
    n = w_fc.shape[0] // rank.size
    start, end = n * rank.number, n * (rank.number + 1)
    h = layers.gelu(collectives.copied(x, rank) @ w_fc[start:end].T + b_fc[start:end])
    y = torch.einsum("bth,ch->btc", h, w_proj[:, start:end])
    if rank.number == rank.size - 1:
        y = y + b_proj
    return collectives.summed(y, rank)


class BackwardSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rank, forward):
        ctx.rank, ctx.forward = rank, forward
        return all_reduce_to_all(x, rank) if forward else x.clone()

    @staticmethod
    def backward(ctx, g):
        return (g if ctx.forward else all_reduce_to_all(g, ctx.rank)), None, None


def mlp_own_functions(x, w_fc, b_fc, w_proj, b_proj, rank):
    mine = torch.arange(len(b_fc)).view(rank.size, -1)[rank.number]
    h = layers.gelu(BackwardSum.apply(x, rank, False) @ w_fc[mine].T + b_fc[mine])
    return b_proj + BackwardSum.apply(h @ w_proj[:, mine].T, rank, True)


def answers_loop(ids, targets, assistant, end):
    found = targets.copy()
    for row in range(len(ids)):
        speaking = False
        for place, token in enumerate(ids[row]):
            if token == assistant:
                speaking = True
            elif token == end:
                speaking = False
            if not speaking:
                found[row, place] = -100
    return found


def answers_places(ids, targets, assistant, end):
    """The last mark before each place, by its place."""
    marks = (ids == assistant) | (ids == end)
    last = np.maximum.accumulate(np.where(marks, np.arange(ids.shape[1]), -1), axis=1)
    seen = np.take_along_axis(ids, np.maximum(last, 0), axis=1)
    return np.where((last >= 0) & (seen == assistant), targets, -100)


def answers_lists(ids, targets, assistant, end):
    def one(row, wanted):
        answer = []
        for token, target in zip(row, wanted, strict=True):
            before = answer[-1][0] if answer else False
            speaking = token == assistant or (before and token != end)
            answer.append((speaking, target if speaking else -100))
        return [target for _, target in answer]

    return np.array([one(*rows) for rows in zip(ids.tolist(), targets.tolist(), strict=True)])


def advantage_loop(rewards, group_size, normalize=False):
    out = []
    for start in range(0, len(rewards), group_size):
        group = rewards[start : start + group_size]
        better = group - group.mean()
        out.append(better / (group.std() + 1e-4) if normalize else better)
    return torch.cat(out)


def advantage_repeat(rewards, group_size, normalize=False):
    groups = rewards.reshape(-1, group_size)
    better = rewards - groups.mean(1).repeat_interleave(group_size)
    spread = groups.var(1).sqrt().repeat_interleave(group_size) + 0.0001
    return better / spread if normalize else better


def advantage_numbers(rewards, group_size, normalize=False):
    values, out = rewards.tolist(), []
    for n, value in enumerate(values):
        group = values[n // group_size * group_size :][:group_size]
        mean = sum(group) / group_size
        spread = math.sqrt(sum((x - mean) ** 2 for x in group) / (group_size - 1))
        out.append((value - mean) / (spread + 1e-4 if normalize else 1))
    return torch.tensor(out)


def lora_transposed(x, weight, bias, a, b, scale):
    y = x @ weight.T + (x @ a.T @ b.T) * scale
    return y if bias is None else y + bias


def lora_einsum(x, weight, bias, a, b, scale):
    few = torch.einsum("...i,ri->...r", x, a)
    return F.linear(x, weight, bias) + torch.einsum("...r,or->...o", scale * few, b)


def lora_merged(x, weight, bias, a, b, scale):
    return F.linear(x, weight + scale * (b @ a), bias)


RIGHT = {
    "value": [
        a_value(
            __add__=value_sum, __mul__=value_product, tanh=value_tanh,
            backward=backward_topological,
        ),
        a_value(backward=backward_path_by_path, tanh=value_tanh_cosh),
        a_value(backward=backward_counting),
    ],
    "merge": [merge_flag, merge_recursive, merge_in_a_copy],
    "train": [train_loops, train_sorted, bpe.train],
    "encode": [encode_ranks, encode_in_order_of_learning, encode_one_place_at_a_time],
    "windows": [windows_list, windows_generator, windows_tensors],
    "layer-norm": [norm_library, norm_by_moments, norm_rows],
    "gelu": [gelu_library, gelu_numbers, gelu_sigmoid, nn.GELU("tanh")],
    "softmax": [softmax_library, softmax_log, softmax_max],
    "attention": [
        attention_einsum, attention_library, attention_loops, attention_of_the_package,
    ],
    "embed": [embed_library, embed_one_hot, embed_loops],
    "cross-entropy": [plain_loss_library, plain_loss_loop, plain_loss_one_hot],
    "loss-gradient": [gradient_one_hot, gradient_loops, gradient_scatter],
    "average": [average_cumsum, average_softmax, average_loop],
    "mask": [causal_compare, causal_lists, causal_triu],
    "heads": [heads_nanogpt, heads_one_by_one, heads_library],
    "gpt": [gpt_steps, gpt_reduce, gpt_recursive],
    "grouped-heads": [HeadsChunks, HeadsView, HeadsOneByOne],
    "full-mask": [mask_loops, mask_tril, mask_lists],
    "block": [BlockOneLine, BlockSteps, BlockSums],
    "gpt-cached": [GPTPlain, GPTWhile, GPTOwnPositions],
    "masked-loss": [loss_library, loss_loop, loss_log_softmax],
    "adamw": [AdamPlain, AdamStepSize, AdamLibrary],
    "schedule": [schedule_plain, schedule_table, schedule_tensor],
    "top-k": [top_k_sort, top_k_rows, top_k_copy],
    "cache": [CacheConcat, CacheIndex, CacheTokenByToken],
    "rope": [rotate_complex, rotate_half, rotate_pairs],
    "all-reduce": [
        all_reduce_to_all, all_reduce_at_a_root, all_reduce_whole_ring, all_reduce_own_ring,
    ],
    "average-gradients": [average_tensor_by_tensor, average_by_share, average_in_one_vector],
    "parallel-mlp": [mlp_chunks, mlp_bias_of_one_rank, mlp_own_functions],
    "answers-only": [answers_loop, answers_places, answers_lists],
    "advantage": [advantage_loop, advantage_repeat, advantage_numbers],
    "lora": [lora_transposed, lora_einsum, lora_merged],
}  # fmt: skip
