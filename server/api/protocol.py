"""The WebSocket's frames, both ways; docs/protocol.md is their manual. Field names are the wire format.

Client frames are pydantic models, since bytes come in from outside. Server frames are the chat's own
events and the three that belong to the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from server.api.errors import describe_validation
from server.chat import NEWEST, TurnEvent
from server.errors import InvalidInput
from server.types import ModelCard

Id = Annotated[str, Field(min_length=1, max_length=64)]


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Send(Frame):
    type: Literal["send"]
    request_id: Id
    text: str
    conversation_id: Id | None = None
    parent_id: Id | None = NEWEST
    domain: Id | None = None
    temporary: bool = False  # of the chat that this message begins


class Regenerate(Frame):
    type: Literal["regenerate"]
    request_id: Id
    message_id: Id
    domain: Id | None = None


class Stop(Frame):
    type: Literal["stop"]
    message_id: Id


class Resume(Frame):
    type: Literal["resume"]
    message_id: Id
    after_seq: int = Field(0, ge=0)


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
    """A frame was refused; nothing changed. `retry_after`: seconds until it is taken, where that is known."""

    code: str
    message: str
    request_id: str | None = None
    retry_after: float | None = None
    type: Literal["error"] = "error"


ServerFrame = Annotated[Hello | Changed | FrameError | TurnEvent, Field()]
_SERVER: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)


def parse_frame(data: str | bytes) -> Send | Regenerate | Stop | Resume:
    """Raises InvalidInput naming what is wrong."""
    if isinstance(data, bytes):
        try:
            data = data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("the frame is not UTF-8; send JSON text in UTF-8") from error
    try:
        return _CLIENT.validate_json(data)
    except ValidationError as error:
        raise InvalidInput(f"the frame is not a message of this protocol: {describe_validation(error.errors())}") from (
            error
        )


def dump_frame(frame: ServerFrame) -> str:
    return _SERVER.dump_json(frame).decode()
