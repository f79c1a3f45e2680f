"""`tailor chat`: the WebSocket protocol in a terminal. Speaks docs/protocol.md; knows nothing of the server's parts."""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.errors import EngineDown, TailorError, Unauthorized

HELP = """/domain NAME   let NAME answer from now on; /domain auto gives it back to the router
/sources       the passages of the last answer
/new           begin a new conversation
/temporary     begin one that reads and keeps no memories, and is not kept itself
/quit          leave (also Ctrl-D). Ctrl-C stops an answer."""


class Terminal:
    """One connection and one conversation at a time. `write` takes text without adding a newline."""

    def __init__(self, socket: ClientConnection, write: Callable[[str], None], domain: str | None) -> None:
        self._socket = socket
        self._write = write
        self._domain = domain
        self._conversation: str | None = None
        self._temporary = False
        self._sources: list[dict[str, Any]] = []

    async def ask(self, text: str) -> bool:
        """Sends `text` and writes the answer as it comes. False when the turn failed."""
        request_id = uuid.uuid4().hex
        frame: dict[str, Any] = {"type": "send", "request_id": request_id, "text": text, "domain": self._domain}
        if self._conversation:
            frame["conversation_id"] = self._conversation
        elif self._temporary:
            frame["temporary"] = True
        await self._socket.send(json.dumps(frame))
        message_id: str | None = None
        stopper = _StopOnInterrupt(self._socket)
        with stopper:
            async for raw in self._socket:
                event = json.loads(raw)
                if event["type"] == "error" and event.get("request_id") == request_id:
                    self._write(f"! {event['message']}\n")
                    return False
                if event["type"] == "started" and event["request_id"] == request_id:
                    message_id = stopper.message_id = event["message_id"]
                    self._conversation = event["conversation_id"]
                elif message_id is not None and event.get("message_id") == message_id:
                    if event["type"] == "closed":
                        return not stopper.failed
                    stopper.failed |= event["type"] == "error"
                    self._show(event)
        return False

    def command(self, line: str) -> bool:
        """Runs a /command. False to leave."""
        name, _, rest = line[1:].partition(" ")
        match name:
            case "quit" | "exit":
                return False
            case "new" | "temporary":
                self._conversation = None
                self._temporary = name == "temporary"
                self._write(f"A new {'temporary ' if self._temporary else ''}conversation.\n")
            case "domain":
                self._domain = None if rest.strip() in ("", "auto") else rest.strip()
                self._write(f"Domain: {self._domain or 'auto'}\n")
            case "sources":
                for source in self._sources:
                    self._write(f"[{source['n']}] {_source_label(source)}\n{source['passage']['text']}\n\n")
                if not self._sources:
                    self._write("The last answer had no sources.\n")
            case _:
                self._write(HELP + "\n")
        return True

    def _show(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "route":
                decision = event["decision"]
                score = f" {decision['score']:.2f}" if decision["score"] is not None else ""
                self._write(f"({event['title']}: {decision['how']}{score})\n")
                self._sources = []
            case "prompt" if event["adapter"]:
                self._write(f"(adapter {event['adapter']})\n")
            case "evidence":
                self._sources = event["passages"]
                self._write(_unread_notice(event["unread"]))
            case "queued":
                self._write(f"(waiting, place {event['position']})\n")
            case "token":
                self._write(event["text"])
            case "citations":
                cited = {citation["n"] for citation in event["citations"]}
                labels = [f"[{s['n']}] {_source_label(s)}" for s in self._sources if s["n"] in cited]
                self._write("".join(f"\n  {label}" for label in labels))
            case "done":
                self._write(f"\n  ({_usage_line(event['usage'], event['tokens_per_second'])})\n")
            case "error":
                self._write(f"\n! {event['message']}\n")
            case _:
                self._write("".join(f"  {line}\n" for line in _memory_lines(event)))


class _StopOnInterrupt:
    """While an answer runs, Ctrl-C stops the answer, not the program."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._sending: set[asyncio.Task[None]] = set()
        self.message_id: str | None = None
        self.failed = False

    def __enter__(self) -> None:
        with suppress(NotImplementedError, RuntimeError):  # not on Windows, not outside the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._stop)

    def __exit__(self, *_: object) -> None:
        with suppress(NotImplementedError, RuntimeError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _stop(self) -> None:
        if self.message_id is not None:
            frame = json.dumps({"type": "stop", "message_id": self.message_id})
            task = asyncio.ensure_future(self._socket.send(frame))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


def _unread_notice(files: int) -> str:
    if not files:
        return ""
    return f"({files} {'file is' if files == 1 else 'files are'} still being read, and not known to this answer)\n"


def _usage_line(usage: dict[str, Any], speed: float) -> str:
    """'42 tokens, 15.2/s, first after 0.31 s, 53% of the prompt cached', without what is not known."""
    parts = [f"{usage['completion_tokens']} tokens"]
    if speed:
        parts.append(f"{speed}/s")
    if usage["ttft_s"]:
        parts.append(f"first after {usage['ttft_s']:.2f} s")
    if usage["cached_tokens"]:
        share = 100 * usage["cached_tokens"] // usage["prompt_tokens"]
        parts.append(f"{share or '<1'}% of the prompt cached")
    return ", ".join(parts)


def _memory_lines(event: dict[str, Any]) -> list[str]:
    """The lines that tell what memory did; none for other events."""
    match event["type"]:
        case "memory_saved":
            return [f"Saved: {memory['text']}" for memory in event["memories"]]
        case "memory_forgotten":
            return [f"Forgotten: {memory['text']}" for memory in event["memories"]]
        case "memory_held_back":
            return [f"Not saved ({item['reason']}): {item['text']}" for item in event["items"]]
        case "chats":
            days = sorted({datetime.date.fromtimestamp(turn["at"]).isoformat() for turn in event["turns"]})
            return [f"(from earlier chats of {', '.join(days)})"]
    return []


def _source_label(source: dict[str, Any]) -> str:
    passage = source["passage"]
    where = " › ".join([passage["file"], *passage["heading"]])
    return f"{where}, {source['place']}" if source["place"] else where


async def chat(url: str, *, question: str | None, domain: str | None, api_key: str | None) -> bool:
    """Talks to the server at `url` (ws://…/ws). With `question`, asks it and returns whether it was answered.

    Raises EngineDown when nobody answers there, Unauthorized when an API key is needed.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        async with connect(url, additional_headers=headers, max_size=None) as socket:
            terminal = Terminal(socket, write, domain)
            if question is not None:
                return await terminal.ask(question)
            write(f"Connected to {url}. /help lists the commands.\n")
            return await _converse(terminal, write)
    except InvalidStatus as error:
        raise _refusal(url, error) from error
    except ConnectionClosed as error:
        raise EngineDown(f"the connection to {url} ended: {error}") from error
    except OSError as error:
        raise EngineDown(f"no server answers at {url}; start one with 'tailor serve' ({error})") from error


def _refusal(url: str, error: InvalidStatus) -> TailorError:
    """Why the handshake was refused: the server says it in JSON."""
    if error.response.status_code == 401:
        return Unauthorized(f"{url} wants an API key; give --key (tailor users key NAME makes one)")
    try:
        reason = json.loads(error.response.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):  # whoever answers there is not this server
        reason = f"status {error.response.status_code}"
    return EngineDown(f"{url} refuses the connection: {reason}")


async def _converse(terminal: Terminal, write: Callable[[str], None]) -> bool:
    while True:
        write("> ")
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return True
        if line.startswith("/"):
            if not terminal.command(line.strip()):
                return True
        elif line.strip():
            await terminal.ask(line.strip())
