"""A fast rank does not begin a checkpoint while the first rank still ends the one before."""

import os
import subprocess
import sys

RANK = """
import sys, time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

from nanogpt.config import Config
from nanogpt.training.checkpoint import TrainState
from nanogpt.training.parallel import checkpoint

folder, number = Path(sys.argv[1]), int(sys.argv[2])
store = dist.FileStore(str(folder / "store"), 2)
limit = timedelta(seconds=60)
dist.init_process_group("gloo", store=store, rank=number, world_size=2, timeout=limit)
point_at = checkpoint.point_at
checkpoint.point_at = lambda *given: time.sleep(1) or point_at(*given)  # a slow disk
rows = slice(2 * number, 2 * number + 2)
part = SimpleNamespace(
    name="w", shape=(4,), place=[[rows]], tensor=torch.ones(2), owned=True
)
layout, optimizer = SimpleNamespace(parts={"w": part}), torch.optim.SGD([part.tensor], 1.0)
saver = checkpoint.Saver(SimpleNamespace(number=number, world=2, first=number == 0, limit=limit))
for step in (1, 2):
    saver.save(folder, layout, optimizer, TrainState(step, None, 0.0, ""), Config(), False)
saver.finish()
dist.barrier()
dist.destroy_process_group()
"""


def test_all_files_of_a_checkpoint_are_there(tmp_path):
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([*command, str(n)], env=environment) for n in (0, 1)]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    found = {path.name for path in (tmp_path / "checkpoints" / "step-000002").iterdir()}
    kinds = ("model", "optimizer")
    pieces = {f"{kind}-{n:05d}-of-00002.safetensors" for kind in kinds for n in (0, 1)}
    assert found == {"state.json", *pieces}
