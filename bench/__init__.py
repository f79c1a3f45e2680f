"""Measures the engine and the server against their peers, round by round in one run: `python -m bench.engine`."""
