"""`tailor adapters`: list, load, unload, at a running server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from server.cli.console import LOCAL_URL, Key, Url, call, out

adapters_app = typer.Typer(no_args_is_help=True, help="Adapters of a running server.")


@adapters_app.command("list")
def adapters_list(url: Url = LOCAL_URL, key: Key = None) -> None:
    """What is in the folder and what is loaded."""
    table = Table("name", "version", "state", "rank", "MB", "in use", "what is wrong")
    for found in call("GET", url, key, "/api/adapters")["adapters"]:
        size = f"{found['bytes'] / 1e6:.1f}" if found["bytes"] else ""
        cells = (found["name"], found["version"], found["state"], found["rank"], size, found["in_use"], found["reason"])
        table.add_row(*(str(cell) for cell in cells))
    out.print(table)


@adapters_app.command("load")
def adapters_load(
    name: Annotated[str, typer.Argument(help="NAME or NAME@VERSION")], url: Url = LOCAL_URL, key: Key = None
) -> None:
    """Load an adapter beside the running chats."""
    out.print(call("POST", url, key, "/v1/load_lora_adapter", lora_name=name)["message"])


@adapters_app.command("unload")
def adapters_unload(name: str, url: Url = LOCAL_URL, key: Key = None) -> None:
    """Free an adapter's slot."""
    out.print(call("POST", url, key, "/v1/unload_lora_adapter", lora_name=name)["message"])
