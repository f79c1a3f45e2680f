"""Recall: which memories go into a prompt: the profile, and the rest through the relevance gate. Holds no texts.

Knows nothing of how memories are written.
"""
