"""The same model twice, here and in Hugging Face Transformers, and everything that can be compared.

Needs the package transformers.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import nanogpt
from nanogpt.config import SampleConfig
from nanogpt.errors import UserError
from nanogpt.generation.packing import pack
from nanogpt.generation.reader import Reader, generate
from nanogpt.interop.huggingface import export
from nanogpt.interop.names import ARCHITECTURES, architecture_of
from nanogpt.model.gpt import GPT
from nanogpt.text.tokenizer import BaseTokenizer

ROUNDS = 5  # of each timing, alternating, after one to warm up
BATCH_SIZE = 4
LONGEST = 256  # tokens in one row of a training batch

# The largest difference that float32 rounding explains; mistakes are far larger.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Pair:
    """One figure, ours and theirs."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours divided by theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared."""

    architecture: str  # what the model is in Transformers
    parameters: int
    tokens: int  # of the text that both tokenizers encode
    same_ids: bool
    logits: float  # largest differences
    loss: float
    gradients: dict[str, float]  # by parameter
    greedy_ours: list[int]
    greedy_theirs: list[int]
    training: Pair  # tokens per second
    generating: Pair
    memory: Pair  # MB at most, until the first logits
    start: Pair  # seconds until then
    lines: Pair  # that run in one forward pass
    files: Pair  # that they are in

    @property
    def same_model(self) -> bool:
        """Whether ids and greedy text are the same, and numbers up to rounding."""
        numbers = [self.logits, self.loss, *self.gradients.values()]
        close = all(number <= ROUNDING for number in numbers)  # which NaN is not
        return self.same_ids and close and self.greedy_ours == self.greedy_theirs


def their_model(model: GPT, tokenizer: BaseTokenizer, folder: str | Path) -> tuple[Any, Any]:
    """The same model and tokenizer in Transformers, by way of an exported folder.

    Raises UserError if the package is missing, or has no such architecture.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError:
        raise UserError("comparing needs Transformers: pip install 'nanogpt[compare]'") from None
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    export(folder, model, tokenizer, SampleConfig(temperature=0), "")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, AutoTokenizer.from_pretrained(folder)


def compare(
    model: GPT,
    tokenizer: BaseTokenizer,
    text: str,
    new_tokens: int,
    source: str | Path | None,
    say: Callable[[str], None] = lambda doing: None,
) -> Comparison:
    """Compare everything. Start-up and memory are measured in fresh processes.

    `source` is the run; without one the exported folder is used. `say` is told what is being
    done. Raises UserError as their_model does, and for a text too short to compare.
    """
    model = model.eval()
    length = min(model.config.context_length, LONGEST)
    ids = tokenizer.encode(text)
    if length < 2 or len(ids) < length:
        raise UserError(f"comparing needs 2 tokens of context and a text of {length} tokens")
    prompt, batch = ids[: min(16, length // 2)], torch.tensor([ids[:length]])
    new_tokens = min(new_tokens, model.config.context_length - len(prompt))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        say("building the same model in Transformers")
        theirs, their_tokenizer = their_model(model, tokenizer, folder)
        say("comparing numbers")
        logits, loss, gradients = differences(model, theirs, batch)
        say("counting lines")
        lines, files = lines_on_both_sides(model, theirs, batch)
        say("timing start-up")
        start, memory = start_on_both_sides(source or folder, folder)
        say("timing training")
        training = training_speed(model, theirs, batch.repeat(BATCH_SIZE, 1))
        say("timing generation")
        greedy_ours, greedy_theirs, generating = generating_speed(
            pack(copy_of(model)), theirs, prompt, new_tokens
        )
    return Comparison(
        architecture=ARCHITECTURES[architecture_of(model.config)].class_name,
        parameters=model.num_parameters(),
        tokens=len(ids),
        same_ids=their_tokenizer(text).input_ids == ids,
        logits=logits,
        loss=loss,
        gradients=gradients,
        greedy_ours=greedy_ours,
        greedy_theirs=greedy_theirs,
        training=training,
        generating=generating,
        memory=memory,
        start=start,
        lines=lines,
        files=files,
    )


def copy_of(model: GPT) -> GPT:
    """The same weights in a model of its own."""
    copy = GPT(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def differences(model: GPT, theirs: Any, ids: Tensor) -> tuple[float, float, dict[str, float]]:
    """The largest difference of the logits, that of the loss, and that of each gradient."""
    ours = copy_of(model)
    logits, their_logits = ours(ids), theirs(ids).logits
    loss = ours.loss(logits[:, :-1], ids[:, 1:])
    their_loss = theirs(ids, labels=ids).loss
    loss.backward()
    theirs.zero_grad()
    their_loss.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    as_theirs = ARCHITECTURES[architecture_of(model.config)].to_tensors
    found = as_theirs(gradients, model.config)
    known = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    theirs.zero_grad()
    return (
        (logits - their_logits).abs().max().item(),
        abs(loss.item() - their_loss.item()),
        {
            name: float((known[name] - gradient).abs().max())
            for name, gradient in found.items()
            if not name.endswith(("q_norm.weight", "k_norm.weight"))  # ours has no gains
        },
    )


def training_speed(model: GPT, theirs: Any, ids: Tensor) -> Pair:
    """Tokens per second of whole training steps with torch's AdamW, alternating."""
    ours = copy_of(model)
    our_optimizer = torch.optim.AdamW(ours.parameters(), lr=0.0, fused=True)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.0, fused=True)

    def our_step() -> None:
        our_optimizer.zero_grad()
        ours.loss(ours(ids)[:, :-1], ids[:, 1:]).backward()
        our_optimizer.step()

    def their_step() -> None:
        their_optimizer.zero_grad()
        theirs(ids, labels=ids).loss.backward()
        their_optimizer.step()

    pair = in_turns(our_step, their_step)
    theirs.zero_grad()
    return Pair(ids.numel() / pair.ours, ids.numel() / pair.theirs)


