"""What a card's memory is planned for, against what models and stacks really take."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, T5Config

from server.config import EngineSettings
from server.engine.adapters.lora_layers import linear_layers
from server.engine.cache.pages import PAGE_SIZE, KVPages
from server.engine.device_memory import (
    GIB,
    MIB,
    ModelShape,
    Wanted,
    captured_logits,
    measure_model,
    plan_memory,
    plan_pool,
)
from server.engine.forward.int4 import Int4CpuLinear
from server.engine.forward.linears import CardInt8Linear, choose_linear
from server.engine.forward.paths import DecoderForward, DeviceLayout
from server.errors import ModelError
from tests.engine.conftest import reference

EIGHT_B = ModelShape(
    layers=32,
    hidden=4096,
    vocabulary=128_256,
    context_length=131_072,
    kv_numbers=2 * 32 * 8 * 128,
    groups=(*((4096, 3, 6144), (4096, 1, 4096), (4096, 2, 28_672), (14_336, 1, 4096)) * 32, (4096, 1, 128_256)),
    linear=7_504_924_672,
    linear_outs=43_008 * 32 + 128_256,
    others=525_602_816,
    shared=0,
)


def wanted(gigabytes: float = 80, **changes) -> Wanted:
    total = int(gigabytes * 1e9)
    settings = EngineSettings(**{name: changes.pop(name) for name in tuple(changes) if hasattr(EngineSettings(), name)})
    given = {"shape": EIGHT_B, "dtype": torch.bfloat16, "quantize": "none", "context_length": 0, **changes}
    return Wanted(settings=settings.on("cuda"), free=total - 600 * MIB, total=total, **given)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_weights_stacks_and_pages_take_what_is_planned(tiny, name: str) -> None:
    settings = EngineSettings(max_loras=3, max_lora_rank=20)
    shape = measure_model(AutoConfig.from_pretrained(tiny(name)))
    plan = plan_memory(Wanted(shape, settings, torch.float32, "none", 0, free=8 * GIB, total=8 * GIB))
    model = reference(tiny(name))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert plan.weights == weights
    assert shape.parameters * 4 == weights
    layers = linear_layers(model)
    linear = choose_linear("none", torch.device("cpu"), torch.float32)
    path = DecoderForward(model, linear, layers, settings.max_loras, DeviceLayout(settings.max_lora_rank))
    assert plan.adapters == path.bank.bytes
    assert isinstance(path.kv, KVPages)
    path.kv.allocate(3, 2)
    assert plan.page_bytes * 3 == path.kv._both.nbytes
    assert plan.context_length == shape.context_length == 256


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_packed_weights_take_what_is_planned(kind: str) -> None:
    """A layer's, as they are on a card."""
    weight = torch.randn(96, 256).bfloat16()
    if kind == "int8":
        int8 = CardInt8Linear(weight, None, torch.device("cpu"))
        taken = int8._values.nbytes + int8._scales.nbytes
    else:
        int4, head = Int4CpuLinear(weight.float(), None), CardInt8Linear(weight[:8], None, torch.device("cpu"))
        taken = int4._packed.nbytes + int4._scales_zeros.nbytes + head._values.nbytes + head._scales.nbytes
    head_numbers = 8 * 256 if kind == "int4" else 0
    shape = replace(
        EIGHT_B,
        linear=weight.numel() + head_numbers,
        linear_outs=96,
        others=0,
        groups=(*EIGHT_B.groups[:-1], (256, 1, 8)),
    )
    assert plan_memory(wanted(shape=shape, quantize=kind)).weights == taken


def test_a_plan_is_four_lines() -> None:
    lines = plan_memory(wanted()).lines()
    assert len(lines) == 4
    assert lines[0] == "weights: 15.0 GiB in bfloat16, of 68.0 GiB that may be used"
    assert re.fullmatch(r"adapters: 2\.\d GiB for 8 of rank 64", lines[1])
    assert "captured ones of up to 64 rows" in lines[2]
    assert re.search(r"chats at once, 188 × 2,000 or 2 × 131,072 tokens \(context 131,072\)$", lines[3])
    cut = plan_memory(wanted(24, max_loras=4)).lines()[3]
    assert re.search(r"\(context \d+,\d+, cut from 131,072\)$", cut)


def test_all_parts_are_within_what_may_be_used() -> None:
    plan = plan_memory(wanted())
    assert plan.reserved + plan.pages * plan.page_bytes <= plan.available <= 0.92 * 80e9
    assert plan.reserved + (plan.pages + 1) * plan.page_bytes > plan.available
    assert plan.tokens == (plan.pages - 1) * PAGE_SIZE
    shared = plan_memory(replace(wanted(), free=int(60e9)))
    assert shared.available == int(80e9 * 0.92) - int(20e9), "others' memory is part of the share"


