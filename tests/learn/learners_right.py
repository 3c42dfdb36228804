"""Correct solutions of the exercises, as different people write them: all of them must pass."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

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
        y = (row - row.mean()) / math.sqrt(row.var(unbiased=False).item() + eps) * weight
        rows.append(y if bias is None else y + bias)
    return torch.stack(rows).reshape(x.shape)


def gelu_library(x):
    return F.gelu(x, approximate="tanh")


def gelu_numbers(x):
    flat = [
        0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        for v in x.flatten().tolist()
    ]
    return torch.tensor(flat).reshape(x.shape)


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
    return torch.einsum("bhts,bhsd->bhtd", hidden_scores(scores, mask, causal).softmax(-1), v)


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
                scores = k[b, h] @ q[b, h, t] / math.sqrt(hs)
                for s in range(S):
                    if causal and s > t:
                        scores[s] = -math.inf
                    elif mask is not None and mask.dtype == torch.bool:
                        scores[s] = scores[s] if mask[b, h, t, s] else -math.inf
                    elif mask is not None:
                        scores[s] += mask[b, h, t, s]
                out[b, h, t] = torch.softmax(scores, 0) @ v[b, h]
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
        y = attention_einsum(q, k, v, context.mask, context.causal)
        return self.c_proj(torch.cat(y.unbind(1), -1))


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
        y = F.scaled_dot_product_attention(q, k, v, context.mask, is_causal=context.causal)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


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
        return self.c_proj(torch.cat(outs, dim=-1))


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
        context = self.context(ids, documents, cache)
        x = self.drop(self.wpe.embed(self.wte(ids), context.pos))
        for n, block in enumerate(self.h):
            x = block(x, replace(context, layer=n))
        if cache is not None:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTWhile(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        context = self.context(ids, documents=documents, cache=cache)
        x = self.wpe.embed(F.embedding(ids, self.wte.weight), context.pos)
        n = 0
        while n < len(self.h):
            x = self.h[n](x, AttentionContext(**{**vars(context), "layer": n}))
            n += 1
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTOwnPositions(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        start = cache.length if cache else 0
        pos = torch.arange(start, start + ids.shape[1])[None]
        if documents is not None:
            rows = []
            for row in documents.tolist():
                rows.append([row[:i].count(d) if d else 0 for i, d in enumerate(row)])
            pos = torch.tensor(rows)[:, -ids.shape[1] :]
        context = self.context(ids, documents, cache)
        x = self.wpe.embed(self.wte(ids), pos)
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
            s["t"], s["m"], s["v"] = 0, torch.zeros_like(parameter), torch.zeros_like(parameter)
        s["t"] += 1
        b1, b2 = group["betas"]
        s["m"] = b1 * s["m"] + (1 - b1) * gradient
        s["v"] = b2 * s["v"] + (1 - b2) * gradient * gradient
        m_hat = s["m"] / (1 - b1 ** s["t"])
        v_hat = s["v"] / (1 - b2 ** s["t"])
        parameter -= group["lr"] * group["weight_decay"] * parameter
        parameter -= group["lr"] * m_hat / (torch.sqrt(v_hat) + group["eps"])


class AdamStepSize(optim.HandWritten):
    def update(self, parameter, gradient, group):
        s = self.state[parameter]
        step = s["step"] = s.get("step", 0) + 1
        lr, (b1, b2) = group["lr"], group["betas"]
        m = s.setdefault("m", torch.zeros_like(parameter)).lerp_(gradient, 1 - b1)
        v = s.setdefault("v", torch.zeros_like(parameter)).mul_(b2)
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
    length = config.max_steps - config.warmup_steps
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
    return attention_weights(q, k, mask, causal) @ v


RIGHT = {
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
    "heads": [HeadsChunks, HeadsView, HeadsOneByOne],
    "mask": [mask_loops, mask_tril, mask_lists],
    "block": [BlockOneLine, BlockSteps, BlockSums],
    "gpt": [GPTPlain, GPTWhile, GPTOwnPositions],
    "cross-entropy": [loss_library, loss_loop, loss_log_softmax],
    "adamw": [AdamPlain, AdamStepSize, AdamLibrary],
    "schedule": [schedule_plain, schedule_table, schedule_tensor],
    "top-k": [top_k_sort, top_k_rows, top_k_copy],
    "cache": [CacheConcat, CacheIndex, CacheTokenByToken],
    "rope": [rotate_complex, rotate_half, rotate_pairs],
}  # fmt: skip
