from __future__ import annotations

from bench import memory_plan, table


def test_the_documents_table_is_what_the_code_gives() -> None:
    begin, end = table.marks("memory of cards")
    written = memory_plan.DOCUMENT.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    assert written.strip() == memory_plan.text().strip()


def test_public_models_have_the_sizes_they_are_named_for() -> None:
    billions = {"Qwen3-4B": 4.0, "Llama-3.1-8B": 8.0, "Qwen3-8B": 8.2, "Qwen3-14B": 14.8, "Qwen3-32B": 32.8}
    for name, size in billions.items():
        parameters = memory_plan.measure_model(memory_plan.MODELS[name]()).parameters
        assert abs(parameters / 1e9 - size) < 0.05, name
