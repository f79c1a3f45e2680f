"""Each way of running a model, compared with transformers and PEFT: which is taken, why, and what its logits are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, Qwen2Config

from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import AdapterTarget, read_adapter
from server.engine.forward import choice
from server.engine.forward.attention import AttentionStep
from server.engine.forward.choice import ChosenPath, choose_path
from server.engine.forward.chunk import RowChunk
from server.engine.forward.decoder import Decoder
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, PackedForward, SingleForward
from tests.engine.conftest import _SHAPE, CONFIGS, make_adapter, peft_quiet, reference, save_tiny
from tests.engine.oracle import TOLERANCE, Oracle, prompt

MAX_LORAS = 3


def build(folder, kind: str = "none") -> ChosenPath:
    linear = choose_linear(kind, torch.device("cpu"), torch.float32)
    return choose_path(lambda: reference(folder), linear, MAX_LORAS)


@torch.inference_mode()
def run(path, chunks):
    if path.kv is not None:
        slots = max(chunk.kv_slot for chunk in chunks) + 1
        longest = max(chunk.computed + len(chunk.tokens) for chunk in chunks)
        path.kv.fit(slots, longest, dict.fromkeys(range(path.kv.slots), path.kv.capacity))
    return path.run(chunks)


def load(chosen: ChosenPath, base, folders) -> None:
    """Adapters at stack indices 0, 1, …"""
    target = AdapterTarget("", linear_layers(reference(base)), 64)
    for stack_index, folder in enumerate(folders):
        facts, pairs = read_adapter(folder, target)
        assert facts.modules == len(pairs)
        chosen.path.bank.write(stack_index, chosen.path.bank.pack(pairs))


def close(logits, expected) -> None:
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture
def only(monkeypatch):
    """only("packed") leaves transformers' layers with our attention, only("single") its own cache alone."""

    def leave(kind: str) -> None:
        monkeypatch.setattr(choice, "unsupported_reason", lambda model: "a decoder is not wanted here")
        if kind == "single":
            monkeypatch.setattr(choice, "_replace_attention", lambda model: "packing is not wanted here")

    return leave


def in_chunks(chosen: ChosenPath, oracles: list[Oracle], stack_indices: list[int | None], seed: int = 0) -> None:
    """Rows in uneven chunks side by side, up to a token at a time, or whole where the path takes no chunks, and then a
    token at a time; each must get its oracle's logits."""
    lengths = (40, 23, 31, 12)[: len(stack_indices)]
    texts = [prompt(seed + row, length) for row, length in enumerate(lengths)]
    cuts = [(0, 16, 30, 39, 40), (0, 1, 2, 22, 23), (0, 28, 29, 30, 31), (0, 9, 10, 11, 12)]
    if not chosen.path.chunked:
        cuts = [(0, *range(len(text) - 3, len(text) + 1)) for text in texts]
    expected = [oracle.logits(text) for oracle, text in zip(oracles, texts, strict=True)]
    for step in range(4):
        chunks = [
            RowChunk(text[cut[step] : cut[step + 1]], len(texts) - row, cut[step], stack_index, row != 1)
            for row, (text, cut, stack_index) in enumerate(zip(texts, cuts, stack_indices, strict=False))
        ]
        logits = run(chosen.path, chunks)
        needed = [row for row in range(len(texts)) if row != 1]
        assert logits.shape[0] == len(needed), "only rows that need logits give them"
        for got, row in zip(logits, needed, strict=True):
            close(got, expected[row][cuts[row][step + 1] - 1])


# ── which way is taken ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_common_architectures_have_a_decoder(tiny, name: str) -> None:
    chosen = build(tiny(name))
    assert isinstance(chosen.path, DecoderForward)
    assert chosen.reason.startswith("our own decoder, exact float32")
    assert chosen.path.chunked


def test_one_whose_attention_can_be_replaced_is_packed(tiny) -> None:
    chosen = build(tiny("gpt2"))
    assert isinstance(chosen.path, PackedForward)
    assert chosen.reason == ("transformers' layers, all rows in one pass (gpt2 has no decoder of ours; slower)")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bloom", "with its own cache (bloom has no decoder of ours; "),
        ("mamba", "(mamba has no decoder of ours; "),  # its cache can be handed over since transformers 5.24
        ("openai-gpt", "without a cache, each token anew (openai-gpt has no decoder of ours; "),
    ],
)
def test_others_run_one_row_a_pass_and_say_so(tiny, name: str, words: str) -> None:
    chosen = build(tiny(name))
    assert isinstance(chosen.path, SingleForward)
    assert "one row a pass" in chosen.reason
    assert words in chosen.reason
    assert chosen.path.kv is None


@pytest.mark.parametrize(("kind", "path"), [("packed", PackedForward), ("single", SingleForward)])
def test_a_decoder_can_be_left_out(tiny, only, kind: str, path: type) -> None:
    only(kind)
    chosen = build(tiny("llama"))
    assert isinstance(chosen.path, path)
    assert "a decoder is not wanted here" in chosen.reason


