"""A model's tokenizer and chat template, so that a chat's ids only ever grow at the end.

A chat is rendered by the model's own Jinja template and encoded message by message: wherever the
template's text for the first k messages is a prefix of its text for k+1, the pieces between are encoded
on their own. An assistant's message is the opening the model was given, then exactly what `answer`
gives, then what the template puts behind it; so the ids of a turn's prompt and answer are a prefix of the next
turn's. A template that rewrites earlier text is encoded as a whole instead.

Control tokens spelled out inside a message are encoded as plain text: nobody can forge a role.
Knows nothing of models, budgets or sampling.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.utils import cached_file

from server.errors import InvalidInput, ModelError
from server.types import Message

PLAIN_TEMPLATE = (
    "{{ opening }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}\n\n"
    "{% elif m['role'] == 'user' %}User: {{ m['content'] }}\n"
    "{% else %}Assistant: {{ m['content'] }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models that bring no chat template: roles as words, an answer ended by the model's own end of text."""

LONG_TEXT = 4_000  # characters; a longer one would hold the interpreter for milliseconds

_DOCUMENT_END = "<|endoftext|>"  # ends a document, and so an answer, even where a model's settings forget it


@dataclass(frozen=True)
class AnswerFormat:
    """What the template puts around an assistant's text: opening + `lead` + text + `end`."""

    lead: str
    end: str
    trims: bool


