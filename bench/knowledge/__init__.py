"""Measures knowledge: how well it finds, how it holds at 100,000 chunks, and what a swap or a kill does to it.

`python -m bench.knowledge` is the command. The figures see what `server.retrieval` exports and nothing behind it.
"""
