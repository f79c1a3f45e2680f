"""Adapters from their folders to stacks on the device: found, checked, read, held in slots, applied.

Knows nothing of rows' text or of queues.
"""
