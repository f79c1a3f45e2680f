"""`tailor index`: the knowledge index of a workspace, here or in the server that has it.

One process at a time has an index. Where a server does, it is asked, at the address of the workspace's settings or at
`--url`; else the command opens the index itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from server.cli.console import HERE, Key, Set, Workspace, call, out, settings_of
from server.config import Settings
from server.errors import Conflict

if TYPE_CHECKING:
    from server.retrieval import KnowledgeBase

index_app = typer.Typer(help="The knowledge index; alone, it is brought in step with the files and shown.")

ServerUrl = Annotated[str | None, typer.Option("--url", help="Server that has the index; absent, the workspace's.")]
IndexAction = Callable[["KnowledgeBase"], Any]


def _run(settings: Settings, url: str | None, key: str | None, action: IndexAction, *request: str, **body: Any) -> Any:
    """Where no server has the index, runs `action` on it here; else sends the server `request`, a method and a path."""
    from server.retrieval import KnowledgeBase, index_lock

    if url is None:
        folder = settings.paths.data / "index"
        with ExitStack() as stack:
            try:
                stack.enter_context(index_lock(folder))
            except Conflict:
                url = f"http://{settings.server.host}:{settings.server.port}"
            else:
                from server.app import build_embedder

                embedder = build_embedder(settings, out.print)
                return action(KnowledgeBase(settings.paths.knowledge, folder, embedder, settings.retrieval))
    method, path = request
    return call(method, url, key, f"/api/knowledge{path}", **body)


def _on_open_index(action: IndexAction) -> IndexAction:
    def run(knowledge: KnowledgeBase) -> Any:
        knowledge.open()
        return action(knowledge)

    return run


@index_app.callback(invoke_without_command=True)
def index(
    context: typer.Context, workspace: Workspace = HERE, settings: Set = None, url: ServerUrl = None, key: Key = None
) -> None:
    """Bring the knowledge index in step with the files, and show what is in it. A running server does so by itself."""
    if context.invoked_subcommand is None:

        def in_step(knowledge: KnowledgeBase) -> dict[str, Any]:
            knowledge.sync()
            return asdict(knowledge.status())

        _show_status(_run(settings_of(workspace, {}, settings), url, key, in_step, "GET", ""))


@index_app.command("status")
def index_status(workspace: Workspace = HERE, settings: Set = None, url: ServerUrl = None, key: Key = None) -> None:
    """What is in the index, as it is."""
    look = _on_open_index(lambda knowledge: asdict(knowledge.status()))
    _show_status(_run(settings_of(workspace, {}, settings), url, key, look, "GET", ""))


@index_app.command("history")
def index_history(workspace: Workspace = HERE, settings: Set = None, url: ServerUrl = None, key: Key = None) -> None:
    """The generations that are kept, and what changed in each."""

    def look(knowledge: KnowledgeBase) -> dict[str, Any]:
        told = [{**asdict(one), "told": [{"file": file} for _, file in one.told]} for one in knowledge.history()]
        return {"generations": told}

    found = _run(settings_of(workspace, {}, settings), url, key, _on_open_index(look), "GET", "/generations")
    table = Table("no.", "made", "files", "passages", "what changed")
    for one in found["generations"]:
        made = datetime.fromtimestamp(one["at"]).strftime("%Y-%m-%d %H:%M")
        sizes = (str(one[name]) if one[name] >= 0 else "" for name in ("files", "chunks"))
        table.add_row(str(one["number"]), made, *sizes, _what_changed(one))
    out.print(table)


def _what_changed(made: dict[str, Any]) -> str:
    counts = {"new": made["added"], "changed": made["changed"], "gone": made["removed"]}
    parts = [f"{count} {word}" for word, count in counts.items() if count]
    back = made["cause"].removeprefix("rollback:")
    if back != made["cause"]:
        parts.insert(0, f"back to {back}")
    named = ", ".join(told["file"] for told in made["told"][:3]) + (", …" if len(made["told"]) > 3 else "")
    return ", ".join(parts) + (f": {named}" if named else "")


@index_app.command("rollback")
def index_rollback(
    generation: Annotated[int, typer.Argument(help="A number of 'tailor index history'.", min=1)],
    workspace: Workspace = HERE,
    settings: Set = None,
    url: ServerUrl = None,
    key: Key = None,
) -> None:
    """Go back to an earlier generation, and stay there: the files on disk are left as they are."""
    back = _on_open_index(lambda knowledge: {"generation": knowledge.roll_back(generation)})
    chosen = settings_of(workspace, {}, settings)
    made = _run(chosen, url, key, back, "POST", "/rollback", generation=generation)["generation"]
    out.print(f"Generation {made} holds what {generation} held, and stays until 'tailor index follow'.")


@index_app.command("follow")
def index_follow(workspace: Workspace = HERE, settings: Set = None, url: ServerUrl = None, key: Key = None) -> None:
    """Let the index follow the files again, after a rollback."""

    def follow(knowledge: KnowledgeBase) -> None:
        knowledge.follow()
        knowledge.sync()

    _run(settings_of(workspace, {}, settings), url, key, _on_open_index(follow), "POST", "/follow")
    out.print("The index follows the files.")


@index_app.command("rebuild")
def index_rebuild(workspace: Workspace = HERE, settings: Set = None, url: ServerUrl = None, key: Key = None) -> None:
    """Read, cut and embed every file anew, beside the index that goes on answering."""

    def rebuild(knowledge: KnowledgeBase) -> dict[str, Any]:
        knowledge.rebuild()
        knowledge.sync()
        return {"building": False}

    chosen = settings_of(workspace, {}, settings)
    begun = _run(chosen, url, key, _on_open_index(rebuild), "POST", "/rebuild")
    if begun["building"]:
        out.print("It is being rebuilt; 'tailor index status' tells how far it is.")
    else:
        out.print("The index is rebuilt.")


def _show_status(status: dict[str, Any]) -> None:
    table = Table("folder", "file", "state", "passages", "reason")
    for folder in status["folders"]:
        for file in folder["files"]:
            table.add_row(folder["name"], file["file"], file["state"], str(file["chunks"]), file["reason"])
    out.print(table)
    lines = [f"Generation {status['generation']}"]
    if status["held"] is not None:
        lines.append(f"Held at what generation {status['held']} was; {status['pending']} files on disk differ.")
    if status["building"]:
        lines.append("Another index is being built beside it.")
    if (done := status["progress"]) is not None:
        left = f", about {done['left_s']:.0f} s left" if done["left_s"] is not None else ""
        lines.append(f"{done['files']} of {done['of_files']} files{left}")
    lines += [f"{limit['folder']}: {limit['problem']}" for limit in status.get("limited", ()) if limit.get("problem")]
    lines += [f"{one['folder'] or 'knowledge'} is away, and kept: {one['reason']}" for one in status.get("missing", ())]
    out.print("\n".join(filter(None, [*lines, status["problem"]])), markup=False, highlight=False)
