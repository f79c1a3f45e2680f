"""Chats as they are stored: message trees, what made each answer, the index of past chats.

Knows nothing of how a turn runs.
"""
