"""The common decoder (Llama, Mistral, Qwen2, Qwen3), computed by ourselves: fused projections, fast linears,
one attention over all rows, an adapter for each row.

Takes its weights out of a model that transformers has loaded, layer by layer, so that they are never held
twice; that model cannot be run afterwards. Knows nothing of sampling or queues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from server.engine.adapters.lora_layers import LoraBank, LoraGroup
from server.engine.adapters.segments import LoraPlan
from server.engine.cache.kv import KVShape
from server.engine.forward.attention import AttentionStep
from server.engine.forward.linears import LinearChoice
from server.engine.forward.paged_attention import PagedStep
from server.engine.kernels import rotary_write, silu_mul
from server.quantization import Linear, LinearFactory

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_STATIC_ROPES = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on the text's length


def unsupported_reason(model: Any) -> str:
    """Why the decoder cannot compute this model; '' when it can."""
    config = model.config
    if config.model_type not in FAMILIES:
        return f"{config.model_type} has no decoder of ours"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in _STATIC_ROPES:
        return f"its rope ({rope['rope_type']}) changes with the text's length"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    return ""


def group_names(layers: Mapping[str, tuple[int, int]]) -> list[tuple[str, ...]]:
    """The model's linear layers by shared input."""
    groups: list[tuple[str, ...]] = []
    for name in layers:
        head, _, last = name.rpartition(".")
        if last == "q_proj":
            groups.append((name, f"{head}.k_proj", f"{head}.v_proj"))
        elif last == "gate_proj":
            groups.append((name, f"{head}.up_proj"))
        elif last not in ("k_proj", "v_proj", "up_proj"):
            groups.append((name,))
    return groups


@dataclass(frozen=True)
class Projection:
    """Layers that share an input, as one product, with what adapters add to it."""

    linear: Linear
    lora: LoraGroup

    def __call__(self, x: Tensor, lora_plan: LoraPlan) -> Tensor:
        y = self.linear(x)
        self.lora.add(x, y, lora_plan)
        return y


class Norm:
    """Root mean square norm (Zhang and Sennrich, 2019) over the last dimension."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self._weight = weight
        self._eps = eps
        self._is_device = weight.device.type != "cpu"
        self._is_float32 = weight.dtype == torch.float32
        if self._is_float32:  # x / sqrt(sum / n + eps) = x · sqrt(n) / sqrt(sum + n · eps): fewer operators
            self._weight = weight * weight.shape[0] ** 0.5
            self._scaled_eps = weight.new_tensor([weight.shape[0] * eps])

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_device:
            return F.rms_norm(x, self.weight.shape, self.weight, self._eps)  # one kernel
        if self._is_float32:
            root: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return x.mul(torch.addcmul(self._scaled_eps, root, root).rsqrt_()).mul_(self._weight)
        wide = x.float()  # the models' own code: the sum of squares in float32, the weight in the model's type
        return self._weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)).to(x.dtype)


@dataclass(frozen=True)
class Layer:
    norm: Norm
    qkv: Projection
    q_norm: Norm | None
    k_norm: Norm | None
    out: Projection
    mlp_norm: Norm
    gate_up: Projection
    down: Projection
    window: int


Attend = Callable[[int, Layer, Tensor], Tensor]  # number of the layer, the layer, qkv → [tokens, heads · dim]


class RotaryTerms(NamedTuple):
    """By a token's position, [tokens, 1, dim] and half of it: `minus_sin` is minus the first half of the sines."""

    cos: Tensor
    minus_sin: Tensor
    sin: Tensor


