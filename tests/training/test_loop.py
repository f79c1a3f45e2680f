"""The loss looks at answers alone; a few steps lower it; only LoRA's weights move."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from server.errors import InvalidInput
from server.training import Recipe
from server.training.loop import answer_loss, fast_bfloat16, fit, lora_config, mean_loss
from server.training.rows import IGNORED, Row, collate
from server.training.text import duration

ROWS = [Row((*(256, 10 + n % 7, 20, 30), 65 + n % 3, 257), 2) for n in range(24)]
QUICK = Recipe(rank=4, alpha=8, learning_rate=2e-2, epochs=6, batch=4)


def test_the_loss_is_that_of_the_answers_tokens(tiny_model: LlamaForCausalLM):
    batch = collate([Row((1, 2, 3, 4, 5, 6), 2), Row((9, 8, 7), 1)])
    with torch.no_grad():
        logits = tiny_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        narrow = answer_loss(tiny_model, batch)
    wanted = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
    assert torch.allclose(narrow, wanted, atol=1e-5)


def test_padding_and_batching_do_not_change_the_loss(tiny_model: LlamaForCausalLM):
    rows = [Row((1, 2, 3, 4, 5, 6), 2), Row((9, 8, 7), 1), Row((5, 6, 7, 8), 3)]
    assert mean_loss(tiny_model, rows, batch=3) == pytest.approx(mean_loss(tiny_model, rows, batch=1), abs=1e-5)
    assert math.isnan(mean_loss(tiny_model, [], batch=4))


def test_the_loss_does_not_see_the_prompts_own_tokens(tiny_model: LlamaForCausalLM):
    """The gradient at the embedding of the prompt's last token exists, the loss of predicting it does not."""
    batch = collate([Row((1, 2, 3, 4), 1)])
    first = answer_loss(tiny_model, batch, reduction="sum")
    with torch.no_grad():
        logits = tiny_model(input_ids=batch["input_ids"]).logits[0, 2]
    assert float(first.detach()) == pytest.approx(float(-logits.log_softmax(-1)[4]), abs=1e-5)


def test_a_few_steps_lower_the_loss_and_only_lora_moves(tiny_model: LlamaForCausalLM, tmp_path: Path):
    before = mean_loss(tiny_model, ROWS, 8)
    weights = copy.deepcopy(tiny_model.state_dict())
    lines: list[str] = []
    adapted = fit(tiny_model, ROWS, recipe=QUICK, scratch=tmp_path / "scratch", report=lines.append)
    assert mean_loss(adapted, ROWS, 8) < before * 0.7
    with adapted.disable_adapter():
        assert mean_loss(adapted, ROWS, 8) == pytest.approx(before, abs=1e-5)
    for name, tensor in adapted.get_base_model().state_dict().items():
        if "lora" not in name:
            assert torch.equal(tensor, weights[name.replace(".base_layer", "")])


def test_after_mixed_precision_the_forward_pass_is_plain_again(
    tiny_model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("server.training.loop.fast_bfloat16", lambda device: True)
    before = mean_loss(tiny_model, ROWS, 8)
    adapted = fit(tiny_model, ROWS, recipe=QUICK, scratch=tmp_path, report=lambda line: None)
    assert mean_loss(adapted, ROWS, 8) < before * 0.7
    with adapted.disable_adapter():
        assert mean_loss(adapted, ROWS, 8) == pytest.approx(before, abs=1e-5)


def test_progress_lines_name_step_and_time_left(tiny_model: LlamaForCausalLM, tmp_path: Path):
    lines: list[str] = []
    fit(tiny_model, ROWS, recipe=QUICK, scratch=tmp_path, report=lines.append)
    assert lines[-1].startswith("step 36/36, epoch 6.00")
    assert lines[-1].endswith("about 0 s left")
    assert 10 <= len(lines) <= 41


def test_every_linear_layer_but_the_head_gets_lora(tiny_model: LlamaForCausalLM, tmp_path: Path):
    adapted = fit(tiny_model, ROWS[:4], recipe=Recipe(rank=2, alpha=4, epochs=1, batch=4), scratch=tmp_path,
                  report=lambda line: None)  # fmt: skip
    changed = {name.split(".lora_A")[0].rsplit(".", 1)[1] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_same_seed_gives_the_same_adapter(tiny_folder: Path, tmp_path: Path):
    losses = []
    for run in range(2):
        model = LlamaForCausalLM.from_pretrained(tiny_folder)
        adapted = fit(model, ROWS, recipe=Recipe(rank=2, alpha=4, epochs=1, batch=4, seed=3),
                      scratch=tmp_path / str(run), report=lambda line: None)  # fmt: skip
        losses.append(mean_loss(adapted, ROWS, 8))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_chosen_target_modules_are_kept():
    assert lora_config(Recipe(target_modules=("q_proj", "v_proj"))).target_modules == {"q_proj", "v_proj"}
    assert lora_config(Recipe()).target_modules == "all-linear"


def test_bfloat16_is_a_question_of_the_machine():
    assert fast_bfloat16("cpu") in (True, False)
    assert fast_bfloat16("mps") is False


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (42, "42 s"), (60, "1 min 00 s"), (185.2, "3 min 05 s"), (4321, "1 h 12 min")]
)
def test_durations_in_words(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"epochs": 0}, {"learning_rate": -1e-4}, {"held_out": 1.0}, {"dropout": -0.1}, {"batch": 0}]
)
def test_a_recipe_that_cannot_work_is_refused(change: dict[str, float]):
    with pytest.raises(InvalidInput, match=next(iter(change))):
        Recipe(**change)  # type: ignore[arg-type]
