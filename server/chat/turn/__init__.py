"""One turn from the question to the stored answer: what it may know, the pipeline, its events as a stream.

Knows nothing of sockets or sessions.
"""
