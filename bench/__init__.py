"""Measures the engine and the server against their peers, round by round in one run: `python -m bench.engine`."""

import server  # noqa: F401  (before anything that makes tensors: it says how PyTorch asks for memory)
