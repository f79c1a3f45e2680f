"""A peer in a process of its own: reads jobs as lines of JSON, answers each with its seconds and its tokens.

    python -m bench.worker KIND '{"model": …, "adapters": {name: folder}, "threads": …}'

First line out: {"ready": …}. A job: {"prompts", "adapters", "new", "decode"}; its answer: {"seconds", "tokens",
"answers"} or {"error"}. Runs in environments without the rest of Tailor, so it imports nothing of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

CACHE_SHARE = 0.1  # of the memory, for continuous batching's cache: by default it takes nearly all and gains nothing

VLLM_SHARE = 0.45  # of the card's memory, the model's weights included


@dataclass(frozen=True)
class Options:
    model: str
    adapters: Mapping[str, str]
    threads: int
    device: str
    chats: int
    rank: int


@dataclass(frozen=True)
class Job:
    prompts: list[list[int]]
    adapters: list[str | None]
    new: int
    decode: bool = False  # time from the first token on; one prompt only


@dataclass(frozen=True)
class Done:
    seconds: float
    tokens: int
    answers: list[list[int]]


class Side(Protocol):
    def run(self, job: Job) -> Done: ...


def timed(job: Job, answer: Callable[[], list[list[int]]]) -> Done:
    """Raises RuntimeError where an answer has another length than was asked for."""
    began = time.perf_counter()
    answers = answer()
    seconds = time.perf_counter() - began
    lengths = sorted({len(each) for each in answers})
    if lengths != [job.new] or len(answers) != len(job.prompts):
        raise RuntimeError(f"{len(answers)} answers of {lengths} tokens came, not {len(job.prompts)} of {job.new}")
    return Done(seconds, len(answers) * job.new, answers)


# ── transformers, with and without peft ──────────────────────────────────────────────────────────


class Generate:
    """transformers' `generate`: one static batch of prompts of one length."""

    def __init__(self, options: Options) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(options.threads)
        self.device = options.device
        dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).to(options.device)
        self.model: Any = model.eval()

    def run(self, job: Job) -> Done:
        if any(job.adapters):
            raise ValueError("this peer serves the base alone")
        first = _FirstToken() if job.decode else None
        done = timed(job, lambda: self.generated(job.prompts, job.new, streamer=first))
        return first.since(done) if first else done

    def generated(self, prompts: list[list[int]], new: int, **more: Any) -> list[list[int]]:
        import torch

        ids = torch.tensor(prompts, device=self.device)
        with torch.inference_mode():
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
                **more,
            )
        return [list(row) for row in whole[:, ids.shape[1] :].tolist()]


class _FirstToken:
    """A streamer that takes the time: `put` is called with the prompt, then with each token."""

    def __init__(self) -> None:
        self.put_at: list[float] = []

    def put(self, value: Any) -> None:
        self.put_at.append(time.perf_counter())

    def end(self) -> None:
        self.put_at.append(time.perf_counter())

    def since(self, done: Done) -> Done:
        return Done(self.put_at[-1] - self.put_at[1], done.tokens - 1, done.answers)


class Peft(Generate):
    """All adapters in one PeftModel, as peft serves several."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from peft import PeftModel

        (first, folder), *others = options.adapters.items()
        self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=first, autocast_adapter_dtype=False)
        for name, path in others:
            self.model.load_adapter(path, name, autocast_adapter_dtype=False)
        self.model.to(self.device, self.model.dtype).eval()


class PeftOne(Peft):
    """One chat at a time: `set_adapter`, then `generate`."""

    def run(self, job: Job) -> Done:
        return timed(job, lambda: [self._one(*each, job.new) for each in zip(job.prompts, job.adapters, strict=True)])

    def _one(self, prompt: list[int], adapter: str | None, new: int) -> list[int]:
        self.model.set_adapter(adapter)
        return self.generated([prompt], new)[0]


class PeftBatch(Peft):
    """One static batch with `adapter_names`."""

    def run(self, job: Job) -> Done:
        return timed(job, lambda: self.generated(job.prompts, job.new, adapter_names=job.adapters))


class Continuous(Generate):
    """transformers' continuous batching; its manager is kept, so that making it is no part of the time."""

    def run(self, job: Job) -> Done:
        if any(job.adapters):
            raise ValueError("continuous batching serves the base alone")
        return timed(job, lambda: self._batch(job))

    def _batch(self, job: Job) -> list[list[int]]:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        greedy = GenerationConfig(max_new_tokens=job.new, do_sample=False, eos_token_id=-1, pad_token_id=0)
        outputs = self.model.generate_batch(
            job.prompts,
            generation_config=greedy,
            continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=CACHE_SHARE),
            persistent_manager=True,
        )
        return [list(output.generated_tokens) for output in outputs.values()]


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────────────


class Vllm:
    """vLLM's offline engine, LoRA on, without its prefix cache (no prompt comes twice).

    Eager in float32 on a processor; on a card in bfloat16, compiled and with CUDA graphs, as it is by default, in a
    share of the memory, since ours is there as well."""

    def __init__(self, options: Options) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process: one set of threads
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if hasattr(os, "sched_getaffinity"):
            bound = sorted(os.sched_getaffinity(0))[: options.threads]
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(str(core) for core in bound))
        from vllm import LLM

        self.folders = dict(options.adapters)
        self.numbers = {name: number for number, name in enumerate(self.folders, 1)}
        cuda = options.device == "cuda"
        placed = {"gpu_memory_utilization": VLLM_SHARE} if cuda else {"enforce_eager": True}
        self.llm = LLM(
            model=options.model,
            dtype="bfloat16" if cuda else "float32",
            **placed,
            enable_prefix_caching=False,
            max_model_len=2048,
            max_num_seqs=options.chats,
            enable_lora=True,
            max_loras=len(self.folders),
            max_lora_rank=options.rank,
        )

    def run(self, job: Job) -> Done:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        sampling = SamplingParams(temperature=0, max_tokens=job.new, ignore_eos=True, detokenize=False)
        adapters = [
            LoRARequest(name, self.numbers[name], self.folders[name]) if name else None for name in job.adapters
        ]
        prompts = [{"prompt_token_ids": prompt} for prompt in job.prompts]

        def answer() -> list[list[int]]:
            outputs = self.llm.generate(prompts, sampling, lora_request=adapters, use_tqdm=False)
            return [list(output.outputs[0].token_ids) for output in outputs]

        return timed(job, answer)


KINDS: Mapping[str, Callable[[Options], Side]] = {
    "generate": Generate,
    "peft-one": PeftOne,
    "peft-batch": PeftBatch,
    "continuous": Continuous,
    "vllm": Vllm,
}


def serve(side: Side, jobs: TextIO, out: TextIO) -> None:
    """Until there are no more jobs. A job that raises is answered with its error, and ends the process."""
    for line in jobs:
        done = side.run(Job(**json.loads(line)))
        _say(out, {"seconds": done.seconds, "tokens": done.tokens, "answers": done.answers})


def _say(out: TextIO, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def main(kind: str, options: str) -> None:
    """What libraries print goes to standard error: standard output is for answers alone."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        side = KINDS[kind](Options(**json.loads(options)))
        _say(out, {"ready": kind})
        serve(side, sys.stdin, out)
    except Exception as error:  # the process's outermost edge: the parent is told, and the traceback goes to the log
        _say(out, {"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
