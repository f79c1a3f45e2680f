"""The models that are measured: no engine stops early on them, and all find the same weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import chats, models, ours
from bench.context import TINY, Bench
from server.engine import ModelTokenizer
from server.types import Message


def test_the_random_model_has_the_shape_and_never_ends_a_turn(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(tiny), dtype=torch.float32)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (TINY.hidden, TINY.layers, 1000)
    rows = model.get_output_embeddings().weight
    stops = sorted(ModelTokenizer(str(tiny)).stop_ids)
    assert stops
    assert not rows[stops].any()
    assert rows[models.FIRST_PLAIN :].any(dim=1).all()


def test_the_same_seed_makes_the_same_weights(tmp_path: Path, tiny: Path) -> None:
    models.random_llama(TINY, tmp_path / "again")
    first, again = (AutoModelForCausalLM.from_pretrained(str(path)) for path in (tiny, tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_every_token_of_the_made_tokenizer_reads_as_text(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny))
    assert len(tokenizer) == TINY.vocabulary
    assert all(tokenizer.decode([token]) for token in range(3, TINY.vocabulary))
    text = "Any text, 한국어 too."
    own = ModelTokenizer(str(tiny))
    assert own.decode(own.encode(text)) == text
    assert own.decode(own.render([Message("user", text)])).startswith("user\n")


def test_the_served_model_differs_in_the_ends_of_turn_alone(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    models.random_llama(TINY, source)
    whole = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
    with torch.no_grad():
        whole.get_output_embeddings().weight[:3] = 1.0
    whole.save_pretrained(str(source))
    folder = models.chat_model(replace(bench, model=source))
    assert folder == bench.folder / "model"
    served = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).state_dict()
    stops = sorted(ModelTokenizer(str(source)).stop_ids)
    assert not served["lm_head.weight"][stops].any()
    served["lm_head.weight"][stops] = 1.0
    assert all(torch.equal(tensor, served[name]) for name, tensor in whole.state_dict().items())


def test_models_and_adapters_are_made_once_a_run(bench: Bench) -> None:
    folder = models.chat_model(bench)
    adapters = models.adapters(bench, folder)
    times = {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")}
    assert models.adapters(bench, models.chat_model(bench)) == adapters
    assert {path: path.stat().st_mtime_ns for path in bench.folder.rglob("*")} == times
    assert not list(bench.folder.glob(".*"))


def test_adapters_cover_every_linear_layer_and_differ(bench: Bench) -> None:
    adapters = models.adapters(bench, models.chat_model(bench))
    assert models.adapter_names(adapters) == ["a0", "a1"]
    first, second = (
        safe_open(str(adapters / name / "1" / "adapter_model.safetensors"), framework="pt") for name in ("a0", "a1")
    )
    names = list(first.keys())
    assert names == list(second.keys())
    assert len(names) == 2 * 7 * TINY.layers  # A and B of q, k, v, o, gate, up, down
    assert all(not torch.equal(first.get_tensor(name), second.get_tensor(name)) for name in names)
    assert {min(first.get_tensor(name).shape) for name in names} == {bench.sizes.rank}
    config = json.loads((adapters / "a0" / "1" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (bench.sizes.rank, 2 * bench.sizes.rank)


def test_peft_reads_them_and_they_change_the_answer(bench: Bench) -> None:
    folder = models.chat_model(bench)
    adapters = models.adapters(bench, folder)
    base = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    ids = torch.tensor([[400, 500, 600]])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT still asks transformers by names that are going away
        before = base(input_ids=ids).logits
        after = PeftModel.from_pretrained(base, str(adapters / "a0" / "1"))(input_ids=ids).logits
    assert not torch.allclose(before, after, atol=1e-4)


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        (tmp_path / models.adapter_name(number)).mkdir()
    assert models.adapter_names(tmp_path) == ["a0", "a9", "a10"]


def test_a_step_reads_all_weights_but_the_input_table(tiny: Path) -> None:
    parameters = sum(tensor.numel() for tensor in AutoModelForCausalLM.from_pretrained(str(tiny)).parameters())
    table = TINY.vocabulary * TINY.hidden
    assert models.bytes_a_token(tiny, 4) == 4 * (parameters - table)


def test_a_tied_table_is_read_whole(tmp_path: Path, tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(tiny), tie_word_embeddings=True)
    model.save_pretrained(str(tmp_path))
    assert models.bytes_a_token(tmp_path, 1) == sum(tensor.numel() for tensor in model.parameters())


async def test_the_engine_answers_with_exactly_the_tokens_it_was_asked_for(bench: Bench) -> None:
    folder = models.chat_model(bench)
    adapters = models.adapters(bench, folder)
    asked = chats.draw(
        "exact", 0, count=4, length=8, new=40, vocabulary=models.vocabulary(folder), adapters=["a0", "a1"]
    )
    async with ours.started(bench, folder, adapters) as engine:
        done = await ours.run(engine, asked)
        assert done.tokens == 160
        assert len(done.texts) == 4
        assert all(done.texts)
        alone = await ours.run_alone(engine, replace(asked, prompts=asked.prompts[:1], adapters=("a0",)))
        assert alone.tokens == 39
        assert alone.texts == done.texts[:1]
