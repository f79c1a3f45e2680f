from __future__ import annotations

import pytest
import torch

from server.config import ModelSettings
from server.engine.model.loading import choose_placement, load_model
from server.errors import ModelError
from tests.engine.conftest import ask


@pytest.fixture
def cuda(monkeypatch):
    def pretend(there: bool, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)

    return pretend


@pytest.mark.parametrize(
    ("there", "bf16", "settings", "device", "dtype", "words"),
    [
        (False, False, {}, "cpu", torch.float32, "no CUDA device is there"),
        (True, True, {}, "cuda", torch.bfloat16, "a CUDA device is there"),
        (True, False, {}, "cuda", torch.float16, "no bfloat16"),
        (True, True, {"device": "cpu"}, "cpu", torch.float32, "cpu as set"),
        (True, True, {"device": "cuda", "dtype": "float32"}, "cuda", torch.float32, "float32 as set"),
        (False, False, {"dtype": "bfloat16"}, "cpu", torch.bfloat16, "bfloat16 as set"),
    ],
)
def test_device_and_numbers_come_with_a_reason(cuda, there, bf16, settings, device, dtype, words) -> None:
    cuda(there, bf16)
    found = choose_placement(ModelSettings(**settings))
    assert (found.device, found.dtype) == (device, dtype)
    assert words in found.reason


def test_a_device_that_is_not_there_is_refused(cuda) -> None:
    cuda(False)
    with pytest.raises(ModelError, match=r"model\.device is 'cuda'"):
        choose_placement(ModelSettings(device="cuda"))


def test_what_a_model_is(tiny) -> None:
    loaded = load_model(str(tiny("llama")), ModelSettings(device="cpu"))
    assert (loaded.context_length, loaded.vocabulary, loaded.kv_bytes) == (256, 400, 576)
    assert not loaded.model.training
    assert loaded.parameters == sum(p.numel() for p in loaded.model.parameters())


def test_the_context_can_be_cut_but_not_stretched(tiny) -> None:
    assert load_model(str(tiny("llama")), ModelSettings(device="cpu", context_length=64)).context_length == 64
    with pytest.raises(ModelError, match="made for 256 tokens"):
        load_model(str(tiny("llama")), ModelSettings(device="cpu", context_length=512))


async def test_half_precision_serves_too(tiny, engines) -> None:
    engine = await engines(tiny("llama"), model_settings=ModelSettings(device="cpu", dtype="bfloat16"))
    assert engine.model.dtype == "bfloat16"
    assert (await ask(engine, [5, 6, 7], max_tokens=5)).usage.completion_tokens >= 1
