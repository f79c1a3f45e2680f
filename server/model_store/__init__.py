"""Where models come from. What is exported here is what other parts use.

Knows nothing of serving or of what a model is used for.
"""

from server.model_store.packed_e5 import convert_packed_e5
from server.model_store.store import EMBEDDERS, ModelStore
from server.model_store.wheels import CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL

__all__ = ["CHAT_WHEEL", "E5_WHEEL", "EMBEDDERS", "MINILM_WHEEL", "ModelStore", "convert_packed_e5"]
