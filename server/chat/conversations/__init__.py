"""Chats as they are kept: message trees, what made each answer, past chats in the search.

Knows nothing of how a turn runs.
"""
