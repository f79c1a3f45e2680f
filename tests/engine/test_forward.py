from __future__ import annotations

import pytest
import torch
from peft import PeftModel

from server.engine.forward import PackedForward, Part, SingleForward, choose_path
from server.engine.kv import RowKV
from server.engine.lora import AdapterTarget, read_adapter
from server.engine.lora_layers import LoraLayers, linear_layers
from tests.engine.conftest import make_adapter, peft_quiet, reference

TOLERANCE = 1e-4


def prompt(seed: int, length: int) -> list[int]:
    return [3 + (seed * 37 + place * 11) % 330 for place in range(length)]


def plain(model, tokens):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


@torch.inference_mode()
def run(path, parts):
    return path.run(parts)


def build(folder):
    model = reference(folder)
    layers = LoraLayers(model)
    return model, layers, choose_path(model, layers, 1)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_common_architectures_are_packed(tiny, name: str) -> None:
    _, _, chosen = build(tiny(name))
    assert isinstance(chosen.path, PackedForward)
    assert "packed" in chosen.reason
    assert chosen.bytes_per_token > 0


@pytest.mark.parametrize(("name", "words"), [("bloom", "its own cache"), ("mamba", "without a cache")])
def test_others_fall_back_and_say_so(tiny, name: str, words: str) -> None:
    _, _, chosen = build(tiny(name))
    assert isinstance(chosen.path, SingleForward)
    assert "one row a pass" in chosen.reason
    assert words in chosen.reason


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "bloom", "mamba"])
def test_chunks_beside_other_rows_give_the_plain_logits(tiny, name: str) -> None:
    model, _, chosen = build(tiny(name))
    oracle = reference(tiny(name))
    texts = [prompt(1, 40), prompt(2, 23), prompt(3, 31)]
    cuts = [(0, 16, 30, 39, 40), (0, 1, 2, 22, 23), (0, 28, 29, 30, 31)]
    caches = [chosen.path.new_cache(48) for _ in texts]
    expected = [plain(oracle, text) for text in texts]
    for step in range(4):
        parts = [Part(text[cut[step]:cut[step + 1]], cache, None, row != 1)
                 for row, (text, cut, cache) in enumerate(zip(texts, cuts, caches, strict=True))]
        logits = run(chosen.path, parts)
        assert logits.shape[0] == 2, "only the wanted rows give logits"
        for got, row in zip(logits, (0, 2), strict=True):
            torch.testing.assert_close(got, expected[row][cuts[row][step + 1] - 1], atol=TOLERANCE, rtol=0)
    assert model is not oracle


def test_a_step_where_nobody_wants_logits(tiny) -> None:
    _, _, chosen = build(tiny("llama"))
    cache = chosen.path.new_cache(8)
    assert run(chosen.path, [Part(prompt(1, 5), cache, None, False)]).shape[0] == 0
    assert cache.length == 5


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"target_modules": "all-linear", "use_rslora": True, "r": 8, "lora_alpha": 4}),
        ("llama", {"target_modules": ["q_proj", "down_proj", "gate_proj"],
                   "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 7},
                   "alpha_pattern": {"down_proj": 3, "layers.0.self_attn.q_proj": 20}}),
        ("llama", {"target_modules": ["q_proj"], "use_rslora": True,
                   "rank_pattern": {"model.layers.[01].self_attn.q_proj": 3}}),
        ("qwen2", {"target_modules": ["q_proj", "lm_head"]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("bloom", {"target_modules": ["query_key_value"]}),
        ("mamba", {"target_modules": ["in_proj"]}),
    ],
)
def test_logits_beside_other_adapters_equal_peft_alone(tiny, tmp_path, name: str, config) -> None:
    base = tiny(name)
    folder = make_adapter(base, tmp_path, "it", **config)
    other = make_adapter(base, tmp_path, "other", seed=9, target_modules=config["target_modules"])
    model, layers, chosen = build(base)
    target = AdapterTarget("", linear_layers(model), 64)
    facts, pairs = read_adapter(folder, target)
    assert facts.modules == len(pairs)
    weights = layers.prepare(1, pairs, model.get_input_embeddings().weight)
    others = layers.prepare(2, read_adapter(other, target)[1], model.get_input_embeddings().weight)
    texts = [prompt(4, 9), prompt(5, 20), prompt(6, 14), prompt(7, 3)]
    owners = [None, weights, weights, others]
    parts = [Part(text, chosen.path.new_cache(24), owner, True) for text, owner in zip(texts, owners, strict=True)]
    logits = run(chosen.path, parts)
    oracle = reference(base, folder)
    for row in (1, 2):
        torch.testing.assert_close(logits[row], plain(oracle, texts[row])[-1], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits[0], plain(reference(base), texts[0])[-1], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(logits[3], plain(reference(base, other), texts[3])[-1], atol=TOLERANCE, rtol=0)
    effect = (plain(oracle, texts[1])[-1] - plain(reference(base), texts[1])[-1]).abs().max()
    assert effect > 100 * TOLERANCE


def test_the_oracle_itself_is_peft(tiny, tmp_path) -> None:
    folder = make_adapter(tiny("llama"), tmp_path, "it")
    model = reference(tiny("llama"))
    with peft_quiet():
        assert isinstance(PeftModel.from_pretrained(model, str(folder)), PeftModel)


def test_a_model_whose_packed_logits_differ_is_not_packed(tiny, monkeypatch) -> None:
    whole = RowKV.append

    def broken(self, layer, keys, values):
        seen, values = whole(self, layer, keys, values)
        return seen * 0, values  # looks at everything alike

    monkeypatch.setattr(RowKV, "append", broken)
    _, _, chosen = build(tiny("llama"))
    assert isinstance(chosen.path, SingleForward)
    assert "its logits differ" in chosen.reason
    cache = chosen.path.new_cache(16)
    text = prompt(1, 12)
    run(chosen.path, [Part(text[:7], cache, None, False)])
    logits = run(chosen.path, [Part(text[7:], cache, None, True)])
    torch.testing.assert_close(logits[0], plain(reference(tiny("llama")), text)[-1], atol=TOLERANCE, rtol=0)


def test_row_kv_grows_and_counts() -> None:
    kv = RowKV(6)
    keys, _ = kv.append(0, torch.ones(2, 4, 3), torch.ones(2, 4, 5))
    assert keys.shape == (2, 4, 3)
    kv.commit(4)
    keys, values = kv.append(0, torch.full((2, 1, 3), 2.0), torch.zeros(2, 1, 5))
    assert keys.shape == (2, 5, 3)
    assert values.shape == (2, 5, 5)
    assert keys[0, 4, 0] == 2
    assert keys[0, 3, 0] == 1
    assert kv.bytes_per_token() == 4 * 2 * (3 + 5)
