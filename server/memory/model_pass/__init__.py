"""The optional extraction by the model, from a queue, while the engine is idle.

Knows nothing of chats or HTTP.
"""
