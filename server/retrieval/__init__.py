"""Knowledge: folders of files, kept as a searchable index with generations."""

from server.retrieval.access import LOCAL, Access
from server.retrieval.index.files import FileState
from server.retrieval.index.lock import sole_use
from server.retrieval.knowledge import KnowledgeBase, Surroundings
from server.retrieval.search.results import Candidate, SearchResult, SearchTrace
from server.retrieval.search.searcher import Where
from server.retrieval.updating.status import FileStatus, FolderStatus, KnowledgeStatus
from server.retrieval.view import REACH, FolderLimit, KnowledgeView, SharedKnowledge

__all__ = [
    "LOCAL",
    "REACH",
    "Access",
    "Candidate",
    "FileState",
    "FileStatus",
    "FolderLimit",
    "FolderStatus",
    "KnowledgeBase",
    "KnowledgeStatus",
    "KnowledgeView",
    "SearchResult",
    "SearchTrace",
    "SharedKnowledge",
    "Surroundings",
    "Where",
    "sole_use",
]
