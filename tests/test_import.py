"""What `import nanogpt` does, and how little."""

import os
import subprocess
import sys

import pytest


def printed(code: str, **variables: str) -> str:
    """What a fresh Python prints that has only these variables for OpenMP."""
    rest = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**rest, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "import os; print(os.environ.get('GOMP_SPINCOUNT', 'unset'))"


@pytest.mark.parametrize(
    ("before", "variables", "expected"),
    [
        ("", {}, "4000"),
        ("", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, "unset"),
        ("import torch; ", {}, "unset"),  # too late
    ],
    ids=["default", "a count of the user's", "a policy of the user's", "after torch"],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(before, variables, expected):
    """Threads that spin while they wait slowed training on a crowded machine tenfold."""
    assert printed(f"{before}import nanogpt; {SHOW}", **variables) == expected


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'matplotlib', 'rich', 'transformers'} & set(sys.modules)"
    assert printed(f"import sys, nanogpt; print({heavy})") == "set()"
