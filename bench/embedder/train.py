"""Tunes multilingual-e5-small for questions as people ask them, and writes what Tailor adds to its weights.

    python -m bench.embedder.train [--out FILE]

The texts were written for this: 160 documents of four sections, half of them Korean; of each section a plain question,
one as somebody in the situation would ask it, a few keywords, and one in the other language. Every fifth document is
held out. A batch is eight documents, so that the sections of a document, which are easily confused, are each other's
hard negatives. Loss: cross entropy over the batch's passages (InfoNCE; van den Oord et al., 2018), LoRA on all linear
layers. About 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from server.config import DEFAULT_EMBEDDER
from server.model_store import E5_WHEEL, ModelStore, convert_packed_e5

DATA: Final = Path(__file__).parent / "data"
TUNED_WITH: Final = ("manuals", "rules")
HELD_OUT: Final = 5  # every fifth document
RANK: Final = 16
ALPHA: Final = 32
TARGETS: Final = ("query", "key", "value", "dense")
RATE: Final = 3e-4
EPOCHS: Final = 3
DOCUMENTS: Final = 8  # of a batch
QUESTIONS: Final = 2  # of a section in a batch; so an epoch goes through the documents twice
TEMPERATURE: Final = 0.02
WITH_HEADING: Final = 0.6  # share of the passages that are embedded under their title and heading, as the index does
MAX_TOKENS: Final = 256
KINDS: Final = ("plain", "situation", "keywords", "other language")

Document = Mapping[str, Any]


def documents(*kinds: str) -> tuple[list[Document], list[Document]]:
    """Those to train with, and those held out; of all kinds where none is named."""
    train: list[Document] = []
    held: list[Document] = []
    for file in sorted(DATA.glob("*.jsonl")):
        if kinds and file.stem.partition("-")[2] not in kinds:
            continue
        with file.open(encoding="utf-8") as lines:
            for at, line in enumerate(lines):
                (held if at % HELD_OUT == HELD_OUT - 1 else train).append(json.loads(line))
    return train, held


def questions(section: Mapping[str, Any]) -> list[str]:
    return [*section["questions"], section["cross"]]


class Trained:
    def __init__(self, model: SentenceTransformer) -> None:
        self._tokenizer = model.tokenizer
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.05, target_modules=list(TARGETS), bias="none")
        self.layers = get_peft_model(model[0].auto_model, config)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """[texts, dimension], of unit length."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        mask = batch["attention_mask"]
        hidden = self.layers(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)

    @torch.inference_mode()
    def report(self, held: Sequence[Document]) -> str:
        """Of each kind of question, how often its section is the first, and among the first five, of all sections."""
        self.layers.eval()
        passages: list[str] = []
        asked: list[str] = []
        own: list[int] = []
        for document in held:
            for section in document["sections"]:
                for question in questions(section):
                    asked.append(f"query: {question}")
                    own.append(len(passages))
                passages.append(f"passage: {document['title']} > {section['heading']}\n{section['text']}")
        sides = [
            torch.cat([self.vectors(texts[at : at + 32]) for at in range(0, len(texts), 32)])
            for texts in (asked, passages)
        ]
        scores = sides[0] @ sides[1].T
        better = (scores > scores.gather(1, torch.tensor(own)[:, None])).sum(1)
        self.layers.train()
        return ", ".join(
            f"{kind} {float((better[at::4] < 1).float().mean()):.3f} {float((better[at::4] < 5).float().mean()):.3f}"
            for at, kind in enumerate(KINDS)
        )

    def save(self, path: Path) -> None:
        tensors = {}
        for name, tensor in self.layers.state_dict().items():
            layer, found, rest = name.removeprefix("base_model.model.").partition(".lora_")
            if found:
                tensors[f"{layer}.{rest[0].lower()}"] = tensor.detach().to(torch.float16).contiguous()
        save_file(tensors, str(path), metadata={"scale": str(ALPHA / RANK)})


def train(trained: Trained, rows: Sequence[Document], held: Sequence[Document], drawn: random.Random) -> None:
    parameters = [each for each in trained.layers.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    steps = EPOCHS * 4 // QUESTIONS * (len(rows) // DOCUMENTS)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * max(0.05, 1 - step / steps)
    )
    began, step = time.monotonic(), 0
    print("before:", trained.report(held), flush=True)
    for _ in range(EPOCHS * 4 // QUESTIONS):
        order = list(rows)
        drawn.shuffle(order)
        for at in range(0, len(order) - DOCUMENTS + 1, DOCUMENTS):
            passages: list[str] = []
            asked: list[str] = []
            own: list[int] = []
            for document in order[at : at + DOCUMENTS]:
                for section in document["sections"]:
                    for question in drawn.sample(questions(section), QUESTIONS):
                        asked.append(f"query: {question}")
                        own.append(len(passages))
                    heading = f"{document['title']} > {section['heading']}\n" if drawn.random() < WITH_HEADING else ""
                    passages.append(f"passage: {heading}{section['text']}")
            scores = trained.vectors(asked) @ trained.vectors(passages).T / TEMPERATURE
            loss = F.cross_entropy(scores, torch.tensor(own))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 8 == 0:
                print(f"step {step} of {steps}, loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    print("after:", trained.report(held), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("e5-search.safetensors"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    rows, held = documents(*TUNED_WITH)
    with tempfile.TemporaryDirectory() as folder:
        untuned = {DEFAULT_EMBEDDER: (replace(E5_WHEEL, tuned=""), convert_packed_e5)}
        path = ModelStore(Path(folder), report=print, embedders=untuned).embedder(DEFAULT_EMBEDDER)
        model = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": torch.float32})
    trained = Trained(model)
    train(trained, rows, held, random.Random(arguments.seed))
    trained.save(arguments.out)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
