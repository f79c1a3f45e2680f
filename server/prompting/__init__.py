"""Prompts: domain files, and the composition of a turn's prompt under a token budget.

Knows nothing of models, storage, retrieval or HTTP.
"""

from server.prompting.blocks import MEMORY_HEAD, memory_line
from server.prompting.compose import compose
from server.prompting.domain import AdapterWhen, Domain, FewShot, Grounding, UserProfile, new_nonce
from server.prompting.library import PromptLibrary
from server.prompting.reasoning import ReasoningSplitter
from server.prompting.view import DomainView, SharedDomains

__all__ = [
    "MEMORY_HEAD",
    "AdapterWhen",
    "Domain",
    "DomainView",
    "FewShot",
    "Grounding",
    "PromptLibrary",
    "ReasoningSplitter",
    "SharedDomains",
    "UserProfile",
    "compose",
    "memory_line",
    "new_nonce",
]
