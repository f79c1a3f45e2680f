"""Texts to unit vectors with a sentence-transformers model: a folder or a hub id.

Many models want to be told what a text is for: a question that is searched with, or a passage that is searched
(`prompts.py`). What compares texts of one kind with each other takes both as questions.

One lock around the tokenizer, one around the forward pass; long jobs release them between batches, so that a
question does not wait for a whole import. Knows nothing of files, chunks, indexes or users.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.embedding.calibration import Calibration, calibrate
from server.embedding.loading import load_model
from server.embedding.prompts import Prompts, prompts_of
from server.embedding.reading import shipped_reader
from server.errors import ModelError
from server.relations import Relation, TextRole

log = logging.getLogger("tailor.models")

SHIPPED: Final = Path(__file__).parent / "data" / "calibrations"
BATCH = 4  # of more at a time no text is cheaper on a processor, and a question waits longer
YIELD_S = 0.0005  # between batches; a lock is not fair, so a pause lets a waiting question in
KEPT = 256  # vectors of single texts: router, search and memory ask for the same message
KEPT_CHARS = 4_000  # of a text that is kept


class TextEncoder:
    """A model's own vectors. Loads at construction (seconds); raises ModelError if it cannot."""

    def __init__(self, path_or_id: str, device: str = "cpu", *, quantize: bool = True) -> None:
        torch.set_num_threads(1)  # as in `embed`
        loaded = load_model(path_or_id, device, quantize=quantize)
        self._model = loaded.model
        self.weights = loaded.weights
        self._tokenizer = self._model.tokenizer
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise ModelError(f"the embedding model '{path_or_id}' does not say how long its vectors are")
        self.dimension = int(dimension)
        self.prompts: Prompts = prompts_of(self._model, path_or_id)
        self.fingerprint = _hash(f"{loaded.fingerprint} {self.prompts!r}".encode())
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        self._reader = shipped_reader(loaded.weights, self._model)
        self._kept: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._kept_lock = threading.Lock()

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        """[len(texts), dimension], float32, L2-normalised. What is over the model's input length is cut."""
        prompt = self.prompts.of(role)
        if len(texts) == 1 and len(texts[0]) <= KEPT_CHARS:
            return self._of_one(texts[0], prompt)[None].copy()
        return self._of_many(texts, prompt)

    def _of_one(self, text: str, prompt: str) -> NDArray[np.float32]:
        key = prompt, text
        with self._kept_lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        vector: NDArray[np.float32] = self._of_many([text], prompt)[0]
        with self._kept_lock:
            self._kept[key] = vector
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return vector

    def _of_many(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        torch.set_num_threads(1)  # this thread's: a second thread pool in the process halves the speed of the model's
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for rows in _batches(texts):
            vectors[rows] = self._forward([texts[row] for row in rows], prompt)
        return vectors

    def answers(self, question: str, passages: Sequence[str]) -> NDArray[np.float32] | None:
        """[len(passages)], float32: log odds that each answers the question. None for a model that has not learned to
        tell. A forward pass for each; what is over 256 tokens of both is cut."""
        if self._reader is None:
            return None
        torch.set_num_threads(1)  # as in `embed`
        odds = np.zeros(len(passages), np.float32)
        for rows in _batches(passages):
            with self._tokenizer_lock:
                encoded = self._reader.encode(question, [passages[row] for row in rows])
            with self._lock:
                odds[rows] = self._reader.log_odds(encoded).numpy()
        return odds

    def count(self, text: str) -> int:
        """The text's length in the model's own tokens, without special tokens."""
        with self._tokenizer_lock:
            if callable(self._tokenizer):
                encoded = self._tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
                return len(encoded["input_ids"])
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)  # static embedders

    @torch.inference_mode()
    def _forward(self, texts: list[str], prompt: str) -> NDArray[np.float32]:
        with self._tokenizer_lock:
            features = self._model.preprocess(texts, prompt=prompt or None)
        device = self._model.device
        features = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in features.items()}
        with self._lock:
            vectors = self._model(features)["sentence_embedding"]
        normalized: NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
        return normalized


class SentenceEmbedder:
    """Implements `types.Embedder`: a model's vectors, centred, and what their cosines say.

    The calibration is that which ships with Tailor for the model, else one of `calibrations`, else it is measured now,
    which takes about a minute, and kept there. Raises ModelError.
    """

    def __init__(
        self,
        path_or_id: str,
        device: str = "cpu",
        *,
        quantize: bool = True,
        calibrations: Path | None = None,
        report: Callable[[str], None] = log.info,
    ) -> None:
        self._encoder = TextEncoder(path_or_id, device, quantize=quantize)
        found = find_calibration(self._encoder.fingerprint, calibrations)
        if found is None:
            report("measuring what the embedder's cosines say (once, about a minute)")
            found = measure(self._encoder, calibrations)
        self.calibration = found
        self.dimension = self._encoder.dimension
        self._fingerprint = _hash(self._encoder.fingerprint.encode() + self.calibration.to_bytes())

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        return self.calibration.centred(self._encoder.embed(texts, role), texts, role)

    def count(self, text: str) -> int:
        return self._encoder.count(text)

    def answers(self, question: str, passages: Sequence[str]) -> NDArray[np.float32] | None:
        return self._encoder.answers(question, passages)

    def knows(self, text: str) -> bool:
        return self.calibration.knows(text)

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        return self.calibration.likelihood(relation, cosines, crossing=crossing)


def find_calibration(fingerprint: str, folder: Path | None) -> Calibration | None:
    """Of the encoder with this fingerprint: in `folder`, else as it ships. What cannot be read counts as none."""
    for place in (folder, SHIPPED):
        file = place / f"{fingerprint}.npz" if place is not None else None
        if file is not None and file.is_file():
            try:
                return Calibration.from_bytes(file.read_bytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                log.warning("the calibration %s cannot be used (%s); another is taken, or measured", file, error)
    return None


def measure(encoder: TextEncoder, folder: Path | None) -> Calibration:
    """Calibrates the encoder, and keeps what comes out in `folder`. Raises ModelError."""
    calibration = calibrate(encoder.embed)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staged = folder / f".{encoder.fingerprint}.{os.getpid()}"
            staged.write_bytes(calibration.to_bytes())
            staged.rename(folder / f"{encoder.fingerprint}.npz")
        except OSError as error:
            raise ModelError(f"the calibration of the embedder cannot be kept in {folder}: {error}") from error
    return calibration


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Rows of like lengths together, since they need less padding, with a pause between two batches."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), BATCH):
        if start:
            time.sleep(YIELD_S)
        yield order[start : start + BATCH]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
