"""Scores question and passage together with a sentence-transformers cross-encoder: a folder or a hub id.

It reads both texts at once, so it orders the best candidates better than their vectors can, and takes a forward pass
for each. Loaded at its first use; then one lock around its forward pass, as for the embedder. Blocks: call it off the
event loop. Knows nothing of indexes or of what is done with the scores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

BATCH = 32


class Reranker:
    """Safe to call from any thread."""

    def __init__(self, path_or_id: str, device: str = "cpu") -> None:
        self._name = path_or_id
        self._device = device
        self._lock = threading.Lock()
        self._model: CrossEncoder | None = None
        self._load_error: ModelError | None = None

    def scores(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts)], float32, higher is better, on the model's own scale. What is over the model's input length is
        cut. The first call loads the model (seconds). Raises ModelError if that fails, and from then on."""
        if not texts:
            return np.zeros(0, np.float32)
        import torch  # here, because the processes that read files must not load it

        torch.set_num_threads(1)  # this thread's: a second team in the process halves the speed of the model's
        with self._lock:
            if self._model is None:
                self._model = self._load()
            found = self._model.predict(
                [(question, text) for text in texts], batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False
            )
        scores: NDArray[np.float32] = np.asarray(found, dtype=np.float32)
        return scores

    def _load(self) -> CrossEncoder:
        if self._load_error is not None:
            raise self._load_error
        from sentence_transformers import CrossEncoder

        try:
            model = CrossEncoder(self._name, device=self._device)
            if model.num_labels != 1:
                raise ValueError(f"it gives {model.num_labels} scores for a pair, and a reranker gives one")
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            self._load_error = ModelError(
                f"the reranker '{self._name}' cannot be loaded: {error}; set retrieval.reranker to a "
                "sentence-transformers cross-encoder (a folder or hub id), or leave it empty"
            )
            raise self._load_error from error
        return model
