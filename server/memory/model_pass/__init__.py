"""The optional second reading by the model, from a queue, while the engine has nothing else to do.

Knows nothing of chats or HTTP.
"""
