"""Texts to vectors, and what their cosines say. What is exported here is what other parts use.

Knows nothing of files, indexes or users.
"""

from server.embedding.calibration import KNOWN_AUC, Calibration, read_pairs
from server.embedding.embedder import SentenceEmbedder, TextEncoder, measure
from server.embedding.languages import identify_language, parallel_texts

__all__ = [
    "KNOWN_AUC",
    "Calibration",
    "SentenceEmbedder",
    "TextEncoder",
    "identify_language",
    "measure",
    "parallel_texts",
    "read_pairs",
]
