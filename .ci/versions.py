"""Versions of what Tailor is installed with: `python .ci/versions.py installed | oldest`, as constraints for pip.

`installed` gives what stands beside the Python that runs this, for constraints.txt; `oldest` the lower bound of each
range in pyproject.toml. Neither names torch: pyproject.toml's own line holds it, whose build is the machine's affair.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

LEFT_OUT = {"tailor-chat", "torch", "triton", "pip", "setuptools", "wheel", "uv"}  # torch's builds name their triton
HEAD = """# Python {python}: the versions that the tests last passed with. `make update` writes this file.
# `make serve` and `make test` install them; pyproject.toml keeps the ranges for those who embed Tailor.
"""


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> str:
    """Local tags (`+cpu`) are stripped: they name a build, not a version."""
    found = {canonical(one.name): one.version.split("+")[0] for one in distributions()}
    lines = [f"{name}=={version}" for name, version in sorted(found.items()) if name not in LEFT_OUT]
    return HEAD.format(python=".".join(platform.python_version_tuple()[:2])) + "\n".join(lines)


def oldest() -> str:
    """Of what Tailor itself needs; what only its tests need comes as it is."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = (re.fullmatch(r"([\w.-]+)>=([^,]+).*", one) for one in project["dependencies"])
    return "\n".join(f"{found[1]}=={found[2]}" for found in ranges if found and found[1] not in LEFT_OUT)


if __name__ == "__main__":
    print({"installed": installed, "oldest": oldest}[sys.argv[1]]())
