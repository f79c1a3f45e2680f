"""One turn from the question to the stored answer: context retrieval, the pipeline, its events as a stream.

Knows nothing of sockets or sessions.
"""
