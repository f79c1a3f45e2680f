"""The adapters in the repository: they load in plain peft, and on rows never trained on they beat the base."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from server.chat import TurnPipeline
from server.config import DEFAULT_CHAT_MODEL_HUB_ID, EngineSettings, ModelSettings, PromptSettings
from server.datasets import read_examples
from server.engine import AdapterCatalogue, LocalEngine, model_fingerprint
from server.evaluation import Lever, compare
from server.prompting import PromptLibrary
from tests.conftest import ROOT
from tests.tiers import cases

SHIPPED = [("grounded", "general"), ("sentiment", "review-sentiment")]
MAX_BYTES = 10_000_000
ROWS = cases(30, 100)
FLOORS = {"grounded": 0.3, "sentiment": 0.65}  # well under what the cards report, for so few rows


@pytest.mark.parametrize(("name", "domain"), SHIPPED)
def test_the_folder_is_complete_and_names_no_machine(name: str, domain: str):
    folder = ROOT / "adapters" / name / "1"
    config = json.loads((folder / "adapter_config.json").read_text())
    facts = json.loads((folder / "tailor.json").read_text())
    assert config["base_model_name_or_path"] == DEFAULT_CHAT_MODEL_HUB_ID
    assert facts["domain"] == domain
    assert facts["description"]
    card = (folder / "README.md").read_text()
    assert "licen" in card.lower()
    assert str(ROOT) not in card + json.dumps(config) + json.dumps(facts)
    assert (folder / "adapter_model.safetensors").stat().st_size <= MAX_BYTES
    tensors = load_file(folder / "adapter_model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize(("name", "domain"), SHIPPED)
def test_held_out_topics_were_never_trained_on(name: str, domain: str):
    data = ROOT / "adapters" / name / "1" / "data"
    train, held = (read_examples(data / f"{side}.jsonl") for side in ("train", "heldout"))
    assert train.report.broken == held.report.broken == 0
    assert len(held.examples) >= 200
    questions = {" ".join(row.question.casefold().split()) for row in train.examples if not row.context.searched}
    assert not [row for row in held.examples if " ".join(row.question.casefold().split()) in questions
                and not row.context.searched]  # fmt: skip
    passages = {passage.text for row in train.examples for passage in row.context.passages}
    assert not [row for row in held.examples for passage in row.context.passages if passage.text in passages]


@pytest.mark.model
@pytest.mark.parametrize(("name", "domain"), SHIPPED)
def test_the_adapter_belongs_to_the_default_base_and_loads_in_peft(name: str, domain: str, chat_model_dir: Path):
    folder = ROOT / "adapters" / name / "1"
    facts = json.loads((folder / "tailor.json").read_text())
    assert facts["base_fingerprint"] == model_fingerprint(str(chat_model_dir))
    model = AutoModelForCausalLM.from_pretrained(chat_model_dir, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 9690, 198, 2683]])
    with torch.inference_mode(), warnings.catch_warnings():
        # peft asks transformers for a name that is being replaced; an older one names settings it does not know
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Unexpected keyword arguments", UserWarning)
        base = model(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(model, folder).eval()(input_ids=ids).logits
    assert bool(torch.isfinite(adapted).all())
    assert float((adapted - base).abs().max()) > 0.1


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "domain"), SHIPPED)
async def test_the_adapter_beats_the_base_on_held_out_rows(name: str, domain: str, chat_model_dir: Path):
    data = ROOT / "adapters" / name / "1" / "data"
    engine = LocalEngine(str(chat_model_dir), EngineSettings(), ModelSettings(), AdapterCatalogue(ROOT / "adapters"))
    await engine.start()
    try:
        found = await compare(
            read_examples(data / "heldout.jsonl"),
            pipeline=TurnPipeline(engine, PromptSettings()),
            domain=PromptLibrary(ROOT / "prompts", "general").get(domain),
            adapter=name,
            shots=0,
            shots_from=read_examples(data / "train.jsonl"),
            limit=ROWS,
            max_tokens=48,
        )
    finally:
        await engine.close()
    adapter, base = found.result_of(Lever.ADAPTER), found.result_of(Lever.ZERO_SHOT)
    assert adapter is not None
    assert base is not None
    assert adapter.accuracy > FLOORS[name]
    assert adapter.accuracy > base.accuracy + 0.2
    assert found.p_value is not None
    assert found.p_value < 0.05