def test_what_is_then_free_is_the_pool() -> None:
    asked = wanted()
    plan = plan_memory(asked)
    left = asked.free - plan.weights - plan.adapters
    assert plan_pool(asked, plan, left).pages == pytest.approx(plan.pages, abs=1)
    fewer = plan_pool(asked, plan, left - 1000 * plan.page_bytes)
    assert fewer.pages == pytest.approx(plan.pages - 1000, abs=1)
    assert fewer.context_length == fewer.tokens < plan.context_length, "nobody has set it"


def test_a_length_that_was_set_is_never_cut_in_silence() -> None:
    asked = wanted(context_length=100_000)
    plan = plan_memory(asked)
    left = asked.free - plan.weights - plan.adapters
    assert plan_pool(asked, plan, left).context_length == 100_000
    with pytest.raises(ModelError, match="a chat may have 100,000"):
        plan_pool(asked, plan, left - 1200 * plan.page_bytes)
    with pytest.raises(ModelError, match="less than planned"):
        plan_pool(asked, plan, 0)


@given(
    gigabytes=st.floats(10, 200),
    rank=st.integers(1, 128),
    loras=st.integers(1, 40),
    rows=st.integers(1, 128),
    tokens=st.integers(16, 4096),
)
def test_whoever_asks_for_more_gets_a_smaller_pool(
    gigabytes: float, rank: int, loras: int, rows: int, tokens: int
) -> None:
    def pool(**more) -> int:
        asked = {"max_lora_rank": rank, "max_loras": loras, "max_batch": rows, "prefill_tokens": tokens, **more}
        try:
            return plan_memory(wanted(**{"gigabytes": gigabytes, **asked})).pages
        except ModelError:
            return -1

    base = pool()
    for more in (
        {"max_lora_rank": rank + 8},
        {"max_loras": loras + 1},
        {"max_batch": rows + 8},
        {"prefill_tokens": tokens + 64},
        {"dtype": torch.float32},
        {"gigabytes": gigabytes * 0.9},
        {"gpu_memory": 0.8},
    ):
        assert pool(**more) <= base, more
    assert pool(quantize="int4") >= pool(quantize="int8") >= base


def remedies(error: ModelError) -> list[str]:
    return str(error).partition("It would fit with ")[2].split(", or with ")


def applied(asked: Wanted, remedy: str) -> Wanted:
    for change in remedy.split(" and "):
        name, value = change.split()
        if name == "--quantize":
            asked = replace(asked, quantize=value)
        elif name == "model.dtype":
            asked = replace(asked, dtype=torch.bfloat16)
        elif name == "model.context_length":
            asked = replace(asked, context_length=int(value))
        else:
            changed = asked.settings.model_copy(update={name.removeprefix("engine."): int(value)})
            asked = replace(asked, settings=changed)
    return asked


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (wanted(22), {"--quantize int8", "--quantize int4", "engine.max_lora_rank 16", "engine.max_loras 2"}),
        (wanted(40, dtype=torch.float32), {"model.dtype bfloat16"}),
        (wanted(20, dtype=torch.float32), {"model.dtype bfloat16 and --quantize int8"}),
        (
            wanted(10.8, dtype=torch.float32),
            {"model.dtype bfloat16 and --quantize int4 and engine.max_lora_rank 16 and engine.max_loras 2"},
        ),
        (wanted(20, dtype=torch.float16), {"--quantize int8"}),
        (wanted(23.5), {"model.context_length 2304"}),
        (wanted(24, context_length=70_000), {"--quantize int4"}),
        (wanted(11.5, quantize="int8"), {"--quantize int4 and engine.max_loras 2"}),
        (wanted(10.8, quantize="int8"), {"--quantize int4 and engine.max_lora_rank 16 and engine.max_loras 2"}),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(asked: Wanted, offered: set[str]) -> None:
    with pytest.raises(ModelError, match="does not fit the card") as refused:
        plan_memory(asked)
    found = remedies(refused.value)
    assert offered <= set(found)
    for remedy in found:
        assert plan_memory(applied(asked, remedy)), remedy
    assert "engine.gpu_memory 0.92" in str(refused.value)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "int8"), (torch.float32, "int4"), (torch.float16, "int4")])
