"""`nanogpt serve`: what it refuses before it listens, and how it ends."""

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt.cli import main

SERVE = [sys.executable, "-m", "nanogpt", "serve"]


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command prints when it refuses."""
    assert main(["serve", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nanogpt: ")
    assert error.count("\n") == 1
    return error


MISTAKES = {
    "no run": ([], "the following arguments are required: run"),
    "not there": (["none"], "none: no such run folder"),
    "open to all": (["run", "--host", "0.0.0.0"], "lets others in: give a token"),
    "open by name": (["run", "--host", "example.org"], "--host example.org lets others in"),
    "short token": (["run", "--token", "secret"], "--token: use at least 16 letters and digits"),
    "odd token": (["run", "--token", "é" * 20], "--token: use at least 16 letters and digits"),
    "no port": (["run", "--port", "70000"], "--port 70000: use 1 to 65535"),
    "no rows": (["run", "--limits.rows", "0"], "limits.rows=0: use at least 1"),
    "no time": (["run", "--limits.seconds", "-1"], "limits.seconds=-1.0: use at least 0"),
    "no memory": (["run", "--limits.rows", "100000000"], "lower --limits.rows"),
    "no host": (["run", "--host", "no such host", "--token", "t" * 16], "cannot listen on"),
    "two of a name": (["run", "other/run"], "two runs are called run"),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_costs_one_line(argv, message, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(trained_run())
    argv = [*argv, "--port", "0"] if "--port" not in argv and argv else argv
    assert message in refusal(argv, capsys)


def test_a_port_that_is_taken_costs_one_line(trained_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1 port {port}: Address already in use" in refusal(
            [str(trained_run()), "--port", port], capsys
        )


def test_without_fastapi_the_line_says_what_to_install(trained_run, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else found(name)
    )
    assert "pip install 'nanogpt[explorer]'" in refusal([str(trained_run())], capsys)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_other_commands(
    number: int, trained_run: Callable[..., Path]
) -> None:
    process = subprocess.Popen(
        [*SERVE, str(trained_run()), "--port", "0", "--limits.new-tokens", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        url = re.search(r"http://\S+/v1", line)[0]
        body = {"prompt": "a", "max_tokens": 1_000_000, "stream": True}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(url + "/completions", json.dumps(body).encode(), headers)
        for _ in range(200):  # the line is printed a moment before the server accepts
            try:
                stream = urllib.request.urlopen(request, timeout=10)
                break
            except OSError:
                time.sleep(0.05)
        assert stream.readline().startswith(b"data: {")
        host, port = re.search(r"//([^:]+):(\d+)", url).groups()
        half = socket.create_connection((host, int(port)))
        half.send(b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        began = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 15
        assert process.returncode == 130
        assert errors == "\nstopped\n"
        stream.close()
        half.close()
    finally:
        process.kill()
        process.wait()
