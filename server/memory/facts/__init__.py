"""What a user's own sentences state about them, found by rules a language, and which question each fact answers.

Knows nothing of storage, recall or chats.
"""
