"""The WebSocket's frames, both ways; docs/protocol.md is their manual. Field names are the wire format.

Client frames are pydantic models, since bytes come in from outside. Server frames are the chat's own
events and the three that belong to the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import Field, TypeAdapter, ValidationError

from server.api.errors import describe_validation
from server.api.fields import MAX_ID, Id, RequestModel
from server.api.text import MAX_INTEGER, parse_json
from server.chat import NEWEST, TurnEvent
from server.errors import InvalidInput
from server.types import ModelCard


class Send(RequestModel):
    type: Literal["send"]
    request_id: Id
    text: str
    conversation_id: Id | None = None
    parent_id: Id | None = NEWEST
    domain: Id | None = None
    temporary: bool = False  # of the chat that this message begins


class Regenerate(RequestModel):
    type: Literal["regenerate"]
    request_id: Id
    message_id: Id
    domain: Id | None = None


class Stop(RequestModel):
    type: Literal["stop"]
    message_id: Id


class Resume(RequestModel):
    type: Literal["resume"]
    message_id: Id
    after_seq: Annotated[int, Ge(0), Le(MAX_INTEGER)] = 0


ClientFrame = Annotated[Send | Regenerate | Stop | Resume, Field(discriminator="type")]
_CLIENT: TypeAdapter[Send | Regenerate | Stop | Resume] = TypeAdapter(ClientFrame)


@dataclass(frozen=True, slots=True)
class UserInfo:
    id: str
    name: str
    admin: bool


@dataclass(frozen=True, slots=True)
class Hello:
    user: UserInfo
    version: str
    model: ModelCard
    default_domain: str
    type: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Changed:
    what: Literal["knowledge", "adapters", "domains", "conversations", "memories"]
    type: Literal["changed"] = "changed"


@dataclass(frozen=True, slots=True)
class FrameError:
    """A frame was refused; nothing changed."""

    code: str
    message: str
    request_id: str | None = None
    type: Literal["error"] = "error"


ServerFrame = Annotated[Hello | Changed | FrameError | TurnEvent, Field()]
_SERVER: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)


def parse_frame(data: str | bytes) -> Any:
    """The JSON of a frame. Raises InvalidInput naming what is wrong."""
    return parse_json(data if isinstance(data, bytes) else data.encode(errors="surrogatepass"), "the frame")


def request_id_of(value: Any) -> str | None:
    """The client's own id for what a frame asks, where it is one."""
    found = value.get("request_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID else None


def client_frame(value: Any) -> Send | Regenerate | Stop | Resume:
    """Raises InvalidInput naming what is wrong."""
    try:
        return _CLIENT.validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"the frame is not a message of this protocol: {describe_validation(error.errors())}") from (
            error
        )


def dump_frame(frame: ServerFrame) -> str:
    return _SERVER.dump_json(frame).decode()
