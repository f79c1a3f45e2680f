"""What fits on cards of 24, 48 and 80 GB, by the code that plans a card's memory at the start.

python -m bench.memory_plan [--write]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaConfig, Qwen3Config

from bench import table
from bench.context import ROOT
from server.config import EngineSettings, Quantize
from server.engine import ModelShape, Wanted, measure_model, plan_memory
from server.errors import ModelError

DOCUMENT = ROOT / "docs" / "engine.md"
CARDS = (24, 48, 80)  # GB, of which the driver and CUDA take about 0.6 before anything is loaded
_CONTEXT_BYTES = 600_000_000
NUMBERS: tuple[Quantize, ...] = ("none", "int8", "int4")


def _qwen(hidden: int, layers: int, heads: int, intermediate: int, *, tied: bool = False) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=intermediate,
        max_position_embeddings=40_960,
        tie_word_embeddings=tied,
    )


def _llama(hidden: int, layers: int, heads: int, intermediate: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        intermediate_size=intermediate,
        max_position_embeddings=131_072,
    )


MODELS: dict[str, Any] = {
    "Qwen3-4B": lambda: _qwen(2560, 36, 32, 9728, tied=True),
    "Llama-3.1-8B": lambda: _llama(4096, 32, 32, 14_336),
    "Qwen3-8B": lambda: _qwen(4096, 36, 32, 12_288),
    "Qwen3-14B": lambda: _qwen(5120, 40, 40, 17_408),
    "Qwen3-32B": lambda: _qwen(5120, 64, 64, 25_600),
    "Llama-3.1-70B": lambda: _llama(8192, 80, 64, 28_672),
}


def wanted(shape: ModelShape, gigabytes: int, quantize: Quantize) -> Wanted:
    """With the settings of a start on a GPU on which nothing is set."""
    total = gigabytes * 10**9
    settings = EngineSettings().on("cuda")
    return Wanted(shape, settings, torch.bfloat16, quantize, 0, total - _CONTEXT_BYTES, total)


def cell(shape: ModelShape, gigabytes: int, quantize: Quantize) -> str:
    try:
        plan = plan_memory(wanted(shape, gigabytes, quantize))
    except ModelError:
        return "–"
    context = "" if plan.context_length == plan.wanted_context else f", context {plan.context_length:,}"
    return f"{plan.tokens:,} ({plan.chats(2000):,}{context})"


def rows() -> list[str]:
    lines = [
        f"| model | numbers | weights, GB | {' | '.join(f'{card} GB' for card in CARDS)} |",
        f"|---|---|---:|{'---:|' * len(CARDS)}",
    ]
    for name, config in MODELS.items():
        shape = measure_model(config())
        for quantize in NUMBERS:
            weights = plan_weights(shape, quantize) / 1e9
            cells = " | ".join(cell(shape, card, quantize) for card in CARDS)
            lines.append(f"| {name} | {'bfloat16' if quantize == 'none' else quantize} | {weights:.1f} | {cells} |")
    return lines


def plan_weights(shape: ModelShape, quantize: Quantize) -> int:
    return plan_memory(wanted(shape, 1000, quantize)).weights


def text() -> str:
    settings = EngineSettings().on("cuda")
    return "\n".join(
        [
            "`python -m bench.memory_plan`: tokens of the pool (chats of 2,000 tokens at once), where "
            f"{settings.max_loras} adapters of rank {settings.max_lora_rank} and {settings.max_batch} rows have their "
            f"place and {settings.gpu_memory:.0%} of the card may be used; –: refused at the start, with what would "
            "fit:",
            "",
            *rows(),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.memory_plan", description="What fits on which card.")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    found = text()
    print(found)
    if options.write:
        table.write(DOCUMENT, "memory of cards", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
