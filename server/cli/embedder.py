"""`tailor embedder`: what the embedder's cosines say."""

from __future__ import annotations

import typer
from rich.table import Table

from server.cli.console import HERE, Set, Workspace, out, settings_of

embedder_app = typer.Typer(no_args_is_help=True, help="The model that compares meaning.")


@embedder_app.command("calibrate")
def embedder_calibrate(workspace: Workspace = HERE, settings: Set = None) -> None:
    """Measure again what its cosines say, on texts whose relation is known, and which languages it knows. A server that
    runs takes it at its next start."""
    found = settings_of(workspace, {}, settings)
    from server.embedding import KNOWN_AUC, TextEncoder, measure
    from server.model_store import ModelStore

    models = found.paths.data / "models"
    path = ModelStore(models, report=out.print).embedder(found.embedding.name)
    encoder = TextEncoder(path, quantize=found.embedding.quantize != "none")
    calibration = measure(encoder, models / "calibrations")
    table = Table("relation", "languages", "even at a cosine of")
    for (relation, crossing), (slope, intercept) in calibration.curves.items():
        even = f"{-intercept / slope:.2f}" if slope else "never"
        table.add_row(relation.value, "two" if crossing else "one", even)
    out.print(table)
    table = Table("script", "a question finds its passage before another", "known")
    for script, auc in sorted(calibration.known.items(), key=lambda each: -each[1]):
        table.add_row(script, f"{auc:.1%}", "yes" if auc >= KNOWN_AUC else "no")
    out.print(table)
