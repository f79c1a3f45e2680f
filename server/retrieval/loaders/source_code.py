"""Source code and settings files: kept by lines, with the names of the definitions around them as the path.

A definition is a line that looks like one, at the top level or inside of a class or the like, and encloses what is
indented deeper; comments and decorators right above it belong to it. Nothing is parsed: what is missed is still text.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Block, BlockKind, Document

_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|sealed|open|override|virtual|async"
    r"|unsafe|extern|inline|const|constexpr|partial|data|case|implicit|lazy|suspend|operator|pub(?:\([^)]{0,40}\))?"
    r'|declare|readonly|synchronized|native|mutating|fileprivate|explicit|friend|typedef|"C")\s+){0,8}'
)
_CONTAINER = (
    r"(?P<container>class|interface|trait|struct|enum(?: class)?|object|record|protocol|extension|impl(?:<[^>]{0,80}>)?"
    r"|namespace|mod|union|actor)"
)
_NOT_A_CALL = r"(?!(?:if|for|foreach|while|switch|catch|return|else|new|throw|do|using|lock|case|await|typeof)\b)"
_TYPE = r"[\w<>\[\],.?:&*~]+\s+[&*]{0,2}"

_NAMED = rf"{_MODIFIERS}(?:{_CONTAINER}|type|function\*?|func|fun|fn|def|macro_rules!)\s+(?P<name>[\w$.:]+)"
_ARROW = rf"{_MODIFIERS}(?:const|let|var)\s+(?P<name>\w+)[^=]{{0,200}}=\s*(?:async\b\s*)?(?:function\b|\(.*=>|\w+\s*=>)"
_METHOD = rf"(?<=\s){_MODIFIERS}{_NOT_A_CALL}(?:{_TYPE}){{0,4}}(?P<name>[~#]?[\w:]+)\s*\("  # inside of a class
_FUNCTION = rf"{_MODIFIERS}{_NOT_A_CALL}(?:{_TYPE}){{1,4}}(?P<name>~?[\w:]+)\s*\("
_PYTHON = r"(?:(?P<container>class)|(?:async\s+)?def)\s+(?P<name>\w+)\s*[(:\[]"
_RUBY = r"(?:(?P<container>class|module)|def)\s+(?P<name>[\w.:?!]+)"
_GO = r"(?:func\s+(?:\([^)]{0,200}\)\s*)?|type\s+)(?P<name>\w+)"
_R = r"(?P<name>[\w.]+)\s*(?:<-|=)\s*function\b"
_SHELL = r"(?:function\s+)?(?P<name>[\w:.-]+)\s*(?:\(\s*\)|\{)\s*\{?"
_LUA = r"(?:local\s+)?function\s+(?P<name>[\w.:]+)"
_PERL = r"sub\s+(?P<name>[\w:]+)"
_SQL = (
    r"(?i:create\s+(?:or\s+replace\s+)?(?:(?:temp|temporary|unique|materialized|global|unlogged)\s+){0,3}"
    r"(?:table|view|function|procedure|trigger|index|type|schema|sequence)\s+(?:if\s+not\s+exists\s+)?)"
    r'(?P<name>[\w."`\[\]]+)'
)
_SECTION = r"\[{1,2}(?P<name>[^\[\]\n]{1,120})\]{1,2}\s*(?:[#;].*)?$"

_SCRIPT, _CURLY, _C = (_NAMED, _ARROW, _METHOD), (_NAMED, _METHOD), (_NAMED, _METHOD, _FUNCTION)
_BY_ENDING: Final[dict[str, tuple[str, ...]]] = {
    ".py": (_PYTHON,), ".pyi": (_PYTHON,), ".rb": (_RUBY,), ".lua": (_LUA,), ".go": (_GO,), ".r": (_R,),
    ".js": _SCRIPT, ".mjs": _SCRIPT, ".cjs": _SCRIPT, ".jsx": _SCRIPT, ".ts": _SCRIPT, ".tsx": _SCRIPT,
    ".java": _CURLY, ".cs": _CURLY, ".dart": _C, ".c": _C, ".h": _C, ".cc": _C, ".cpp": _C, ".hpp": _C,
    ".kt": (_NAMED,), ".scala": (_NAMED,), ".swift": (_NAMED,), ".php": (_NAMED,), ".rs": (_NAMED,),
    ".sh": (_SHELL,), ".bash": (_SHELL,), ".zsh": (_SHELL,), ".ps1": (_NAMED,), ".pl": (_PERL,), ".pm": (_PERL,),
    ".sql": (_SQL,), ".toml": (_SECTION,), ".ini": (_SECTION,), ".cfg": (_SECTION,), ".proto": (_NAMED,),
    ".yaml": (), ".yml": (), ".css": (), ".scss": (), ".xml": (), ".vue": (), ".tf": (), ".bat": (),
}  # fmt: skip
CODE_ENDINGS: Final = tuple(_BY_ENDING)
_PATTERNS = {ending: tuple(map(re.compile, patterns)) for ending, patterns in _BY_ENDING.items()}
_SECTIONED = (".toml", ".ini", ".cfg")  # a section has the lines that follow, indented or not
_LEADING = ("#", "//", "/*", "*", "--", "@")  # lines that belong to a definition right below
_PREPROCESSED = (".c", ".h", ".cc", ".cpp", ".hpp", ".cs")  # a '#' at the margin says nothing of the indentation
_CLOSES = re.compile(r"\}[\])};,]*|end[;,]?")
_CONTINUES = re.compile(r"[\[\](){},;]|end\b|\*/|where\b|else\b|rescue\b|ensure\b")  # at the definition's own indent
_MAX_LINE = 400  # a longer line is data, not a definition

Path = tuple[str, ...]


def load_code(data: bytes, ending: str) -> Document:
    text = decode(data)
    lines = _Outline(ending).lines(text)
    return Document(text, tuple(_blocks(lines)), numbered=True)


class _Line:
    """`follows` where no blank line is before it."""

    __slots__ = ("end", "follows", "path", "start")

    def __init__(self, start: int, end: int, path: Path, follows: bool) -> None:
        self.start, self.end, self.path, self.follows = start, end, path, follows


def _blocks(lines: list[_Line]) -> list[Block]:
    """Neighbours under one path; outside of all definitions a blank line ends a block, too."""
    if not lines:
        return []
    cuts = [at + 1 for at, (one, next_) in enumerate(pairwise(lines))
            if one.path != next_.path or not (one.path or next_.follows)]  # fmt: skip
    return [
        Block(lines[first].start, lines[stop - 1].end, lines[first].path, BlockKind.CODE)
        for first, stop in pairwise([0, *cuts, len(lines)])
    ]


class _Outline:
    """Finds for each line that is not blank the definitions that enclose it."""

    def __init__(self, ending: str) -> None:
        self._patterns = _PATTERNS[ending]
        self._sectioned = ending in _SECTIONED
        self._statements = ending == ".sql"  # a definition may end on its line
        self._preprocessed = ending in _PREPROCESSED
        self._enclosing: list[tuple[int, str, bool]] = []  # indent, name, and whether it may contain definitions

    def lines(self, text: str) -> list[_Line]:
        lines: list[_Line] = []
        leading = 0  # lines right above that may belong to the next definition
        offset, follows = 0, False
        for raw in text.split("\n"):
            line = raw.expandtabs(4).rstrip() if len(raw) <= _MAX_LINE else raw.rstrip()
            leading = leading if line else 0
            if line:
                path, is_leading = self._path_of(line, lines[-1].path if lines else ())
                if is_leading is None:
                    for one in lines[len(lines) - leading :] if leading else ():
                        one.path = path
                leading = leading + 1 if is_leading else 0
                lines.append(_Line(offset, offset + len(raw.rstrip()), path, follows))
            follows = bool(line)
            offset += len(raw) + 1
        return lines

    def _path_of(self, line: str, before: Path) -> tuple[Path, bool | None]:
        """The definitions around a line, and whether it may belong to one below; None: it begins one. A closing brace
        has the path of the line `before` it."""
        indent = len(line) - len(line.lstrip())
        if self._preprocessed and line.startswith("#"):
            return self._path, False
        if _CLOSES.fullmatch(line, indent):
            while self._enclosing and indent <= self._enclosing[-1][0]:
                self._enclosing.pop()
            return before, False
        while self._enclosing and not self._sectioned and indent <= self._enclosing[-1][0]:
            if indent == self._enclosing[-1][0] and _CONTINUES.match(line, indent):
                break
            self._enclosing.pop()
        if self._enters(line, indent):
            return self._path, None
        return self._path, line.startswith(_LEADING, indent)

    @property
    def _path(self) -> Path:
        return tuple(name for _, name, _ in self._enclosing)

    def _enters(self, line: str, indent: int) -> bool:
        if len(line) > _MAX_LINE or (line.endswith(";") and not self._statements):
            return False
        if self._enclosing and not self._sectioned:
            outside, _, is_container = self._enclosing[-1]
            fits = is_container and indent > outside
        else:
            fits = indent == 0
        found = next(filter(None, (pattern.match(line, indent) for pattern in self._patterns)), None) if fits else None
        if found is None:
            return False
        if self._sectioned:
            self._enclosing.clear()
        self._enclosing.append((indent, found["name"], bool(found.groupdict().get("container"))))
        return True
