"""What a decode step on a device may cost: kernels a layer, and what brings numbers to the host. Counted without one:
the operators of a captured step, with stand-ins for the two that only a device computes at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from server.engine.adapters.lora_layers import linear_layers
from server.engine.forward import decoder, paged_attention, paths
from server.engine.forward.chunk import RowChunk
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, DeviceLayout
from server.engine.sampling import sampler
from server.engine.sampling.sampler import Sampler, choose_on_device
from server.types import SamplingParams
from tests.engine.forward.captures import Tape

VIEWS = (
    "view", "_unsafe_view", "slice", "select", "t", "transpose", "expand", "permute", "as_strided", "detach", "alias",
    "unsqueeze", "split", "split_with_sizes", "unbind", "empty", "new_empty", "empty_like", "empty_strided", "flatten",
)  # fmt: skip
SEVERAL = {"stand_in_varlen_attn": 3}  # with grouped queries: it swaps them, attends, and swaps them back
LAYERS_BASE, LAYERS_ADAPTED = 16, 24  # kernels a layer, at most
SIZE = 16
SHAPE: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}


@torch.library.custom_op("tests::stand_in_rms_norm", mutates_args=())
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """One kernel on a card (`aten::_fused_rms_norm`)."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


@torch.library.custom_op("tests::stand_in_varlen_attn", mutates_args=("out",))
def varlen_attn(
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    left: int,
    scale: float,
    seqused: torch.Tensor,
    table: torch.Tensor,
    max_q: int,
    max_k: int,
) -> None:
    """What torch documents of `varlen_attn_out` with a block table: causal, aligned to the last key of each row."""
    assert int(starts.diff().max()) <= max_q
    assert int(seqused.max()) <= max_k == table.shape[1] * key.shape[1]
    for row in range(len(seqused)):
        begin, end, keys = int(starts[row]), int(starts[row + 1]), int(seqused[row])
        k, v = (part[table[row].long()].flatten(0, 1)[:keys].float() for part in (key, value))
        groups = query.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        at = torch.arange(keys - (end - begin), keys)[:, None]
        hidden = torch.arange(keys)[None] > at
        if left >= 0:
            hidden |= torch.arange(keys)[None] < at - left
        scores = torch.einsum("qhd,khd->hqk", query[begin:end].float(), k) * scale
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out[begin:end] = torch.einsum("hqk,khd->qhd", weights, v).to(out.dtype)


def documented(
    out, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa, seqused_k, block_table,
    num_splits,
) -> None:  # fmt: skip
    assert cu_seq_q.dtype == cu_seq_k.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    assert len(cu_seq_q) == len(cu_seq_k) == len(seqused_k) + 1 == len(block_table) + 1
    assert enable_gqa == (query.shape[1] != key.shape[2])
    assert window_size[1] == 0
    assert num_splits == 1, "one row's bits must not depend on others"
    assert key.stride(-1) == value.stride(-1) == query.stride(-1) == block_table.stride(-1) == 1
    assert out.is_contiguous()
    torch.ops.tests.stand_in_varlen_attn(
        out, query, key, value, cu_seq_q, window_size[0], scale, seqused_k, block_table, max_q, max_k
    )


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "_varlen_attn_out", lambda: documented)
    monkeypatch.setattr(paths, "unsupported_by_flash", lambda *shape: "")
    monkeypatch.setattr(decoder.F, "rms_norm", lambda x, shape, weight, eps: rms_norm(x, weight, eps))
    build, norm = decoder.Decoder.__init__, decoder.Norm.__init__

    def on_device(self: Any, *args: Any) -> None:
        build(self, *args)
        self._is_device = True

    def norm_on_device(self: Any, *args: Any) -> None:
        norm(self, *args)
        self._is_device = True

    monkeypatch.setattr(decoder.Decoder, "__init__", on_device)
    monkeypatch.setattr(decoder.Norm, "__init__", norm_on_device)


class Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.seen[name] += SEVERAL.get(name, 1)
        return func(*args, **(kwargs or {}))


def counted(config: Any, stack_index: int | None) -> Counter[str]:
    """Of a captured step."""
    seen: list[Counter[str]] = []

    def capture(compute: Any) -> Any:
        with Kernels() as kernels:
            compute()
        seen.append(kernels.seen)
        return Tape()(compute)

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).bfloat16()
    linear = choose_linear("none", torch.device("cpu"), torch.bfloat16)
    path = DecoderForward(model, linear, linear_layers(model), 4, DeviceLayout(16, capture, SIZE))
    path.kv.allocate(9, 4)
    for _ in range(2):
        path.run([RowChunk((3,), 0, 5, stack_index, pages=[1, 2]), RowChunk((3,), 0, 20, stack_index, pages=[5, 6])])
    (kernels,) = seen
    return kernels


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config])
@torch.inference_mode()
def test_a_layer_of_a_decode_step_is_few_kernels(as_on_a_card, kind: Any, adapted: bool) -> None:
    three, four = (counted(kind(num_hidden_layers=n, **SHAPE), 1 if adapted else None) for n in (3, 4))
    layer = four - three
    assert layer["rotary_write"] == layer["silu_mul"] == 1
    assert layer["stand_in_varlen_attn"] == 3
    assert layer["lora_shrink"] == layer["lora_expand"] == (4 if adapted else 0)
    assert layer.total() <= (LAYERS_ADAPTED if adapted else LAYERS_BASE), layer
    around = three.total() - 3 * layer.total()
    assert around <= 40, "of the whole step, whatever its depth"


@torch.inference_mode()
def test_rows_attend_by_what_torch_documents_of_varlen_attn(as_on_a_card) -> None:
    """The same logits as without FlashAttention, for prompts and decodes, in a window and without."""
    config = LlamaConfig(num_hidden_layers=2, **SHAPE)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    state = model.state_dict()
    linear = choose_linear("none", torch.device("cpu"), torch.float32)
    found = []
    for flash in (True, False):
        again = AutoModelForCausalLM.from_config(config)
        again.load_state_dict(state)
        path = DecoderForward(again, linear, linear_layers(again), 4, DeviceLayout(16, None, SIZE))
        path._flash = flash
        path.kv.allocate(9, 4)
        for layer in path._decoder._layers[:1]:
            object.__setattr__(layer, "window", 7)
        prompts = [RowChunk(tuple(range(3, 23)), 0, 0, pages=[1, 4]), RowChunk((9, 8), 0, 0, pages=[6])]
        steps = [RowChunk((5,), 0, 20, pages=[1, 4]), RowChunk((6,), 0, 2, pages=[6])]
        found.append(torch.cat((path.run(prompts), path.run(steps))))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_step_waits_once_and_brings_heads_alone(as_on_a_card, monkeypatch: pytest.MonkeyPatch) -> None:
    """From logits to tokens: one copy to the host, of some numbers a row."""
    brought: list[torch.Size] = []

    def to_host(tensor: torch.Tensor) -> torch.Tensor:
        brought.append(tensor.shape)
        return tensor.clone()

    monkeypatch.setattr(sampler, "to_host", to_host)
    rows = [Sampler(SamplingParams(temperature=0.8 * (number % 2), seed=1), ()) for number in range(8)]
    with Kernels() as kernels:
        choose_on_device([*rows, sampler.WATCHED], 8 * torch.randn(9, 5000))
    assert brought == [torch.Size([9, 131])]
    assert not kernels.seen.keys() & {"_local_scalar_dense", "nonzero", "is_nonzero"}
