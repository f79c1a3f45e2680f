"""A GGUF file to a folder that transformers loads in seconds. Knows nothing of wheels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def convert_gguf(folder: Path, report: Callable[[str], None]) -> None:
    """model.gguf → float32 safetensors, config, generation config and tokenizer, in the same folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # of this thread: a second thread pool in the process halves the speed of the model's
    gguf = folder / "model.gguf"
    report("converting the weights to float32 safetensors (once, about twenty seconds)")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=gguf.name, dtype=torch.float32)
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        str(folder / "model.safetensors"),
        metadata={"format": "pt"},
    )
    (folder / "model.safetensors").chmod(0o644)  # it was written for its owner alone
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are plain numbers now
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))
    model.generation_config.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    gguf.unlink()
