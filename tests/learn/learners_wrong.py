"""Wrong solutions, as learners write them: each must get the diagnosis that stands beside it.

None of them is the function by which the judge recognises the mistake: what counts is what a
solution does, not how it is written.
"""

import math

import torch
import torch.nn.functional as F
from learners_right import merge_flag
from torch import nn

from nanogpt.model.attention import CausalSelfAttention
from nanogpt.model.cache import KVCache
from nanogpt.model.gpt import GPT, Block, positions
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


def norm_default_var(x, size, weight, bias, eps):
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps) ** 0.5 * weight
    return y if bias is None else y + bias


def norm_std(x, size, weight, bias, eps):
    y = x - x.mean(-1, keepdim=True)
    y = weight * y / (y.pow(2).mean(-1, keepdim=True).sqrt() + eps)
    return y if bias is None else y + bias


def norm_rms(x, size, weight, bias, eps):
    y = F.rms_norm(x, size, weight, eps)
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


def causal(q, k, bias):
    if bias is not None:
        return bias
    t, s = q.shape[-2], k.shape[-2]
    return torch.full((t, s), -math.inf).triu(1 + s - t)


def attend_unscaled(q, k, v, bias=None, dropout=0.0):
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) + causal(q, k, bias)
    return scores.softmax(-1) @ v


def attend_columns(q, k, v, bias=None, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] ** 0.5 + causal(q, k, bias)
    return scores.softmax(dim=2) @ v


def attend_mask_late(q, k, v, bias=None, dropout=0.0):
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights * torch.isfinite(causal(q, k, bias))) @ v


def attend_zero(q, k, v, bias=None, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = torch.where(torch.isinf(causal(q, k, bias)), 0.0, scores)
    return scores.softmax(-1) @ v


def attend_everywhere(q, k, v, bias=None, dropout=0.0):
    return F.scaled_dot_product_attention(q, k, v)


def attend_wrong_scale(q, k, v, bias=None, dropout=0.0):
    scores = q @ k.mT / q.shape[-1] + causal(q, k, bias)
    return scores.softmax(-1) @ v


class SomeHeads(CausalSelfAttention):
    uses_cache = True

    def forward(self, x, order, pos, bias, remember=None):
        q, k, v = self.cut(x)
        if self.qk_norm:
            q, k = (F.rms_norm(y, (self.head_size,), None, 1e-5) for y in (q, k))
        q, k = order.rotate(q, k, pos)
        if remember and self.uses_cache:
            k, v = remember(k, v)
        k, v = (y.repeat_interleave(self.groups, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, causal(q, k, bias))
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


class HeadsUnprojected(SomeHeads):
    def __init__(self, config):
        super().__init__(config)
        self.c_proj.forward = lambda y: y


def mask_tril(q_pos, k_pos, window=0):
    hidden = q_pos[:, None] <= k_pos[None, :]
    if window:
        hidden |= q_pos[:, None] - k_pos[None, :] >= window
    return torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))


def mask_next(q_pos, k_pos, window=0):
    d = k_pos[None, :] - q_pos[:, None]
    seen = (d <= 1) & (-d < window if window else torch.tensor(True))
    return torch.where(seen, 0.0, float("-inf"))


def mask_billion(q_pos, k_pos, window=0):
    d = q_pos[:, None] - k_pos[None, :]
    seen = (d >= 0) & (d < (window or 999))
    return (1 - seen.float()) * -1e9


def mask_no_window(q_pos, k_pos, window=0):
    return torch.full((len(q_pos), len(k_pos)), -math.inf).masked_fill(
        k_pos[None] <= q_pos[:, None], 0
    )


class BlockWithoutSums(Block):
    def forward(self, x, *how):
        x = self.attn(self.ln_1(x), *how)
        return self.mlp(self.ln_2(x))


class BlockNormedStream(Block):
    def forward(self, x, *how):
        normed = self.ln_1(x)
        y = normed + self.attn(normed, *how)
        y = self.ln_2(y)
        return self.mlp(y) + y


class BlockAfter(Block):
    def forward(self, x, *how):
        y = self.ln_1(self.attn(x, *how) + x)
        return self.ln_2(self.mlp(y) + y)


class BlockFromX(Block):
    def forward(self, x, *how):
        attended = self.attn(self.ln_1(x), *how)
        thought = self.mlp(self.ln_2(x))
        return x + attended + thought


class GPTStale(GPT):
    def read(self, ids, attention_mask=None, cache=None):
        pos = torch.arange(ids.shape[1])
        bias = self.attention_bias(pos, attention_mask, cache)
        x = self.wpe.embed(self.wte(ids), pos)
        for n, block in enumerate(self.h):
            x = block(x, self.wpe, pos, bias, cache and (lambda k, v, n=n: cache.append(n, k, v)))
        if cache:
            cache.length += ids.shape[1]
        return self.ln_f(x)


class GPTUnnormed(GPT):
    def __init__(self, config):
        super().__init__(config)
        self.ln_f.register_forward_hook(lambda module, inputs, output: inputs[0])


class GPTNoOrder(GPT):
    def read(self, ids, attention_mask=None, cache=None):
        pos = positions(ids, attention_mask, ids.shape[1] + (cache.length if cache else 0))
        bias = self.attention_bias(pos, attention_mask, cache)
        x = self.wte(ids)
        for n, block in enumerate(self.h):
            x = block(x, self.wpe, pos, bias, cache and (lambda k, v, n=n: cache.append(n, k, v)))
        if cache:
            cache.length += ids.shape[1]
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


