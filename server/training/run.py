"""From a file of examples to a folder under adapters/: the whole training run, in numbered steps.

Nothing appears under its final name before it is complete: it is built in a hidden staging folder beside it
and renamed last, so an interrupted run leaves nothing half-done. Uses no network when the model is a folder. Knows
nothing of serving or of how rows were collected.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from server.datasets import Dataset, Example, read_examples
from server.engine import ModelTokenizer, model_fingerprint
from server.errors import AdapterError, DatasetError, InvalidInput, ModelError, StorageError
from server.prompting import Domain
from server.training.card import card
from server.training.loop import fit, mean_loss, reloaded
from server.training.recipe import Recipe
from server.training.rows import Row, Rows, collate, tokenised
from server.training.text import duration

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
STAGING_PREFIX = ".new-"  # prefix of folders that are not finished
MIN_EFFECT = 1e-3  # largest change of a logit under which an adapter counts as without effect


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What was made. Losses are mean nats per answer token; held-out ones are nan when nothing was held out."""

    folder: Path
    name: str
    version: str
    rows: int
    held_out_rows: int
    left_out: int
    base_loss: float
    loss: float
    seconds: float
    summary: str


def train(
    data: Path,
    *,
    name: str,
    model_path: str,
    adapters: Path,
    domain: Domain,
    recipe: Recipe | None = None,
    report: Callable[[str], None] = lambda line: None,
    description: str = "",
    model_id: str | None = None,
    start: Path | None = None,
) -> TrainResult:
    """Trains on `data` with the prompts of `domain` and places `adapters/<name>/<next version>/`.

    `start` is the folder of an adapter to go on from, instead of a fresh one; its rank is used.

    `report` gets lines for people. `model_id` is what the adapter calls its base; by default the hub id,
    or the folder's own name. Blocks for as long as it takes. Raises DatasetError (rows, too many too
    long), InvalidInput (name), ModelError (base), AdapterError (the result has no effect or is not finite),
    StorageError (a full disk).
    """
    recipe = recipe or Recipe()
    if not NAME.fullmatch(name):
        raise InvalidInput(f"'{name}' is no adapter name: use lower-case letters, digits, '.', '_' and '-', at most 64")
    started = time.monotonic()
    # 1) the rows
    dataset = read_examples(data)
    report(dataset.report.text())
    train_rows, held_out_rows = _tokenised_split(data, dataset, domain, ModelTokenizer(model_path), recipe, report)
    # 2) the base
    fingerprint = model_fingerprint(model_path)
    if start is not None:
        _check_start(start, fingerprint)
    model = _load(model_path)
    base_loss = mean_loss(model, held_out_rows.rows, recipe.batch)
    # 3) the training
    adapters.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=adapters))
    try:
        tokens = sum(len(row.ids) for row in train_rows.rows)
        report(f"training on {len(train_rows.rows)} rows, {tokens:,} tokens, {recipe.epochs:g} epochs")
        adapted = fit(model, train_rows.rows, recipe=recipe, scratch=folder / "scratch", report=report, start=start)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        base_name = model_id or (Path(model_path).name if os.path.isdir(model_path) else model_path)
        _save(adapted, folder, base_name)
        # 4) what is on the disk is tested, not what is in memory
        loaded = reloaded(adapted, folder)
        _check_effect(loaded, (held_out_rows.rows or train_rows.rows)[0])
        loss = mean_loss(loaded, held_out_rows.rows, recipe.batch)
        # 5) the metadata, and the final name
        seconds = time.monotonic() - started
        facts = {
            "base_fingerprint": fingerprint,
            "description": description or f"Trained on {data.name} for {domain.name}.",
            "domain": domain.name,
            "continues": f"{start.parent.name}@{start.name}" if start else None,
            "recipe": asdict(recipe),
            "rows": {"trained": len(train_rows.rows), "held_out": len(held_out_rows.rows), "tokens": tokens,
                     "left_out": train_rows.left_out + held_out_rows.left_out},
            "metrics": {"held_out_loss_base": _finite(base_loss), "held_out_loss": _finite(loss)},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        (folder / "tailor.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card(name, base_name, facts, dataset.report, seconds), encoding="utf-8")
        folder.chmod(0o755)
        published = _publish(folder, adapters / name)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the adapter cannot be written to {adapters}, and nothing of it is left: {error}"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = f"{name}@{published.name}: {len(train_rows.rows)} rows in {duration(seconds)}" + (
        f", held-out loss {base_loss:.3f} → {loss:.3f}" if held_out_rows.rows else ""
    )
    report(summary)
    return TrainResult(
        published, name, published.name, len(train_rows.rows), len(held_out_rows.rows),
        train_rows.left_out + held_out_rows.left_out, base_loss, loss, seconds, summary,
    )  # fmt: skip


def _check_start(start: Path, fingerprint: str) -> None:
    """Raises AdapterError when there is nothing to go on from."""
    if not (start / "adapter_model.safetensors").is_file():
        raise AdapterError(f"there is no adapter in '{start}' to go on from: name a version folder")
    facts = start / "tailor.json"
    made_for = json.loads(facts.read_text(encoding="utf-8")).get("base_fingerprint") if facts.is_file() else None
    if made_for not in (None, fingerprint):
        raise AdapterError(f"the adapter in '{start}' is made for another base model: train a fresh one")


def _tokenised_split(
    data: Path,
    dataset: Dataset,
    domain: Domain,
    tokenizer: ModelTokenizer,
    recipe: Recipe,
    report: Callable[[str], None],
) -> tuple[Rows, Rows]:
    """(training rows, held-out rows) in tokens. Raises DatasetError when too many are too long."""
    sides = dataset.split(recipe.held_out, recipe.seed)

    def tokens(examples: tuple[Example, ...]) -> Rows:
        return tokenised(examples, domain=domain, tokenizer=tokenizer,
                         max_tokens=recipe.max_tokens, context_length=recipe.max_tokens * 2)  # fmt: skip

    train_rows, held_out_rows = tokens(sides[0]), tokens(sides[1])
    left_out_lines = sorted((*train_rows.left_out_lines, *held_out_rows.left_out_lines))
    if left_out_lines:
        shown = ", ".join(map(str, left_out_lines[:5])) + (", …" if len(left_out_lines) > 5 else "")
        count = len(dataset.examples)
        report(f"{len(left_out_lines)} of {count} rows left out: longer than {recipe.max_tokens} tokens (line {shown})")
        if len(left_out_lines) > recipe.max_left_out * count or not train_rows.rows:
            raise DatasetError(
                data, left_out_lines[0],
                f"longer than {recipe.max_tokens} tokens, as are {len(left_out_lines)} of {count} rows; "
                "shorten the rows or raise the recipe's max_tokens",
            )  # fmt: skip
    return train_rows, held_out_rows


def _load(model_path: str) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).to(device)
    except (OSError, ValueError) as error:
        raise ModelError(f"the model {model_path} cannot be loaded for training: {error}") from error


