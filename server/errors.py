"""Every error the product raises on purpose, one tree.

    TailorError
    ├── ConfigError             a setting is unknown or unsafe: the server does not start
    ├── InvalidInput            what the caller sent breaks a rule
    │   └── TooLarge            … the rule on its size
    ├── Unauthorized            no session, or a wrong password
    ├── Forbidden               a session, but not for this (origin, path)
    ├── NotFound                no such thing, or not this user's
    ├── Conflict                the thing is not in a state that allows this
    ├── RateLimited             too much in a time: `retry_after_s` later it is taken
    │   ├── QuotaExceeded       … of what a user may have in a day
    │   └── Overloaded          too many wait already
    ├── StorageError            the disk or the database does not do what was asked
    │   ├── StorageFull         … it has no room: nothing was written
    │   └── StorageBusy         … another process holds the database: try again
    ├── Draining                the server is about to stop: it begins no answer
    ├── PromptFileError         a prompts/<domain>.md cannot be used (file, line, reason)
    ├── PromptError             a prompt cannot be composed (undefined variable, …)
    │   └── ContextFull         the prompt does not fit into the model's context
    ├── KnowledgeError          a file cannot be read into the index
    ├── AdapterError
    │   ├── AdapterNotFound     no such folder or version
    │   ├── AdapterInvalid      the folder breaks a rule: rank, shapes, files
    │   │   └── AdapterForeign  … it is made for another base model
    │   └── AdapterInUse        it cannot be unloaded now, or no slot can be freed
    ├── DatasetError            a training or comparison row breaks a rule (file, line, reason)
    ├── ModelError              a model cannot be fetched, verified or loaded
    └── EngineError
        ├── EngineBusy          a bound is reached; try again
        ├── EngineDown          the model thread has failed
        ├── OutputFormatError   an answer's schema or grammar leads nowhere: that answer ends
        └── AnswerFailed        the server failed over one answer; the others go on

A message names the thing, the rule and the fix. `code` is what programs read; HTTP and WebSocket
codes are chosen in `server/api/errors.py` alone.
"""

from __future__ import annotations

from pathlib import Path


class TailorError(Exception):
    """Base of all errors. `str(error)` is fit to be shown to the user as it stands. `retry_after_s`: when it is worth
    trying again; None where that would not help."""

    code = "error"
    retry_after_s: float | None = None


class ConfigError(TailorError):
    code = "config"


class InvalidInput(TailorError):
    code = "invalid_input"


class TooLarge(InvalidInput):
    code = "too_large"


class Unauthorized(TailorError):
    code = "unauthorized"


class Forbidden(TailorError):
    code = "forbidden"


class NotFound(TailorError):
    code = "not_found"


class Conflict(TailorError):
    code = "conflict"


class RateLimited(TailorError):
    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(RateLimited):
    code = "quota_exceeded"


class Overloaded(RateLimited):
    code = "overloaded"


class StorageError(TailorError):
    code = "storage"


class StorageFull(StorageError):
    code = "storage_full"


class StorageBusy(StorageError):
    code = "storage_busy"
    retry_after_s = 5


class Draining(TailorError):
    code = "draining"
    retry_after_s = 10


class PromptFileError(TailorError):
    """A domain file that cannot be used. `line` counts from 1."""

    code = "prompt_file"

    def __init__(self, file: Path | str, line: int, reason: str) -> None:
        super().__init__(f"{file}, line {line}: {reason}")
        self.file = str(file)
        self.line = line
        self.reason = reason


class PromptError(TailorError):
    code = "prompt"


class ContextFull(PromptError):
    code = "context_full"


class KnowledgeError(TailorError):
    code = "knowledge"


class AdapterError(TailorError):
    code = "adapter"


class AdapterNotFound(AdapterError):
    code = "adapter_not_found"


class AdapterInvalid(AdapterError):
    code = "adapter_invalid"


class AdapterForeign(AdapterInvalid):
    code = "adapter_foreign"


class AdapterInUse(AdapterError):
    code = "adapter_in_use"


class DatasetError(TailorError):
    """A row that cannot be used. `line` counts from 1."""

    code = "dataset"

    def __init__(self, file: Path | str, line: int, reason: str) -> None:
        super().__init__(f"{file}, line {line}: {reason}")
        self.file = str(file)
        self.line = line
        self.reason = reason


class ModelError(TailorError):
    code = "model"


class EngineError(TailorError):
    code = "engine"


class EngineBusy(EngineError):
    code = "busy"


class EngineDown(EngineError):
    code = "engine_down"


class OutputFormatError(EngineError):
    code = "output_format"


class AnswerFailed(EngineError):
    code = "answer_failed"
