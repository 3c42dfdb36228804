"""Wrong solutions, as learners write them: each must get the diagnosis that is listed with it.

None of them is the function by which the judge recognises the mistake: what counts is what a
solution does, not how it is written.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from learners_right import a_value, hidden_scores, merge_flag
from torch import nn

from nanogpt.errors import UserError
from nanogpt.learn import autograd
from nanogpt.learn.collectives import all_reduce, copied, gathered, summed
from nanogpt.model.attention import CausalSelfAttention
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, Block
from nanogpt.model.layers import gelu
from nanogpt.training import optim


def merge_both(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new_id)
            i += 1
            if tuple(ids[i : i + 2]) != pair:
                i += 1
        else:
            out.append(ids[i])
            i += 1
    return out


def merge_break(ids, pair, new_id):
    out = list(ids)
    for i in range(len(out) - 1):
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new_id]
            break
    return out


def merge_backwards(ids, pair, new_id):
    out = list(ids)
    i = len(out) - 2
    while i >= 0:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new_id]
            i -= 1
        i -= 1
    return out


def merge_range(ids, pair, new_id):
    out, skip = [], False
    for i in range(len(ids) - 1):
        if skip:
            skip = False
            continue
        skip = (ids[i], ids[i + 1]) == pair
        out.append(new_id if skip else ids[i])
    return out


def merge_in_place(ids, pair, new_id):
    i = 0
    while i + 1 < len(ids):
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def a_trainer(choose, times=lambda n: n, first=256):
    def train(words, n_merges):
        texts = {i: bytes([i]) for i in range(256)}
        split = [([*word], n) for word, n in words.items()]
        found = []
        while len(found) < n_merges:
            counts = {}
            for ids, n in split:
                for pair in zip(ids[:-1], ids[1:], strict=True):
                    counts[pair] = counts.get(pair, 0) + times(n)
            if not counts:
                break
            pair = choose(counts, texts)
            new_id = first + len(found)
            texts[new_id] = texts[pair[0]] + texts[pair[1]]
            split = [(merge_flag(ids, pair, new_id), n) for ids, n in split]
            found.append(pair)
        return found

    return train


def spelled(counts, texts):
    return sorted(counts, key=lambda p: (counts[p], texts[p[0]], texts[p[1]]))


def train_first(counts, texts):
    best, most = None, 0
    for pair, count in counts.items():
        if count > most:
            best, most = pair, count
    return best


def encode_scan(ids, ranks):
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) in ranks:
            ids = merge_flag(ids, (ids[i], ids[i + 1]), ranks[ids[i], ids[i + 1]])
            i = 0
        else:
            i += 1
    return ids


def encode_single(ids, ranks):
    known = [p for p in zip(ids, ids[1:], strict=False) if p in ranks]
    if not known:
        return list(ids)
    pair = min(known, key=ranks.get)
    return merge_flag(list(ids), pair, ranks[pair])


def windows_same(ids, context_length, stride):
    last = len(ids) - 1
    length = min(context_length, last)
    done, start = 0, 0
    while done < last:
        begin = min(start, last - length)
        yield ids[begin : begin + length].copy(), ids[begin : begin + length].copy()
        done, start = begin + length, start + stride


def windows_all_targets(ids, context_length, stride):
    last = len(ids) - 1
    length = min(context_length, last)
    done, start = 0, 0
    while done < last:
        begin = min(start, last - length)
        yield ids[begin : begin + length], ids[begin + 1 : begin + length + 1]
        done, start = begin + length, start + stride


def norm_default_var(x, weight, bias=None, eps=1e-5):
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps) ** 0.5 * weight
    return y if bias is None else y + bias


def norm_std(x, weight, bias=None, eps=1e-5):
    y = x - x.mean(-1, keepdim=True)
    y = weight * y / (y.pow(2).mean(-1, keepdim=True).sqrt() + eps)
    return y if bias is None else y + bias


def norm_rms(x, weight, bias=None, eps=1e-5):
    y = F.rms_norm(x, weight.shape, weight, eps)
    return y if bias is None else y + bias


def gelu_exact(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_zero_lost(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.44715 * torch.pow(x, 3))
    return 0.5 * x * (1 + torch.tanh(inner))


def softmax_naive(x, dim=-1):
    e = x.exp()
    return e / e.sum(dim=dim, keepdim=True)


def softmax_global(x, dim=-1):
    e = (x - x.amax()).exp()
    return e / e.sum(dim=dim, keepdim=True)


def softmax_last(x, dim=-1):
    return x.softmax(-1)


def attend_unscaled(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = torch.einsum("bhtd,bhsd->bhts", q, k)
    return hidden_scores(scores, mask, causal).softmax(-1) @ v


def attend_columns(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = hidden_scores(q @ k.mT / q.shape[-1] ** 0.5, mask, causal)
    return scores.softmax(dim=2) @ v


def attend_mask_late(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None and mask.dtype != torch.bool:
        scores, mask = scores + mask, None
    if causal:
        mask = torch.ones(scores.shape[-2:]).tril()
    return (scores.softmax(-1) * (1 if mask is None else mask)) @ v


def attend_zero(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = hidden_scores(q @ k.mT / q.shape[-1] ** 0.5, mask, causal)
    if causal or (mask is not None and mask.dtype == torch.bool):
        scores = torch.where(torch.isinf(scores), 0.0, scores)
    return scores.softmax(-1) @ v


def attend_everywhere(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.scaled_dot_product_attention(q, k, v)


def attend_wrong_scale(q, k, v, mask=None, causal=False, dropout=0.0):
    return hidden_scores(q @ k.mT / q.shape[-1], mask, causal).softmax(-1) @ v


def attend_billion(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = hidden_scores(q @ k.mT / q.shape[-1] ** 0.5, mask, causal)
    if mask is None or mask.dtype == torch.bool:
        scores = scores.masked_fill(scores.isinf(), -1e9)
    return scores.softmax(-1) @ v


def attend_inverted(q, k, v, mask=None, causal=False, dropout=0.0):
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.logical_not()
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


def attend_plus(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ v


def attend_past_only(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)


def attend_all_ways(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.scaled_dot_product_attention(q, k, v, mask)


def attend_backwards(q, k, v, mask=None, causal=False, dropout=0.0):
    return F.scaled_dot_product_attention(k, q, v, mask, is_causal=causal)


class SomeHeads(CausalSelfAttention):
    uses_cache = uses_mask = uses_causal = True

    def forward(self, x, context):
        q, k, v = self.cut(x)
        if self.qk_norm:
            q, k = (F.rms_norm(y, (self.head_size,), None, 1e-5) for y in (q, k))
        q, k = context.position.rotate(q, k, context.pos)
        if context.cache and self.uses_cache:
            k, v = context.cache.update(context.layer, k, v)
        k, v = (y.repeat_interleave(self.groups, 1) for y in (k, v))
        mask = context.mask if self.uses_mask else None
        causal = context.causal and self.uses_causal
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        return self.c_proj(self.join(y))

    def cut(self, x):
        return [
            part.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for part in self.c_attn(x).split(self.widths, -1)
        ]

    def join(self, y):
        return y.transpose(1, 2).flatten(2)


class HeadsFlattened(SomeHeads):
    def join(self, y):
        return y.contiguous().view(y.shape[0], y.shape[2], y.shape[1] * y.shape[3])


class HeadsViewed(SomeHeads):
    def cut(self, x):
        B, T, _ = x.shape
        parts = self.c_attn(x).split(self.widths, -1)
        return [p.contiguous().view(B, -1, T, self.head_size) for p in parts]


class HeadsUncached(SomeHeads):
    uses_cache = False


class HeadsUnmasked(SomeHeads):
    uses_mask = False


class HeadsNotCausal(SomeHeads):
    uses_causal = False


class HeadsUnprojected(SomeHeads):
    def __init__(self, config):
        super().__init__(config)
        self.c_proj.forward = lambda y: y


def a_mask(compare, finish=lambda visible: visible):
    def mask(new, known, window=0, same=None, device=None):
        key = torch.arange(known)
        query = key[known - new :].unsqueeze(1)
        visible = compare(query, key, window or known)
        if same is not None:
            visible = (visible & (same | (query == key))).unsqueeze(1)
        return finish(visible)

    return mask


def mask_square(new, known, window=0, same=None, device=None):
    visible = torch.ones(new, known, dtype=torch.bool).tril()
    if window:
        visible = visible.triu(1 - window)
    if same is not None:
        visible = (visible & (same | torch.eye(new, known, dtype=torch.bool)))[:, None]
    return visible


def mask_alone(new, known, window=0, same=None, device=None):
    visible = torch.ones(known, known, dtype=torch.bool).tril()[known - new :]
    if window:
        visible = visible.triu(known - new + 1 - window)
    return visible if same is None else visible.logical_and(same)[:, None]


class BlockWithoutSums(Block):
    def forward(self, x, context):
        x = self.attn(self.ln_1(x), context)
        return self.mlp(self.ln_2(x))


class BlockNormedStream(Block):
    def forward(self, x, context):
        normed = self.ln_1(x)
        y = normed + self.attn(normed, context)
        y = self.ln_2(y)
        return self.mlp(y) + y


class BlockAfter(Block):
    def forward(self, x, context):
        y = self.ln_1(self.attn(x, context) + x)
        return self.ln_2(self.mlp(y) + y)


class BlockFromX(Block):
    def forward(self, x, context):
        attended = self.attn(self.ln_1(x), context)
        processed = self.mlp(self.ln_2(x))
        return x + attended + processed


class GPTStale(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        context = self.context(ids, documents, cache)
        x = self.wpe.embed(self.wte(ids), torch.arange(ids.shape[1]))
        for n, block in enumerate(self.h):
            x = block(x, replace(context, layer=n))
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTUnnormed(GPT):
    def __init__(self, config):
        super().__init__(config)
        self.ln_f.register_forward_hook(lambda module, inputs, output: inputs[0])


class GPTNoOrder(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        context = self.context(ids, documents, cache)
        x = self.wte(ids)
        for n, block in enumerate(self.h):
            x = block(x, replace(context, layer=n))
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTOneLayer(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        context = self.context(ids, documents, cache)
        x = self.wpe.embed(self.wte(ids), context.pos)
        for block in self.h:
            x = block(x, context)
        if cache:
            cache.advance(context.pos)
        return self.ln_f(x)


class GPTAdvancing(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        context = self.context(ids, documents, cache)
        x = self.wpe.embed(self.wte(ids), context.pos)
        for n, block in enumerate(self.h):
            x = block(x, replace(context, layer=n))
            if cache:
                cache.advance(context.pos)
        return self.ln_f(x)


def loss_over_all(logits, targets, reduction="mean"):
    losses = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    if reduction == "none":
        return losses[targets != -100]
    return losses.mean() if reduction == "mean" else losses.sum()


def loss_of_probabilities(logits, targets, reduction="mean"):
    keep = targets != -100
    p = logits[keep].softmax(-1)
    losses = -p[range(len(p)), targets[keep]].log()
    return {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]


def loss_base_two(logits, targets, reduction="mean"):
    keep = targets != -100
    losses = F.cross_entropy(logits[keep], targets[keep], reduction="none") / math.log(2)
    return {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]


class SomeAdam(optim.HandWritten):
    coupled = shrink_last = uncorrected = eps_inside = rateless = False

    def update(self, parameter, gradient, group):
        s = self.state[parameter]
        s["step"] = s.get("step", 0) + 1
        lr, wd, eps, (b1, b2) = (group[k] for k in ("lr", "weight_decay", "eps", "betas"))
        if self.coupled:
            gradient = gradient + wd * parameter
        m = s["exp_avg"] = b1 * s.get("exp_avg", 0) + (1 - b1) * gradient
        v = s["exp_avg_sq"] = b2 * s.get("exp_avg_sq", 0) + (1 - b2) * gradient.square()
        if not self.uncorrected:
            m, v = m / (1 - b1 ** s["step"]), v / (1 - b2 ** s["step"])
        step = lr * m / ((v + eps).sqrt() if self.eps_inside else v.sqrt() + eps)
        shrink = 1 - (wd if self.rateless else lr * wd)
        if self.coupled:
            parameter.sub_(step)
        elif self.shrink_last:
            parameter.copy_((parameter - step) * shrink)
        else:
            parameter.copy_(parameter * shrink - step)


def an_adam(fault):
    return type("AdamW", (SomeAdam,), {fault: True})


def schedule_from_zero(step, config):
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    return optim.learning_rate(step, config)


def schedule_degrees(step, config):
    if step < config.warmup_steps or config.schedule != "cosine":
        return optim.learning_rate(step, config)
    ratio = min(1, (step - config.warmup_steps) / (config.max_steps - config.warmup_steps))
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(180 * ratio)) / 2


def schedule_to_zero(step, config):
    if step < config.warmup_steps or config.schedule != "cosine":
        return optim.learning_rate(step, config)
    ratio = min(1, (step - config.warmup_steps) / (config.max_steps - config.warmup_steps))
    return config.lr * (1 + math.cos(math.pi * ratio)) / 2


def schedule_endless(step, config):
    if step < config.warmup_steps or config.schedule != "cosine":
        return optim.learning_rate(step, config)
    ratio = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * ratio)) / 2


def top_k_scatter(logits, k):
    if k == 0 or k >= logits.shape[1]:
        return logits
    values, places = torch.topk(logits, k)
    return torch.full_like(logits, -math.inf).scatter_(1, places, values)


def top_k_billion(logits, k):
    if k == 0 or k >= logits.shape[1]:
        return logits
    return torch.where(logits < logits.topk(k).values[:, [-1]], -1e9, logits)


def top_k_strict(logits, k):
    out = logits.clone()
    if 0 < k < logits.shape[1]:
        out[out <= out.topk(k).values[:, -1:]] = -math.inf
    return out


def top_k_unchecked(logits, k):
    if k == 0:
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf)


class CacheOverwrites(KVCache):
    def update(self, layer, k, v):
        new = k.shape[2]
        self.keys[layer, :, :, :new], self.values[layer, :, :, :new] = k, v
        total = self.length + new
        return self.keys[layer, :, :, :total], self.values[layer, :, :, :total]


class CacheCounts(KVCache):
    def update(self, layer, k, v):
        start = self.length
        self.length = end = start + k.shape[2]
        self.keys[layer, :, :, start:end], self.values[layer, :, :, start:end] = k, v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, pos):
        self.pos[:, self.length - pos.shape[1] : self.length] = pos


class CacheGrows(KVCache):
    def __init__(self, *settings):
        super().__init__(*settings)
        self.lists = {}

    def grow(self, name, x, axis):
        self.lists.setdefault(name, []).append(x)
        return torch.cat(self.lists[name], axis)

    def update(self, layer, k, v):
        return self.grow((layer, 0), k, 2), self.grow((layer, 1), v, 2)

    def key_positions(self, pos):
        return self.grow("pos", pos.repeat(len(self.pos) // len(pos), 1), -1)


class CacheForgets(KVCache):
    def update(self, layer, k, v):
        return k, v


class CacheLengthOnly(KVCache):
    def advance(self, pos):
        self.length = self.length + pos.size(-1)


def rotate_interleaved(x, cos, sin):
    y = torch.empty_like(x)
    y[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    y[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return y


def rotate_back(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = torch.cat([x[..., half:], -x[..., :half]], -1)
    return x * torch.cat([cos, cos], -1) + rotated * torch.cat([sin, sin], -1)


def value_times_itself(self, other):
    other = self.of(other)
    return type(self)(self.data * other.data, [(self, self.data), (other, other.data)])


def value_tanh_of_x(self):
    return type(self)(math.tanh(self.data), [(self, 1 - self.data * self.data)])


def value_numbers_only(self, other):
    return type(self)(self.data + other.data, [(self, 1.0), (other, 1.0)])


def backward_assigning(self):
    self.grad = 1.0
    for value in reversed(autograd.in_order(self)):
        for source, derivative in value.inputs:
            source.grad = derivative * value.grad


def backward_queue(self):
    self.grad = 1.0
    queue, seen = [self], {self}
    while queue:
        value = queue.pop(0)
        for source, derivative in value.inputs:
            source.grad += derivative * value.grad
            if source not in seen:
                seen.add(source)
                queue.append(source)


def backward_without_start(self):
    for value in reversed(autograd.in_order(self)):
        for source, derivative in value.inputs:
            source.grad += derivative * value.grad


def backward_recursive(self):
    self.grad = self.grad or 1.0
    for source, derivative in self.inputs:
        source.grad += derivative * self.grad
        backward_recursive(source)


def embed_from_one(ids, wte, wpe):
    return F.embedding(ids, wte) + wpe[torch.arange(ids.shape[1]) + 1]


def embed_by_token(ids, wte, wpe):
    return torch.stack([wte[i] + wpe[i] for i in ids.flatten()]).view(*ids.shape, -1)


def embed_by_row(ids, wte, wpe):
    return torch.stack([wte[row] + wpe[n] for n, row in enumerate(ids)])


def plain_loss_naive(logits, targets):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[range(len(targets)), targets].log().mean()


def plain_loss_twice(logits, targets):
    return F.cross_entropy(logits.softmax(-1), targets)


def plain_loss_eps(logits, targets):
    p = F.softmax(logits, dim=-1).gather(1, targets.unsqueeze(1))
    return -torch.log(p + 1e-9).mean()


def gradient_of_the_sum(logits, targets):
    p = F.softmax(logits, dim=1)
    p[torch.arange(len(targets)), targets] -= 1
    return p


def gradient_sign(logits, targets):
    return (F.one_hot(targets, logits.size(1)) - logits.softmax(1)) / len(targets)


def gradient_raw(logits, targets):
    g = logits.clone()
    g[torch.arange(len(targets)), targets] -= 1
    return g / len(targets)


def average_by_t(x):
    T = x.shape[1]
    return torch.tril(torch.ones(T, T)) / T @ x


def average_columns(x):
    w = torch.tril(torch.ones(x.size(1), x.size(1)))
    return torch.einsum("ts,bsc->btc", w / w.sum(dim=1), x)


def average_soft(x):
    return F.softmax(torch.ones(x.shape[1], x.shape[1]).tril(), dim=-1) @ x


def average_exclusive(x):
    rows = [x[:, :t].mean(1) for t in range(x.shape[1])]
    return torch.stack(rows, 1)


def causal_floats(T):
    return torch.tril(torch.ones(T, T))


def causal_hidden(T):
    return torch.triu(torch.ones(T, T), diagonal=1).bool()


def causal_strict(T):
    return torch.arange(T)[:, None] > torch.arange(T)


def causal_infinite(T):
    return torch.full((T, T), float("-inf")).triu(1)


def heads_like_nanogpt(hs=None, qkv=lambda q, k, v: (q, k, v), join=None, hides=True):
    """nanoGPT's attention with something wrong in it."""

    def attend(x, c_attn, c_proj, n_head):
        B, T, C = x.size()
        q, k, v = qkv(*c_attn(x).split(C, dim=2))
        q, k, v = (y.view(B, T, n_head, C // n_head).transpose(1, 2) for y in (q, k, v))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(hs(C) if hs else k.size(-1))
        if hides:
            att = att.masked_fill(torch.ones(T, T).tril() == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        y = join(y) if join else y.transpose(1, 2).contiguous().view(B, T, C)
        return c_proj(y)

    return attend


def heads_viewed(x, c_attn, c_proj, n_head):
    B, T, C = x.shape
    q, k, v = (y.reshape(B, n_head, T, C // n_head) for y in c_attn(x).chunk(3, -1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return c_proj(y.transpose(1, 2).reshape(B, T, C))


def gpt_summing(ids, wte, wpe, blocks, ln_f):
    x = wte[ids] + wpe[: ids.shape[1]]
    for block in blocks:
        x = x + block(x)
    return ln_f(x) @ wte.T


def gpt_norming(ids, wte, wpe, blocks, ln_f):
    x = F.embedding(ids, wte) + wpe[: ids.shape[1]]
    for block in blocks:
        x = ln_f(block(x))
    return F.linear(x, wte)


def gpt_orderless(ids, wte, wpe, blocks, ln_f):
    x = F.embedding(ids, wte)
    for block in blocks:
        x = block(x)
    return F.linear(ln_f(x), wte)


def gpt_returning_early(ids, wte, wpe, blocks, ln_f):
    x = wte[ids] + wpe[torch.arange(ids.shape[1])]
    for block in blocks:
        x = block(x)
        return ln_f(x) @ wte.t()
    return x


def encode_by_the_mapping(ids, ranks):
    ids = list(ids)
    for pair in ranks:
        ids = merge_flag(ids, pair, ranks[pair])
    return ids


def norm_torch_std(x, weight, bias=None, eps=1e-5):
    y = weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps)
    return y + bias if bias is not None else y


def softmax_no_keepdim(x, dim=-1):
    e = torch.exp(x - x.max(dim=dim, keepdim=True).values)
    return e / e.sum(dim)


class BlockForgetful(Block):
    def forward(self, x, context):
        y = x + self.attn(self.ln_1(x), context)
        return x + self.mlp(self.ln_2(y))


def attend_keys(q, k, v, mask=None, causal=False, dropout=0.0):
    weights = hidden_scores(q @ k.mT / q.shape[-1] ** 0.5, mask, causal).softmax(-1)
    return F.dropout(weights, dropout) @ k


def attend_blind(q, k, v, mask=None, causal=False, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu().bool(), -math.inf)
    else:
        scores = hidden_scores(scores, mask, False)
    return F.dropout(scores.softmax(-1), dropout) @ v


class AdamRebinding(SomeAdam):
    def update(self, parameter, gradient, group):
        before = parameter.clone()
        super().update(parameter, gradient, group)
        parameter.copy_(before)


class AdamDefaults(SomeAdam):
    def update(self, parameter, gradient, group):
        super().update(parameter, gradient, self.defaults)


def schedule_floor(step, config):
    if step < config.warmup_steps or config.schedule != "cosine":
        return optim.learning_rate(step, config)
    ratio = min(1, (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps))
    return max(config.min_lr, config.lr * (1 + math.cos(math.pi * ratio)) / 2)


def top_k_next(logits, k):
    if k == 0 or k >= logits.shape[1]:
        return logits
    return logits.masked_fill(logits < logits.sort(descending=True)[0][:, k, None], -math.inf)


class HeadsHalfRotated(SomeHeads):
    def forward(self, x, context):
        position = context.position

        class Half:
            def rotate(self, q, k, pos):
                return position.rotate(q, k, pos)[0], k

        return super().forward(x, replace(context, position=Half()))


class CacheKeysTwice(KVCache):
    def update(self, layer, k, v):
        return super().update(layer, k, k)


class CacheResets(KVCache):
    def advance(self, pos):
        self.pos[:, self.length : self.length + pos.shape[1]] = pos
        self.length = pos.shape[1]


class GPTNormsAll(GPT):
    def hidden_states(self, ids, *, documents=None, cache=None):
        if ids.ndim != 2:
            raise UserError("use (B, T)")
        context = self.context(ids, documents, cache)
        x = self.drop(self.wpe.embed(self.wte(ids), context.pos))
        for n, block in enumerate(self.h):
            x = self.ln_f(block(x, replace(context, layer=n)))
        if cache:
            cache.advance(context.pos)
        return x


def loss_real_above_zero(logits, targets, reduction="mean"):
    keep = targets > 0
    return F.cross_entropy(logits[keep], targets[keep], reduction=reduction)


def rotate_mixed(x, cos, sin):
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    y = torch.empty_like(x)
    y[..., ::2], y[..., 1::2] = a * cos - b * sin, a * sin + b * cos
    return y


def merge_nothing_to_do(ids, pair, new_id):
    return merge_flag(ids, pair, new_id) if pair[0] in ids and pair[1] in ids else ids


def encode_with(never, last=False):
    """An encoder with a number for pairs that never merge; of equal ones the first or the last."""

    def encode_word(ids, ranks):
        out = list(ids)
        while len(out) > 1:
            due = [ranks.get(p, never) for p in zip(out, out[1:], strict=False)]
            least = min(due)
            if least >= never:
                break
            i = len(due) - 1 - due[::-1].index(least) if last else due.index(least)
            out[i : i + 2] = [least]
        return out

    return encode_word


def loss_weighted(logits, targets, reduction="mean"):
    counts = (targets >= 0).float()
    found = F.cross_entropy(logits, targets.clamp(min=0), reduction="none") * counts
    if reduction == "none":
        return found[targets >= 0]
    return found.sum() / (counts.sum() if reduction == "mean" else 1)


def around_the_ring(rounds, passes_sum=False, start=True):
    def reduce(x, rank):
        total, passing = x.clone() if start else torch.zeros_like(x), x
        for _ in range(rounds(rank.size)):
            rank.send(passing, (rank.number + 1) % rank.size)
            came = rank.receive((rank.number - 1) % rank.size)
            total = total + came
            passing = total if passes_sum else came
        return total

    return reduce


def reduce_waiting(x, rank):
    left, right = (rank.number - 1) % rank.size, (rank.number + 1) % rank.size
    for _ in range(rank.size - 1):
        came = rank.receive(left)
        rank.send(came, right)
        x = x + came
    return x


def reduce_to_zero(x, rank):
    for r in range(1, rank.size):
        if rank.number == r:
            rank.send(x, 0)
        elif rank.number == 0:
            x = x + rank.receive(r)
    return x


def reduce_in_place(x, rank):
    for r in range(rank.size):
        if r != rank.number:
            rank.send(x, r)
    for r in range(rank.size):
        if r != rank.number:
            x += rank.receive(r)
    return x


def reduce_in_chunks(x, rank):
    n, me = rank.size, rank.number
    parts = list(x.flatten().chunk(n))
    for step in range(2 * (n - 1)):
        rank.send(parts[(me - step) % n], (me + 1) % n)
        came, place = rank.receive((me - 1) % n), (me - step - 1) % n
        parts[place] = parts[place] + came if step < n - 1 else came
    return torch.cat(parts).view(x.shape)


def average_as_ddp(gradients, targets, rank):
    return [all_reduce(g, rank) / rank.size for g in gradients]


def average_by_own_number(gradients, targets, rank):
    flat = torch.cat([g.flatten() for g in gradients]) * targets
    flat = all_reduce(flat, rank) / (targets * rank.size or 1)
    sizes = [g.numel() for g in gradients]
    return [f.view_as(g) for f, g in zip(flat.split(sizes), gradients, strict=True)]


def average_unless_empty(gradients, targets, rank):
    if targets == 0:
        return gradients
    total = all_reduce(torch.tensor([float(targets)]), rank)
    return [all_reduce(g * targets, rank) / total for g in gradients]


def average_of_means(gradients, targets, rank):
    total = all_reduce(torch.tensor(float(targets)), rank)
    return [all_reduce(g, rank) / total for g in gradients]


def a_parallel_mlp(bias="after", enter=copied, joined=summed, cut=0, act=gelu):
    def mlp(x, w_fc, b_fc, w_proj, b_proj, rank):
        n, r = rank.size, rank.number
        h = act(enter(x, rank) @ w_fc.chunk(n)[r].T + b_fc.chunk(n)[r])
        y = h @ w_proj.chunk(n, 1)[cut if cut else r].T
        y = joined(y + b_proj if bias == "before" else y, rank)
        return y + b_proj if bias == "after" else y

    return mlp


def mlp_alone(x, w_fc, b_fc, w_proj, b_proj, rank):
    return gelu(x @ w_fc.T + b_fc) @ w_proj.T + b_proj


def mlp_joined_inside(x, w_fc, b_fc, w_proj, b_proj, rank):
    part = gelu(copied(x, rank) @ w_fc.chunk(rank.size)[rank.number].T
                + b_fc.chunk(rank.size)[rank.number])  # fmt: skip
    return F.linear(gathered(part, rank, dim=-1), w_proj, b_proj)


def answers_by(begin=True, finish=True, role=False, start=False, apart=True, other=-100):
    """Walks through each row with one variable, and gets one thing wrong."""

    def answers(ids, targets, assistant, end):
        found, speaking = np.full_like(targets, other), start
        for row in range(len(ids)):
            if apart:
                speaking = start
            for place in range(ids.shape[1]):
                token, target = ids[row, place], targets[row, place]
                if token == assistant:
                    speaking = True
                    if not begin:
                        continue
                if token == end:
                    speaking = False
                keep = speaking and (finish or target != end)
                if keep or (role and target == assistant):
                    found[row, place] = target
        return found

    return answers


def answers_of_the_first(ids, targets, assistant, end):
    found = np.full_like(targets, -100)
    for row in range(len(ids)):
        places = np.flatnonzero(ids[row] == assistant)
        if len(places):
            first = places[0]
            stop = np.flatnonzero(ids[row, first:] == end)
            last = first + stop[0] if len(stop) else ids.shape[1]
            found[row, first:last] = targets[row, first:last]
    return found


def answers_after(ids, targets, assistant, end):
    found = targets.copy()
    for row in range(len(ids)):
        places = np.flatnonzero(ids[row] == assistant)
        found[row, : places[0] if len(places) else None] = -100
    return found


def answers_in_place(ids, targets, assistant, end):
    targets[:] = answers_by()(ids, targets, assistant, end)
    return targets


def advantage_by(center, scale=lambda group: group.std() + 1e-4, always=False):
    """Goes through the groups, and compares with something else."""

    def advantage(rewards, group_size, normalize=False):
        out = []
        for group in rewards.split(group_size):
            better = group - center(group)
            out.append(better / scale(group) if normalize or always else better)
        return torch.cat(out)

    return advantage


def advantage_of_all(rewards, group_size, normalize=False):
    better = rewards - rewards.mean()
    if normalize:
        groups = rewards.view(-1, group_size)
        better = (better.view_as(groups) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    return better


def advantage_in_rows(rewards, group_size, normalize=False):
    rows = rewards.split(group_size)
    better = [row - row.mean() for row in rows]
    if normalize:
        better = [b / (row.std() + 1e-4) for b, row in zip(better, rows, strict=True)]
    return torch.stack(better)


def advantage_by_turns(rewards, group_size, normalize=False):
    n = len(rewards) // group_size
    found = torch.empty_like(rewards)
    for start in range(n):
        group = rewards[start::n]
        better = group - group.mean()
        found[start::n] = better / (group.std() + 1e-4) if normalize else better
    return found


def lora_by(layer=1, bias_once=True, scale_of=lambda s, a: s, between=lambda x: x):
    """Writes the products with transposed matrices, and gets one thing wrong."""

    def lora(x, weight, bias, a, b, scale):
        add = 0 if bias is None else bias
        correction = between(x @ a.T) @ b.T * scale_of(scale, a)
        return layer * (x @ weight.T) + (add if bias_once else 0) + correction

    return lora


def lora_with_bias(x, weight, bias, a, b, scale):
    return x @ (weight + scale * b @ a).T + bias


def lora_in_a_row(x, weight, bias, a, b, scale):
    y = x @ weight.T
    y = y if bias is None else y + bias
    return y + scale * (y @ a.T @ b.T)


WRONG = {
    "value": {
        "factors-of-their-own": a_value(__mul__=value_times_itself),
        "tanh-of-the-input": a_value(tanh=value_tanh_of_x),
        "plain-numbers": a_value(__add__=value_numbers_only),
        "gradient-overwritten": a_value(backward=backward_assigning),
        "wrong-order": a_value(backward=backward_queue),
        "no-start": a_value(backward=backward_without_start),
        "passed-on-twice": a_value(backward=backward_recursive),
    },
    "embed": {
        "positions-from-one": embed_from_one, "positions-by-token": embed_by_token,
        "position-by-row": embed_by_row,
    },
    "cross-entropy": {
        "overflow": plain_loss_naive, "softmax-twice": plain_loss_twice,
        "small-number-added": plain_loss_eps,
    },
    "loss-gradient": {
        "not-divided": gradient_of_the_sum, "sign": gradient_sign, "no-softmax": gradient_raw,
    },
    "average": {
        "divided-by-all": average_by_t, "divided-by-columns": average_columns,
        "hidden-as-zero": average_soft, "without-itself": average_exclusive,
    },
    "mask": {
        "ones-and-zeros": causal_floats, "upside-down": causal_hidden,
        "blind-to-itself": causal_strict, "numbers-to-add": causal_infinite,
    },
    "heads": {
        "scaled-by-all-channels": heads_like_nanogpt(hs=lambda C: C),
        "keys-mixed": heads_like_nanogpt(qkv=lambda q, k, v: (q, k, k)),
        "values-second": heads_like_nanogpt(qkv=lambda q, v, k: (q, k, v)),
        "merged-without-transpose": heads_like_nanogpt(
            join=lambda y: y.contiguous().view(y.shape[0], y.shape[2], -1)
        ),
        "causal-ignored": heads_like_nanogpt(hides=False), "view-for-transpose": heads_viewed,
    },
    "gpt": {
        "residual-outside": gpt_summing, "norm-in-the-loop": gpt_norming,
        "no-positions": gpt_orderless, "first-block-alone": gpt_returning_early,
    },
    "merge": {
        "overlap": merge_both, "first-only": merge_break, "from-the-right": merge_backwards,
        "last-lost": merge_range, "changes-its-input": merge_in_place,
        "input-given-back": merge_nothing_to_do,
    },
    "train": {
        "frequency-ignored": a_trainer(lambda c, t: spelled(c, t)[-1], times=lambda n: 1),
        "first-of-equals": a_trainer(train_first),
        "ids-compared": a_trainer(lambda c, t: sorted(c, key=lambda p: (c[p], p))[-1]),
        "rarest": a_trainer(lambda c, t: max(c, key=lambda p: (-c[p], t[p[0]], t[p[1]]))),
        "new-ids-from-257": a_trainer(lambda c, t: spelled(c, t)[-1], first=257),
    },
    "encode": {"left-to-right": encode_scan, "one-round": encode_single,
        "order-of-the-mapping": encode_by_the_mapping, "never-is-too-low": encode_with(99_999),
        "last-place-first": encode_with(math.inf, last=True)},
    "windows": {"targets-not-shifted": windows_same, "targets-twice": windows_all_targets},
    "layer-norm": {
        "variance-of-a-sample": norm_default_var, "eps-outside": norm_std, "no-mean": norm_rms,
        "std-of-torch": norm_torch_std,
    },
    "gelu": {
        "exact": gelu_exact, "cube-times-ten": gelu_zero_lost, "silu": nn.SiLU(),
        "relu": lambda x: x.clamp(min=0),
    },
    "softmax": {
        "overflow": softmax_naive, "maximum-of-everything": softmax_global,
        "axis-ignored": softmax_last, "no-keepdim": softmax_no_keepdim,
    },
    "attention": {
        "no-scale": attend_unscaled, "softmax-over-queries": attend_columns,
        "mask-after-softmax": attend_mask_late, "hidden-as-zero": attend_zero,
        "mask-ignored": attend_everywhere, "scale-without-root": attend_wrong_scale,
        "hidden-as-small-number": attend_billion, "mask-upside-down": attend_inverted,
        "booleans-added": attend_plus, "always-causal": attend_past_only,
        "causal-ignored": attend_all_ways, "keys-and-queries-swapped": attend_backwards,
        "keys-mixed": attend_keys, "hides-itself": attend_blind,
    },
    "grouped-heads": {
        "one-rotated": HeadsHalfRotated,
        "merged-without-transpose": HeadsFlattened,
        "view-for-transpose": HeadsViewed,
        "not-projected": HeadsUnprojected, "not-cached": HeadsUncached,
        "mask-ignored": HeadsUnmasked, "causal-ignored": HeadsNotCausal,
    },
    "full-mask": {
        "blind-to-itself": a_mask(lambda q, k, w: (k < q) & (k > q - w)),
        "sees-the-next": a_mask(lambda q, k, w: (k <= q + 1) & (k > q - w)),
        "window-ignored": a_mask(lambda q, k, w: k <= q),
        "window-too-wide": a_mask(lambda q, k, w: (k <= q) & (k >= q - w)),
        "upside-down": a_mask(lambda q, k, w: (k <= q) & (k > q - w), torch.logical_not),
        "ones-and-zeros": a_mask(lambda q, k, w: (k <= q) & (k > q - w), torch.Tensor.int),
        "numbers-to-add": a_mask(
            lambda q, k, w: (k <= q) & (k > q - w), lambda seen: torch.where(seen, 0.0, -math.inf)
        ),
        "queries-from-the-first": mask_square, "padding-sees-nothing": mask_alone,
    },
    "block": {
        "no-residuals": BlockWithoutSums, "residual-of-the-norm": BlockNormedStream,
        "post-norm": BlockAfter, "parallel": BlockFromX, "attention-lost": BlockForgetful,
    },
    "gpt-cached": {
        "norm-in-the-loop": GPTNormsAll,
        "positions-from-zero": GPTStale, "no-final-norm": GPTUnnormed, "no-positions": GPTNoOrder,
        "layer-not-given": GPTOneLayer, "advanced-by-every-block": GPTAdvancing,
    },
    "masked-loss": {
        "token-zero-ignored": loss_real_above_zero,
        "mean-over-ignored": loss_over_all, "overflow": loss_of_probabilities,
        "bits": loss_base_two, "ignored-times-zero": loss_weighted,
    },
    "adamw": {
        "coupled-decay": an_adam("coupled"), "decay-after": an_adam("shrink_last"),
        "no-bias-correction": an_adam("uncorrected"), "eps-inside": an_adam("eps_inside"),
        "decay-without-rate": an_adam("rateless"), "parameter-rebound": AdamRebinding,
        "defaults-for-group": AdamDefaults,
    },
    "schedule": {
        "zero-at-first": schedule_from_zero, "degrees": schedule_degrees,
        "to-zero": schedule_to_zero, "rises-again": schedule_endless,
        "floor": schedule_floor,
    },
    "top-k": {
        "ties-dropped": top_k_scatter, "small-number": top_k_billion,
        "kth-ruled-out": top_k_strict, "k-too-large": top_k_unchecked,
        "one-too-many": top_k_next,
    },
    "cache": {
        "stale-place": CacheOverwrites, "counts-every-layer": CacheCounts,
        "only-new": CacheForgets, "never-cleared": CacheGrows,
        "positions-not-stored": CacheLengthOnly, "keys-as-values": CacheKeysTwice,
        "length-replaced": CacheResets,
    },
    "rope": {
        "neighbours": rotate_interleaved, "backwards": rotate_back, "two-layouts": rotate_mixed,
    },
    "all-reduce": {
        "own-twice": around_the_ring(lambda n: n), "one-round": around_the_ring(lambda n: n > 1),
        "a-round-too-few": around_the_ring(lambda n: max(0, n - 2)),
        "sums-passed-on": around_the_ring(lambda n: n - 1, passes_sum=True),
        "own-left-out": around_the_ring(lambda n: n - 1, start=False),
        "all-wait": reduce_waiting, "on-one-rank-only": reduce_to_zero,
        "changes-its-input": reduce_in_place, "too-few-chunks": reduce_in_chunks,
    },
    "average-gradients": {
        "mean-of-means": average_as_ddp, "own-number-only": average_by_own_number,
        "leaves-early": average_unless_empty, "divided-but-not-weighted": average_of_means,
    },
    "parallel-mlp": {
        "bias-on-every-rank": a_parallel_mlp("before"), "bias-forgotten": a_parallel_mlp("no"),
        "gradient-of-x-in-part": a_parallel_mlp(enter=lambda x, rank: x),
        "gradient-cut": a_parallel_mlp(joined=all_reduce), "whole": mlp_alone,
        "no-activation": a_parallel_mlp(act=lambda x: x),
        "no-sum": a_parallel_mlp(joined=lambda y, rank: y), "hidden-gathered": mlp_joined_inside,
    },
    "answers-only": {
        "first-token-lost": answers_by(begin=False), "end-ignored": answers_by(finish=False),
        "role-counts": answers_by(role=True), "start-counts": answers_by(start=True),
        "rows-joined": answers_by(apart=False), "ignored-as-zero": answers_by(other=0),
        "first-answer-only": answers_of_the_first, "never-ends": answers_after,
        "changes-its-input": answers_in_place,
    },
    "advantage": {
        "mean-of-all": advantage_of_all, "in-groups": advantage_in_rows,
        "groups-across": advantage_by_turns,
        "zero-divided-by-zero": advantage_by(torch.mean, torch.std),
        "standard-deviation-of-n": advantage_by(
            torch.mean, lambda group: ((group - group.mean()) ** 2).mean().sqrt() + 1e-4
        ),
        "best-for-mean": advantage_by(torch.max),
        "always-normalized": advantage_by(torch.mean, always=True),
        "never-normalized": advantage_by(torch.mean, lambda group: 1),
    },
    "lora": {
        "not-scaled": lora_by(scale_of=lambda s, a: 1), "bias-forgotten": lora_by(bias_once=False),
        "scale-divided-by-rank": lora_by(scale_of=lambda s, a: s / a.shape[0]),
        "with-an-activation": lora_by(between=torch.relu), "layer-forgotten": lora_by(layer=0),
        "bias-of-none": lora_with_bias, "after-the-layer": lora_in_a_row,
    },
}  # fmt: skip
