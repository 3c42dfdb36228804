"""When training goes wrong: a loss that blows up, a model that cannot be compiled."""

import math
from typing import TYPE_CHECKING

from nanogpt.config import to_toml, with_settings
from nanogpt.files import write_text

if TYPE_CHECKING:
    from nanogpt.training.loop import TrainingLoop


def divergence(run: "TrainingLoop", loss: float, grad_norm: float) -> str:
    """When and where the loss blew up, the largest gradients, and what to do.

    Saves a checkpoint if there is none and the weights are still numbers: the last step may have
    left some that are not, and then the checkpoint of that step is of no use either.
    """
    norms = {
        name: float(parameter.grad.norm())
        for name, parameter in run.model.named_parameters()
        if parameter.grad is not None
    }
    # Not-a-number compares with nothing, so it is sorted as if it were larger than all.
    worst = sorted(norms, key=lambda n: -norms[n] if math.isfinite(norms[n]) else -math.inf)[:3]
    listed = ", ".join(f"{name} {norms[name]:.3g}" for name in worst)
    step, settings = run.state.step, run.config.train
    finite = all(bool(p.isfinite().all()) for p in run.model.parameters())
    if step and finite and not run.saved_step:
        run.save()
    usable = run.saved_step and (finite or run.saved_step < step)
    saved = f"; the checkpoint of step {run.saved_step} is from before" if usable else ""
    return (
        f"training diverged at step {step + 1}, batch {step * settings.grad_accum_steps} "
        f"(loss {loss}, gradient norm {grad_norm}; largest gradients: {listed}): start again with "
        f"a train.lr below {settings.lr}{saved}"
    )


def give_up_compiling(run: "TrainingLoop", error: Exception) -> None:
    """Train on without torch.compile, and say so in the run's settings."""
    run.not_compiled = f"it failed ({str(error).strip().splitlines()[0]})"
    run.config = with_settings(run.config, train={"compile": "off"})
    write_text(run.folder / "config.toml", to_toml(run.config))
    run.objective, _ = run.build_objective(run.model, run.config.train, run.compute, 0)
