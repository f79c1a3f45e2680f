"""The models and adapters that are measured: folders made for one run, the same for every engine.

No engine may stop early, and none should pay for being held from it: in each model the output rows of the
tokens that end a turn are zero, so greedy decoding never chooses them. All else is as it was.
"""

from __future__ import annotations

import gc
import json
import math
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from bench.context import ROOT, Bench, Device, Shape
from bench.figure import Unavailable
from server.config import DEFAULT_CHAT_MODEL, DEFAULT_EMBEDDER
from server.engine import ModelTokenizer
from server.model_store import ModelStore

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FIRST_WORD = len(_SPECIAL) + 256  # before it, single bytes
_SPARE_BYTES = 1 << 30  # left on the disk beside a model
FIRST_PLAIN = 300  # from this token id on, nothing is special in the models that are measured


def chat_model(bench: Bench) -> Path:
    """The served model, or the default one, without its ends of turn; made once a run."""
    folder = bench.folder / "model"
    if not folder.exists():
        source = bench.model or Path(_store(bench).chat_model(DEFAULT_CHAT_MODEL))
        model = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
        _save(model, AutoTokenizer.from_pretrained(str(source)), sorted(ModelTokenizer(str(source)).stop_ids), folder)
    return folder


def embedder(bench: Bench) -> Path:
    return Path(_store(bench).embedder(DEFAULT_EMBEDDER))


def large_model(bench: Bench) -> Path:
    """A random Llama of the run's large shape, stored as bfloat16; made once a run."""
    folder = bench.folder / "large"
    if not folder.exists():
        random_llama(bench.sizes.large, folder, bench.device)
    return folder


def random_llama(
    shape: Shape, folder: Path, device: Device = "cpu", seed: int = 0, *, silent: int = len(_SPECIAL)
) -> None:
    """Nothing is fetched: the tokenizer, too, is made on the spot. The first `silent` tokens are never chosen.

    Raises Unavailable where the disk has no room for it."""
    needed, free = 2 * shape.parameters, shutil.disk_usage(folder.parent).free
    if free < needed + _SPARE_BYTES:
        raise Unavailable(
            f"a model of {shape.parameters / 1e9:.1f}B parameters takes {needed / 2**30:.0f} GiB beside "
            f"{_SPARE_BYTES / 2**30:.0f} to spare, and {free / 2**30:.0f} GiB are free at {folder.parent}: make room"
        )
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    _save(model, word_tokenizer(shape.vocabulary), range(silent), folder)
    del model
    release()


def release() -> None:
    """Gives the card's memory that nothing uses back to other processes: a peer's is one. Harmless without a card."""
    gc.collect()  # tensors in circles
    torch.cuda.empty_cache()


def word_ids(text: str) -> list[int]:
    """The tokens of a text of invented words. Raises ValueError where anything else is in it."""
    words = re.findall(r" w(\d+)", text)
    if "".join(f" w{word}" for word in words) != text:
        raise ValueError(f"an answer is not made of the model's words alone: {text[:80]!r}")
    return [FIRST_WORD + int(word) for word in words]


def word_tokenizer(vocabulary: int) -> Any:
    """Bytes, and invented words to fill the vocabulary: every token reads as some text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{number}" for number in range(vocabulary - len(_SPECIAL) - len(alphabet))]
    names = [*_SPECIAL, *alphabet, *words]
    backend = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        pad_token=_SPECIAL[2],
    )
    tokenizer.chat_template = _CHATML
    return tokenizer


def adapters(bench: Bench, model: Path) -> Path:
    """A folder of the run's number of LoRA adapters on all linear layers, `a0/1` and on; made once a run.

    The layout and the settings are PEFT's own, the weights random and small enough to leave text.
    """
    root = bench.folder / f"{model.name}-adapters"
    if root.exists():
        return root
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT on tied layers it leaves alone
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(model)))
        config = LoraConfig(
            r=bench.sizes.rank, lora_alpha=2 * bench.sizes.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        tensors = get_peft_model_state_dict(get_peft_model(base, config))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config.base_model_name_or_path = str(model)
    for number in range(bench.sizes.adapters):
        folder = root / adapter_name(number) / "1"
        folder.mkdir(parents=True)
        drawn = torch.Generator().manual_seed(number)
        weights = {name: 0.02 * torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
        save_file(weights, str(folder / "adapter_model.safetensors"))
        config.save_pretrained(str(folder))
    return root


def adapter_name(number: int) -> str:
    return f"a{number}"


def adapter_names(root: Path) -> list[str]:
    return sorted((path.name for path in root.iterdir()), key=lambda name: int(name[1:]))


def vocabulary(model: Path) -> int:
    return int(_config(model)["vocab_size"])


def bytes_a_token(model: Path, width: int) -> int:
    """What one decoding step of one chat must read of the weights, each `width` bytes wide.

    The input table is read one row a token, unless it is the output table as well.
    """
    tied = bool(_config(model).get("tie_word_embeddings"))
    numbers = 0
    for file in model.glob("*.safetensors"):
        with safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  it is no mapping
                if tied or "embed_tokens" not in name:
                    numbers += math.prod(opened.get_slice(name).get_shape())
    return numbers * width


def _config(model: Path) -> dict[str, Any]:
    return dict(json.loads((model / "config.json").read_text(encoding="utf-8")))


def _store(bench: Bench) -> ModelStore:
    return ModelStore(ROOT / "data" / "models", report=bench.report)


def _save(model: Any, tokenizer: Any, stops: Sequence[int], folder: Path) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[list(stops)] = 0
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished))
    tokenizer.save_pretrained(str(unfinished))
    unfinished.rename(folder)
