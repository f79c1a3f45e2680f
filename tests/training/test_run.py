"""The run as a whole: what lies in the folder, what is refused, and that nothing half-done is left."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

import server.training.run as training
from server.engine import model_fingerprint
from server.errors import AdapterError, DatasetError, InvalidInput, ModelError, StorageError
from server.prompting import Domain
from server.training import Recipe, TrainResult, train
from tests.disks import mounted
from tests.fakes import ByteTokenizer

DOMAIN = Domain(name="shop", title="Shop", description="", body="You help.")
QUICK = Recipe(rank=4, alpha=8, learning_rate=2e-2, epochs=3, batch=8, max_tokens=120, held_out=0.2)


@pytest.fixture(autouse=True)
def _bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has no tokenizer files: it reads bytes."""
    monkeypatch.setattr(training, "ModelTokenizer", lambda path: ByteTokenizer())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": f"Colour {n}?", "answer": "red" if n % 2 else "blue", "group": f"g{n % 10}"} for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def run(data: Path, adapters: Path, tiny_folder: Path, **more: Any) -> TrainResult:
    given: dict[str, Any] = {"name": "colours", "recipe": QUICK, **more}
    return train(data, model_path=str(tiny_folder), adapters=adapters, domain=DOMAIN, **given)


def test_the_folder_holds_what_peft_and_the_product_read(data: Path, adapters: Path, tiny_folder: Path):
    lines: list[str] = []
    result = run(data, adapters, tiny_folder, report=lines.append, description="Names colours.")
    assert result.folder == adapters / "colours" / "1"
    names = {path.name for path in result.folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "tailor.json", "README.md"}
    facts = json.loads((result.folder / "tailor.json").read_text())
    assert facts["base_fingerprint"] == model_fingerprint(str(tiny_folder))
    assert (facts["description"], facts["domain"]) == ("Names colours.", "shop")
    assert facts["recipe"]["rank"] == 4
    assert facts["rows"]["trained"] + facts["rows"]["held_out"] == 40
    assert facts["metrics"]["held_out_loss"] < facts["metrics"]["held_out_loss_base"]
    card = (result.folder / "README.md").read_text()
    assert "Names colours." in card
    assert "rank 4" in card
    assert "40 rows read, 40 kept" in card
    assert lines[0] == "40 rows read, 40 kept"
    assert lines[-1] == result.summary


def test_the_base_is_named_by_its_id_and_never_by_a_path_of_this_machine(data: Path, adapters: Path, tiny_folder: Path):
    own = run(data, adapters, tiny_folder)
    given = run(data, adapters, tiny_folder, model_id="Tiny-1")
    names = [json.loads((each.folder / "adapter_config.json").read_text())["base_model_name_or_path"]
             for each in (own, given)]  # fmt: skip
    assert names == ["tiny-llama", "Tiny-1"]
    for result in (own, given):
        for file in result.folder.glob("*.*"):
            assert str(tiny_folder).encode() not in file.read_bytes()


def test_versions_count_up_and_older_ones_stay(data: Path, adapters: Path, tiny_folder: Path):
    (adapters / "colours" / "7").mkdir(parents=True)
    (adapters / "colours" / "draft").mkdir()
    assert run(data, adapters, tiny_folder).version == "8"
    assert (adapters / "colours" / "7").is_dir()