def test_int8_is_said_and_stays_near(tiny) -> None:
    chosen = build(tiny("llama"), "int8")
    assert isinstance(chosen.path, DecoderForward)
    assert "int8" in chosen.reason
    text = prompt(1, 20)
    found, expected = run(chosen.path, [RowChunk(text, 0, 0)])[0], Oracle(tiny("llama")).logits(text)[-1]
    assert 1e-4 < float((found - expected).abs().max() / expected.abs().max()) < 0.3


def test_a_model_that_no_way_fits_is_refused(tiny, only, monkeypatch) -> None:
    only("single")
    monkeypatch.setattr(SingleForward, "run", lambda self, chunks: torch.zeros(len(chunks), 400))
    with pytest.raises(NotImplementedError, match=r"a decoder is not wanted.*packing is not wanted.*logits differ"):
        build(tiny("llama"))


@pytest.mark.parametrize("what", ["wrong", "raises"])
def test_a_broken_decoder_is_not_used_and_the_reason_says_why(tiny, monkeypatch, what: str) -> None:
    whole = Decoder.run

    def broken(self, tokens, step, lora_plan, logits_indices, logits_lora_plan):
        if what == "raises":
            raise IndexError("a bug")
        return whole(self, tokens.flip(0), step, lora_plan, logits_indices, logits_lora_plan)

    monkeypatch.setattr(Decoder, "run", broken)
    chosen = build(tiny("llama"))
    assert isinstance(chosen.path, PackedForward)
    assert ("its logits differ by" if what == "wrong" else "it fails (IndexError: a bug)") in chosen.reason
    in_chunks(chosen, [Oracle(tiny("llama"))] * 3, [None] * 3)


def test_a_broken_attention_leaves_the_models_own(tiny, monkeypatch) -> None:
    whole = AttentionStep.attend

    def broken(self, layer, q, k, v, *rest, **more):
        return whole(self, layer, q, k * 0, v, *rest, **more)  # looks at everything alike

    monkeypatch.setattr(AttentionStep, "attend", broken)
    chosen = build(tiny("llama"))
    assert isinstance(chosen.path, SingleForward)
    assert chosen.reason.count("its logits differ by") == 2
    in_chunks(chosen, [Oracle(tiny("llama"))] * 3, [None] * 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}, "its rope (dynamic)"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
    ],
)
def test_what_a_decoder_of_ours_does_not_compute_is_named(tmp_path, change: dict[str, Any], words: str) -> None:
    base = save_tiny(tmp_path / "odd", LlamaConfig(**_SHAPE, **change))
    chosen = build(base)
    assert not isinstance(chosen.path, DecoderForward)
    assert words in chosen.reason
    in_chunks(chosen, [Oracle(base)] * 3, [None] * 3)


# ── logits ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", CONFIGS)
def test_chunks_beside_other_rows_give_the_plain_logits(tiny, name: str) -> None:
    in_chunks(build(tiny(name)), [Oracle(tiny(name))] * 3, [None] * 3)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "bloom"])
def test_a_step_where_no_row_needs_logits(tiny, name: str) -> None:
    chosen, text = build(tiny(name)), prompt(1, 9)
    assert run(chosen.path, [RowChunk(text[:5], 0, 0, None, False), RowChunk(text, 1, 0, None, False)]).shape[0] == 0
    close(run(chosen.path, [RowChunk(text[5:], 0, 5)])[0], Oracle(tiny(name)).logits(text)[-1])


def test_a_slot_serves_one_row_after_another(tiny) -> None:
    for name in ("llama", "bloom"):
        chosen, oracle = build(tiny(name)), Oracle(tiny(name))
        for seed, length in ((1, 70), (2, 9), (3, 33)):
            text = prompt(seed, length)
            run(chosen.path, [RowChunk(text[:-1], 1, 0, None, False)])
            close(run(chosen.path, [RowChunk(text[-1:], 1, length - 1)])[0], oracle.logits(text)[-1])
            chosen.path.release(1)


def shape(**changes: Any) -> dict[str, Any]:
    return {**_SHAPE, **changes}


