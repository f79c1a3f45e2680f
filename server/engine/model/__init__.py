"""Loads a causal language model with its tokenizer, and tells one base model from another.

Knows nothing of rows, adapters' weights or steps.
"""
