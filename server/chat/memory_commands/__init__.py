"""What a chat may do with memory, the server's own answers to commands, and forgetting for real.

Knows nothing of how a turn runs or of HTTP.
"""