class Decoder:
    """Weights and forward pass. Only the model thread may run it."""

    def __init__(self, model: Any, linear: LinearChoice, bank: LoraBank) -> None:
        """Empties `model` of its linear layers' weights. All of it computes where the bank is: `linear` takes their
        weights there one by one, so that only they need to fit, as they are then."""
        config, device = model.config, bank.device
        self._eps = eps = float(config.rms_norm_eps)
        self._heads = int(config.num_attention_heads)
        self._kv_heads = int(config.num_key_value_heads)
        self._dim = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        body = model.model
        self._embedding = body.embed_tokens.weight.to(device)
        self._is_device = self._embedding.device.type != "cpu"
        self._rope = body.rotary_emb.to(device)
        self._norm = Norm(body.norm.weight.to(device), eps)
        self.shape = KVShape(
            len(body.layers), self._kv_heads, self._dim, self._dim, self._embedding.dtype, self._embedding.device
        )
        self._layers = [
            _layer(f"model.layers.{n}", layer, eps, linear.make, bank) for n, layer in enumerate(body.layers)
        ]
        self._head = _fuse([model.lm_head], linear.make_head or linear.make, bank.group("lm_head"), device)

    def run(
        self,
        tokens: Tensor,
        step: AttentionStep | PagedStep,
        lora_plan: LoraPlan,
        logits_indices: Tensor,
        logits_lora_plan: LoraPlan,
    ) -> Tensor:
        """tokens [n] of all rows, `logits_indices` [m] those whose logits are needed → logits [m, vocabulary]."""
        h = F.embedding(tokens, self._embedding)
        cos, sin = (part[0] for part in self._rope(h[None], step.positions[None]))
        attend = self._attend_paged(step, cos, sin) if isinstance(step, PagedStep) else self._attend(step, cos, sin)
        for number, layer in enumerate(self._layers):
            x = layer.norm(h)
            attended = attend(number, layer, layer.qkv(x, lora_plan))
            if number == len(self._layers) - 1:  # what follows is only for the tokens whose logits are needed
                h, attended = h.index_select(0, logits_indices), attended.index_select(0, logits_indices)
                lora_plan = logits_lora_plan
            h += layer.out(attended, lora_plan)
            x = layer.mlp_norm(h)
            h += layer.down(self._gated(layer.gate_up(x, lora_plan)), lora_plan)
        return self._head(self._norm(h), lora_plan)

    def _gated(self, gate_up: Tensor) -> Tensor:
        if self._is_device:
            gated: Tensor = silu_mul(gate_up)
            return gated
        gate, up = gate_up.chunk(2, dim=1)
        return F.silu(gate).mul_(up)

    def _attend(self, step: AttentionStep, cos: Tensor, sin: Tensor) -> Attend:
        first, second = sin[:, None].chunk(2, dim=-1)
        rotary = RotaryTerms(cos[:, None], -first, second)

        def attend(number: int, layer: Layer, qkv: Tensor) -> Tensor:
            heads = qkv.view(len(qkv), -1, self._dim)
            both, v = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
            if layer.q_norm is not None and layer.k_norm is not None:
                both = torch.cat((layer.q_norm(both[:, : self._heads]), layer.k_norm(both[:, self._heads :])), dim=1)
            rotated = _apply_rotary(both, rotary)
            q, k = rotated[:, : self._heads], rotated[:, self._heads :]
            return step.attend(number, q, k, v, self._dim**-0.5, layer.window).flatten(1)

        return attend

    def _attend_paged(self, step: PagedStep, cos: Tensor, sin: Tensor) -> Attend:
        def attend(number: int, layer: Layer, qkv: Tensor) -> Tensor:
            q = rotary_write(
                qkv,
                layer.q_norm.weight if layer.q_norm is not None else None,
                layer.k_norm.weight if layer.k_norm is not None else None,
                self._eps,
                cos,
                sin,
                step.pages.places(number),
                step.tables.places,
                self._heads,
                self._kv_heads,
            )
            return step.attend_written(number, q, self._dim**-0.5, layer.window).flatten(1)

        return attend


def _apply_rotary(x: Tensor, rotary: RotaryTerms) -> Tensor:
    """Rotary position embedding (Su et al., 2021) of x [tokens, heads, dim], in pairs of one number from each half."""
    rotated = x * rotary.cos
    (first, second), (to_first, to_second) = x.chunk(2, dim=-1), rotated.chunk(2, dim=-1)
    to_first.addcmul_(second, rotary.minus_sin)
    to_second.addcmul_(first, rotary.sin)
    return rotated


def _layer(name: str, layer: Any, eps: float, make: LinearFactory, bank: LoraBank) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        norm=Norm(layer.input_layernorm.weight.to(bank.device), eps),
        qkv=_fuse(
            [attention.q_proj, attention.k_proj, attention.v_proj],
            make,
            bank.group(f"{name}.self_attn.q_proj"),
            bank.device,
        ),
        q_norm=Norm(attention.q_norm.weight.to(bank.device), eps) if hasattr(attention, "q_norm") else None,
        k_norm=Norm(attention.k_norm.weight.to(bank.device), eps) if hasattr(attention, "k_norm") else None,
        out=_fuse([attention.o_proj], make, bank.group(f"{name}.self_attn.o_proj"), bank.device),
        mlp_norm=Norm(layer.post_attention_layernorm.weight.to(bank.device), eps),
        gate_up=_fuse([mlp.gate_proj, mlp.up_proj], make, bank.group(f"{name}.mlp.gate_proj"), bank.device),
        down=_fuse([mlp.down_proj], make, bank.group(f"{name}.mlp.down_proj"), bank.device),
        window=int(_window(attention) or 0),
    )


def _window(attention: Any) -> int | None:
    if hasattr(attention, "sliding_window"):  # differs by layer in Qwen
        return attention.sliding_window  # type: ignore[no-any-return]
    return getattr(attention.config, "sliding_window", None)


def _fuse(modules: Sequence[Any], make: LinearFactory, lora: LoraGroup, device: torch.device) -> Projection:
    """One product of several modules' weights, which leave the modules."""
    weights = [module.weight.detach() for module in modules]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    biases = [module.bias for module in modules]
    bias = None
    if any(part is not None for part in biases):
        bias = torch.cat(
            [
                weight.new_zeros(module.weight.shape[0]) if part is None else part.detach()
                for module, part in zip(modules, biases, strict=True)
            ]
        )
    linear = make(weight, bias)
    for module in modules:
        module.weight = None
    lora.attach(linear.weight, None if bias is None else bias.to(device))
    return Projection(linear, lora)