def test_what_a_card_leaves_out_is_not_planned_for_and_not_offered(dtype: torch.dtype, kind: str) -> None:
    """The same rule as where weights are packed."""
    reason = choose_linear(kind, torch.device("cuda"), dtype).reason
    assert "was left out" in reason if dtype == torch.float32 else "takes bfloat16 alone" in reason
    other = "none" if dtype == torch.float32 else "int8"
    asked, then = wanted(80, dtype=dtype, quantize=kind), wanted(80, dtype=dtype, quantize=other)
    assert plan_memory(asked) == plan_memory(then)
    with pytest.raises(ModelError) as refused:
        plan_memory(wanted(14, dtype=dtype))
    assert f"--quantize {kind}" not in [remedy for remedy in remedies(refused.value) if "model.dtype" not in remedy]


def test_few_adapters_are_never_counted_as_more() -> None:
    with pytest.raises(ModelError, match="Even with --quantize int4 it does not: a model of about"):
        plan_memory(wanted(5, max_loras=1, max_lora_rank=8))


def test_a_model_that_only_transformers_runs_stays_as_it_is(tiny) -> None:
    shape = measure_model(AutoConfig.from_pretrained(tiny("gpt2")))
    plan = plan_memory(Wanted(shape, EngineSettings(), torch.bfloat16, "int4", 0, 8 * GIB, 8 * GIB))
    assert plan.weights == shape.parameters * 2
    assert plan.numbers == "bfloat16"


def test_what_is_no_causal_language_model_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="of type t5 cannot be planned for"):
        measure_model(T5Config())


def test_each_captured_step_keeps_its_logits(tiny) -> None:
    """They are the results that its replay hands out, none in the memory of another."""
    model = reference(tiny("qwen3"))
    kept: list[torch.Tensor] = []

    def capture(compute):
        kept.append(compute())
        return lambda result=kept[-1]: result

    linear = choose_linear("none", torch.device("cpu"), torch.float32)
    layout = DeviceLayout(8, capture)
    path = DecoderForward(model, linear, linear_layers(model), 2, layout)
    path.kv.allocate(4, 2)
    with torch.inference_mode():
        path.record(24)
    shape = measure_model(AutoConfig.from_pretrained(tiny("qwen3")))
    assert len({result.data_ptr() for result in kept}) == len(kept) == 12
    assert captured_logits(shape, 24, 4) == sum(result.nbytes for result in kept)
    small, large = (plan_memory(wanted(80, max_batch=rows)).graphs for rows in (8, 16))
    assert large - small >= 2 * 16 * EIGHT_B.vocabulary * 2


def test_captured_steps_of_many_rows_spread_packed_weights_in_memory_of_their_own() -> None:
    packed, plain = (plan_memory(wanted(80, max_batch=256, quantize=kind)).graphs for kind in ("int8", "none"))
    assert packed - plain == 6 * 4096 * 128_256
    packed, plain = (plan_memory(wanted(80, max_batch=64, quantize=kind)).graphs for kind in ("int8", "none"))
    assert packed == plain, "up to 64 rows the weights are read as they are"


def test_a_length_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(ModelError) as refused:
        plan_memory(wanted(24, context_length=120_000))
    (shorter,) = [remedy for remedy in remedies(refused.value) if remedy.startswith("model.context_length")]
    tokens = int(shorter.split()[1])
    assert plan_memory(wanted(24, context_length=tokens)).context_length == tokens
    with pytest.raises(ModelError):
        plan_memory(wanted(24, context_length=tokens + PAGE_SIZE))


def test_where_nothing_helps_it_says_how_large_a_model_would() -> None:
    with pytest.raises(
        ModelError, match=r"Even with --quantize int4 .* it does not: a model of about \d\.\d billion"
    ) as no:
        plan_memory(wanted(5))
    size = float(re.search(r"about (\d+\.\d)", str(no.value))[1])
    assert 0 <= size < 8
    with pytest.raises(ModelError, match=r"this one has 8\.0"):
        plan_memory(wanted(5))


def test_a_card_has_defaults_of_its_own_where_nothing_is_set() -> None:
    assert EngineSettings().on("cpu").max_batch == 16
    card = EngineSettings(max_batch=4).on("cuda")
    assert (card.max_batch, card.prefill_tokens) == (4, 1024)
    assert EngineSettings().on("cuda").max_batch == 64


@pytest.mark.parametrize("name", ["gpt2", "bloom", "mamba"])
def test_models_that_transformers_runs_can_be_planned_for_too(tiny, name: str) -> None:
    shape = measure_model(AutoConfig.from_pretrained(tiny(name)))
    model = reference(tiny(name))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert plan_memory(Wanted(shape, EngineSettings(), torch.float32, "none", 0, 8 * GIB, 8 * GIB)).pages > 1
