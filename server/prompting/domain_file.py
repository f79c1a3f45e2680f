"""Reads one prompts/<name>.md: YAML front matter between two lines of '---', then a Jinja2 body.

    ---
    title: Contract review
    adapter: contract-risk
    ---
    You review contracts. …

Every key is checked, and each error names the line of the key it is about. Pure: takes bytes, knows
nothing of folders or of when a file changed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from server.errors import PromptFileError
from server.names import FOLDER_RULE, folder_name
from server.prompting.constraint import schema_fault
from server.prompting.domain import AdapterWhen, Domain, FewShot, Grounding
from server.prompting.template import TemplateFault, check_template
from server.types import SamplingParams

NAME = re.compile(r"[a-z0-9._-]{1,64}")
MAX_BYTES = 256 * 1024
MAX_DEPTH = 40
MAX_ENTRIES = 5_000  # of the front matter: keys, values, lists, mappings

_MUST_BE = {
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "string_too_short": "must not be empty",
}

_Path = tuple[str | int, ...]


def _number(value: object) -> object:
    """YAML has true and "0.5" for what pydantic would take as a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number")
    return value


_Number = Annotated[float, BeforeValidator(_number)]
_Text = Annotated[StrictStr, Field(min_length=1)]
_Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9._-]{1,64})?$")]


def _folder(value: str) -> str:
    name = folder_name(value)
    if name is None:
        raise ValueError(f"must name a folder: {FOLDER_RULE}")
    return name


_Folder = Annotated[StrictStr, AfterValidator(_folder)]

_Principal = Annotated[
    StrictStr, AfterValidator(str.lower), Field(pattern=r"^@?[A-Za-z0-9._-]{1,64}$")
]  # an account's name, or @ and a group's


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Example(_StrictModel):
    user: _Text
    assistant: _Text


class _Adapter(_StrictModel):
    name: _Name
    when: AdapterWhen = AdapterWhen.ALWAYS


def _adapter(value: object) -> object:
    """A name alone stands for one that always answers."""
    return {"name": value} if isinstance(value, str) else value


_DEFAULTS = SamplingParams()


class _Sampling(_StrictModel):
    """The bounds are those beyond which a value has no meaning, or no effect but noise."""

    temperature: _Number = Field(default=_DEFAULTS.temperature, ge=0, le=5)
    top_p: _Number = Field(default=_DEFAULTS.top_p, gt=0, le=1)
    top_k: StrictInt = Field(default=_DEFAULTS.top_k, ge=0)
    min_p: _Number = Field(default=_DEFAULTS.min_p, ge=0, le=1)
    repetition_penalty: _Number = Field(default=_DEFAULTS.repetition_penalty, gt=0, le=10)
    presence_penalty: _Number = Field(default=_DEFAULTS.presence_penalty, ge=-2, le=2)
    frequency_penalty: _Number = Field(default=_DEFAULTS.frequency_penalty, ge=-2, le=2)
    max_tokens: StrictInt = Field(default=_DEFAULTS.max_tokens, ge=1)
    stop: tuple[_Text, ...] = Field(default=(), max_length=16)
    seed: StrictInt | None = None


class _FrontMatter(_StrictModel):
    title: _Text | None = None
    description: StrictStr = ""
    adapter: Annotated[_Adapter, BeforeValidator(_adapter)] | None = None
    knowledge: tuple[_Folder, ...] = ()
    grounding: Grounding = Grounding.OPEN
    refusal: StrictStr = Field(default="", max_length=1000)
    memory: StrictBool = True
    routes: tuple[_Text, ...] = ()
    examples: tuple[_Example, ...] = ()
    reasoning: StrictBool = False
    output: dict[str, Any] | None = None
    sampling: _Sampling = _Sampling()
    access: tuple[_Principal, ...] | None = None


def parse_domain(file: Path | str, data: bytes) -> Domain:
    """The domain in a file's bytes; its name is the file's. Raises PromptFileError with the first fault's
    line; faults of several keys are joined in one reason."""
    return _Reader(Path(file), data).domain()


