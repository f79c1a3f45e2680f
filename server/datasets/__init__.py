"""Rows for training and for measuring, from files to a split. Knows nothing of models, tokens or prompts."""

from server.datasets.dataset import Dataset, DatasetReport, Example
from server.datasets.reading import parse_example, read_examples

__all__ = ["Dataset", "DatasetReport", "Example", "parse_example", "read_examples"]
