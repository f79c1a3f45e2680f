"""Which card a run is on, and how large a model it takes."""

from __future__ import annotations

import pytest
import torch

from bench.context import FULL_CUDA, LLAMA_1B, LLAMA_3B, LLAMA_8B, TINY, Shape
from bench.gpu import card
from bench.models import random_llama

GIB = 1 << 30


def test_without_a_card_one_line_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(card.NoCard) as found:
        card.find()
    assert str(found.value) == card.missing(torch.__version__, torch.version.cuda)
    for text, fix in (
        (card.missing("2.13.0+cpu", None), "torch 2.13.0+cpu is a build without CUDA; install"),
        (card.missing("2.13.0", "13.0"), "`nvidia-smi` must list one"),
    ):
        assert fix in text
        assert "\n" not in text


def test_a_card_is_told_in_one_line() -> None:
    found = card.Card("NVIDIA H200", 139 * GIB, "9.0", "570.1", "12.8")
    assert found.lines == [
        "GPU: NVIDIA H200, 139.0 GiB, compute capability 9.0; driver 570.1, CUDA 12.8 of torch",
    ]
    assert "the first of 2" in card.Card("a", GIB, "9.0", "1", "12", count=2).lines[0]


def test_a_driver_that_cannot_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert card._driver() == "unknown"


@pytest.mark.parametrize(
    ("gib", "shape"),
    [(139, LLAMA_8B), (79, LLAMA_8B), (47.5, LLAMA_8B), (39.5, LLAMA_3B), (23.6, LLAMA_3B), (15, LLAMA_1B)],
)
def test_the_model_is_the_largest_of_which_two_fit(gib: float, shape: Shape) -> None:
    assert card.fitting(int(gib * GIB), FULL_CUDA) == shape


def test_a_card_too_small_for_any_gets_the_smallest() -> None:
    assert card.fitting(GIB, FULL_CUDA) == LLAMA_1B


def test_a_shapes_parameters_are_those_of_the_model_that_is_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    from safetensors import safe_open

    folder = tmp_path_factory.mktemp("shape") / "model"
    random_llama(TINY, folder)
    with safe_open(str(folder / "model.safetensors"), framework="pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118  no mapping
    assert TINY.parameters == sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    linear = [shape for name, shape in shapes.items() if "_proj" in name]
    assert TINY.linear_widths == sum(sum(shape) for shape in linear)
    assert "random Llama of 8.0B parameters (hidden 4096, 32 layers" in card.shape_line(LLAMA_8B)
