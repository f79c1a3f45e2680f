"""Invitations (iCalendar, RFC 5545) as lines that people read. Knows nothing of time zones beyond their names."""

from __future__ import annotations

import re
from typing import Final

_SHOWN: Final = {
    "SUMMARY": "Event", "DTSTART": "Start", "DTEND": "End", "DUE": "Due", "LOCATION": "Place", "ORGANIZER": "Organizer",
    "ATTENDEE": "Attendee", "DESCRIPTION": "Description", "RRULE": "Repeats", "STATUS": "Status", "COMMENT": "Comment",
}  # fmt: skip
_NO_ENTRIES: Final = ("VCALENDAR", "VTIMEZONE", "VALARM", "STANDARD", "DAYLIGHT")
_LINE = re.compile(
    r"([A-Za-z-]{1,40})((?:;[^:\"\n]{0,400}(?:\"[^\"\n]{0,400}\"[^:\"\n]{0,400}){0,4})?):(.*)", re.DOTALL
)
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?$")
_ESCAPE = re.compile(r"\\([\\;,nN])")


def calendar_text(source: str) -> str:
    lines: list[str] = []
    inside: list[str] = []
    for line in re.sub(r"\r?\n[ \t]", "", source).split("\n"):
        found = _LINE.match(line.strip())
        if not found:
            continue
        name, parameters, value = found[1].upper(), found[2], found[3]
        if name == "BEGIN":
            inside.append(value.upper())
            if value.upper() not in _NO_ENTRIES and lines:
                lines.append("")
        elif name == "END":
            inside = inside[:-1]
        elif name in _SHOWN and inside and inside[-1] not in _NO_ENTRIES and (words := _value(value, parameters)):
            lines.append(f"{_SHOWN[name]}: {words}")
    return "\n".join(lines)


def _value(value: str, parameters: str) -> str:
    if time := _TIME.match(value):
        year, month, day, hour, minute, _, utc = time.groups()
        zone = re.search(r"TZID=\"?([^;:\"]{1,80})", parameters, re.IGNORECASE)
        at = f" {hour}:{minute}" if hour else ""
        return f"{year}-{month}-{day}{at}{' UTC' if utc else f' ({zone[1]})' if zone and at else ''}"
    value = _ESCAPE.sub(lambda match: " " if match[1] in "nN" else match[1], value)
    if value.lower().startswith("mailto:"):
        value = value[7:]
        if name := re.search(r"CN=\"?([^;:\"]{1,200})", parameters, re.IGNORECASE):
            value = f"{name[1]} <{value}>" if name[1] != value else value
    return " ".join(value.split())
