"""Passages of one generation for a question: scores, the evidence gate, reranking, and the trace of it all.

Knows nothing of files on disk or of how a generation is made.
"""
