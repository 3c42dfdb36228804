"""The resolver: what is asked for, what is there, and words for what is not."""

import subprocess
import sys

import pytest
import torch

from nanogpt import device
from nanogpt.errors import UserError


def test_auto_finds_a_device_and_a_precision():
    """One resolver for every machine."""
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


def test_the_peak_of_a_known_gpu_is_its_makers_and_elsewhere_it_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    gpu = device.Compute(torch.device("cuda"), "bfloat16")
    assert gpu.peak_flops() == 989e12
    monkeypatch.setattr(device, "measured_flops", lambda *_: 7.0)
    assert device.Compute(torch.device("cuda"), "float32").peak_flops() == 7.0
    assert device.Compute(torch.device("cpu"), "float32").peak_flops() == 7.0
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "something new")
    assert gpu.peak_flops() == 7.0


def test_the_measured_peak_is_that_of_a_matrix_product(monkeypatch):
    moments = iter([0.0, 2.0, 10.0, 10.5, 20.0, 23.0, 30.0, 31.0, 40.0, 41.0, 50.0, 51.0])
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(moments))
    found = device.measured_flops(torch.device("cpu"), torch.float32, size=8)
    assert found == 2 * 8**3 / 0.5  # the fastest counts


@pytest.mark.parametrize(
    ("setting", "kind", "seconds", "compiler", "reason"),
    [
        ("off", "cpu", 1e9, True, "train.compile is off"),
        ("on", "mps", 1e9, True, "it is not ready for MPS"),
        ("on", "cpu", 0, False, "there is no C++ compiler"),
        ("on", "cpu", 0, True, ""),
        ("auto", "cpu", 599, True, "the run is too short to earn it back"),
        ("auto", "cpu", 601, True, ""),
        ("auto", "cuda", 601, False, ""),
    ],
)
def test_compiling_happens_where_it_pays(monkeypatch, setting, kind, seconds, compiler, reason):
    monkeypatch.setattr(device.shutil, "which", lambda name: "/bin/" + name if compiler else None)
    monkeypatch.setattr(device.Compute, "peak_flops", lambda self: 4e9)  # of which a quarter
    compute = device.Compute(torch.device(kind), "float32")
    assert device.compile_or_why_not(setting, compute, 1e9 * seconds) == reason


def test_only_float16_scales_the_loss():
    for precision in device.PRECISIONS:
        scaler = device.Compute(torch.device("cpu"), precision).scaler()
        assert scaler.is_enabled() is (precision == "float16")


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_old_gpus_compute_in_float16(monkeypatch, bfloat16, expected):
    monkeypatch.setattr(device, "best_device", lambda: "cuda")
    monkeypatch.setattr(device, "bfloat16_is_faster", lambda _: bfloat16)
    assert device.resolve().precision == expected


def test_a_gpu_is_not_taken_for_one_of_a_similar_name(monkeypatch):
    monkeypatch.setattr(device, "measured_flops", lambda *_: 7.0)
    for name, peak in {
        "NVIDIA RTX A1000": 7.0,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "T400": 7.0,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert device.Compute(torch.device("cuda"), "bfloat16").peak_flops() == peak


def test_the_peak_of_memory_is_that_of_this_process_and_stays():
    """Not of the one that started it, which here holds far more."""
    ballast = b"x" * 600_000_000
    code = (
        "from nanogpt.device import peak_memory\n"
        "before = peak_memory()\n"
        "block = b'x' * 200_000_000\n"
        "del block\n"
        "print(before, peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert len(ballast) > before
    assert 150_000_000 < after - before < 250_000_000
