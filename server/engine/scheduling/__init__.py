"""Which rows run, which tokens go into the next step, and the thread that computes it.

Knows nothing of HTTP, of files, or of how a step is computed.
"""
