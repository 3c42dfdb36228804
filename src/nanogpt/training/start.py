"""Starting a run and resuming it."""

import fnmatch
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nanogpt.config import (
    Config,
    check,
    choose,
    config_from_dict,
    load_config,
    to_toml,
    with_settings,
)
from nanogpt.device import resolve
from nanogpt.errors import UserError
from nanogpt.evaluation.loss import Score, batch_losses, default_stride, mean_loss, stacked
from nanogpt.files import absolute, claimed, locked, write_text
from nanogpt.generation.stream import generate_text, is_chat, prompt_ids
from nanogpt.memory import refuse_impossible
from nanogpt.model.build import build, layers_of_tokens, resize_vocabulary
from nanogpt.model.gpt import GPT
from nanogpt.model.lora import add_lora
from nanogpt.model.position import Learned
from nanogpt.text.batches import Batches, sliding_windows
from nanogpt.text.conversations import AnswerBatches
from nanogpt.text.dataset import (
    data_folder,
    open_tokens,
    refuse_pairs,
    settings_of_files,
    tokenizer_of,
)
from nanogpt.text.formats import find_tokenizer
from nanogpt.text.tokenfiles import TokenFile, check_unchanged
from nanogpt.text.tokenizer import BaseTokenizer
from nanogpt.training.checkpoint import (
    TrainState,
    find_checkpoint,
    has_checkpoint,
    load_for_training,
    load_state,
    load_tensors,
    load_tokenizer_of,
    restore_optimizer,
)
from nanogpt.training.load import load_model, shape_and_tokenizer
from nanogpt.training.loop import TrainingLoop
from nanogpt.training.objective import OBJECTIVES
from nanogpt.training.records import Chosen, Record, Sample, Step, Validation, read_metrics
from nanogpt.training.snapshots import drop_later, find_snapshots, save_snapshot, snapshot_steps
from nanogpt.training.threads import Threads, limited_to
from nanogpt.training.variants import check_choices
from nanogpt.workers import rank, world

# Settings of a model in which a run may differ from the weights that it begins with.
CHOSEN_ANEW = ("dropout", "attention_dropout", "kernels", "attention", "init_std", "zero_init")

# Settings that may change while a run is stopped. Its schedule is that of the new number of steps.
CHANGEABLE = ("data.folder", "train.max_steps", "parallel.*")


def initial_model(config: Config, tokens: int) -> GPT:
    """A fresh model, or the one that train.init names, for a tokenizer with so many tokens.

    The context may be shorter than that model's, and the vocabulary larger: the tokens that were
    added, such as those for roles, get a row each. With train.lora_rank it has LoRA, and all else
    is frozen. Raises UserError if it has another shape than the settings.
    """
    if not config.train.init:
        named = "name weights to begin with: --init FOLDER"
        check(not config.train.lora_rank, config.train, "lora_rank", named)
        return GPT(config.model)
    path = config.train.init
    model = load_model(path)
    model = shortened(model, config.model.context_length)
    # Rows beyond the tokenizer's tokens stand for nothing; many published models have some.
    size = max(model.config.vocab_size, config.model.vocab_size)
    known = tokens_of(path, model)
    new_tokens = size - known if tokens > known else 0
    if size > model.config.vocab_size:
        resize_vocabulary(model, size)
    if new_tokens:
        for layer in layers_of_tokens(model):
            rows = layer.weight.data  # those of padding become those of new tokens
            rows[known:] = rows[:known].mean(dim=0)
    config = with_settings(config, model={"vocab_size": size})
    for name in asdict(config.model):
        if name in CHOSEN_ANEW:
            continue
        found, wanted = getattr(model.config, name), getattr(config.model, name)
        if found != wanted:
            raise UserError(f"model.{name}={wanted}, but {path} has {found}: set it to that")
    tensors = model.state_dict()
    del model  # a tensor goes when it is copied: both models would be too much for a small machine
    copies = {name: tensors.pop(name).clone() for name in list(tensors)}
    return add_lora(build(config.model, copies, path), config.train, new_tokens)


def tokens_of(path: str, model: GPT) -> int:
    """How many tokens the tokenizer of some weights has; as many as there are rows without one."""
    try:
        found = find_tokenizer(shape_and_tokenizer(path)[1]).vocab_size
    except UserError:
        return model.config.vocab_size
    return min(found, model.config.vocab_size)


def shortened(model: GPT, context_length: int) -> GPT:
    """A model that reads shorter texts: where positions are learned, the first of them.

    For a longer context it is the model as it was.
    """
    if context_length >= model.config.context_length:
        return model
    tensors = model.state_dict()
    if isinstance(model.wpe, Learned):
        tensors["wpe.weight"] = tensors["wpe.weight"][:context_length]
    return build(replace(model.config, context_length=context_length), tensors, "train.init")


