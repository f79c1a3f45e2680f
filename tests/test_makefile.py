"""What make hands to the programs it starts."""

from __future__ import annotations

import os
import subprocess

from tests.conftest import ROOT

# What shells, locales, temporary files and Python itself are steered by.
STEERING = {
    "HOME": "/nowhere/home",
    "LANG": "C.UTF-8",
    "LANGUAGE": "en",
    "LC_ALL": "C.UTF-8",
    "TMPDIR": "/tmp",
    "TERM": "dumb",
    "PYTHONPATH": "/nowhere/python",
    "CC": "cc",
    "CFLAGS": "-O1",
    "EDITOR": "ed",
    "USER": "someone",
}


def test_make_leaves_the_environment_of_its_programs_alone() -> None:
    """A variable of the Makefile named like one of the environment replaces it there: with LANG, Node.js crashes."""
    given = {**STEERING, "PATH": os.environ["PATH"]}
    shown = subprocess.run(
        ["make", "--no-print-directory", "--eval", "shown-environment:\n\t@env", "shown-environment"],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    assert {name: seen.get(name) for name in given} == given
