"""What can be told of the client without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

from server.accounts import Action, Role
from server.api.transport.security import content_security_policy
from server.chat.turn.traces import NO_ROOM
from server.retrieval.search.results import FATES
from server.retrieval.search.searcher import _GATES as GATES
from server.web import STATIC

INDEX = (STATIC / "index.html").read_text(encoding="utf-8")
MODULES = sorted(path for path in (STATIC / "js").rglob("*.js"))
STRING_KEY = re.compile(r'"((?:[a-z]+)\.[a-z_]+)":')


def import_map() -> dict[str, str]:
    found = re.search(r'<script type="importmap">(.*?)</script>', INDEX, re.DOTALL)
    assert found
    return dict(json.loads(found.group(1))["imports"])


def keys(language: str) -> set[str]:
    """Of the strings of a language, in its files together."""
    found = STATIC.glob(f"js/strings/{language}*.js")
    return {key for path in found for key in STRING_KEY.findall(path.read_text(encoding="utf-8"))}


def on_disk(address: str) -> Path:
    assert address.startswith("/static/"), address
    return STATIC / address.removeprefix("/static/")


def test_the_page_names_only_own_files_that_exist() -> None:
    addresses = re.findall(r'(?:src|href)="([^"]+)"', INDEX) + list(import_map().values())
    assert len(addresses) > 10
    for address in addresses:
        assert on_disk(address).is_file(), address


def test_the_import_map_is_the_only_inline_script_and_nothing_else_is_inline() -> None:
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", INDEX)
    assert inline == ['<script type="importmap">']
    assert content_security_policy(INDEX).count("sha256-") == 1
    assert "<style" not in INDEX
    assert not re.search(r"\s(?:style|on\w+)=", INDEX)


def test_every_import_resolves() -> None:
    bare = import_map()
    for module in MODULES:
        text = module.read_text(encoding="utf-8")
        for name in re.findall(r'^(?:import|export)[^"\n]*?"([^"]+)";$', text, re.MULTILINE):
            target = module.parent / name if name.startswith(".") else on_disk(bare[name])
            assert target.is_file(), f"{module.name} imports {name}"


def test_modules_import_each_other_in_no_cycle() -> None:
    edges = {
        module.resolve(): [
            (module.parent / name).resolve()
            for name in re.findall(r'from "(\.[^"]+)"', module.read_text(encoding="utf-8"))
        ]
        for module in MODULES
    }
    done: set[Path] = set()

    def visit(module: Path, above: tuple[Path, ...]) -> None:
        assert module not in above, " -> ".join(path.name for path in (*above, module))
        if module not in done:
            for target in edges[module]:
                visit(target, (*above, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_files_stay_a_page_or_two() -> None:
    for path in [*MODULES, *(STATIC / "css").glob("*.css")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path.name


def test_both_languages_have_the_same_strings_and_every_string_is_used() -> None:
    english, korean = keys("en"), keys("ko")
    assert english == korean
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES if path.parent.name != "strings")
    computed = set(re.findall(r"`([a-z]+)\.\$\{", code))
    for key in english:
        assert f'"{key}"' in code or key.split(".")[0] in computed, f"{key} is never shown"
    for key in re.findall(r'\bt\("([a-z_.]+)"', code):
        assert key in english, f"{key} has no text"


def test_every_fate_and_gate_of_a_search_has_its_words() -> None:
    english = keys("en")
    fates = {f"fate.{fate.replace(' ', '_')}" for fate in (*FATES, NO_ROOM)}
    assert {key for key in english if key.startswith("fate.")} == fates
    assert {key for key in english if key.startswith("gate.")} == {f"gate.{gate or 'none'}" for gate in GATES}


def test_vendored_libraries_carry_their_version_licence_and_origin() -> None:
    vendor = STATIC / "vendor"
    manual = (vendor / "README.md").read_text(encoding="utf-8")
    folders = [folder for folder in vendor.iterdir() if folder.is_dir()]
    assert len(folders) == 6
    for folder in folders:
        name, _, version = folder.name.rpartition("@")
        assert name
        assert f"| {version} |" in manual, folder.name
        assert (folder / "LICENSE").is_file(), folder.name
        assert any(folder.name in address for address in import_map().values()), folder.name


def test_nothing_is_fetched_from_other_hosts() -> None:
    own = [*MODULES, *(STATIC / "css").glob("*.css"), STATIC / "icon.svg", STATIC / "index.html"]
    for path in own:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""["'(]https?://(?![^"']*\$)\w""", text), path.name


def test_every_action_of_the_audit_log_and_every_role_has_words() -> None:
    for language in ("en", "ko"):
        assert {f"audit.{action.replace('.', '_')}" for action in Action} <= keys(language)
        assert {f"rights.{role}" for role in Role if role is not Role.USER} <= keys(language)
