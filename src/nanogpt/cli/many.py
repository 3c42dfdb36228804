"""nanogpt train by several processes, of which this is one, or which it starts."""

import logging
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nanogpt.cli.prepare import prepare_with_progress, show_prepared
from nanogpt.config import Config, with_settings
from nanogpt.errors import UserError
from nanogpt.files import claimed
from nanogpt.text.dataset import data_folder
from nanogpt.workers import end_with_parent, number_of_processes, rank, usable_cores, world

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store

SILENT = 3  # exit code of a rank that has nothing to say: another one has failed
PATIENCE = 5  # seconds for the ranks that still answer


def launch(arguments: Sequence[str], config: Config) -> int:
    """Start the processes of this machine, with torchrun's own launcher, and wait for their end.

    Returns the exit code. Raises UserError for settings that cannot be, and one that names the rank
    which died.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from nanogpt.training.parallel.limits import refuse_impossible

    settings = config.parallel
    count = number_of_processes("--parallel.processes", settings.processes)
    refuse_impossible(config, count)
    logging.disable(logging.ERROR)  # reports of many lines
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    launched = LaunchConfig(
        1, 1, count, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1", max_restarts=settings.restarts, monitor_interval=0.1,
    )  # fmt: skip
    try:
        elastic_launch(launched, sys.executable)("-m", "nanogpt", "train", *arguments)
    except SignalException:
        return 130
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        code = failure.exitcode
        if code in (2, SILENT, 130):
            return 130 if code == 130 else 2  # a rank has said why
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise UserError(
            f"rank {number} died ({how}); go on from the last checkpoint with --resume, and see "
            "--parallel.restarts"
        ) from None
    return 0


@contextmanager
def one_of_many(timeout: float) -> Iterator[tuple["ProcessGroup", "Store"]]:
    """Work with the other ranks. Whatever ends one of them ends all, with one message.

    Raises UserError as the rank that speaks, else SystemExit.
    """
    from nanogpt.training.parallel.mesh import joined

    end_with_parent()  # a launcher that is killed can tell nobody to end
    with joined(timeout) as (patient, store, lasting):
        try:
            yield patient, lasting
        except UserError as error:
            time.sleep(1 if rank() else 0)  # the first rank has the same to say, if it can
            be_the_only_speaker(store)
            raise UserError(f"rank {rank()}: {error}" if rank() else str(error)) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None  # who started the ranks says so once
        except RuntimeError as error:
            if not re.search("timed? ?out|closed|reset|refused", str(error), re.IGNORECASE):
                raise
            missing = silent_ranks(store)
            if not re.search("timed? ?out", str(error), re.IGNORECASE):
                raise SystemExit(SILENT) from None  # one has died, and who started it says so
            be_the_only_speaker(store)
            raise UserError(
                f"rank {missing or 'unknown'} has not answered for {timeout:.0f} s; look at "
                "its machine, and go on with --resume"
            ) from None


def be_the_only_speaker(store: "Store") -> None:
    """Return in the rank that asks first. The others end, but not before it has spoken."""
    if store.add("speakers", 1) > 1:
        time.sleep(PATIENCE)
        raise SystemExit(SILENT)


def silent_ranks(store: "Store") -> str:
    """Which ranks do not answer."""
    world = int(os.environ["WORLD_SIZE"])
    store.set(f"waits {rank()}", "")
    time.sleep(PATIENCE)  # others may notice a little later
    waiting = [number for number in range(world) if store.check([f"waits {number}"])]
    return ", ".join(str(number) for number in range(world) if number not in waiting)


def start(given: Path | None, place: Path, config: Config, console: Console) -> int:
    """Start a run, or go on with one of which a rank had died. Returns the exit code."""
    import torch.distributed as dist

    from nanogpt.cli.train import finish, free_folder, is_taken, undone_on_mistake
    from nanogpt.device import resolve
    from nanogpt.training.parallel.limits import refuse_impossible
    from nanogpt.training.parallel.loop import ParallelTrainer

    with one_of_many(config.parallel.timeout) as (patient, board):
        refuse_impossible(config, world())
        # An attempt before this one leaves the name of its run, if it could begin it.
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and board.check(["run"])
        name = board.get("run").decode() if again else str(given or free_folder(place))
        compute = resolve(config.train.device, config.train.precision)
        found = [name, compute.precision]  # those of the first rank
        dist.broadcast_object_list(found)
        run, config = Path(found[0]), with_settings(config, train={"precision": found[1]})
        if again and (run / "config.toml").exists():
            return finish(ParallelTrainer.resume(run), console)
        with claimed(run) if rank() == 0 else nullcontext():
            if rank() == 0:
                if is_taken(run):
                    raise UserError(f"{run} is not empty; choose another --run")
                board.set("run", str(run))
            with undone_on_mistake(run) if rank() == 0 else nullcontext():
                if rank() == 0 and not config.data.folder:
                    folder = data_folder(run, config)
                    show_prepared(prepare_with_progress(config.data, folder, console), console)
                dist.barrier(patient)
                trainer = ParallelTrainer.start(run, config)
            return finish(trainer, console)


def resume(run: Path, changes: Mapping[str, Mapping[str, str]], console: Console) -> int:
    """Go on with a run, perhaps on another layout. Returns the exit code."""
    from nanogpt.cli.train import finish, settings_of
    from nanogpt.training.parallel.loop import ParallelTrainer

    with one_of_many(settings_of(run, changes).parallel.timeout):
        return finish(ParallelTrainer.resume(run, **changes), console)
