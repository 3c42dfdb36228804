"""The resolver: what is asked for, what is there, and words for what is not."""

import pytest
import torch

from nanogpt import device
from nanogpt.errors import UserError


def test_auto_finds_a_device_and_a_precision():
    """Trap 21: one resolver for every machine."""
    compute = device.resolve()
    assert compute.precision in device.PRECISIONS
    assert torch.ones(1, device=compute.device).item() == 1


@pytest.mark.parametrize("faster", [True, False])
def test_auto_precision_follows_the_measurement(monkeypatch, faster):
    monkeypatch.setattr(device, "bfloat16_is_faster", lambda _: faster)
    assert device.resolve("cpu").precision == ("bfloat16" if faster else "float32")


def test_autocast_computes_in_the_precision_and_float32_leaves_things_alone():
    a = torch.ones(2, 2)
    with device.resolve("cpu", "bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16
    with device.resolve("cpu", "float32").autocast():
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("gpu", "auto", "train.device='gpu' is unknown: did you mean cpu"),
        ("cpu", "float8", "train.precision='float8' is unknown"),
    ],
)
def test_what_is_unknown_is_named(name, precision, message):
    with pytest.raises(UserError, match=message):
        device.resolve(name, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what it lacks here")
def test_what_is_not_there_is_named():
    with pytest.raises(UserError, match=r"train\.device='cuda:1' is not on this machine: use auto"):
        device.resolve("cuda:1")
