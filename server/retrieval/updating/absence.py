"""Which files a scan missed are gone, and which are only out of reach: the index keeps those.

Knows nothing of reading files or of generations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from server.retrieval.index.devices import FolderDevices
from server.retrieval.updating.indexer import Plan
from server.retrieval.updating.pending import FolderScan
from server.retrieval.updating.progress import UpdateProgress


def without_absent(
    plan: Plan, scanned: FolderScan, indexed: Collection[str], devices: FolderDevices, progress: UpdateProgress
) -> Plan:
    """The same plan, but that it removes nothing of folders that are away: a share that is unmounted, a folder that
    cannot be opened. A whole scan also says which folders those are; `indexed` are the folders of the index."""
    whole = scanned.within is None
    present = {key.folder for key, file in scanned.found.items() if key.folder and not file.is_folder}
    if whole:
        devices.record(present)
    asked = indexed if whole else {key.folder for key in plan.removed}
    away = {folder: reason for folder in set(asked) - present - {""} if (reason := devices.away(folder))}
    if whole:
        progress.set_missing(away)
    closed = [(key.folder, f"{key.file}/") for key, file in scanned.found.items() if file.is_folder]
    kept = {
        key
        for key in plan.removed
        if key.folder in away or any(key.folder == folder and key.file.startswith(path) for folder, path in closed)
    }
    return replace(plan, removed=plan.removed - kept) if kept else plan
