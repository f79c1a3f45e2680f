"""Measures the engine and the server against their peers, round by round in one run: `python -m bench.engine`."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the server asks PyTorch for memory; peers are given it, too
