"""Teaches the default embedder's layers to read a question and a passage together, and writes what that adds to them.

    python -m bench.embedder.train_reader --tydi PATH [--out FILE]

The documents are those of `train.py`, with what people would ask that each does not answer; every fifth is held out.
PATH holds `english_tydiqa_train.json` and `korean_tydiqa_train.json`, the training part of TyDi QA's gold passages
(Clark et al., 2020; Apache 2.0) by language, in SQuAD's form: questions of people who had not seen the passage.

A question comes with three passages that the embedder takes for near: the one that answers among them, or none, and the
model has to say which, or that none does (cross entropy with a class of its own), and of each alone whether it answers.
LoRA on all linear layers. About 40 minutes on two cores with bfloat16 products.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from bench.embedder.train import TARGETS, Document, documents, questions
from server.config import DEFAULT_EMBEDDER
from server.embedding import PassageReader, TextEncoder, area_under_curve
from server.model_store import ModelStore
from server.relations import TextRole

RANK: Final = 16
SCALE: Final = 2.0
RATE: Final = 4e-4
EPOCHS: Final = 1.2
QUESTIONS: Final = 8  # of a step
NEAR: Final = 6  # of other documents, of which one is drawn
WITH_HEADING: Final = 0.7
JOINED: Final = 0.25  # share of the questions whose passages have half of another section beside them
TYDI: Final = {"english": 900, "korean": 800}
TYDI_CHARS: Final = 1500  # of a passage
TYDI_UNANSWERED: Final = 0.25  # share that comes without the passage that answers
REPORTED: Final = 400

Group = tuple[str, list[str], bool]
"""A question, passages, and whether the first one answers; else none does."""


@dataclass
class Corpus:
    """`owners`: of each passage, the document; `asked`: a question, the passage that answers (-1: none does), its
    document; `near`: [questions, passages] cosines."""

    passages: list[str]
    owners: list[int]
    asked: list[tuple[str, int, int]]
    near: NDArray[np.float32]


def of_documents(encoder: TextEncoder, rows: Sequence[Document]) -> Corpus:
    passages: list[str] = []
    owners: list[int] = []
    asked: list[tuple[str, int, int]] = []
    for number, document in enumerate(rows):
        for section in document["sections"]:
            asked += [(question, len(passages), number) for question in questions(section)]
            passages.append(f"{document['title']} > {section['heading']}\n{section['text']}")
            owners.append(number)
        asked += [(question, -1, number) for question in document["unanswered"]]
    return Corpus(passages, owners, asked, _near(encoder, passages, asked))


def of_tydi(encoder: TextEncoder, folder: Path, drawn: random.Random) -> tuple[Corpus, list[str]]:
    """With the answers, of each question one: another passage that holds it may answer, too."""
    passages: dict[str, int] = {}
    asked: list[tuple[str, int, int]] = []
    answers: list[str] = []
    for language, count in TYDI.items():
        found = []
        for article in json.loads((folder / f"{language}_tydiqa_train.json").read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                text = f"{article['title']}\n{paragraph['context'][:TYDI_CHARS]}"
                found += [(one["question"], text, one["answers"][0]["text"]) for one in paragraph["qas"]]
        found = [one for one in found if one[2] in one[1]]
        drawn.shuffle(found)
        for question, text, answer in found[:count]:
            number = passages.setdefault(text, len(passages))
            asked.append((question, number, number))
            answers.append(answer)
    texts = list(passages)
    return Corpus(texts, list(range(len(texts))), asked, _near(encoder, texts, asked)), answers


def _near(encoder: TextEncoder, passages: Sequence[str], asked: Sequence[tuple[str, int, int]]) -> NDArray[np.float32]:
    left = encoder.embed([question for question, _, _ in asked], TextRole.QUERY)
    return np.asarray(left @ encoder.embed(passages, TextRole.PASSAGE).T, np.float32)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


def document_group(corpus: Corpus, at: int, drawn: random.Random) -> Group:
    """The section that answers, or the nearest; another one of the document; one of the nearest of other documents."""
    question, right, owner = corpus.asked[at]
    order = np.argsort(-corpus.near[at])
    own = [int(one) for one in order if corpus.owners[one] == owner and one != right]
    others = [int(one) for one in order if corpus.owners[one] != owner][:NEAR]
    first = right if right >= 0 else own.pop(0)
    chosen = [first, own[0] if drawn.random() < 0.7 else drawn.choice(own[1:]), drawn.choice(others)]
    joined = drawn.random() < JOINED
    texts = []
    for one in chosen:
        text = corpus.passages[one]
        if joined:
            beside = [
                other for other, document in enumerate(corpus.owners)
                if document == corpus.owners[one] and other not in (one, right)
            ]  # fmt: skip
            text = _joined(text, corpus.passages[drawn.choice(beside)], drawn)
        texts.append(text if drawn.random() < WITH_HEADING else text.partition("\n")[2])
    return question, texts, right >= 0


def _joined(text: str, other: str, drawn: random.Random) -> str:
    heading, _, body = text.partition("\n")
    words = other.partition("\n")[2].split(" ")
    half = " ".join(words[: len(words) // 2])
    first, second = (body, half) if drawn.random() < 0.5 else (half, body)
    return f"{heading}\n{first}\n\n{second}"


def tydi_group(corpus: Corpus, answers: Sequence[str], at: int, drawn: random.Random) -> Group | None:
    question, right, _ = corpus.asked[at]
    order = np.argsort(-corpus.near[at])[:20]
    near = [int(one) for one in order if one != right and answers[at] not in corpus.passages[one]][:8]
    if len(near) < 3:
        return None
    answered = drawn.random() >= TYDI_UNANSWERED
    chosen = [right if answered else near[2], near[0], drawn.choice(near[1:])]
    texts = [corpus.passages[one] for one in chosen]
    return question, [text if drawn.random() < 0.6 else text.partition("\n")[2] for text in texts], answered


# ── training ─────────────────────────────────────────────────────────────────────────────────────


class Trained:
    def __init__(self, model: SentenceTransformer) -> None:
        config = LoraConfig(
            r=RANK, lora_alpha=int(SCALE * RANK), lora_dropout=0.0, target_modules=list(TARGETS), bias="none"
        )
        layers = model[0].auto_model
        layers.set_attn_implementation("eager")  # faster than fused attention for texts of this length, with gradients
        self.layers = get_peft_model(layers, config).eval()
        self.head = nn.Linear(layers.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.constant_(self.head.bias, -6.0)
        self._reader = PassageReader(self.layers, model.tokenizer, self._head(), torch.device("cpu"))

    def _head(self) -> dict[str, Tensor]:
        return {f"head.{name}": value for name, value in self.head.named_parameters()}

    def log_odds(self, question: str, passages: Sequence[str]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self._reader.scores(self._reader.encode(question, passages))

    def loss(self, group: Group) -> Tensor:
        question, passages, answered = group
        odds = self.log_odds(question, passages)
        which = F.cross_entropy(torch.cat([torch.zeros(1), odds])[None], torch.tensor([int(answered)]))
        each = torch.zeros(len(passages))
        each[0] = float(answered)
        return which + 0.5 * F.binary_cross_entropy_with_logits(odds, each)

    def save(self, path: Path, weights: str) -> None:
        tensors = {name: value.detach().contiguous() for name, value in self._head().items()}
        for name, tensor in self.layers.state_dict().items():
            layer, found, rest = name.removeprefix("base_model.model.").partition(".lora_")
            if found:
                side = rest[0].lower()
                tensors[f"{layer}.{side}"] = (tensor * (SCALE if side == "b" else 1)).detach().half().contiguous()
        save_file(tensors, str(path), metadata={"weights": weights})


def train(trained: Trained, held: Corpus, draw: Sequence[tuple[Corpus, Sequence[str] | None]], seed: int) -> None:
    drawn = random.Random(seed)
    parameters = [each for each in trained.layers.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "lr": RATE}, {"params": trained.head.parameters(), "lr": 5 * RATE}], weight_decay=0.01
    )
    everything = [(corpus, answers, at) for corpus, answers in draw for at in range(len(corpus.asked))]
    steps = int(EPOCHS * len(everything) / QUESTIONS)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * max(0.05, 1 - step / steps)
    )
    began, order, losses = time.monotonic(), list[tuple[Corpus, Sequence[str] | None, int]](), list[float]()
    print("before:", report(trained, held), flush=True)
    for step in range(1, steps + 1):
        groups: list[Group] = []
        while len(groups) < QUESTIONS:
            if not order:
                order = list(everything)
                drawn.shuffle(order)
            corpus, answers, at = order.pop()
            group = tydi_group(corpus, answers, at, drawn) if answers else document_group(corpus, at, drawn)
            groups += [group] if group else []
        optimizer.zero_grad()
        for group in groups:
            loss = trained.loss(group) / QUESTIONS
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item() * QUESTIONS)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            mean = float(np.mean(losses[-25 * QUESTIONS :]))
            print(f"step {step} of {steps}, loss {mean:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    print("after:", report(trained, held), flush=True)


@torch.inference_mode()
def report(trained: Trained, held: Corpus) -> str:
    """Of documents held out, among the five nearest passages: how often the first is the one that answers, by nearness
    and as read; how often an answered question is surer than an unanswered one (AUC), by both."""
    chosen = random.Random(5).sample(range(len(held.asked)), min(REPORTED, len(held.asked)))
    first = [0, 0]
    sure: dict[tuple[bool, int], list[float]] = {(answered, way): [] for answered in (True, False) for way in (0, 1)}
    for at in chosen:
        question, right, _ = held.asked[at]
        nearest = np.argsort(-held.near[at])[:5]
        odds = trained.log_odds(question, [held.passages[one] for one in nearest]).numpy()
        for way, best in enumerate((0, int(odds.argmax()))):
            first[way] += int(nearest[best] == right)
        if right < 0 or right in nearest:
            sure[right >= 0, 0].append(float(held.near[at].max()))
            sure[right >= 0, 1].append(float(odds.max()))
    answered = sum(held.asked[at][1] >= 0 for at in chosen)
    shares = [one / answered for one in first]
    areas = [area_under_curve(np.array(sure[True, way]), np.array(sure[False, way])) for way in (0, 1)]
    return f"first {shares[0]:.3f} {shares[1]:.3f}, AUC {areas[0]:.3f} {areas[1]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tydi", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reader.safetensors"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    path = ModelStore(Path("data/models"), report=print).embedder(DEFAULT_EMBEDDER)
    encoder = TextEncoder(path)
    rows, held = documents()
    tydi, answers = of_tydi(encoder, arguments.tydi, random.Random(arguments.seed))
    corpora = [(of_documents(encoder, rows), None), (tydi, answers)]
    reported = of_documents(encoder, held)
    trained = Trained(SentenceTransformer(path, device="cpu", model_kwargs={"dtype": torch.float32}))
    torch.set_num_threads(os.cpu_count() or 1)  # embedding took one
    train(trained, reported, corpora, arguments.seed)
    trained.save(arguments.out, encoder.weights)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
