"""Texts to unit vectors with a sentence-transformers model: a folder or a hub id.

One model, one lock around its forward pass; long jobs release the lock between batches, so that a
question does not wait for a whole import. Tokens are counted with a copy of the tokenizer that no
forward pass touches. Knows nothing of files, chunks, indexes or users.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast

from server.errors import ModelError
from server.words import normalize

BATCH = 32
YIELD_S = 0.0005  # between batches; a lock is not fair, so a pause lets a waiting question in

# Measured as tokens per letter. English vocabulary: English .2-.35, program logs .5, German, Finnish,
# Turkish .4-.55, Russian and Arabic 1.0, Korean 2. Multilingual vocabularies: Korean .4-.6, Russian .3.
MAX_FERTILITY = 0.8
# Ideographs are a token each even where they are known, so for them the share of unknown tokens decides:
# English vocabulary .33-.8, multilingual ones 0.
MAX_UNKNOWN = 0.15


class SentenceEmbedder:
    """Implements `types.Embedder`. Loads at construction (seconds); raises ModelError if it cannot."""

    def __init__(self, path_or_id: str, device: str = "cpu") -> None:
        torch.set_num_threads(1)  # as in `embed`
        try:
            self._model = SentenceTransformer(path_or_id, device=device)
            self._tokenizer = _callable(copy.deepcopy(self._model.tokenizer))
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"the embedding model '{path_or_id}' cannot be loaded: {error}; "
                "set embedding.name to a sentence-transformers folder or hub id"
            ) from error
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise ModelError(f"the embedding model '{path_or_id}' does not say how long its vectors are")
        self._dimension = int(dimension)
        self._lock = threading.Lock()
        self._count_lock = threading.Lock()
        self._fingerprint = _fingerprint(self._model, self._tokenizer)

    @property
    def fingerprint(self) -> str:
        """Hash of the layers and their settings, the weights' names, shapes and sampled values, the vocabulary."""
        return self._fingerprint

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts), dimension], float32, L2-normalised. What is over the model's input length is cut."""
        torch.set_num_threads(1)  # this thread's: a second thread pool in the process halves the speed of the model's
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # like lengths together: less padding
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            if start:
                time.sleep(YIELD_S)
            with self._lock:
                vectors[rows] = self._model.encode(
                    [texts[row] for row in rows],
                    batch_size=BATCH,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
        return vectors

    def count(self, text: str) -> int:
        return len(self._ids(text))

    def knows(self, text: str) -> bool:
        """False where the vocabulary has no words for the text: its letters fall into single pieces or
        unknown tokens. A text without a letter has no language and is not known either."""
        letters = _letters(normalize(text, "NFC"))
        if not letters.strip():
            return False
        ids = self._ids(letters)
        if not ids or ids.count(self._tokenizer.unk_token_id) > MAX_UNKNOWN * len(ids):
            return False
        alphabetic = "".join(" " if _is_ideograph(letter) else letter for letter in letters)
        size = sum(not letter.isspace() for letter in alphabetic)
        return size == 0 or len(self._ids(alphabetic)) <= MAX_FERTILITY * size

    def _ids(self, text: str) -> list[int]:
        with self._count_lock:
            encoded = self._tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
        return list(encoded["input_ids"])


def _callable(tokenizer: Any) -> Any:
    """Static embedders have a tokenizer of the `tokenizers` library alone; the others one of transformers."""
    if callable(tokenizer):
        return tokenizer
    unknown = getattr(tokenizer.model, "unk_token", None)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **({"unk_token": unknown} if unknown else {}))


def _letters(text: str) -> str:
    """Letters and their marks; everything else becomes a space."""
    return "".join(char if unicodedata.category(char)[0] in "LM" else " " for char in text)


def _is_ideograph(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U0003ffff"


def _fingerprint(model: SentenceTransformer, tokenizer: Any) -> str:
    """Sixteen values of each tensor are enough: training changes nearly all of them."""
    digest = hashlib.sha256()
    digest.update(f"{model!r} {model.max_seq_length}".encode())  # layers, pooling, input length
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 16)][:17].to("cpu", torch.float32).numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.tobytes())
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest.update(repr(vocabulary).encode())
    return digest.hexdigest()[:16]
