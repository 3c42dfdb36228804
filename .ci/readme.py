"""Run the commands that README.md shows, as a newcomer would type them, and stop at the first that
fails: `.venv/bin/python .ci/readme.py`.

It works in a new folder, with a text and a variant of its own in place of the reader's. Training
stops after a few steps.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a test machine should not do: install, serve a page, wait for words, download, take an hour.
LEFT_OUT = re.compile(
    r"(make|pip|pytest|cd|git) |nanogpt (demo|assistant|chat|serve|speedrun|explore|learn \d)\b"
    r"|nanogpt lab (run|scaling|circuit)\b"
    r"|nanogpt exercise play\b|hub:|gpt2\b(?!-124m)"
)
FEW_STEPS = {"train": ["--train.max-steps=20"]}


def commands(text: str) -> list[list[str]]:
    """The commands in the sh blocks of a Markdown text, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line and not line.startswith("#")]


def write_what_a_reader_has(folder: Path) -> None:
    """Two texts, and the variant that docs/extending.md shows."""
    for name in ("my.txt", "other.txt"):
        (folder / name).write_text("".join(f"{n} kings and {n * n} fools.\n" for n in range(9999)))
    idea = re.search(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    (folder / "my_idea.py").write_text(idea[1] if idea else "")


def main() -> int:
    """Run them all. Returns 1 if one failed."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_what_a_reader_has(folder)
        for command in commands((ROOT / "README.md").read_text()):
            shown = shlex.join(command)
            if LEFT_OUT.search(shown + " ") or command[0] != "nanogpt":
                print(f"left out  {shown}")
                continue
            command += FEW_STEPS.get(command[1], []) if "--resume" not in command else []
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            # 1 is an answer, such as "this exercise is not right yet"; 2 is a mistake of ours.
            if done.returncode not in (0, 1) or "Traceback" in done.stderr:
                print(f"FAILED    {shown}\n{done.stdout}{done.stderr}")
                return 1
            print(f"ran       {shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