class _Reader:
    """The parser of one file, which knows the line of each key."""

    def __init__(self, file: Path, data: bytes) -> None:
        self._file = file
        self._data = data
        self._root: yaml.Node | None = None

    def domain(self) -> Domain:
        name = self._file.stem
        if not NAME.fullmatch(name):
            raise self._error(1, f"the file's name must be 1 to 64 of a-z, 0-9, '.', '_' and '-'; it is '{name}'")
        front, body, body_line = self._split(self._text())
        matter = self._checked(self._loaded(front))
        if not body.strip():
            raise self._error(body_line, "the body is empty; write the system prompt under the second '---'")
        title = matter.title or name
        try:
            check_template(body, title)
        except TemplateFault as fault:
            raise self._error(body_line - 1 + fault.line, fault.reason) from fault
        return Domain(
            name=name,
            title=title,
            description=matter.description.strip(),
            body=body,
            adapter=matter.adapter.name if matter.adapter else None,
            adapter_when=matter.adapter.when if matter.adapter else AdapterWhen.ALWAYS,
            knowledge=matter.knowledge,
            grounding=matter.grounding,
            refusal=matter.refusal.strip(),
            memory=matter.memory,
            routes=matter.routes,
            examples=tuple(FewShot(each.user, each.assistant) for each in matter.examples),
            reasoning=matter.reasoning,
            output=self._schema(matter.output),
            sampling=SamplingParams(**matter.sampling.model_dump()),
            access=frozenset(matter.access) if matter.access is not None else None,
            fingerprint=hashlib.sha256(self._data).hexdigest()[:16],
        )

    # ── text ─────────────────────────────────────────────────────────────────────────────────────

    def _text(self) -> str:
        if len(self._data) > MAX_BYTES:
            raise self._error(1, f"the file has over {MAX_BYTES:,} bytes; shorten it: a prompt may have no more")
        try:
            text = self._data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self._data.count(b"\n", 0, error.start) + 1
            raise self._error(line, "the file is not UTF-8; save it as UTF-8") from error
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _split(self, text: str) -> tuple[str, str, int]:
        """(front matter, body, the body's first line). A file may do without front matter."""
        lines = text.split("\n")
        if lines[0].rstrip() != "---":
            return "", text, 1
        for index in range(1, len(lines)):
            if lines[index].rstrip() == "---":
                return "\n".join(lines[1:index]), "\n".join(lines[index + 1 :]), index + 2
        raise self._error(1, "the front matter is not closed; put a line '---' between it and the body")

    # ── front matter ─────────────────────────────────────────────────────────────────────────────

    def _loaded(self, front: str) -> dict[str, Any]:
        try:
            self._check_events(front)
            loader = yaml.SafeLoader(front)
            self._root = loader.get_single_node()
            self._check_keys(self._root)
            loaded = loader.construct_document(self._root) if self._root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(filter(None, (error.context, error.problem)))
            line = mark.line + 2 if mark else 2
            raise self._error(line, f"the front matter is not valid YAML: {reason}") from error
        except yaml.reader.ReaderError as error:
            line = front.count("\n", 0, error.position) + 2
            raise self._error(line, f"the front matter holds a control character (U+{_code(error):04X})") from error
        except ValueError as error:  # an impossible date
            raise self._error(2, f"the front matter is not valid YAML: {error}") from error
        if loaded is None:
            return {}
        if not isinstance(loaded, dict):
            raise self._error(2, "the front matter must be 'key: value' lines")
        return loaded

    def _check_events(self, front: str) -> None:
        """Before anything is built: an alias can make a small file a huge tree, and so can brackets."""
        depth = 0
        for number, event in enumerate(yaml.parse(front, yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise self._error(_line(event), f"'*{event.anchor}': YAML aliases are not read; write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise self._error(_line(event), f"the front matter nests more than {MAX_DEPTH} levels deep")
            if number > MAX_ENTRIES:
                raise self._error(_line(event), f"the front matter has more than {MAX_ENTRIES:,} entries; shorten it")

    def _check_keys(self, node: yaml.Node | None) -> None:
        """YAML lets the last of two equal keys win in silence, and takes 1 or true for a key."""
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self._check_keys(child)
        if not isinstance(node, yaml.MappingNode):
            return
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "this key"
                raise self._error(_line(key), f"{shown} is not text; put it in quotes")
            if key.value in seen:
                raise self._error(_line(key), f"'{key.value}' stands twice; keep one")
            seen.add(key.value)
            self._check_keys(value)

    def _checked(self, loaded: dict[str, Any]) -> _FrontMatter:
        try:
            return _FrontMatter.model_validate(loaded)
        except ValidationError as error:
            faults = sorted((self._line_of(fault["loc"]), _reason(fault)) for fault in error.errors())
            first = faults[0][0]
            texts = [reason if line == first else f"line {line}: {reason}" for line, reason in faults]
            raise self._error(first, "; ".join(texts)) from error

    def _schema(self, schema: dict[str, Any] | None) -> str | None:
        if schema is None:
            return None
        line = self._line_of(("output",))
        try:
            text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self._error(line, f"'output' must hold JSON values only, with dates in quotes: {error}") from error
        if fault := schema_fault(schema):
            raise self._error(line, f"'output' is not a JSON Schema that answers can be held to: {fault}")
        return text

    # ── positions ────────────────────────────────────────────────────────────────────────────────

    def _line_of(self, path: _Path) -> int:
        """The file's line where the key at `path` stands, or the nearest one above it."""
        node, line = self._root, 2
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == step), None)
                if found is None:
                    break
                line, node = _line(found[0]), found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = _line(node)
            else:
                break
        return line

    def _error(self, line: int, reason: str) -> PromptFileError:
        return PromptFileError(self._file, line, reason)


def _line(placed: yaml.Node | yaml.Event) -> int:
    """YAML counts from 0 and does not see the opening '---'."""
    mark = placed.start_mark
    return mark.line + 2 if mark else 2


def _code(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character)


def _reason(fault: Any) -> str:
    path: _Path = fault["loc"]
    key = ".".join(str(step) for step in path)
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_suggestion(path)}"
    if fault["type"] == "missing":
        return f"'{key}' is missing"
    if fault["type"] == "string_pattern_mismatch" and path[0] == "access":
        return f"'{key}' must be an account's name or '@' and a group's, and is '{fault['input']}'"
    if fault["type"] == "string_pattern_mismatch":
        return f"'{key}' must be a plain name (a-z, A-Z, digits, '.', '_', '-'), and is '{fault['input']}'"
    message = _MUST_BE.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return f"'{key}' {message[0].lower()}{message[1:]}; it is {_quoted(fault['input'])}"


def _suggestion(path: _Path) -> str:
    owners: dict[str, type[BaseModel]] = {"sampling": _Sampling, "examples": _Example, "adapter": _Adapter}
    owner = owners[str(path[0])] if len(path) > 1 else _FrontMatter
    known = list(owner.model_fields)
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
