"""Knowledge: folders of files, indexed for search in generations. Knows nothing of prompts, chats or HTTP."""

from server.retrieval.access import LOCAL_USER, Access
from server.retrieval.index.files import FileState
from server.retrieval.index.lock import index_lock
from server.retrieval.knowledge import KnowledgeBase, PassageContext
from server.retrieval.search.results import Candidate, SearchResult, SearchTrace
from server.retrieval.search.searcher import SearchFilter
from server.retrieval.updating.status import FileStatus, FolderStatus, KnowledgeStatus
from server.retrieval.view import REACH, FolderAccess, KnowledgeView, SharedKnowledge

__all__ = [
    "LOCAL_USER",
    "REACH",
    "Access",
    "Candidate",
    "FileState",
    "FileStatus",
    "FolderAccess",
    "FolderStatus",
    "KnowledgeBase",
    "KnowledgeStatus",
    "KnowledgeView",
    "PassageContext",
    "SearchFilter",
    "SearchResult",
    "SearchTrace",
    "SharedKnowledge",
    "index_lock",
]
