"""What a chat may do with memory, the replies to memory commands, and deletion with redaction.

Knows nothing of how a turn runs or of HTTP.
"""
