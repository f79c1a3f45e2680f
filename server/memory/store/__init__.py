"""Memories as they are kept: every query names the user, newer facts replace older ones, deleting is real.

Knows nothing of prompts, chats or HTTP.
"""
