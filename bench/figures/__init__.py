"""The table of figures, in the order they are run and shown."""

from bench.figure import Figure
from bench.figures import alone, cuda, endurance, latency, served, throughput, turns
from bench.gpu import pressure, suite, tokens

FIGURES: tuple[Figure, ...] = (
    *throughput.FIGURES,
    *served.FIGURES,
    *alone.FIGURES,
    *turns.FIGURES,
    *latency.FIGURES,
    *endurance.FIGURES,
    suite.FIGURE,
    tokens.FIGURE,
    pressure.FIGURE,
    *cuda.FIGURES,
)
