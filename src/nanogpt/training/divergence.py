"""What a person needs to know when the loss blew up."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanogpt.training.loop import TrainingLoop


def divergence(run: "TrainingLoop", loss: float, grad_norm: float) -> str:
    """When and where, the largest gradients, and what to do. No weight has moved in this step."""
    norms = {
        name: float(parameter.grad.norm())
        for name, parameter in run.model.named_parameters()
        if parameter.grad is not None
    }
    # Not-a-number compares with nothing, so it is sorted as if it were larger than all.
    worst = sorted(norms, key=lambda n: -norms[n] if math.isfinite(norms[n]) else -math.inf)[:3]
    listed = ", ".join(f"{name} {norms[name]:.3g}" for name in worst)
    step, settings = run.state.step, run.config.train
    saved = f"; the checkpoint of step {run.saved_step} is from before" if run.saved_step else ""
    return (
        f"training diverged at step {step + 1}, batch {step * settings.grad_accum_steps} "
        f"(loss {loss}, gradient norm {grad_norm}; largest gradients: {listed}): start again with "
        f"a train.lr below {settings.lr}{saved}"
    )
