"""Shape comments are executed: a wrong one fails here.

A comment such as `# (B, nh, T, hs)` at the end of a statement claims a shape for every tensor that
the statement assigns or returns. The tests below run the package with sizes that are distinct
primes, watch every such statement, and unify claim and tensor: a letter must mean the same number
throughout a run, and products such as 4 * C must come out right.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import nanogpt
from nanogpt import device
from nanogpt.config import ModelConfig, SampleConfig
from nanogpt.evaluation import loss
from nanogpt.generation import reader, sampling, stream
from nanogpt.model import attention, cache, gpt, layers, position
from nanogpt.text import batches, tokenfiles
from nanogpt.text.tokenizer import CharTokenizer
from nanogpt.training import loop
from nanogpt.training.objective import next_token

# B, T, nh and V are distinct primes; hs is twice another, since RoPE halves it; C is the product of
# nh and hs; S equals T where a sequence attends to itself, and has one of its own where attention
# is called alone.
SIZES = {"B": 3, "T": 7, "S": 7, "nh": 2, "nkv": 2, "hs": 22, "C": 44, "V": 53}
CLAIM = re.compile(r"#\s*\(([^()]*)\)\s*$")
MODULES = [
    attention,
    batches,
    cache,
    gpt,
    layers,
    loss,
    next_token,
    position,
    reader,
    sampling,
    stream,
]


@dataclass(frozen=True)
class Claim:
    """One shape comment: where it stands, what it says, and the names it speaks of."""

    file: str
    line: int  # first line of the statement
    end: int  # and its last
    shape: str
    names: tuple[str, ...]  # assigned names; empty for a return


def claims_of(module: Any) -> Iterator[Claim]:
    """The shape comments of a module, found by its syntax tree."""
    file = inspect.getsourcefile(module)
    lines = Path(file).read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return):
            continue
        comment = CLAIM.search(lines[node.end_lineno - 1])
        if comment:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = [n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)]
            yield Claim(file, node.lineno, node.end_lineno, comment.group(1), tuple(names))


CLAIMS = {claim for module in MODULES for claim in claims_of(module)}


def expected_shape(claim: Claim, sizes: dict[str, int]) -> tuple[int, ...]:
    """The numbers a claim stands for, without "...", which fits any axes in front."""
    letters = [axis.strip() for axis in claim.shape.split(",") if axis.strip()]
    return tuple(eval(axis, {}, sizes) for axis in letters if axis != "...")


def check(claim: Claim, value: Any, sizes: dict[str, int], seen: set[Claim]) -> None:
    if not isinstance(value, torch.Tensor | np.ndarray):
        raise AssertionError(f"{claim}: is a {type(value).__name__}, not a tensor")
    expected, found = expected_shape(claim, sizes), tuple(value.shape)
    if "..." in claim.shape:
        found = found[len(found) - len(expected) :]
    assert found == expected, f"{claim.file}:{claim.line} says ({claim.shape}), but it is {found}"
    seen.add(claim)


def run_checked(action: Callable[[], object], sizes: dict[str, int] = SIZES) -> set[Claim]:
    """Run an action and hold every shape comment it passes against the tensors."""
    by_line = {(claim.file, claim.line): claim for claim in CLAIMS}
    files = {claim.file for claim in CLAIMS}
    seen: set[Claim] = set()

    def tracer(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename not in files or code.co_name.startswith("<"):  # <listcomp> and such
            return None
        due: list[Claim] = []  # an assignment can be checked once its statement is over

        def local(frame: FrameType, event: str, argument: object) -> Any:
            while due and (event == "return" or not due[0].line <= frame.f_lineno <= due[0].end):
                claim = due.pop()
                for name in claim.names:
                    check(claim, frame.f_locals[name], sizes, seen)
            claim = by_line.get((code.co_filename, frame.f_lineno))
            if claim and event == "line" and claim.names and not due:
                due.append(claim)
            if claim and event == "return" and not claim.names:
                check(claim, argument, sizes, seen)
            return local

        return local

    sys.settrace(tracer)
    try:
        action()
    finally:
        sys.settrace(None)
    return seen


def settings(**changes: object) -> ModelConfig:
    return ModelConfig(
        vocab_size=SIZES["V"],
        context_length=SIZES["T"],
        n_layer=2,
        n_head=SIZES["nh"],
        n_embd=SIZES["C"],
        **changes,
    )


def train_and_generate(kernels: str, **variants: object) -> None:
    """One pass through everything that carries shape comments, forward and backward."""
    model = gpt.GPT(settings(kernels=kernels, attention_dropout=0.1, **variants))
    ids = np.arange(60) % SIZES["V"]
    batch = batches.Batch(*batches.random_windows(ids, SIZES["T"], SIZES["B"], seed=0, number=0))
    cpu = device.resolve("cpu", "float32")
    loop.accumulate_gradients(next_token.NextToken(model), [batch], cpu)
    rows = [[1] * SIZES["T"], [2], [3, 4]]
    padded, targets, documents = map(torch.from_numpy, batches.padded_batch(rows))
    model.loss(model(padded, documents=documents), targets).backward()
    for choice in (SampleConfig(top_k=3, top_p=0.9), SampleConfig(temperature=0)):
        next(reader.generate(reader.Reader(model, rows), choice))


def continuing_a_cache() -> Callable[[], None]:
    """Seven tokens more after six, with fewer heads of keys, positions of every kind, windows."""
    rows = [[1] * 6] * SIZES["B"]
    readers = []
    for position_name in position.POSITIONS:
        wide = replace(settings(position=position_name, n_kv_head=1), context_length=13)
        for window in (0, 3):
            one = reader.Reader(gpt.GPT(replace(wide, window=window)), rows)
            one.predict()
            readers.append(one)

    def action() -> None:
        tokenizer = CharTokenizer([chr(65 + n) for n in range(SIZES["V"])])
        for one in readers:
            for row in range(SIZES["B"]):
                one.append(row, range(SIZES["T"]))
            once = SampleConfig(max_new_tokens=1)
            list(stream.stream(one, tokenizer, once, top=2))

    return action


def cut_batches_and_resize() -> None:
    ids = np.arange(60) % 5
    about = tokenfiles.Sidecar("uint16", 60, 60, 12, 5, "", "")
    tokens = tokenfiles.TokenFile(Path("none"), ids, about)
    batches.PackedDocuments(tokens, SIZES["T"], 0).batch(0, SIZES["B"], seed=0)
    text = tokenfiles.TokenFile(Path("none"), np.arange(SIZES["T"] * SIZES["B"] + 1) % 5, about)
    model, cpu = gpt.GPT(settings()), device.resolve("cpu", "float32")
    loss.evaluate(model, text, cpu, batch_size=SIZES["B"], stride=SIZES["T"])


def cross_entropy_of_rows() -> None:
    n = SIZES["B"] * SIZES["T"]
    layers.cross_entropy(torch.randn(n, SIZES["V"]), torch.zeros(n, dtype=torch.long))


def attention_to_another_sequence() -> None:
    q = torch.randn(SIZES["B"], SIZES["nh"], SIZES["T"], SIZES["hs"])
    k = torch.randn(SIZES["B"], SIZES["nh"], 13, SIZES["hs"])
    mask = attention.attention_mask(SIZES["T"], 13)
    attention.attention(q, k, k, mask)
    attention.ATTENTION_KERNELS["short-conv"](settings()).weights(q, k, mask)


def test_every_shape_comment_is_executed_and_true():
    sizes = {**SIZES, "N": SIZES["B"] * SIZES["T"]}
    seen = set()
    for kernels in ("plain", "fused"):
        seen |= run_checked(lambda kernels=kernels: train_and_generate(kernels), sizes)
    for block in ("post-norm", "no-residual"):
        seen |= run_checked(lambda block=block: train_and_generate("fused", block=block), sizes)
    modern = {"position": "rope", "norm": "rms", "mlp": "relu2", "qk_norm": True, "bias": False}
    seen |= run_checked(lambda: train_and_generate("plain", **modern), sizes)
    seen |= run_checked(lambda: train_and_generate("fused", attention="short-conv"), sizes)
    seen |= run_checked(cut_batches_and_resize, sizes)
    seen |= run_checked(cross_entropy_of_rows, sizes)
    seen |= run_checked(continuing_a_cache(), {**SIZES, "S": 13, "nkv": 1})
    seen |= run_checked(attention_to_another_sequence, {**SIZES, "S": 13})
    never = CLAIMS - seen
    assert len(CLAIMS) > 25
    assert not never, f"never executed: {sorted((c.file, c.line, c.shape) for c in never)}"


def test_a_wrong_comment_would_be_caught():
    """The checker itself: it must be able to fail."""
    claim = Claim("x.py", 1, 1, "B, 2 * C", ("x",))
    check(claim, torch.zeros(3, 88), SIZES, set())
    with pytest.raises(AssertionError, match=r"says \(B, 2 \* C\), but it is \(3, 44\)"):
        check(claim, torch.zeros(3, 44), SIZES, set())


def test_all_modules_with_shape_comments_are_watched():
    root = Path(nanogpt.__file__).parent
    watched = {Path(inspect.getsourcefile(module)).name for module in MODULES}
    for path in root.rglob("*.py"):
        # Plain forms, which a test compares with the package's; and what needs several processes.
        if path.parent.name in ("learn", "parallel"):
            continue
        has_claims = any(
            CLAIM.search(line) and re.search(r"[=]|return", line.partition("#")[0])
            and re.search(r"\b(B|T|C|V)\b", CLAIM.search(line).group(1))
            for line in path.read_text().splitlines()
        )  # fmt: skip
        assert not has_claims or path.name in watched, path