def refuse_other_tokens(init: str, tokenizer: BaseTokenizer) -> None:
    """Raise UserError if a text was encoded with another tokenizer than that of the weights.

    It may have more tokens than theirs, or fewer, as long as those of both are the same.
    """
    if not init:
        return
    shape, own = shape_and_tokenizer(init)
    fits = tokenizer.vocab_size <= shape.vocab_size
    try:
        theirs = find_tokenizer(own).vocabulary.items()
    except UserError:
        if fits:
            return  # nobody can know
        raise
    if own == "gpt2" and fits:
        return  # the weights bring no tokenizer along
    ours = tokenizer.vocabulary.items()
    if not (theirs <= ours or ours <= theirs):
        raise UserError(
            f"{init} was trained on other tokens, {shape.vocab_size:,} of them, than the text has: "
            f"prepare it with --data.tokenizer {own}"
        )


def padded_vocabulary(size: int, config: Config) -> int:
    """A size of a vocabulary, rounded up to a multiple of train.pad_vocab_to.

    GPUs multiply matrices faster whose sizes are multiples of 64 or 128. The tokenizer has no
    tokens for the padding, so it is in no text and generation never draws it.
    """
    multiple = config.train.pad_vocab_to
    return -(-size // multiple) * multiple


def refuse_to_overwrite(folder: Path) -> None:
    """Raise UserError if a folder holds a run that has come as far as a checkpoint."""
    if has_checkpoint(folder):
        raise UserError(f"{folder} holds a run: name another folder, or resume that run")


def freeze(model: GPT, patterns: str) -> None:
    """Take parameters out of the training, by patterns with commas between, such as "wte.*, h.0.*".

    Raises UserError for a pattern that fits no parameter, and if none are left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        frozen = fnmatch.filter(names, pattern)
        if not frozen:
            raise UserError(
                f"train.freeze: {pattern!r} fits no parameter; they are like {names[2]}"
            )
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"train.freeze={patterns!r} leaves nothing to train")


class Trainer(TrainingLoop):
    """The training loop of a run in a folder: start a new one, or resume one that was stopped."""

    @classmethod
    def start(cls, folder: str | Path, config: Config) -> "Trainer":
        """A new run from prepared token files. Writes its settings and tokenizer.

        Raises UserError, and writes nothing, if a setting or a token file is unusable.
        """
        if cls is not (kind := cls.kind_for(config)):
            return kind.start(folder, config)
        folder = Path(folder)
        refuse_to_overwrite(folder)
        refuse_impossible(config)
        config.sizes(world())
        compute = resolve(config.train.device, config.train.precision)
        check_choices(config)
        config = replace(config, data=settings_of_files(config.data))
        data = data_folder(folder, config)
        refuse_pairs(data, config.train.objective)
        tokenizer = tokenizer_of(data, config)
        prompt_ids(tokenizer, config.sample.prompt)
        config = with_settings(
            config,
            model={"vocab_size": padded_vocabulary(tokenizer.vocab_size, config)},
            data={"folder": absolute(config.data.folder)},
            train={"precision": compute.precision, "init": absolute(config.train.init)},
        )
        tokens = open_tokens(data, config, tokenizer)
        refuse_other_tokens(config.train.init, tokenizer)
        model = cls.fresh_model(config, tokenizer.vocab_size)
        config = with_settings(config, model={"vocab_size": model.config.vocab_size})
        freeze(model, config.train.freeze)
        state = TrainState(0, None, 0.0, tokens.fingerprint, tokenizer=tokenizer.fingerprint())
        trainer = cls(folder, config, model, tokenizer, tokens, compute, state)
        trainer.begin(model)
        # What was decided here holds for the whole run, however often it is resumed.
        compiled = "off" if trainer.not_compiled else "on"
        trainer.config = config = with_settings(config, train={"compile": compiled})
        if rank() == 0:
            with claimed(folder):
                write_text(folder / "config.toml", to_toml(config))
                tokenizer.save(folder / "tokenizer.json")
                write_text(folder / "metrics.jsonl", "")
                drop_later(folder, -1)  # of a start before this one
        return trainer

    @classmethod
    def kind_for(cls, config: Config) -> "type[Trainer]":
        """The trainer that the objective needs; a subclass is one already."""
        from nanogpt.training.policy import TRAINERS  # built on this module

        return TRAINERS.get(config.train.objective, cls) if cls is Trainer else cls

    def batches_of(self, tokens: TokenFile) -> Batches:
        """As TrainingLoop.batches_of does; and made into what the objective reads."""
        batches = super().batches_of(tokens)
        objective = choose(OBJECTIVES, "train.objective", self.config.train.objective)
        return getattr(objective, "batches", lambda them, _: them)(batches, self.tokenizer)

    def evaluate(self, stride: int = 0) -> Score:
        """As TrainingLoop.evaluate does; where answers are learned, the loss of the answers."""
        batches, ids = self.val_batches, self.tokens.val.ids
        if not isinstance(batches, AnswerBatches):
            return super().evaluate(stride)
        length = self.config.model.context_length
        windows = sliding_windows(ids, length, stride or default_stride(length))
        separator = batches.separator if batches.documents_apart else None
        cut = stacked(windows, self.config.train.batch_size, separator)
        losses = batch_losses(self.model, map(batches.masked, cut), self.compute)
        return Score(*mean_loss(losses), self.tokens.val.bytes_per_token)

    def sample(self) -> Sample:
        """As TrainingLoop.sample does; where answers are learned, the prompt is answered."""
        if not is_chat(self.config, self.tokenizer):
            return super().sample()
        settings = self.config.sample
        settings = replace(settings, max_new_tokens=min(64, settings.max_new_tokens))
        said = "".join(generate_text(self.model, self.tokenizer, settings, chat=True))
        return Sample(self.state.step, f"{settings.prompt}\n{said}")

    @classmethod
    def fresh_model(cls, config: Config, tokens: int) -> GPT:
        """The model that a run begins with."""
        torch.manual_seed(config.train.seed)
        return initial_model(config, tokens)

    def begin(self, model: GPT) -> None:
        """Give this process its part of a fresh model: all of it."""

    @classmethod
    def resume(cls, folder: str | Path, **changes: Mapping[str, Any]) -> "Trainer":
        """Go on from the latest checkpoint, exactly as if the run had never stopped.

        A run that was stopped before its first checkpoint starts again from its settings. Only the
        settings in CHANGEABLE may be others from now on: those in `changes`, such as
        train={"max_steps": 2000}, or edited in config.toml. Raises UserError if a file is missing
        or damaged, if the data are not those of the run, or if another process trains it.
        """
        folder = Path(folder)
        with locked(folder) if rank() == 0 else nullcontext():
            if (folder / "config.toml").exists() and not has_checkpoint(folder):
                config = changed(load_config(folder / "config.toml"), changes)
                return cls.start(folder, config)
            checkpoint = find_checkpoint(folder)
            state, config = load_state(checkpoint)
            saved, config = config, changed(as_edited(folder, config), changes)
            refuse_impossible(config)
            if config.train.max_steps < state.step:
                raise UserError(
                    f"train.max_steps={config.train.max_steps}, but {folder} has done {state.step} "
                    "steps: use at least as many"
                )
            trainer = cls.at(folder, checkpoint, state, config)
            if rank() == 0:
                if config != saved:
                    write_text(folder / "config.toml", to_toml(config))
                # Records after the checkpoint belong to steps that will be done again. So does a
                # choice of threads: the step in it is the one before.
                records = [
                    r for r in read_metrics(folder) if r["step"] + ("threads" in r) <= state.step
                ]
                lines = "".join(json.dumps(r) + "\n" for r in records)
                write_text(folder / "metrics.jsonl", lines)
        return trainer

    @classmethod
    def at(cls, folder: Path, checkpoint: Path, state: TrainState, config: Config) -> "Trainer":
        """A run as it was at a checkpoint, with its own tokenizer and data, which are checked."""
        if cls is not (kind := cls.kind_for(config)):
            return kind.at(folder, checkpoint, state, config)
        check_choices(config)
        config.sizes(world())
        compute = resolve(config.train.device, config.train.precision)
        tokenizer = load_tokenizer_of(folder, state, config)
        data = data_folder(folder, config)
        if not data.is_dir():
            raise UserError(
                f"{data} is not there; name the folder of the token files with --data.folder"
            )
        tokens = open_tokens(data, config, tokenizer)
        if tokens.fingerprint != state.tokens:
            raise UserError(f"{data} has changed since {folder} began; prepare the same text again")
        for file in (tokens.train, tokens.val):
            check_unchanged(file)
        model = cls.saved_model(checkpoint, config)
        freeze(model, config.train.freeze)
        if state.scaler.keys() != compute.scaler().state_dict().keys():
            raise UserError(f"{checkpoint / 'state.json'}: its scaler does not fit; use another")
        trainer = cls(folder, config, model, tokenizer, tokens, compute, state)
        trainer.restore(checkpoint)
        return trainer

    @classmethod
    def saved_model(cls, checkpoint: Path, config: Config) -> GPT:
        """The model of a checkpoint."""
        return load_for_training(checkpoint, config.model)

    def restore(self, checkpoint: Path) -> None:
        """Put the optimizer into the state that it was in."""
        moments = load_tensors(checkpoint, "optimizer.safetensors")
        try:
            restore_optimizer(self.model, self.optimizer, moments)
        except UserError as error:
            path = checkpoint / "optimizer.safetensors"
            raise UserError(f"{path}: {error}; use another checkpoint") from None

    processes = 1  # that train together
    left_out = 0  # questions or pairs of the training text that are too long for the context

    @cached_property
    def outline(self) -> GPT:
        """The whole model, of which perhaps only the shapes are here."""
        return self.model

    def whole_model(self) -> GPT:
        """The whole model with its weights of now. All ranks must ask; the first gets it."""
        return self.model

    def run(self) -> Generator[Record, None, None]:
        """As TrainingLoop.run does, while no other process can write to the run."""
        with locked(self.folder) if rank() == 0 else nullcontext(), self.on_its_threads():
            if rank() == 0:
                drop_later(self.folder, self.state.step)
            self.take_snapshot()
            yield from super().run()
            self.take_snapshot()  # of a run that reached its target before its last step
            self.finish_writing()

    threads: Threads | None = None  # who chooses their number while the run trains

    @contextmanager
    def on_its_threads(self) -> Iterator[None]:
        """Compute on as many threads as the run is to take, or has chosen; see advance."""
        most = self.config.train.threads or torch.get_num_threads()
        cpu = self.compute.device.type == "cpu" and world() == 1
        free = most > 1 and not self.config.train.threads
        with limited_to(most):
            if cpu and free and self.not_compiled:  # what is compiled is for one number
                self.threads = Threads(self.try_step, most, self.state.threads)
            yield

    def try_step(self) -> None:
        """Do the work of a step, and change nothing: for a look at the time that it takes."""
        self.gradients(self.load_batches(self.state.step))

    def advance(self) -> list[Record]:
        """As TrainingLoop.advance does, on as many threads as are faster at the moment."""
        if not self.threads:
            return super().advance()
        records: list[Record] = []
        if self.threads.doubtful:
            before, most = self.state.threads or self.threads.most, self.threads.most
            chosen = self.threads.choose()
            self.state = replace(self.state, threads=chosen)
            records += [Chosen(self.state.step, chosen, most)] if chosen != before else []
        records += super().advance()
        speed = next(r.tokens_per_second for r in records if isinstance(r, Step))
        looked = any(isinstance(r, Validation) and r.step == self.state.step for r in records)
        self.threads.notice(speed, looked)
        return records

    def finish_writing(self) -> None:
        """Wait for what is written beside the training: nothing, in one process."""

    def save_if_due(self, records: Sequence[Record]) -> None:
        """As TrainingLoop.save_if_due does; and a snapshot, where train.snapshots asks for one."""
        # First the snapshot: a run that is killed between the two does this step again.
        self.take_snapshot()
        super().save_if_due(records)

    def take_snapshot(self) -> None:
        """Keep the weights of this moment if it is one of those, or the end, unless it is kept."""
        settings, step = self.config.train, self.state.step
        if settings.snapshots and (step in snapshot_steps(settings) or self.complete):
            model = self.whole_model()
            if rank() == 0 and step not in find_snapshots(self.folder):
                save_snapshot(self.folder, model, step)


def changed(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """The settings of a run with those that may change. Raises UserError for any other."""
    for section, values in changes.items():
        for name in values:
            if not {f"{section}.{name}", f"{section}.*"}.intersection(CHANGEABLE):
                changeable = ", ".join(CHANGEABLE)
                raise UserError(
                    f"{section}.{name} is fixed when a run begins; only {changeable} may change"
                )
    values = asdict(config)
    new = config_from_dict({name: {**values[name], **changes.get(name, {})} for name in values})
    return with_settings(new, data={"folder": absolute(new.data.folder)})


def as_edited(folder: Path, config: Config) -> Config:
    """The settings of a checkpoint, with what was edited in config.toml since it was written.

    Raises UserError if that is more than may change.
    """
    path = folder / "config.toml"
    if not path.exists():
        return config
    edited, kept = asdict(load_config(path)), asdict(config)
    edited["train"]["compile"] = kept["train"]["compile"]  # which a run changes by itself
    changes: dict[str, dict[str, Any]] = {
        section: {name: new for name, new in values.items() if new != kept[section][name]}
        for section, values in edited.items()
    }
    try:
        return changed(config, changes)
    except UserError as error:
        raise UserError(f"{path}: {error}; undo that") from None