def _save(adapted: Any, folder: Path, base_name: str) -> None:
    """PEFT's two files. Weights are kept in float16: half the size, and finer than bfloat16 at their scale."""
    adapted.peft_config["default"].base_model_name_or_path = base_name
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own, empty card
    weights = folder / "adapter_model.safetensors"
    small = {key: tensor.to(torch.float16).contiguous() for key, tensor in load_file(weights).items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in small.values()):
        raise AdapterError("the trained weights are not finite: lower the recipe's learning_rate")
    save_file(small, weights, metadata={"format": "pt"})


def _check_effect(model: Any, row: Row) -> None:
    """Raises AdapterError unless the adapter changes the base's logits, to finite ones."""
    model.eval()
    inputs = {name: tensor.to(model.device) for name, tensor in collate([row]).items() if name != "labels"}
    with torch.inference_mode():
        with_adapter = model(**inputs).logits[0, -1].float()
        with model.disable_adapter():
            without = model(**inputs).logits[0, -1].float()
    if not bool(torch.isfinite(with_adapter).all()):
        raise AdapterError("the trained adapter gives logits that are not finite: lower the recipe's learning_rate")
    if float((with_adapter - without).abs().max()) < MIN_EFFECT:
        raise AdapterError("the trained adapter changes nothing: train longer or raise the recipe's learning_rate")


def _publish(folder: Path, versions: Path) -> Path:
    """Renames the finished folder to the next free version, a whole number, under `versions`."""
    versions.mkdir(exist_ok=True)
    while True:
        taken = [int(child.name) for child in versions.iterdir() if child.name.isdecimal()]
        target = versions / str(max(taken, default=0) + 1)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue  # another run took that number meanwhile
        return target


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
