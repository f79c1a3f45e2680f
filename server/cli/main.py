"""`tailor`: serve, chat, train, compare, index, adapters, users.

Reads the settings of the workspace (the current folder unless `--workspace` says otherwise), calls the parts,
and prints. An error of ours is one line on standard error and exit status 1.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from rich.table import Table

from server import logging as tailor_logging
from server.api.accounts import Accounts
from server.app import build_engine, create_app
from server.chat import TurnPipeline
from server.cli.console import HERE, LOCAL_URL, Key, Set, Url, Workspace, call, out, settings_of
from server.cli.index import index_app
from server.config import DEFAULT_CHAT_MODEL, DEFAULT_CHAT_MODEL_HUB_ID
from server.database import Database
from server.dataset import read_examples
from server.errors import ConfigError, TailorError
from server.evaluation import Comparison
from server.evaluation import compare as compare_levers
from server.model_store import ModelStore
from server.prompting import PromptLibrary
from server.retrieval import index_lock
from server.terminal import chat as terminal_chat
from server.training import Recipe
from server.training import train as train_adapter

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A chat server that fits a model to your work.")
adapters_app = typer.Typer(no_args_is_help=True, help="Adapters of a running server.")
users_app = typer.Typer(no_args_is_help=True, help="Accounts, for servers that others can reach.")
app.add_typer(index_app, name="index")
app.add_typer(adapters_app, name="adapters")
app.add_typer(users_app, name="users")

WEBSOCKET_BYTES = 16 * 1024 * 1024  # frames above our own limit are answered with an error up to this size
STOP_SECONDS = 10

RECIPE = Recipe()


@app.command()
def serve(
    workspace: Workspace = HERE,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of any causal LM of transformers.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantize: Annotated[str | None, typer.Option(help="none, or int8: weights of a byte each.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Hub id or folder of a sentence-transformers model.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    settings: Set = None,
) -> None:
    """Serve the chat, its API and the web client."""
    tailor_logging.setup()
    flags = {
        "model.name": model,
        "model.device": device,
        "model.dtype": dtype,
        "model.quantize": quantize,
        "embedding.name": embedder,
        "server.host": host,
        "server.port": port,
    }
    chosen = settings_of(workspace, flags, settings)
    with _listen(chosen.server.host, chosen.server.port) as listener:
        with index_lock(chosen.paths.data / "index"):
            pass  # said now, in a line: the server takes it when it starts
        built = create_app(chosen, report=out.print)
        config = uvicorn.Config(
            built,
            log_level="warning",
            ws="websockets-sansio",
            ws_max_size=WEBSOCKET_BYTES,
            ws_per_message_deflate=False,  # a token's frame is too small to gain by it
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        with suppress(KeyboardInterrupt):  # uvicorn has stopped in order and hands the signal on
            _Server(config, built.state.services, listener).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that says where the chat is, once it can be used."""

    def __init__(self, config: uvicorn.Config, services: Any, listener: socket.socket) -> None:
        super().__init__(config)
        self._services = services
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        out.print("Loading the model …")
        await super().startup(sockets)
        if self.should_exit:
            return
        card = self._services.engine.model
        host, port = self._listener.getsockname()[:2]
        out.print(f"Model   {card.id}, {card.parameters / 1e6:,.0f}M parameters, {card.dtype} on {card.device}")
        out.print(f"        {card.reason}; {card.path}", markup=False)
        out.print(f"Chat    http://{'localhost' if host in ('127.0.0.1', '::1') else host}:{port}", highlight=False)


