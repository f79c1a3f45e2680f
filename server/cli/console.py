"""What the commands share: their options, the settings of a workspace, printing, calls to a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from server.config import Settings, load_settings
from server.errors import ConfigError, EngineDown, TailorError

out = Console()

Workspace = Annotated[Path, typer.Option("--workspace", help="Folder with tailor.toml, prompts/, knowledge/, …")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; repeatable.")
]
Url = Annotated[str, typer.Option(help="Address of the running server.")]
Key = Annotated[str | None, typer.Option("--key", help="API key, where a login is needed.")]
HERE = Path(".")
LOCAL_URL = "http://127.0.0.1:8321"


def settings_of(workspace: Path, flags: dict[str, Any], extra: list[str] | None) -> Settings:
    for item in extra or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise ConfigError(f"--set takes SECTION.KEY=VALUE, not '{item}'")
        flags[key] = value
    return load_settings(workspace.resolve(), flags=flags)


def call(method: str, url: str, key: str | None, path: str, **body: Any) -> Any:
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.request(method, url.rstrip("/") + path, headers=headers, json=body or None, timeout=120)
    except httpx.TransportError as error:
        raise EngineDown(f"no server answers at {url}; start one with 'tailor serve' ({error})") from error
    if response.is_error:
        raise TailorError(response.json()["error"]["message"])
    return response.json()
