"""Which domain answers a message. What is exported here is what other parts use.

Knows nothing of chats or files.
"""

from server.model_router.choice_model import (
    DEFAULT_COLUMNS,
    DOMAIN_COLUMNS,
    DomainEvidence,
    Message,
    default_columns,
    domain_columns,
    posterior,
)
from server.model_router.router import ModelRouter

__all__ = [
    "DEFAULT_COLUMNS",
    "DOMAIN_COLUMNS",
    "DomainEvidence",
    "Message",
    "ModelRouter",
    "default_columns",
    "domain_columns",
    "posterior",
]
