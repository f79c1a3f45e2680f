"""One row's part of a step, run so that a failure ends that row alone. Knows nothing of what is run."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from server.errors import AnswerFailed, EngineError

log = logging.getLogger("tailor.engine")

Params = ParamSpec("Params")
Result = TypeVar("Result")


def isolated(work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result | EngineError:
    """What `work` returns, or the error that its row ends with.

    The log gets the kind of an unexpected exception and where it was raised. Its message is told nobody: it may quote
    what the row has written.
    """
    try:
        return work(*args, **kwargs)
    except EngineError as error:
        return error
    except BaseException as error:  # noqa: BLE001  edge of the row: others go on, also after a panic of a library in Rust
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("an answer failed (%s) at\n%s", type(error).__name__, where)
        return AnswerFailed(
            f"the server failed over this answer ({type(error).__name__}), and the others go on: try again; "
            "its log says where"
        )
