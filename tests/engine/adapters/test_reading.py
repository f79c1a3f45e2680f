"""Every way an adapter folder can be wrong, each with its own reason."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.patterns import LayerValues
from server.engine.adapters.reading import AdapterTarget, check_adapter, read_adapter
from server.engine.model.fingerprint import model_fingerprint
from server.errors import AdapterInvalid
from tests.engine.conftest import CONFIGS, make_adapter, reference, save_tiny


@pytest.fixture(scope="module")
def target(tiny) -> AdapterTarget:
    return AdapterTarget(model_fingerprint(str(tiny("llama"))), linear_layers(reference(tiny("llama"))), 16)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory) -> Path:
    return make_adapter(tiny("llama"), tmp_path_factory.mktemp("made"), "good")


@pytest.fixture
def good(made: Path, tmp_path: Path) -> Path:
    """A fresh copy of a valid adapter."""
    return Path(shutil.copytree(made, tmp_path / "adapters" / "good" / "1"))


def refused(folder: Path, target: AdapterTarget, words: str) -> None:
    with pytest.raises(AdapterInvalid, match=re.escape(words)) as caught:
        check_adapter(folder, target)
    assert "good/1" in str(caught.value), "the message names the adapter"


def edit_config(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(str(path))
    change(tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(path))


def first(tensors, side: str) -> str:
    return next(key for key in sorted(tensors) if f"lora_{side}" in key)


def test_a_good_one_is_read_whole(good: Path, target: AdapterTarget) -> None:
    facts, pairs = read_adapter(good, target)
    assert (facts.rank, facts.modules) == (4, 9)
    assert facts.bytes == sum(p.a.nbytes + p.b.nbytes for p in pairs.values()) > 0
    assert all(pair.scale == 2.0 for pair in pairs.values())
    tensors = load_file(str(good / "adapter_model.safetensors"))
    assert torch.equal(
        pairs["model.layers.1.self_attn.q_proj"].a,
        tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"],
    )


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(good: Path, target: AdapterTarget, name: str) -> None:
    (good / name).unlink()
    refused(good, target, f"{name} is missing")


@pytest.mark.parametrize("name", ["adapter_model.bin", "weights.pt", "x.PKL", "optimizer.pth"])
@pytest.mark.parametrize("instead", [True, False])
def test_a_pickle_is_never_opened(good: Path, target: AdapterTarget, name: str, instead: bool) -> None:
    trap = good.parent / "opened"
    (good / name).write_bytes(f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode())
    if instead:
        (good / "adapter_model.safetensors").unlink()
    refused(good, target, f"{name} is a pickle")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "its type is 'IA3'"),
        ({"peft_type": "PROMPT_TUNING"}, "its type is 'PROMPT_TUNING'"),
        ({"peft_type": None}, "its type is None"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "it changes biases"),
        ({"lora_bias": True}, "LoRA with biases"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model's weights"),
        ({"layer_replication": [[0, 2]]}, "replicated layers"),
        ({"trainable_token_indices": [1, 2]}, "trained token embeddings"),
        ({"some_new_option": {"a": 1}}, "some_new_option"),
        ({"lora_alpha": "many"}, "lora_alpha must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number"),
        ({"lora_alpha": 1e308}, "and the most is 10000"),
        ({"r": 0.5}, "r must be a whole number"),
        ({"r": 8}, "adapter_config.json says 8"),
        ({"rank_pattern": {"q_proj": 2}}, "adapter_config.json says 2"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern has a pattern that cannot be used"),
        ({"alpha_pattern": {"(?=q)q_proj": 2}}, "write it without look-around"),
        ({"alpha_pattern": {"\udc80": 2}}, "alpha_pattern has a pattern that cannot be used"),
        ({"rank_pattern": {"((a{1,500}){1,500}){1,500}": 2}}, "rank_pattern has a pattern that cannot be used"),
        ({"rank_pattern": {"q" * 1025: 2}}, "a pattern of 1025 characters"),
        ({"alpha_pattern": {f"q{n}": 2 for n in range(1025)}}, "1025 patterns"),
        ({"target_modules": "("}, "target_modules has a pattern"),
        ({"exclude_modules": "("}, "exclude_modules has a pattern"),
        ({"target_modules": {"a": 1}}, "target_modules must be"),
        ({"rank_pattern": [1]}, "rank_pattern must map"),
    ],
)
def test_settings_that_are_not_served(good: Path, target: AdapterTarget, changes, words: str) -> None:
    edit_config(good, **changes)
    refused(good, target, words)


EVIL = "((.*)*)*Z"  # takes for ever where a matcher backtracks


@pytest.mark.parametrize(
    "changes",
    [
        {"rank_pattern": {EVIL: 2}},
        {"alpha_pattern": {EVIL: 2, "((a|a)*)*!": 3}},
        {"target_modules": EVIL},
        {"exclude_modules": EVIL},
        {"layers_pattern": EVIL},
    ],
)
def test_no_pattern_takes_long(good: Path, target: AdapterTarget, changes) -> None:
    edit_config(good, **changes)
    assert check_adapter(good, target).modules > 0


def test_the_first_pattern_that_matches_the_names_end_decides() -> None:
    values = LayerValues("rank_pattern", {"q_proj": 2, "layers.1.mlp.(up|down)_proj": 3, r"layers\.\d+\..*": 4}, 8)
    names = {"q_proj": 2, "a.q_proj": 2, "aq_proj": 8, "model.layers.1.mlp.up_proj": 3, "model.layers.12.x": 4}
    assert {name: values.of(name) for name in names} == names


def test_a_header_larger_than_any_is_not_read(good: Path, target: AdapterTarget) -> None:
    weights = good / "adapter_model.safetensors"
    weights.write_bytes((2**40).to_bytes(8, "little") + b"{" * 1000)
    refused(good, target, "has a header of 1099511627776 bytes")
    weights.write_bytes((4).to_bytes(8, "little") + b"[[[[")
    refused(good, target, "no valid header")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", '{"a":' * 3000, "null"])
def test_a_broken_config(good: Path, target: AdapterTarget, text: str) -> None:
    (good / "adapter_config.json").write_bytes(text.encode("latin-1"))
    refused(good, target, "adapter_config.json")


def test_a_config_larger_than_any_is_not_parsed(good: Path, target: AdapterTarget) -> None:
    (good / "adapter_config.json").write_text('{"peft_type": "LORA", "x": "' + "y" * (1 << 20) + '"}')
    refused(good, target, "is larger than")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights(good: Path, target: AdapterTarget, keep: int) -> None:
    path = good / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(good, target, "cannot be read")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers(good: Path, target: AdapterTarget, value: float) -> None:
    def poison(tensors) -> None:
        tensors[first(tensors, "B")][3, 1] = value

    edit_tensors(good, poison)
    refused(good, target, "NaN or infinite")


def test_half_a_pair(good: Path, target: AdapterTarget) -> None:
    edit_tensors(good, lambda tensors: tensors.pop(first(tensors, "A")))
    refused(good, target, "lora_A of layer")


def test_no_tensors(good: Path, target: AdapterTarget) -> None:
    edit_tensors(good, lambda tensors: tensors.clear())
    refused(good, target, "it holds no tensors")


def test_a_tensor_that_is_no_lora(good: Path, target: AdapterTarget) -> None:
    edit_tensors(good, lambda tensors: tensors.update({"base_model.model.model.norm.weight": torch.ones(4)}))
    refused(good, target, "is no LoRA weight")


def test_a_copy_of_a_base_layer(good: Path, target: AdapterTarget) -> None:
    edit_tensors(good, lambda tensors: tensors.update({"base_model.model.lm_head.base_layer.weight": torch.ones(4, 4)}))
    refused(good, target, "save_embedding_layers=False")


def test_an_embedding(good: Path, target: AdapterTarget) -> None:
    name = "base_model.model.model.embed_tokens.lora_A.weight"
    edit_tensors(good, lambda tensors: tensors.update({name: torch.ones(4, 4)}))
    refused(good, target, "is no linear layer of the base model")


def test_whole_numbers(good: Path, target: AdapterTarget) -> None:
    def cast(tensors) -> None:
        tensors[first(tensors, "A")] = tensors[first(tensors, "A")].to(torch.int8)

    edit_tensors(good, cast)
    refused(good, target, "not floating point")


def test_a_deeper_base(good: Path, target: AdapterTarget) -> None:
    def deepen(tensors) -> None:
        for key in [key for key in tensors if ".layers.2." in key]:
            tensors[key.replace(".layers.2.", ".layers.11.")] = tensors[key].clone()

    edit_tensors(good, deepen)
    refused(good, target, "has no layer 'model.layers.11")


def test_a_wider_base(good: Path, target: AdapterTarget, tmp_path: Path) -> None:
    wide = CONFIGS["llama"]()
    wide.hidden_size = 64
    base = save_tiny(tmp_path / "wide", wide)
    folder = make_adapter(base, tmp_path / "adapters", "good", "2")
    with pytest.raises(AdapterInvalid, match="made for another base"):
        check_adapter(folder, target)


def test_a_rank_above_the_setting(good: Path, target: AdapterTarget) -> None:
    refused(good, AdapterTarget(target.fingerprint, target.modules, 3), "engine.max_lora_rank")


def test_the_trained_base_must_be_this_one(good: Path, target: AdapterTarget) -> None:
    tailor = good / "tailor.json"
    tailor.write_text(json.dumps({"base_fingerprint": target.fingerprint, "description": "계약서", "domain": None}))
    assert check_adapter(good, target).description == "계약서"
    tailor.write_text(json.dumps({"base_fingerprint": "0123456789abcdef"}))
    refused(good, target, "trained for another base model")
    tailor.write_text("[]")
    refused(good, target, "tailor.json")


def test_the_name_of_the_base_is_only_information(good: Path, target: AdapterTarget) -> None:
    edit_config(good, base_model_name_or_path="somewhere/else")
    assert check_adapter(good, target).modules == 9


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "tailor.json"])
def test_a_link_out_of_the_folder(good: Path, target: AdapterTarget, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    if (good / name).exists():
        (good / name).rename(outside)
    else:
        outside.write_text("{}")
    (good / name).symlink_to(outside)
    refused(good, target, "is a link to a place outside")


SHRINKING = """
import json, os, sys
from pathlib import Path
from server.engine.adapters import reading
from server.errors import AdapterInvalid

folder, check, seen = Path(sys.argv[1]), reading._check_shape, []

def shrinks(*args):
    seen.append(args)
    if len(seen) == 3:
        os.truncate(folder / "adapter_model.safetensors", 0)
    check(*args)

reading._check_shape = shrinks
try:
    modules = {name: tuple(size) for name, size in json.loads(sys.argv[2])}
    reading.read_adapter(folder, reading.AdapterTarget("", modules, 16))
except AdapterInvalid:
    pass
print("alive")
"""


def test_a_file_that_shrinks_while_it_is_read_does_not_end_the_process(good: Path, target: AdapterTarget) -> None:
    """As it does when it is copied over: a page of a mapped file that is gone is a bus error."""
    modules = json.dumps(list(target.modules.items()))
    done = subprocess.run(
        [sys.executable, "-c", SHRINKING, str(good), modules],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-500:]
