"""What counts as ours of the deprecations that libraries tell."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from tests.deprecations import LIBRARIES, ours_raised


def library(monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> ModuleType:
    """A module whose code claims to be installed as `name`."""
    module = ModuleType(name)
    exec(compile(code, f"{LIBRARIES[0]}{name}/__init__.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    return module


OLD = "import warnings\ndef old():\n    warnings.warn('old() goes; call new()', {category}, stacklevel={level})\n"


@pytest.mark.parametrize("category", ["DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"])
@pytest.mark.parametrize("level", [1, 2, 9])
def test_a_deprecated_call_of_ours_fails_by_name_and_line(monkeypatch, category: str, level: int) -> None:
    module = library(monkeypatch, "somelib", OLD.format(category=category, level=level))
    with pytest.raises(Warning, match=rf"tests/{Path(__file__).name}:\d+ calls what is deprecated: old\(\) goes"):
        module.old()


def test_through_a_model_it_is_still_ours(monkeypatch) -> None:
    import torch

    module = library(monkeypatch, "somelib", OLD.format(category="FutureWarning", level=2))

    class Model(torch.nn.Module):
        forward = staticmethod(module.old)

    with pytest.raises(FutureWarning, match="calls what is deprecated"):
        Model()()


def test_what_one_library_calls_of_another_is_shown_and_fails_nothing(monkeypatch) -> None:
    library(monkeypatch, "somelib", OLD.format(category="FutureWarning", level=2))
    other = library(monkeypatch, "otherlib", "import somelib\ndef call():\n    somelib.old()\n")
    with warnings.catch_warnings(record=True) as shown, ours_raised():
        other.call()
    assert [str(one.message) for one in shown] == ["old() goes; call new()"]


def test_other_warnings_of_libraries_fail_as_before(monkeypatch) -> None:
    module = library(monkeypatch, "somelib", OLD.format(category="RuntimeWarning", level=2))
    with pytest.raises(RuntimeWarning, match="old"):
        module.old()


def test_our_own_warnings_fail() -> None:
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)
