"""Tiny random models with a tokenizer trained on the spot, and adapters made by PEFT: no weights are fetched."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OpenAIGPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from server.config import EngineSettings, ModelSettings
from server.engine import AdapterCatalogue, LocalEngine, runtime
from server.engine.cache.prefix import BLOCK_SIZE
from server.engine.forward.paths import DecoderForward, DeviceLayout
from server.engine.sampling.sampler import Choice, Sampler, choose_tokens
from server.errors import EngineError
from server.types import GenerationDone, GenerationRequest, SamplingParams, TokenDelta, Usage
from tests.engine.forward.captures import Tape
from tests.engine.oracle import Oracle, assert_is, greedy, peft_quiet, reference, unspeakable

__all__ = ["greedy", "peft_quiet", "reference"]

SMALL_PAGE = 32  # tokens

torch.set_num_threads(1)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "환불은 사십오 일 안에 됩니다. 안녕하세요!",
    '{"name": "Kim", "age": 12}',
] * 8
VOCABULARY = 400
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.15,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "qwen3": lambda: Qwen3Config(**_SHAPE, head_dim=16),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=7),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=48,
        n_layer=2,
        n_head=4,
        n_positions=256,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.15,
    ),
    "bloom": lambda: BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.15,
    ),
    "mamba": lambda: MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, bos_token_id=0, eos_token_id=2, pad_token_id=2
    ),
    "openai-gpt": lambda: OpenAIGPTConfig(
        vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=256, initializer_range=0.15
    ),
}


def tiny_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML marks; Korean letters fall apart into several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    return tokenizer


def save_tiny(folder: Path, config: Any, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny("llama") is the folder of a random model of that architecture, made once."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            made[name] = save_tiny(tmp_path_factory.mktemp(name) / name, CONFIGS[name]())
        return made[name]

    return build


def make_adapter(
    base: Path,
    root: Path,
    name: str,
    version: str = "1",
    *,
    seed: int = 1,
    tailor: dict[str, Any] | None = None,
    scale: float = 1.0,
    **config: Any,
) -> Path:
    """A PEFT adapter with random weights of visible effect under root/name/version."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(str(base))
    settings: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "init_lora_weights": False,
        "task_type": "CAUSAL_LM",
    }
    folder = root / name / version
    with peft_quiet(), torch.no_grad():
        adapted = get_peft_model(model, LoraConfig(**{**settings, **config}))
        for key, tensor in adapted.named_parameters():
            if "lora_" in key:
                tensor.normal_(0, 0.2 * scale)
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
    if tailor is not None:
        (folder / "tailor.json").write_text(json.dumps(tailor))
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A team of threads for so little work waits longer at each product's end than it computes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


EngineFactory = Callable[..., Any]


@pytest.fixture
async def engines() -> AsyncIterator[EngineFactory]:
    """await engines(model_folder, adapters_folder, max_batch=…) starts an engine; all are closed, with sound state.
    Bounds in bytes may be smaller than the settings allow: tiny models need little."""
    started: list[LocalEngine] = []

    async def start(
        model: Path, adapters: Path | None = None, *, model_settings: ModelSettings | None = None, **settings: Any
    ) -> LocalEngine:
        bounds = {key: settings.pop(key) for key in tuple(settings) if key.endswith("_bytes")}
        engine = LocalEngine(
            str(model),
            EngineSettings(**settings).model_copy(update=bounds),
            model_settings or ModelSettings(device="cpu"),
            AdapterCatalogue(adapters or model.parent / "no-adapters"),
        )
        await engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await settle(engine)
        engine.check_integrity()
        await engine.close()


