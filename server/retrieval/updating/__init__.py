"""From files on disk to the next generation: looking, reading, cutting, embedding, storing.

Knows nothing of questions, users or HTTP.
"""
