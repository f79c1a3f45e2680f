"""Parsing of a user's message: their own words, dates, memory commands, secrets.

Knows nothing of storage or of what is worth keeping.
"""