def test_the_weights_on_disk_are_half_precision_and_work_in_peft(data: Path, adapters: Path, tiny_folder: Path):
    result = run(data, adapters, tiny_folder)
    weights = load_file(result.folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    model = LlamaForCausalLM.from_pretrained(tiny_folder).eval()
    ids = torch.tensor([[1, 2, 3]])
    base = model(input_ids=ids).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that is being replaced
        loaded = PeftModel.from_pretrained(model, result.folder).eval()
    assert not torch.allclose(loaded(input_ids=ids).logits, base)


def test_training_really_learns_the_rows(data: Path, adapters: Path, tiny_folder: Path):
    result = run(data, adapters, tiny_folder)
    assert result.loss < result.base_loss / 2
    assert (result.rows, result.held_out_rows, result.left_out) == (32, 8, 0)


def test_a_run_goes_on_from_an_adapter_and_says_so(data: Path, adapters: Path, tiny_folder: Path):
    few = replace(QUICK, epochs=1)
    first = run(data, adapters, tiny_folder, recipe=few)
    fresh = run(data, adapters, tiny_folder, recipe=few, name="fresh")
    second = run(data, adapters, tiny_folder, recipe=few, start=first.folder)
    assert second.version == "2"
    assert second.loss < min(first.loss, fresh.loss)
    assert json.loads((second.folder / "tailor.json").read_text())["continues"] == "colours@1"
    assert json.loads((first.folder / "tailor.json").read_text())["continues"] is None


def test_a_run_goes_on_from_an_adapter_with_any_patterns(data: Path, adapters: Path, tiny_folder: Path):
    """PEFT would match them with `re`, and take for ever over these."""
    few = replace(QUICK, epochs=1)
    first = run(data, adapters, tiny_folder, recipe=few)
    file = first.folder / "adapter_config.json"
    evil = "((.*)*)*Z"
    config = json.loads(file.read_text()) | {
        "target_modules": f".*_proj|{evil}",
        "exclude_modules": evil,
        "rank_pattern": {evil: 3},
        "alpha_pattern": {evil: 3, "layers.0.self_attn.q_proj": 5},
    }
    file.write_text(json.dumps(config))
    second = run(data, adapters, tiny_folder, recipe=few, start=first.folder)
    assert second.loss < first.loss
    trained = json.loads((second.folder / "adapter_config.json").read_text())
    assert trained["rank_pattern"] == {}
    assert list(trained["alpha_pattern"].values()) == [5.0]


def test_a_start_that_does_not_fit_is_refused(data: Path, adapters: Path, tiny_folder: Path, tmp_path: Path):
    with pytest.raises(AdapterError, match="version folder"):
        run(data, adapters, tiny_folder, start=tmp_path)
    first = run(data, adapters, tiny_folder, recipe=replace(QUICK, epochs=1))
    facts = json.loads((first.folder / "tailor.json").read_text()) | {"base_fingerprint": "0" * 16}
    (first.folder / "tailor.json").write_text(json.dumps(facts))
    with pytest.raises(AdapterError, match="another base"):
        run(data, adapters, tiny_folder, start=first.folder)


def test_without_held_out_rows_the_card_says_so(data: Path, adapters: Path, tiny_folder: Path):
    result = run(data, adapters, tiny_folder, recipe=Recipe(rank=2, alpha=4, epochs=1, held_out=0.0))
    assert "nothing was held out" in (result.folder / "README.md").read_text()
    assert json.loads((result.folder / "tailor.json").read_text())["metrics"]["held_out_loss"] is None


def test_an_interrupted_run_leaves_nothing(
    data: Path, adapters: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(model: Any, rows: Any, *, scratch: Path, **rest: Any) -> None:
        scratch.mkdir()
        (scratch / "half.safetensors").write_bytes(b"x")
        assert [path.name for path in adapters.iterdir() if not path.name.startswith(".")] == []
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(data, adapters, tiny_folder)
    assert list(adapters.iterdir()) == []


def test_an_adapter_without_effect_is_not_published(
    data: Path, adapters: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "MIN_EFFECT", 1e9)
    with pytest.raises(AdapterError, match="changes nothing"):
        run(data, adapters, tiny_folder)
    assert list(adapters.iterdir()) == []


def test_weights_that_are_not_finite_are_not_published(
    data: Path, adapters: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    real = training.fit

    def broken(*given: Any, **rest: Any) -> Any:
        adapted = real(*given, **rest)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(float("nan"))
        return adapted

    monkeypatch.setattr(training, "fit", broken)
    with pytest.raises(AdapterError, match="not finite"):
        run(data, adapters, tiny_folder)
    assert list(adapters.iterdir()) == []


def test_too_many_long_rows_refuse_the_file(data: Path, adapters: Path, tiny_folder: Path):
    with data.open("a") as file:
        for n in range(8):
            file.write(json.dumps({"question": f"long {n}", "answer": "x" * 300}) + "\n")
    with pytest.raises(DatasetError, match="line 41: longer than 120 tokens, as are 8 of 48 rows"):
        run(data, adapters, tiny_folder)
    assert not adapters.exists()


def test_a_few_long_rows_are_counted_and_reported(data: Path, adapters: Path, tiny_folder: Path):
    with data.open("a") as file:
        file.write(json.dumps({"question": "long", "answer": "x" * 300}) + "\n")
    lines: list[str] = []
    assert run(data, adapters, tiny_folder, report=lines.append).left_out == 1
    assert "1 of 41 rows left out: longer than 120 tokens (line 41)" in lines


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../x", ".hidden", "a" * 65, "a b"])
def test_bad_names_are_refused_before_any_work(name: str, data: Path, adapters: Path, tiny_folder: Path):
    with pytest.raises(InvalidInput, match="is no adapter name"):
        run(data, adapters, tiny_folder, name=name)
    assert not adapters.exists()


def test_a_broken_file_is_refused(tmp_path: Path, adapters: Path, tiny_folder: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n")
    with pytest.raises(DatasetError, match="line 1"):
        run(path, adapters, tiny_folder)


def test_a_folder_without_a_model_is_a_model_error(data: Path, adapters: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        run(data, adapters, tmp_path / "empty")
    assert not adapters.exists()


def test_a_full_disk_is_said_and_nothing_half_done_is_left(data: Path, adapters: Path, tiny_folder: Path) -> None:
    with mounted(adapters, 8 * 1024) as disk:
        with pytest.raises(StorageError, match="No space left on device"):
            run(data, disk, tiny_folder)
        assert list(disk.iterdir()) == []
