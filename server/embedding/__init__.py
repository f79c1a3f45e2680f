"""Texts to vectors, what their cosines say, and whether a passage answers. What is exported is what other parts use.

Knows nothing of files, indexes or users.
"""

from server.embedding.calibration import KNOWN_AUC, Calibration, area_under_curve, read_pairs
from server.embedding.embedder import SentenceEmbedder, TextEncoder, measure
from server.embedding.languages import identify_language, parallel_texts
from server.embedding.reading import PassageReader

__all__ = [
    "KNOWN_AUC",
    "Calibration",
    "PassageReader",
    "SentenceEmbedder",
    "TextEncoder",
    "area_under_curve",
    "identify_language",
    "measure",
    "parallel_texts",
    "read_pairs",
]
