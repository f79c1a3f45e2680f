"""The types of request fields: each has a bound. What holds for every text is checked where it is parsed
(`server/api/text.py`). Knows nothing of what a field means.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict

from server.api.text import MAX_INTEGER

MAX_ID = 64
Id = Annotated[str, MinLen(1), MaxLen(MAX_ID)]  # of a conversation, a message, a passage, a request
Name = Annotated[str, MinLen(1), MaxLen(255)]  # of a folder, a domain, an adapter
FilePath = Annotated[str, MinLen(1), MaxLen(4096)]  # inside a folder
RowId = Annotated[int, Ge(1), Le(MAX_INTEGER)]  # of a row of the database
Query = Annotated[str, MaxLen(1000)]  # what is looked for


class RequestModel(BaseModel):
    """A JSON body of which every field is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)
