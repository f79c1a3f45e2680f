"""From files on disk to the next generation: scanning, reading, chunking, embedding, storing.

Knows nothing of questions, users or HTTP.
"""
