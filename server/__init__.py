"""A chat server that fits a language model to people's work."""

import os

# PyTorch asks for huge pages for memory of 2 MiB and more, so that a pass over the weights misses fewer translations
# of addresses. It reads this once, before its first tensor, and nothing here makes one before this line.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