@pytest.fixture(params=["arena", "pages"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How engines lay out their memory: as on a processor, or as on a device, with steps replayed from a tape."""
    if request.param == "pages":
        as_on_a_device(monkeypatch)
    return str(request.param)


def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that start from now on have pages, small ones, stacks of a fixed rank, and steps that are replayed from a
    tape."""

    def layout(placement: Any, settings: EngineSettings) -> DeviceLayout:
        return DeviceLayout(settings.max_lora_rank, Tape(), page_size=SMALL_PAGE)

    monkeypatch.setattr(runtime, "device_layout", layout)


def whole(memory: str, tokens: int) -> int:
    """How many of so many tokens that a row has computed are found again: in pages, of the last one no less than 16."""
    if memory == "pages" and tokens % SMALL_PAGE >= 16:
        return tokens
    unit = SMALL_PAGE if memory == "pages" else BLOCK_SIZE
    return tokens // unit * unit


async def settle(engine: LocalEngine) -> None:
    """Waits until nothing runs."""
    for _ in range(500):
        health = engine.health()
        if not health.running and not health.waiting:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the engine is still busy: {engine.health()}")


async def until(condition: Callable[[], Any], what: str = "", *, seconds: float = 60.0) -> None:
    """Waits until it holds, however slow the machine is."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"it never came: {what or condition}")
        await asyncio.sleep(0.002)


class Gate:
    """Counts the decoder's steps, and lets them through one by one once it is shut."""

    def __init__(self) -> None:
        self.begun = self.done = 0
        self._allowed: int | None = None
        self._changed = threading.Condition()

    def shut(self) -> None:
        """The step after the one that runs now, if any, will wait."""
        with self._changed:
            self._allowed = self.begun

    def open(self) -> None:
        with self._changed:
            self._allowed = None
            self._changed.notify_all()

    async def let(self, steps: int) -> None:
        """So many steps more; returns when they are done and the next one waits at the gate."""
        with self._changed:
            assert self._allowed is not None, "it is not shut"
            self._allowed += steps
            target = self._allowed
            self._changed.notify_all()
        await until(lambda: self.done >= target and self.begun > target, f"step {target}, now {self.begun}")

    async def reached(self) -> None:
        """A step waits at the gate."""
        await until(lambda: self._allowed is not None and self.begun > self._allowed, "a step at the gate")

    def around(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def gated(path: DecoderForward, chunks: Any) -> Any:
            with self._changed:
                self.begun += 1
                mine = self.begun
                self._changed.wait_for(lambda: self._allowed is None or mine <= self._allowed, timeout=120)
            result = run(path, chunks)
            self.done += 1
            return result

        return gated


@pytest.fixture
def gate(engines: EngineFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """It opens before the engines close."""
    made = Gate()
    monkeypatch.setattr(DecoderForward, "run", made.around(DecoderForward.run))
    yield made
    made.open()


class Reply:
    """All that one request gave."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @property
    def deltas(self) -> list[TokenDelta]:
        return [event for event in self.events if isinstance(event, TokenDelta)]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def done(self) -> GenerationDone:
        assert isinstance(self.events[-1], GenerationDone)
        return self.events[-1]

    @property
    def usage(self) -> Usage:
        return self.done.usage


async def ask(
    engine: LocalEngine,
    prompt: list[int] | tuple[int, ...] | str,
    *,
    adapter: str | None = None,
    user: str | None = None,
    constraint: Any = None,
    **sampling: Any,
) -> Reply:
    ids = engine.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 12, **sampling})
    reply = Reply()
    async for event in engine.generate(GenerationRequest(tuple(ids), params, adapter, constraint, user)):
        reply.events.append(event)
    return reply


def choose(sampler: Sampler, values: np.ndarray) -> Choice:
    """One row alone."""
    (choice,) = choose_tokens([sampler], torch.from_numpy(values.copy())[None])
    if isinstance(choice, EngineError):
        raise choice
    return choice


@pytest.fixture(scope="session")
def made_adapters(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters a, b and c of the tiny Llama, on all its linear layers."""
    root = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("abc", 1):
        make_adapter(tiny("llama"), root, name, seed=seed, target_modules="all-linear")
    return root


@pytest.fixture
def adapters(made_adapters: Path, tmp_path: Path) -> Path:
    """A copy of them to be changed."""
    return Path(shutil.copytree(made_adapters, tmp_path / "adapters"))


@pytest.fixture(scope="session")
def oracles(tiny: Callable[[str], Path], made_adapters: Path) -> dict[str | None, Oracle]:
    found: dict[str | None, Oracle] = {name: Oracle(tiny("llama"), made_adapters / name / "1") for name in "abc"}
    return {**found, None: Oracle(tiny("llama"))}


Exact = Callable[..., Awaitable[Reply]]


@pytest.fixture
def exact(oracles: dict[str | None, Oracle]) -> Exact:
    """await exact(engine, tokens, "a") asks, and the answer must be the oracle's."""

    async def asked(engine: LocalEngine, tokens: list[int], adapter: str | None = None, count: int = 6) -> Reply:
        bias = unspeakable(engine)
        reply = await ask(engine, tokens, adapter=adapter, max_tokens=count, logprobs=20, logit_bias=bias)
        assert_is(reply, oracles[adapter].answer(tokens, count, bias), engine)
        return reply

    return asked
