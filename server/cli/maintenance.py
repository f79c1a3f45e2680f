"""`tailor backup`, `restore` and `doctor`: a workspace as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.console import HERE, Set, Workspace, out, settings_of
from server.errors import ConfigError

if TYPE_CHECKING:
    from server.config import Settings
    from server.doctor import Finding
    from server.errors import AdapterInvalid

NOT_IN_IT = (
    "Models and tailor.toml are not in it: keep tailor.toml, which may hold the password, with your configuration."
)


def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as tailor.tar.gz.")],
    workspace: Workspace = HERE,
    settings: Set = None,
) -> None:
    """Save chats, memories, accounts, knowledge, its index, prompts and adapters in one archive, also while serving."""
    from server.backup import back_up

    report = back_up(settings_of(workspace, {}, settings), file)
    for name in report.left_out:
        out.print(f"left out, a link that leads out of its folder: {name}", markup=False, highlight=False)
    out.print(f"{report.file}: {report.files} files, {report.bytes / 1e6:,.1f} MB. {NOT_IN_IT}", highlight=False)


def restore(
    file: Annotated[Path, typer.Argument(help="An archive of 'tailor backup'.", exists=True, dir_okay=False)],
    workspace: Workspace = HERE,
    force: Annotated[bool, typer.Option("--force", help="Set aside what is there.")] = False,
    settings: Set = None,
) -> None:
    """Put a backup in place, in an empty workspace without a running server. Everything is checked first."""
    from server.backup import restore as put_back

    report = put_back(settings_of(workspace, {}, settings), file, force=force)
    for path in report.set_aside:
        out.print(f"set aside: {path}", markup=False, highlight=False)
    out.print(f"Restored {report.files} files, {report.bytes / 1e6:,.1f} MB. {NOT_IN_IT}", highlight=False)


def doctor(
    workspace: Workspace = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
    settings: Set = None,
) -> None:
    """Look over settings, database, index, adapters, models, permissions and disk. Exit status 1: not all is well."""
    findings = _findings(workspace, settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
    for finding in () if as_json else findings:
        out.print(f"{finding.level}: {finding.area}: {finding.what}\n  {finding.remedy}", markup=False, highlight=False)
    wrong = sum(finding.level == "wrong" for finding in findings)
    if not as_json:
        out.print(f"{wrong} wrong" if wrong else "Nothing is wrong.")
    raise typer.Exit(1 if wrong else 0)


def _findings(workspace: Path, extra: list[str] | None) -> list[Finding]:
    from server.doctor import Finding, examine

    try:
        settings = settings_of(workspace, {}, extra)
    except ConfigError as error:
        return [Finding("settings", "wrong", str(error), "correct it; what else there is can be told only then")]
    there = _models_are_there(settings)
    return examine(
        settings,
        workspace,
        fingerprint=(lambda: _fingerprint(settings)) if there else None,
        adapter_faults=(lambda: _adapter_faults(settings)) if there else None,
    )


def _models_are_there(settings: Settings) -> bool:
    """Else asking for them would fetch them."""
    from server.model_store import ModelStore

    store = ModelStore(settings.paths.data / "models")
    names = (settings.model.name, settings.embedding.name)
    return all(store.is_complete(name) if store.is_known(name) else Path(name).expanduser().is_dir() for name in names)


def _fingerprint(settings: Settings) -> str:
    from server.app import build_embedder

    return build_embedder(settings).fingerprint


def _adapter_faults(settings: Settings) -> Iterator[tuple[str, AdapterInvalid]]:
    from server.engine import AdapterCatalogue, adapter_faults
    from server.model_store import ModelStore

    path = ModelStore(settings.paths.data / "models").chat_model(settings.model.name)
    return adapter_faults(AdapterCatalogue(settings.paths.adapters), path, settings.engine.max_lora_rank)
