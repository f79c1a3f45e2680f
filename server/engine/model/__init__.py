"""Loads a causal language model with its tokenizer, and takes its fingerprint.

Knows nothing of rows, adapters' weights or steps.
"""
