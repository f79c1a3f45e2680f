"""Patterns of layers' names out of an adapter's settings, matched by RE2, which never backtracks.

They are regular expressions out of a file, and Python's `re` may take for ever over one. Knows nothing of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import re2

from server.errors import AdapterInvalid

_MAX_PATTERNS = 1024
_MAX_LENGTH = 1024  # characters
_MAX_BYTES = 1 << 18  # of one pattern's machine


class LayerValues:
    """`rank_pattern` or `alpha_pattern`: a value for each layer. Raises AdapterInvalid naming `key`."""

    def __init__(self, key: str, patterns: Mapping[str, float], default: float) -> None:
        _check_count(key, patterns)
        self._values = [
            (_compiled(key, rf"(?:.*\.)?(?:{pattern})"), float(value)) for pattern, value in patterns.items()
        ]
        self._default = float(default)

    def of(self, module: str) -> float:
        """PEFT's rule: the first pattern that matches the end of the layer's name, from a dot on."""
        return next((value for pattern, value in self._values if pattern.fullmatch(module)), self._default)


def check_targets(config: Mapping[str, Any]) -> None:
    """The other patterns, which say where to train and which serving does not need. Raises AdapterInvalid."""
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key)
        patterns = [value] if isinstance(value, str) else value or []
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise AdapterInvalid(f"{key} must be a text or a list of texts")
        _check_count(key, patterns)
        for pattern in patterns:
            _compiled(key, pattern)


def without_patterns(config: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any]:
    """The settings that hold patterns, said with the full names of the layers in `ranks`: what PEFT, which matches with
    `re`, makes of them is the same, and takes no time. Raises AdapterInvalid."""
    check_targets(config)
    alphas = LayerValues("alpha_pattern", config.get("alpha_pattern") or {}, config.get("lora_alpha", 8))
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    return {
        "target_modules": sorted(ranks),
        "exclude_modules": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "rank_pattern": {re.escape(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {re.escape(name): alphas.of(name) for name in ranks if alphas.of(name) != alpha},
    }


def _check_count(key: str, patterns: Iterable[str]) -> None:
    found = list(patterns)
    if len(found) > _MAX_PATTERNS:
        raise AdapterInvalid(f"{key} has {len(found)} patterns, and the most is {_MAX_PATTERNS}")
    for pattern in found:
        if len(pattern) > _MAX_LENGTH:
            raise AdapterInvalid(f"{key} has a pattern of {len(pattern)} characters, and the most is {_MAX_LENGTH}")


def _compiled(key: str, pattern: str) -> Any:
    options = re2.Options()
    options.max_mem, options.log_errors = _MAX_BYTES, False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise AdapterInvalid(
            f"{key} has a pattern that cannot be used ({str(error)[:200]}): write it without look-around and "
            "back-references, or name the layers"
        ) from error