def generating_speed(
    model: GPT, theirs: Any, prompt: list[int], count: int
) -> tuple[list[int], list[int], Pair]:
    """The greedy continuations, and tokens per second, alternating."""
    texts: dict[str, list[int]] = {}

    def our_text() -> None:
        reader = Reader(model, [prompt])
        steps = generate(reader, SampleConfig(temperature=0))
        for _ in range(count):
            next(steps)
        texts["ours"] = reader.rows[0][len(prompt) :]

    def their_text() -> None:
        ids = torch.tensor([prompt])
        made = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        texts["theirs"] = made[0, len(prompt) :].tolist()

    pair = in_turns(our_text, their_text)
    return texts["ours"], texts["theirs"], Pair(count / pair.ours, count / pair.theirs)


def in_turns(ours: Callable[[], None], theirs: Callable[[], None]) -> Pair:
    """Median seconds of each. They alternate, so that a busy machine is fair to both."""
    times: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for round_number in range(ROUNDS + 1):
        for action, spent in times.items():
            start = time.perf_counter()
            action()
            if round_number:
                spent.append(time.perf_counter() - start)
    return Pair(statistics.median(times[ours]), statistics.median(times[theirs]))


def lines_run(action: Callable[[], object], root: str | Path) -> tuple[int, int]:
    """How many different lines of the files under `root` an action runs, and in how many files."""
    action()  # set-up that happens only the first time does not count
    lines: set[tuple[str, int]] = set()
    root = Path(root).resolve()
    inside: dict[str, bool] = {}  # Python may know a file by another path than its real one

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in inside:
            inside[name] = Path(name).resolve().is_relative_to(root)
        if not inside[name]:
            return None
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with torch.no_grad():
            action()
    finally:
        sys.settrace(before)
    return len(lines), len({file for file, _ in lines})


def lines_on_both_sides(model: GPT, theirs: Any, ids: Tensor) -> tuple[Pair, Pair]:
    """The lines that one forward pass runs through, and the files they are in."""
    ours = lines_run(partial(model, ids), Path(nanogpt.__file__).parent)
    there = Path(sys.modules["transformers"].__file__ or "").parent
    counts = zip(ours, lines_run(partial(theirs, ids), there), strict=True)
    lines, files = (Pair(*pair) for pair in counts)
    return lines, files


OURS = """
import nanogpt
model = nanogpt.load(sys.argv[1]).model
with torch.no_grad(): model(torch.zeros(1, 1, dtype=torch.long))
"""
THEIRS = """
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
logging.disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad(): model(torch.zeros(1, 1, dtype=torch.long))
"""
REPORT = """
from nanogpt.device import peak_memory
print("peak", peak_memory() / 1e6)
"""


def start_up(code: str, folder: str | Path) -> tuple[float, float]:
    """Seconds of a fresh process from its start to the first logits, and its memory in MB.

    The better of two: the first may have to read the library from the disk.
    """
    command = [sys.executable, "-c", "import sys, torch" + code + REPORT, str(folder)]
    seconds, peak = [], 0.0
    for _ in range(2):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        peak = float(done.stdout.split()[-1])
    return min(seconds), peak


def start_on_both_sides(source: str | Path, folder: str | Path) -> tuple[Pair, Pair]:
    """Seconds until the first logits, and the memory until then in MB."""
    ours, theirs = start_up(OURS, source), start_up(THEIRS, folder)
    return Pair(ours[0], theirs[0]), Pair(ours[1], theirs[1])