ODD = {
    "tied": lambda: LlamaConfig(**shape(tie_word_embeddings=True)),
    "untied": lambda: LlamaConfig(**shape(tie_word_embeddings=False)),
    "biases": lambda: LlamaConfig(**shape(attention_bias=True, mlp_bias=True)),
    "odd head": lambda: LlamaConfig(**shape(head_dim=10)),
    "a head each": lambda: LlamaConfig(**shape(num_key_value_heads=4)),
    "one key head": lambda: LlamaConfig(**shape(num_key_value_heads=1)),
    "llama3 rope": lambda: LlamaConfig(
        **shape(
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        )
    ),
    "yarn rope": lambda: LlamaConfig(
        **shape(
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        )
    ),
    "linear rope": lambda: LlamaConfig(
        **shape(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0})
    ),
    "windows in some layers": lambda: Qwen2Config(
        **shape(use_sliding_window=True, sliding_window=6, max_window_layers=1)
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_settings_of_a_decoder(tmp_path, name: str) -> None:
    torch.manual_seed(1)
    base = save_tiny(tmp_path / "odd", ODD[name](), seed=3)
    if name == "biases":
        _with_random_biases(base)
    folder = make_adapter(base, tmp_path, "a", target_modules="all-linear")
    chosen = build(base)
    assert isinstance(chosen.path, DecoderForward), chosen.reason
    load(chosen, base, [folder])
    in_chunks(chosen, [Oracle(base), Oracle(base), *[Oracle(base, folder)] * 2], [None, None, 0, 0])


def _with_random_biases(base) -> None:
    """Fresh models have biases of zero."""
    model = reference(base)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(".bias"):
                tensor.normal_()
    model.save_pretrained(str(base))


@pytest.mark.parametrize("kind", ["decoder", "packed", "single"])
def test_a_window_hides_what_lies_behind_it(tiny, only, kind: str) -> None:
    """Mistral's is 7 tokens here: far past it, alone and beside others, in chunks longer and shorter than it."""
    if kind != "decoder":
        only(kind)
    chosen, oracle = build(tiny("mistral")), Oracle(tiny("mistral"))
    texts = [prompt(seed, 150) for seed in range(3)]
    expected = [oracle.logits(text) for text in texts]
    changed = [5, *texts[0][1:]]
    close(oracle.logits(changed)[-1], expected[0][-1])
    assert not torch.allclose(oracle.logits(changed)[5], expected[0][5], atol=0.01)
    cuts = [(0, 3, 4, 11, 100, 148, 149, 150), (0, 60, 61, 62, 63, 64, 65, 66), (0, 1, 2, 9, 10, 11, 12, 13)]
    for step in range(7):
        logits = run(
            chosen.path,
            [
                RowChunk(text[cut[step] : cut[step + 1]], row, cut[step])
                for row, (text, cut) in enumerate(zip(texts, cuts, strict=True))
            ],
        )
        for row in range(3):
            close(logits[row], expected[row][cuts[row][step + 1] - 1])


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"target_modules": ["q_proj", "v_proj"]}),
    ("llama", {"target_modules": "all-linear", "use_rslora": True, "r": 8, "lora_alpha": 4}),
    (
        "llama",
        {
            "target_modules": ["q_proj", "down_proj", "gate_proj"],
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 7},
            "alpha_pattern": {"down_proj": 3, "layers.0.self_attn.q_proj": 20},
        },
    ),
    (
        "llama",
        {"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {"model.layers.[01].self_attn.q_proj": 3}},
    ),
    ("llama", {"target_modules": ["k_proj", "lm_head"]}),
    ("qwen2", {"target_modules": ["up_proj", "lm_head"]}),
]


@pytest.mark.parametrize("kind", ["decoder", "packed", "single"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_rows_beside_other_adapters_equal_peft_alone(tiny, tmp_path, only, case: int, kind: str) -> None:
    if kind != "decoder":
        only(kind)
    beside(tiny(CASES[case][0]), tmp_path, CASES[case][1])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("gpt2", {"target_modules": ["c_fc", "lm_head"], "fan_in_fan_out": True}),
        ("bloom", {"target_modules": ["query_key_value"]}),
        ("mamba", {"target_modules": ["in_proj"]}),
    ],
)
def test_other_architectures_take_adapters_too(tiny, tmp_path, name: str, config: dict[str, Any]) -> None:
    beside(tiny(name), tmp_path, config)


def beside(base, tmp_path, config: dict[str, Any]) -> None:
    folder = make_adapter(base, tmp_path, "it", **config)
    other = make_adapter(base, tmp_path, "other", seed=9, target_modules=config["target_modules"])
    chosen = build(base)
    load(chosen, base, [folder, other])
    plain, it, others = Oracle(base), Oracle(base, folder), Oracle(base, other)
    text = prompt(5, 20)
    assert (it.logits(text)[-1] - plain.logits(text)[-1]).abs().max() > 100 * TOLERANCE, "it has no visible effect"
    in_chunks(chosen, [plain, plain, it, others], [None, None, 0, 1], seed=4)
    in_chunks(chosen, [it, it, it, others], [0, 0, 0, 1], seed=8)
    chosen.path.bank.clear(0)
    in_chunks(chosen, [plain, others], [None, 1], seed=6)


def test_the_oracle_itself_is_peft(tiny, tmp_path) -> None:
    folder = make_adapter(tiny("llama"), tmp_path, "it")
    with peft_quiet():
        assert isinstance(PeftModel.from_pretrained(reference(tiny("llama")), str(folder)), PeftModel)
