"""`tailor train` and `tailor compare`: rows in, an adapter or a table out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import HERE, Set, Workspace, out, settings_of
from server.config import DEFAULT_CHAT_MODEL, DEFAULT_CHAT_MODEL_HUB_ID
from server.training import Recipe

RECIPE = Recipe()

Data = Annotated[Path, typer.Argument(help="Rows as JSONL; docs/training.md has the format.", exists=True)]
Domain = Annotated[str | None, typer.Option(help="Whose prompt is used; absent, the default domain.")]


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
    from server.model_store import ModelStore
    from server.prompting import PromptLibrary
    from server.training import train as train_adapter

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
    from server.app import build_engine
    from server.chat import TurnPipeline
    from server.datasets import read_examples
    from server.evaluation import Comparison
    from server.evaluation import compare as compare_levers
    from server.prompting import PromptLibrary

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
