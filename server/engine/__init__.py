"""Generates tokens: one thread owns the model, rows of many users and adapters share each step.

Knows nothing of chats, users' words, domains or HTTP.
"""

from server.engine.adapters.checking import adapter_faults
from server.engine.adapters.folders import AdapterCatalogue
from server.engine.adapters.reading import continued_settings
from server.engine.device_memory import ModelShape, Wanted, measure_model, plan_memory
from server.engine.local import LocalEngine
from server.engine.model.fingerprint import model_fingerprint
from server.engine.model.tokenizer import ModelTokenizer
from server.engine.protocol import Engine
from server.engine.stats import EngineStats

__all__ = [
    "AdapterCatalogue",
    "Engine",
    "EngineStats",
    "LocalEngine",
    "ModelShape",
    "ModelTokenizer",
    "Wanted",
    "adapter_faults",
    "continued_settings",
    "measure_model",
    "model_fingerprint",
    "plan_memory",
]
