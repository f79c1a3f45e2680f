"""The README.md that lies in every trained adapter's folder: what it is, from what, how good, under which terms."""

from __future__ import annotations

from typing import Any

from server.datasets import DatasetReport
from server.training.text import duration


def card(name: str, base: str, facts: dict[str, Any], report: DatasetReport, seconds: float) -> str:
    """Markdown. `facts` is what tailor.json holds."""
    recipe, rows, metrics = facts["recipe"], facts["rows"], facts["metrics"]
    modules = ", ".join(recipe["target_modules"]) or "all linear layers but the head"
    lines = [
        f"# {name}",
        "",
        facts["description"],
        "",
        "| | |",
        "|---|---|",
        f"| base | {base} (fingerprint `{facts['base_fingerprint']}`) |",
        f"| prompts | those of the domain `{facts['domain']}` |",
        f"| data | {report.text()} |",
        f"| trained on | {rows['trained']} rows, {rows['tokens']:,} tokens; {rows['held_out']} rows held out, "
        f"{rows['left_out']} too long |",
        f"| recipe | LoRA rank {recipe['rank']}, alpha {recipe['alpha']}, dropout {recipe['dropout']} on {modules}; "
        f"AdamW {recipe['learning_rate']:g}, {recipe['epochs']:g} epochs, {recipe['batch']} × {recipe['accumulation']} "
        f"rows a step, seed {recipe['seed']} |",
        f"| made | {facts['created']}, in {duration(seconds)} |",
        f"| held-out loss | {_loss(metrics)} |",
        "",
        "Loss says how likely the right answers are, not how many answers are right: compare the adapter with the",
        "best prompts on the held-out rows (`tailor compare`) before you rely on it.",
        "",
        "The licence of the base model holds for the adapter too, beside the terms of its data.",
    ]
    return "\n".join(lines) + "\n"


def _loss(metrics: dict[str, float | None]) -> str:
    before, after = metrics["held_out_loss_base"], metrics["held_out_loss"]
    if before is None or after is None:
        return "nothing was held out"
    return f"{after:.3f} nats per answer token, against {before:.3f} of the base"
