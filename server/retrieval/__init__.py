"""Knowledge: folders of files, kept as a searchable index with generations."""

from server.retrieval.generation import FileState
from server.retrieval.knowledge import KnowledgeBase
from server.retrieval.status import FileStatus, FolderStatus, KnowledgeStatus

__all__ = ["FileState", "FileStatus", "FolderStatus", "KnowledgeBase", "KnowledgeStatus"]
