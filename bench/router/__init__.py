"""Measures and fits the router. Knows nothing of servers or models but the embedder."""
