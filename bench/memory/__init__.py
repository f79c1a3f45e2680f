"""Measures memory: recall at size, what a newer answer replaces, the relevance gate, and that no user meets another."""
