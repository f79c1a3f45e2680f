"""One step of the model for a batch of rows, in the best way its architecture allows.

Knows nothing of sampling, text or queues.
"""
