"""Running a study: as many runs at a time as the machine carries, none of them twice."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nanogpt.config import with_settings
from nanogpt.errors import Interrupted, UserError
from nanogpt.files import checked, claimed, read_json, sha256, write_json
from nanogpt.lab.judge import studentized_range
from nanogpt.lab.plugin import LOADED
from nanogpt.lab.study import Arm, Order, Result, Study, data_name, run_name
from nanogpt.text.prepare import prepare
from nanogpt.workers import usable_cores


def run_study(
    study: Study, folder: str | Path, jobs: int, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Run what has not been run, and return all results: by arm, one a seed.

    What was begun is resumed, what is finished is left alone. Raises UserError for a run that
    fails, with the last line it wrote, and if another process runs the study; raises Interrupted
    if it is stopped.
    """
    folder = Path(folder)
    studentized_range()  # without it nothing could be judged in the end
    with claimed(folder):
        prepare_data(study, folder, say)
        places = [
            (arm, seed, folder / "runs" / run_name(arm.name, seed))
            for seed in study.seeds  # one seed of every arm first: something to see early
            for arm in study.arms
        ]
        precision = precision_of(study, [place for _, _, place in places])
        for arm, seed, place in places:
            write_settings(study, folder, arm, seed, place, jobs, precision)
        waiting = [place for _, _, place in places if not (place / "result.json").exists()]
        say(f"{len(places) - len(waiting)} of {len(places)} runs are finished")
        with children() as running:
            while waiting or running:
                while waiting and len(running) < jobs:
                    place = waiting.pop(0)
                    running[place] = start(place, max(1, usable_cores() // jobs))
                time.sleep(0.2)
                for place, process in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        check(place, process.returncode)
                        left = len(waiting) + len(running)
                        say(f"{len(places) - left} of {len(places)} runs: {place.name} is done")
    return {
        arm.name: [
            read_result(folder / "runs" / run_name(arm.name, seed) / "result.json")
            for seed in study.seeds
        ]
        for arm in study.arms
    }


def read_result(path: Path) -> dict[str, Any]:
    """The result of a run as plain values. Raises UserError naming the file if it is damaged."""
    try:
        values = read_json(path)
        # Runs of earlier versions were measured in one way alone.
        return asdict(checked(Result, {"measured": values.get("bits_per_byte"), **values}))
    except UserError as error:
        again = "remove it, and the same command measures the run again"
        raise UserError(f"{path} is damaged ({error}); {again}") from None


def prepare_data(study: Study, folder: Path, say: Callable[[str], None]) -> None:
    """Prepare the text once for each way in which the arms cut it."""
    for arm in study.arms:
        place = folder / "data" / data_name(arm.config)
        if not arm.config.data.folder and not (place / "tokenizer.json").exists():
            say(f"preparing the text for {arm.name}")
            prepare(arm.config.data, place, usable_cores())
        other = text_folder(study, folder, arm)
        if other and not (Path(other) / "tokenizer.json").exists():
            say(f"preparing {study.text}, on which all are measured")
            data = replace(
                arm.config.data, source=study.text, max_documents=0,
                tokenizer=str(place / "tokenizer.json"),
            )  # fmt: skip
            prepare(data, other, usable_cores())


def text_folder(study: Study, folder: Path, arm: Arm) -> str:
    """Where the text is that an arm is measured on, in its own tokens; empty: what it learns."""
    text = hashlib.sha256(study.text.encode()).hexdigest()[:8]
    place = folder / "data" / f"{data_name(arm.config)}-{text}"
    return str(place.resolve()) if study.text else ""


def precision_of(study: Study, places: list[Path]) -> str:
    """The precision of a study: that with which it was begun, or what is faster on this machine.

    Decided once: which is faster is measured, and with a close result arms could differ by it.
    """
    for place in places:
        if (place / "settings.json").exists():
            return str(read_json(place / "settings.json").get("precision", "auto"))
    from nanogpt.device import resolve

    return resolve(study.arms[0].config.train.device).precision


def write_settings(
    study: Study, folder: Path, arm: Arm, seed: int, place: Path, jobs: int, precision: str
) -> None:
    """Write what a run is to do. Raises UserError if it was begun with something else."""
    data = arm.config.data.folder or str((folder / "data" / data_name(arm.config)).resolve())
    config = with_settings(arm.config, train={"seed": seed}, data={"folder": data})
    seconds = study.budget[1] if study.budget[0] == "seconds" else 0
    plugins = [str(Path(p).resolve()) for p in dict.fromkeys([*LOADED, *study.plugins])]
    order = Order(
        asdict(config), seconds, plugins, max(1, usable_cores() // jobs), precision, study.measure,
        text_folder(study, folder, arm), [sha256(p) for p in plugins],
    )  # fmt: skip
    values = asdict(order)
    path = place / "settings.json"
    if path.exists():
        usual = {"precision": "auto", "measure": "bits_per_byte", "text": ""}
        before = {**usual, "plugin_hashes": order.plugin_hashes, **read_json(path)}
        if before["plugin_hashes"] != order.plugin_hashes:
            from nanogpt.training.checkpoint import has_checkpoint  # loads torch

            if (place / "result.json").exists() or has_checkpoint(place / "run"):
                raise UserError(
                    f"{place} was run before a plugin was changed; remove it, or give the study "
                    "another --out"
                )
            before["plugin_hashes"] = order.plugin_hashes
            write_json(path, before)
        # Another number of threads rounds differently; a run ends with those it began with.
        if {**before, "threads": 0} != {**values, "threads": 0}:
            raise UserError(
                f"{place} was run with other settings; remove it, or give the study another --out"
            )
        return
    write_json(path, values)


def start(place: Path, threads: int) -> "subprocess.Popen[bytes]":
    """Begin or resume one run in a process of its own, deaf to the terminal's Ctrl-C."""
    log = (place / "log.txt").open("ab")
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "nanogpt.lab.one", str(place)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
    finally:
        log.close()


@contextmanager
def children() -> Iterator[dict[Path, "subprocess.Popen[bytes]"]]:
    """Processes by their run; those that still run at the end are asked to save, and waited for."""
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        yield running
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def check(place: Path, code: int) -> None:
    """Raise UserError for a run that failed, Interrupted for one that was stopped."""
    if code == 130:
        raise Interrupted(f"{place.name} was stopped")
    if code:
        lines = (place / "log.txt").read_text(errors="replace").strip().splitlines()
        raise UserError(f"{place.name} failed: {lines[-1] if lines else code}; see {place}/log.txt")
