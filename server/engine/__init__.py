"""Generates tokens: one thread owns the model, rows of many users and adapters share each step."""

from server.engine.catalogue import AdapterCatalogue
from server.engine.fingerprint import model_fingerprint
from server.engine.local import LocalEngine
from server.engine.protocol import Engine
from server.engine.stats import EngineStats
from server.engine.tokenizer import ModelTokenizer

__all__ = ["AdapterCatalogue", "Engine", "EngineStats", "LocalEngine", "ModelTokenizer", "model_fingerprint"]
