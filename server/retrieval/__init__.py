"""Knowledge: folders of files, kept as a searchable index with generations."""

from server.retrieval.files import FileState
from server.retrieval.knowledge import KnowledgeBase
from server.retrieval.results import SearchResult, SearchTrace
from server.retrieval.search import Where
from server.retrieval.status import FileStatus, FolderStatus, KnowledgeStatus

__all__ = ["FileState", "FileStatus", "FolderStatus", "KnowledgeBase", "KnowledgeStatus", "SearchResult", "SearchTrace",
           "Where"]