class ModelTokenizer:
    """Implements `ChatTokenizer` for a folder or hub id that transformers reads. Safe from any thread.

    `stop_ids` end an answer; `stop_texts` are strings that do so where the template is the plain one,
    because such a model has never learnt to stop. Raises ModelError when there is no tokenizer.
    """

    def __init__(self, path_or_id: str) -> None:
        try:
            self.hf: Any = AutoTokenizer.from_pretrained(path_or_id)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"the tokenizer of {path_or_id} cannot be loaded: {error}") from error
        self._lock = threading.Lock()
        self._backend: Any = getattr(self.hf, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
        self._template_extras: dict[str, str] = {}
        self.stop_texts: tuple[str, ...] = ()
        if not self.hf.chat_template:
            self.hf.chat_template = PLAIN_TEMPLATE
            self._template_extras = {"opening": self._opening()}
            self.stop_texts = ("\nUser:",)
        self._special = self._special_pattern()
        self._pieces = functools.lru_cache(maxsize=2048)(self._encode_piece)
        self._rendered = functools.lru_cache(maxsize=256)(self._render_text)  # a chat's turns share their beginnings
        self._system_role = self._has_system_role()
        self._answer_format = self._find_answer_format()
        end = self._raw(self._answer_format.end) if self._answer_format else []
        self.stop_ids = frozenset(self._eos_ids(path_or_id) | set(self._first_special(end)))
        self._end_ids, self._after_ids = self._split_end(end)

    # ── ChatTokenizer ────────────────────────────────────────────────────────────────────────────

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
        """Token ids of the chat; with `generate`, the opening of the assistant's turn is appended.

        Raises InvalidInput when the template refuses the messages (such as two users in a row).
        """
        chat = messages if self._system_role else _folded(messages)
        marker, safe = self._guarded(chat)
        boundaries = self._boundaries(safe, generate)
        if boundaries is None:
            return list(self._pieces(self._text(safe, generate), marker))
        ids: list[int] = []
        for piece, message in boundaries:
            ids += self._piece_ids(piece, message, marker)
        return ids

    def answer(self, text: str) -> list[int]:
        """Ids of an assistant's whole answer with its end-of-turn token."""
        if self._answer_format is None:
            return [*self.encode(text), *self._end_ids]
        body = text.strip() if self._answer_format.trims else text
        return [*self.encode(self._answer_format.lead + body), *self._end_ids]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing is added, and control tokens in it are plain text."""
        marker, (guarded,) = self._guard_texts([text])
        return list(self._pieces(guarded, marker))

    def decode(self, ids: Sequence[int]) -> str:
        """Text without control tokens; bytes that form no character become U+FFFD."""
        with self._lock_if_slow():
            return str((self._backend or self.hf).decode(list(ids), skip_special_tokens=True))

    def count(self, text: str) -> int:
        return len(self.encode(text))

    # ── pieces ───────────────────────────────────────────────────────────────────────────────────

    def _boundaries(self, chat: Sequence[Message], generate: bool) -> list[tuple[str, Message | None]] | None:
        """(text, message) pieces that add up to the chat's text, the assistant's opening apart; None
        where the template is not append-only."""
        pieces: list[tuple[str, Message | None]] = []
        before = ""
        for count, message in enumerate(chat, 1):
            if message.role == "assistant":
                opening = self._try_text(chat[: count - 1], True)
                text = self._try_text(chat[:count], False)
                if opening is not None and text is not None and text.startswith(opening):
                    if not opening.startswith(before):
                        return None
                    pieces.append((opening[len(before) :], None))
                    before = opening
            else:
                text = self._try_text(chat[:count], False)
            if text is None:
                continue  # the template wants more messages: its text joins the next piece
            if not text.startswith(before):
                return None
            pieces.append((text[len(before) :], message))
            before = text
        whole = self._text(chat, generate)
        if not whole.startswith(before):
            return None
        return [*pieces, (whole[len(before) :], None)]

    def _piece_ids(self, piece: str, message: Message | None, marker: str) -> list[int]:
        answer_format = self._answer_format
        if message is not None and message.role == "assistant" and answer_format is not None:
            body = message.content.strip() if answer_format.trims else message.content
            if piece == answer_format.lead + body + answer_format.end:
                return [*self._pieces(answer_format.lead + body, marker), *self._end_ids, *self._after_ids]
        return list(self._pieces(piece, marker))

    def _encode_piece(self, text: str, marker: str) -> tuple[int, ...]:
        if not marker:
            return tuple(self._raw(text))
        return tuple(token for part in text.split(marker) for token in self._raw(part))

    def _raw(self, text: str) -> list[int]:
        if not text:
            return []
        with self._lock_if_slow():
            if self._backend is None:
                return list(self.hf.encode(text, add_special_tokens=False))
            if len(text) > LONG_TEXT:  # a batch lets other threads run meanwhile
                return list(self._backend.encode_batch([text], add_special_tokens=False)[0].ids)
            return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _lock_if_slow(self) -> Any:
        """Tokenizers in Python keep state; those in Rust do not."""
        return self._lock if self._backend is None else _NO_LOCK

    # ── control tokens in texts ──────────────────────────────────────────────────────────────────

    def _special_pattern(self) -> re.Pattern[str] | None:
        texts = {str(token) for token in self.hf.added_tokens_decoder.values() if token.special and len(str(token)) > 1}
        if not texts:
            return None
        return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))

    def _guarded(self, chat: Sequence[Message]) -> tuple[str, list[Message]]:
        marker, texts = self._guard_texts([message.content for message in chat])
        if not marker:
            return "", list(chat)
        return marker, [Message(message.role, text) for message, text in zip(chat, texts, strict=True)]

    def _guard_texts(self, texts: Sequence[str]) -> tuple[str, list[str]]:
        """A marker is put inside each control token found; pieces are cut there, so that it never forms."""
        pattern = self._special
        if pattern is None or not any(pattern.search(text) for text in texts):
            return "", list(texts)
        joined = "".join(texts)
        marker = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in joined)
        guarded = []
        for text in texts:
            cut = text
            while pattern.search(cut):
                cut = pattern.sub(lambda found: found[0][0] + marker + found[0][1:], cut)
            guarded.append(cut)
        return marker, guarded

    # ── the template ─────────────────────────────────────────────────────────────────────────────

    def _text(self, chat: Sequence[Message], generate: bool) -> str:
        try:
            return self._rendered(tuple(chat), generate)
        except TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error

    def _try_text(self, chat: Sequence[Message], generate: bool) -> str | None:
        try:
            return self._rendered(tuple(chat), generate)
        except TemplateError:
            return None

    def _render_text(self, chat: tuple[Message, ...], generate: bool) -> str:
        messages = [{"role": message.role, "content": message.content} for message in chat]
        return str(
            self.hf.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generate, **self._template_extras
            )
        )

    def _has_system_role(self) -> bool:
        text = self._try_text([Message("system", "sentinel-s"), Message("user", "sentinel-u")], True)
        return text is not None and "sentinel-s" in text

    def _find_answer_format(self) -> AnswerFormat | None:
        """Read off the template with a sample; None when an answer cannot be found in it."""
        question, body = [Message("user", "question")], "sample-answer"
        opening = self._try_text(question, True)
        whole = self._try_text([*question, Message("assistant", f" {body} ")], False)
        if opening is None or whole is None or not whole.startswith(opening):
            return None
        rest = whole[len(opening) :]
        trims = f" {body} " not in rest or self._trims(question)
        lead, found, end = rest.partition(body if trims else f" {body} ")
        return AnswerFormat(lead, end, trims) if found else None

    def _trims(self, question: list[Message]) -> bool:
        """Whether the template strips an answer: then spaces around it leave no trace."""
        texts = {self._try_text([*question, Message("assistant", text)], False) for text in ("x", "  x  ")}
        return len(texts) == 1

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────

    def _opening(self) -> str:
        bos = self.hf.bos_token
        return str(bos) if bos and self.hf("x").input_ids[:1] == [self.hf.bos_token_id] else ""

    def _ids_of(self, text: str) -> list[int]:
        return [token for token, added in self.hf.added_tokens_decoder.items() if str(added) == text]

    def _first_special(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self.hf.added_tokens_decoder][:1]

    def _split_end(self, end: list[int]) -> tuple[list[int], list[int]]:
        """What the model itself writes to end a turn, and what the template puts behind that."""
        for index, token in enumerate(end):
            if token in self.stop_ids:
                return end[: index + 1], end[index + 1 :]
        eos = self.hf.eos_token_id
        return ([eos] if eos is not None else []), end

    def _eos_ids(self, path_or_id: str) -> set[int]:
        found = {self.hf.eos_token_id, *self._ids_of(_DOCUMENT_END)}
        for name in ("generation_config.json", "config.json"):
            file = cached_file(
                path_or_id,
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            if file is not None:
                with open(file, encoding="utf-8") as opened:
                    eos = json.load(opened).get("eos_token_id")
                found |= set(eos) if isinstance(eos, list) else {eos}
        return {token for token in found if isinstance(token, int)}


class _NoLock:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


_NO_LOCK = _NoLock()


def _folded(messages: Sequence[Message]) -> list[Message]:
    """The chat with its system text at the head of the first user message, for models without that role."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    for index, message in enumerate(rest):
        if message.role == "user":
            rest[index] = Message("user", f"{system}\n\n{message.content}")
            return rest
    return [Message("user", system), *rest]