def _listen(host: str, port: int) -> socket.socket:
    """Bound before the model loads, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port") from (
            error
        )
    return listener


@app.command()
def chat(
    question: Annotated[str | None, typer.Argument(help="Ask this one thing and leave.")] = None,
    url: Url = LOCAL_URL,
    domain: Annotated[str | None, typer.Option(help="Who answers; absent, the router decides.")] = None,
    key: Key = None,
) -> None:
    """Chat in the terminal with a running server."""
    address = url.rstrip("/").replace("http", "ws", 1) + "/ws"
    answered = asyncio.run(terminal_chat(address, question=question, domain=domain, api_key=key))
    raise typer.Exit(0 if answered else 1)


# ── training and comparing ───────────────────────────────────────────────────────────────────────

Data = Annotated[Path, typer.Argument(help="Rows as JSONL; docs/training.md has the format.", exists=True)]
Domain = Annotated[str | None, typer.Option(help="Whose prompt is used; absent, the default domain.")]


@app.command()
def train(
    data: Data,
    name: Annotated[str, typer.Option(help="Of the adapter; an existing one gets a new version.")],
    domain: Domain = None,
    description: Annotated[str, typer.Option(help="One line for the adapter's card.")] = "",
    rank: Annotated[int, typer.Option(help="Rank of the LoRA.")] = RECIPE.rank,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = RECIPE.epochs,
    learning_rate: Annotated[float, typer.Option()] = RECIPE.learning_rate,
    batch: Annotated[int, typer.Option(help="Rows in one step.")] = RECIPE.batch,
    held_out: Annotated[float, typer.Option(help="Share of the rows, by groups, that is never trained on.")] = (
        RECIPE.held_out
    ),
    seed: Annotated[int, typer.Option()] = RECIPE.seed,
    start: Annotated[
        Path | None, typer.Option("--continue", help="Folder of an adapter's version to go on from.", exists=True)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Base model; absent, the served one.")] = None,
    workspace: Workspace = HERE,
    settings: Set = None,
) -> None:
    """Train a LoRA adapter; it appears under adapters/ and a running server loads it at once."""
    chosen = settings_of(workspace, {"model.name": model}, settings)
    library = PromptLibrary(chosen.paths.prompts, chosen.prompts.default_domain)
    recipe = replace(
        RECIPE,
        rank=rank,
        alpha=2 * rank,
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        held_out=held_out,
        seed=seed,
    )
    result = train_adapter(
        data,
        name=name,
        model_path=ModelStore(chosen.paths.data / "models", report=out.print).chat_model(chosen.model.name),
        adapters=chosen.paths.adapters,
        domain=library.get(domain or chosen.prompts.default_domain),
        recipe=recipe,
        report=out.print,
        description=description,
        start=start,
        model_id=DEFAULT_CHAT_MODEL_HUB_ID if chosen.model.name == DEFAULT_CHAT_MODEL else None,
    )
    out.print(f"{result.summary}\nChat with it: the model '{name}', or 'adapter: {name}' in a domain's file.")


@app.command()
def compare(
    data: Data,
    adapter: Annotated[str | None, typer.Option(help="NAME or NAME@VERSION; absent, the domain's own.")] = None,
    domain: Domain = None,
    shots: Annotated[int, typer.Option(help="Examples in the few-shot prompt.")] = 4,
    shots_from: Annotated[
        Path | None,
        typer.Option(help="Rows to take the examples from; then every row of DATA is held out.", exists=True),
    ] = None,
    limit: Annotated[int, typer.Option(help="Compare on so many held-out rows; 0 takes all.")] = 0,
    seed: Annotated[int, typer.Option()] = RECIPE.seed,
    workspace: Workspace = HERE,
    settings: Set = None,
) -> None:
    """Measure zero-shot, few-shot and adapter on the same held-out rows, and print one table."""
    chosen = settings_of(workspace, {}, settings)
    named = PromptLibrary(chosen.paths.prompts, chosen.prompts.default_domain).get(
        domain or chosen.prompts.default_domain
    )
    rows = read_examples(data)
    examples = read_examples(shots_from) if shots_from else None
    engine = build_engine(chosen, out.print)

    async def measured() -> Comparison:
        await engine.start()
        try:
            return await compare_levers(
                rows,
                pipeline=TurnPipeline(engine, chosen.prompts),
                domain=named,
                adapter=adapter or named.adapter,
                shots=shots,
                shots_from=examples,
                held_out=RECIPE.held_out,
                seed=seed,
                limit=limit,
                concurrency=chosen.engine.max_batch,
                report=out.print,
            )
        finally:
            await engine.close()

    out.print(asyncio.run(measured()).table(), markup=False, highlight=False, soft_wrap=True)


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────


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


# ── users ────────────────────────────────────────────────────────────────────────────────────────


def _accounts(workspace: Path) -> Accounts:
    return Accounts(Database(settings_of(workspace, {}, None).paths.data / "tailor.db"))


@users_app.command("add")
def users_add(name: str, workspace: Workspace = HERE, admin: bool = False) -> None:
    """Make an account; asks for its password. A running server needs a restart to begin asking for logins."""
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    _accounts(workspace).add(name, password, admin=admin)
    out.print(f"Account '{name}' is made.")


@users_app.command("password")
def users_password(name: str, workspace: Workspace = HERE) -> None:
    """Change a password; every session and key of the account ends."""
    _accounts(workspace).set_password(name, typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    out.print(f"The password of '{name}' is changed.")


@users_app.command("remove")
def users_remove(name: str, workspace: Workspace = HERE) -> None:
    """Remove an account with its sessions and keys."""
    _accounts(workspace).remove(name)
    out.print(f"Account '{name}' is removed.")


@users_app.command("list")
def users_list(workspace: Workspace = HERE) -> None:
    """Who has an account."""
    for account in _accounts(workspace).list():
        out.print(f"{account.name}{' (admin)' if account.admin else ''}")


@users_app.command("key")
def users_key(name: str, workspace: Workspace = HERE) -> None:
    """Make an API key; it is shown once."""
    out.print(_accounts(workspace).new_api_key(name), highlight=False)


def main() -> None:
    """Runs the command line; our own errors end as one clear line."""
    try:
        app()
    except TailorError as error:
        typer.echo(f"tailor: {error}", err=True)
        sys.exit(1)