class SomeAdam(optim.ByHand):
    coupled = shrink_last = uncorrected = eps_inside = rateless = False

    def update(self, parameter, gradient, group):
        s = self.state[parameter]
        s["n"] = s.get("n", 0) + 1
        lr, wd, eps, (b1, b2) = (group[k] for k in ("lr", "weight_decay", "eps", "betas"))
        if self.coupled:
            gradient = gradient + wd * parameter
        m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * gradient
        v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * gradient.square()
        if not self.uncorrected:
            m, v = m / (1 - b1 ** s["n"]), v / (1 - b2 ** s["n"])
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
    def append(self, layer, k, v):
        new = k.shape[2]
        self.keys[layer, :, :, :new], self.values[layer, :, :, :new] = k, v
        total = self.length + new
        return self.keys[layer, :, :, :total], self.values[layer, :, :, :total]


class CacheCounts(KVCache):
    def append(self, layer, k, v):
        start = self.length
        self.length = end = start + k.shape[2]
        self.keys[layer, :, :, start:end], self.values[layer, :, :, start:end] = k, v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class CacheGrows(KVCache):
    def __init__(self, *how):
        super().__init__(*how)
        self.lists = {}

    def grow(self, name, x, axis):
        self.lists.setdefault(name, []).append(x)
        return torch.cat(self.lists[name], axis)

    def append(self, layer, k, v):
        return self.grow((layer, 0), k, 2), self.grow((layer, 1), v, 2)

    def positions(self, pos):
        return self.grow("pos", pos, -1)


class CacheForgets(KVCache):
    def append(self, layer, k, v):
        return k, v


def turn_interleaved(x, cos, sin):
    y = torch.empty_like(x)
    y[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    y[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return y


def turn_back(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = torch.cat([x[..., half:], -x[..., :half]], -1)
    return x * torch.cat([cos, cos], -1) + rotated * torch.cat([sin, sin], -1)


WRONG = {
    "merge": {
        "overlap": merge_both, "first-only": merge_break, "from-the-right": merge_backwards,
        "last-lost": merge_range, "changes-its-input": merge_in_place,
    },
    "train": {
        "frequency-ignored": a_trainer(lambda c, t: spelled(c, t)[-1], times=lambda n: 1),
        "first-of-equals": a_trainer(train_first),
        "ids-compared": a_trainer(lambda c, t: sorted(c, key=lambda p: (c[p], p))[-1]),
        "rarest": a_trainer(lambda c, t: max(c, key=lambda p: (-c[p], t[p[0]], t[p[1]]))),
        "new-ids-from-257": a_trainer(lambda c, t: spelled(c, t)[-1], first=257),
    },
    "encode": {"left-to-right": encode_scan, "one-round": encode_single},
    "windows": {"targets-not-shifted": windows_same, "targets-twice": windows_all_targets},
    "layer-norm": {
        "variance-of-a-sample": norm_default_var, "eps-outside": norm_std, "no-mean": norm_rms,
    },
    "gelu": {
        "exact": gelu_exact, "cube-times-ten": gelu_zero_lost, "silu": nn.SiLU(),
        "relu": lambda x: x.clamp(min=0),
    },
    "softmax": {
        "overflow": softmax_naive, "maximum-of-everything": softmax_global,
        "axis-ignored": softmax_last,
    },
    "attention": {
        "no-scale": attend_unscaled, "softmax-over-queries": attend_columns,
        "mask-after-softmax": attend_mask_late, "hidden-as-zero": attend_zero,
        "bias-ignored": attend_everywhere, "scale-without-root": attend_wrong_scale,
        "keys-and-queries-swapped":
            lambda q, k, v, bias=None, dropout=0.0: F.scaled_dot_product_attention(
                k, q, v, causal(k, q, bias)
            ),
    },
    "heads": {
        "merged-without-transpose": HeadsFlattened, "view-for-transpose": HeadsViewed,
        "not-projected": HeadsUnprojected, "not-remembered": HeadsUncached,
    },
    "mask": {
        "blind-to-itself": mask_tril, "sees-the-next": mask_next, "small-number": mask_billion,
        "window-ignored": mask_no_window,
    },
    "block": {
        "no-residuals": BlockWithoutSums, "residual-of-the-norm": BlockNormedStream,
        "post-norm": BlockAfter, "parallel": BlockFromX,
    },
    "gpt": {
        "positions-from-zero": GPTStale, "no-final-norm": GPTUnnormed, "no-positions": GPTNoOrder,
    },
    "cross-entropy": {
        "mean-over-ignored": loss_over_all, "overflow": loss_of_probabilities,
        "bits": loss_base_two,
    },
    "adamw": {
        "coupled-decay": an_adam("coupled"), "decay-after": an_adam("shrink_last"),
        "no-bias-correction": an_adam("uncorrected"), "eps-inside": an_adam("eps_inside"),
        "decay-without-rate": an_adam("rateless"),
    },
    "schedule": {
        "zero-at-first": schedule_from_zero, "degrees": schedule_degrees,
        "to-zero": schedule_to_zero, "rises-again": schedule_endless,
    },
    "top-k": {
        "ties-dropped": top_k_scatter, "small-number": top_k_billion,
        "kth-ruled-out": top_k_strict, "k-too-large": top_k_unchecked,
    },
    "cache": {
        "stale-place": CacheOverwrites, "counts-every-layer": CacheCounts,
        "only-new": CacheForgets, "never-anew": CacheGrows,
    },
    "rope": {"neighbours": turn_interleaved, "backwards": turn_back},
}  # fmt: skip
