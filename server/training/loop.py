"""The training loop: a causal LM and token rows in, a LoRA-adapted model out.

Only LoRA's own weights move. The head is computed on the answers' columns alone, which with a large
vocabulary saves most of the loss's time and memory. Knows nothing of files, prompts or examples.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from server.engine import continued_settings
from server.training.recipe import Recipe
from server.training.rows import IGNORED, Row, collate
from server.training.text import duration

MAX_PROGRESS_LINES = 40  # progress lines of one run, at most


class TokenRows(Dataset[Row]):
    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


def fit(
    model: Any,
    rows: Sequence[Row],
    *,
    recipe: Recipe,
    scratch: Path,
    report: Callable[[str], None],
    start: Path | None = None,
) -> Any:
    """The base `model` with a trained LoRA around it (a PeftModel). `scratch` is an empty folder for the trainer;
    `start` is an adapter to go on from, whose rank and target layers are then used."""
    torch.manual_seed(recipe.seed)
    with _quiet():
        adapted = _with_lora(model, recipe, start)
    device = next(model.parameters()).device.type
    steps = -(-len(rows) // (recipe.batch * recipe.accumulation))
    total = max(1, round(steps * recipe.epochs))
    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=int(total * recipe.warmup),
        lr_scheduler_type="linear",
        seed=recipe.seed,
        bf16=fast_bfloat16(device),
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = _AnswerTrainer(
        model=adapted,
        args=arguments,
        train_dataset=TokenRows(rows),
        data_collator=collate,
        callbacks=[_Progress(report, total)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    # The trainer leaves the forward pass wrapped for mixed precision; what is measured next is not to be.
    return trainer.accelerator.unwrap_model(adapted, keep_fp32_wrapper=False)


def reloaded(adapted: Any, folder: Path) -> Any:
    """The base of `adapted` with the adapter that lies in `folder`, as peft reads it."""
    base = adapted.unload()
    with _quiet():
        return PeftModel.from_pretrained(base, folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what peft does to itself: it asks transformers for a name that is being replaced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _with_lora(model: Any, recipe: Recipe, start: Path | None) -> Any:
    if start is None:
        return get_peft_model(model, lora_config(recipe))
    config = LoraConfig.from_pretrained(str(start))
    for name, value in continued_settings(start).items():
        setattr(config, name, value)
    adapted = PeftModel.from_pretrained(model, str(start), config=config, is_trainable=True)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # stored as float16, learnt in float32
            parameter.data = parameter.data.float()
    return adapted


def lora_config(recipe: Recipe) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )


def answer_loss(model: Any, batch: dict[str, torch.Tensor], *, reduction: str = "mean") -> torch.Tensor:
    """Cross entropy of the labelled tokens, in nats: their mean, or their 'sum'."""
    labels = batch["labels"]
    columns = (labels != IGNORED).any(dim=0)
    width = int(columns.numel() - columns.float().argmax()) + 1  # the column before the first label predicts it
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if _accepts_logits_to_keep(model):
        logits = model(**inputs, logits_to_keep=width, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -width:]
    targets = labels[:, -(width - 1) :]
    return cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def mean_loss(model: Any, rows: Sequence[Row], batch: int) -> float:
    """Mean loss of the answers' tokens over all rows, without training; 0 rows give nan."""
    model.eval()
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    ordered = sorted(rows, key=lambda row: len(row.ids))
    with torch.inference_mode():
        for start in range(0, len(ordered), batch):
            part = ordered[start : start + batch]
            tensors = {name: tensor.to(device) for name, tensor in collate(part).items()}
            total += float(answer_loss(model, tensors, reduction="sum"))
            tokens += sum(row.answer for row in part)
    return total / tokens if tokens else float("nan")


def fast_bfloat16(device: str) -> bool:
    """Whether matrix products are clearly faster in bfloat16 here: by measuring on a CPU, by asking on a GPU."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu":
        return False
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones((512, 512), dtype=dtype), torch.ones((512, 512), dtype=dtype)
        runs = []
        for _ in range(5):
            start = time.perf_counter()
            left @ right
            runs.append(time.perf_counter() - start)
        seconds[dtype] = min(runs)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


class _AnswerTrainer(Trainer):  # type: ignore[misc]
    """Trainer with rows of like length side by side and the loss of `answer_loss`."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        lengths = [len(row.ids) for row in self.train_dataset]
        generator = torch.Generator().manual_seed(self.args.seed)
        sampler: Sampler[int] = LengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps, lengths=lengths, generator=generator
        )
        return sampler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if num_items_in_batch is None:
            return answer_loss(model, inputs)
        return answer_loss(model, inputs, reduction="sum") / num_items_in_batch


class _Progress(TrainerCallback):  # type: ignore[misc]
    """A line now and then, with the time left by the steps so far."""

    def __init__(self, report: Callable[[str], None], total: int) -> None:
        self._report = report
        self._every = max(1, -(-total // MAX_PROGRESS_LINES))
        self._start = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every and state.global_step != state.max_steps:
            return
        spent = time.monotonic() - self._start
        left = spent / state.global_step * (state.max_steps - state.global_step)
        self._report(
            f"step {state.global_step}/{state.max_steps}, epoch {state.epoch or 0:.2f}, "
            f"{duration(spent)} spent, about {duration(left)} left"
        )


def _accepts_logits_to_keep(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters
