"""Where settings come from, in which order, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.config import DEFAULT_CHAT_MODEL, LOOPBACK, Settings, load_settings
from server.errors import ConfigError
from tests.conftest import ROOT


def write(folder: Path, text: str) -> Path:
    (folder / "tailor.toml").write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, **sources: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(folder, environ=sources.get("environ", {}), flags=sources.get("flags"))
    return str(caught.value)


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_workspace_has_the_defaults_on_loopback(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    assert settings.server.host == "127.0.0.1"
    assert settings.model.name == DEFAULT_CHAT_MODEL
    assert settings.server.password.get_secret_value() == ""
    assert settings.engine == Settings().engine


def test_toml_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "[engine]\nmax_batch = 3\n"), environ={})
    assert settings.engine.max_batch == 3
    assert settings.engine.max_loras == Settings().engine.max_loras


def test_toml_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "tailor.toml").write_bytes("\ufeff[server]\nport = 9000\n".encode())
    assert load_settings(tmp_path, environ={}).server.port == 9000


def test_the_environment_reaches_every_kind_of_value(tmp_path: Path) -> None:
    environ = {
        "TAILOR_SERVER_PORT": "9001",
        "TAILOR_MODEL_CONTEXT_LENGTH": "2048",
        "TAILOR_ROUTER_MIN_LIKELIHOOD": "0.5",
        "TAILOR_PATHS_PROMPTS": "my-prompts",
        "TAILOR_SERVER_ALLOWED_ORIGINS": "https://a.example, https://b.example,",
        "TAILOR_SERVER_ALLOWED_HOSTS": "tailor, chat.lan",
        "TAILOR_SERVER_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        "TAILOR_SERVER_PASSWORD": "correct horse",
        "PATH": "/usr/bin",
        "TAILORED": "no setting",
    }
    settings = load_settings(tmp_path, environ=environ)
    assert settings.server.port == 9001
    assert settings.model.context_length == 2048
    assert settings.router.min_likelihood == 0.5
    assert settings.paths.prompts == tmp_path / "my-prompts"
    assert settings.server.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.server.allowed_hosts == ("tailor", "chat.lan")
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.server.password.get_secret_value() == "correct horse"


def test_the_process_environment_is_read_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_SERVER_PORT", "9002")
    assert load_settings(tmp_path).server.port == 9002


def test_flags_win_over_the_environment_which_wins_over_toml(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1\n[memory]\nrecall = 1\n[engine]\nmax_batch = 1\n")
    environ = {"TAILOR_SERVER_PORT": "2", "TAILOR_MEMORY_RECALL": "2"}
    settings = load_settings(tmp_path, environ=environ, flags={"server.port": 3, "engine.max_batch": None})
    assert (settings.server.port, settings.memory.recall, settings.engine.max_batch) == (3, 2, 1)


def test_a_bad_value_below_a_good_one_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 'none'\n")
    assert load_settings(tmp_path, environ={"TAILOR_SERVER_PORT": "8000"}).server.port == 8000


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_key_is_named_with_its_source_and_a_near_one(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "[server]\nprot = 1\n"))
    assert "'server.prot'" in message
    assert "tailor.toml" in message
    assert "did you mean 'server.port'?" in message


def test_unknown_keys_of_all_sources_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, "[servre]\nport = 1\n")
    message = refused(tmp_path, environ={"TAILOR_ENGINE_MAX_BATHC": "1"}, flags={"model.nmae": "x"})
    assert "unknown setting 'servre.port'" in message
    assert "'engine.max_bathc' (environment variable TAILOR_ENGINE_MAX_BATHC)" in message
    assert "'model.nmae' (flag for model.nmae); did you mean 'model.name'?" in message
    assert len(message.splitlines()) == 3


def test_a_key_like_nothing_gets_no_hint(tmp_path: Path) -> None:
    assert "did you mean" not in refused(tmp_path, environ={"TAILOR_XYZZY": "1"})


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\nport = 'http'\n", "server.port"),
        ("[model]\ndevice = 'gpu'\n", "model.device"),
        ("[engine]\nmax_batch = 0\n", "engine.max_batch"),
        ("[prompts]\nlow_water = 1.0\n", "prompts.low_water"),
        ("[server]\nsession_days = 0\n", "server.session_days"),
        ("[server]\nallowed_origins = 'https://a.example'\n", "server.allowed_origins"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_file(tmp_path: Path, toml: str, key: str) -> None:
    message = refused(write(tmp_path, toml))
    assert f"setting '{key}'" in message
    assert "tailor.toml" in message


def test_a_bad_value_of_the_environment_names_the_variable(tmp_path: Path) -> None:
    message = refused(tmp_path, environ={"TAILOR_SERVER_PORT": "eighty"})
    assert "environment variable TAILOR_SERVER_PORT" in message


def test_the_password_is_never_in_a_message_or_a_repr(tmp_path: Path) -> None:
    environ = {"TAILOR_SERVER_PASSWORD": "hunter2hunter2", "TAILOR_SERVER_PORT": "no"}
    assert "hunter2" not in refused(tmp_path, environ=environ)
    settings = load_settings(tmp_path, environ={"TAILOR_SERVER_PASSWORD": "hunter2hunter2"})
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("toml", ["[server\nport = 1", "port = = 1", "[server]\nhost = \xff"])
def test_toml_that_is_none_is_refused_with_its_path(tmp_path: Path, toml: str) -> None:
    (tmp_path / "tailor.toml").write_bytes(toml.encode("latin-1"))
    message = refused(tmp_path)
    assert str(tmp_path / "tailor.toml") in message
    assert "not valid TOML" in message


def test_a_folder_called_tailor_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tailor.toml").mkdir()
    assert "cannot be read" in refused(tmp_path)


def test_a_key_outside_a_section_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "port = 1\n"))
    assert "'port' stands outside a section" in message


# ── exposure ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "chat.example.org", ""])
def test_a_host_that_others_reach_needs_a_password(tmp_path: Path, host: str) -> None:
    message = refused(tmp_path, flags={"server.host": host})
    assert "server.password" in message
    assert "TAILOR_SERVER_PASSWORD" in message
    flags = {"server.host": host, "server.password": "correct horse"}
    assert load_settings(tmp_path, environ={}, flags=flags).server.host == host


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    assert load_settings(tmp_path, environ={}, flags={"server.host": host}).server.host == host


def test_an_origin_of_everybody_is_refused_even_with_a_password(tmp_path: Path) -> None:
    environ = {"TAILOR_SERVER_ALLOWED_ORIGINS": "https://a.example,*", "TAILOR_SERVER_PASSWORD": "correct horse"}
    assert "'*'" in refused(tmp_path, environ=environ)


@pytest.mark.parametrize("host", ["*", "chat.lan:80", "https://chat.lan", "", "a b", "[::1]"])
def test_an_allowed_host_is_a_name_without_more(tmp_path: Path, host: str) -> None:
    assert f"server.allowed_hosts holds '{host}'" in refused(tmp_path, flags={"server.allowed_hosts": [host]})


@pytest.mark.parametrize("proxy", ["*", "proxy.lan", "10.0.0.1/8", ""])
def test_a_trusted_proxy_is_an_address_or_a_network(tmp_path: Path, proxy: str) -> None:
    assert f"server.trusted_proxies holds '{proxy}'" in refused(tmp_path, flags={"server.trusted_proxies": [proxy]})


# ── paths and immutability ───────────────────────────────────────────────────────────────────────


def test_relative_paths_are_in_the_workspace_not_where_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    workspace = tmp_path / "workspace"
    elsewhere.mkdir()
    workspace.mkdir()
    write(workspace, f"[paths]\nknowledge = 'docs'\ndata = '{(tmp_path / 'state').as_posix()}'\n")
    monkeypatch.chdir(elsewhere)
    paths = load_settings(workspace, environ={}).paths
    assert paths.prompts == workspace / "prompts"
    assert paths.knowledge == workspace / "docs"
    assert paths.data == tmp_path / "state"


def test_a_relative_workspace_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(Path(), environ={}).paths.adapters == tmp_path.resolve() / "adapters"


def test_sections_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    with pytest.raises(ValidationError):
        settings.server.port = 1  # type: ignore[misc]


def test_every_default_passes_its_own_rule() -> None:
    for section in Settings.model_fields.values():
        kind = type(section.default)
        assert kind.model_validate(section.default.model_dump()) == section.default


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("retrieval.min_similarity", "retrieval.min_likelihood"),
        ("retrieval.min_coverage", "retrieval.min_likelihood"),
        ("memory.min_similarity", "memory.min_likelihood"),
        ("router.threshold", "router.min_likelihood"),
    ],
)
def test_a_threshold_on_cosines_is_refused_with_what_stands_for_it(tmp_path: Path, old: str, new: str) -> None:
    section, _, key = old.partition(".")
    (tmp_path / "tailor.toml").write_text(f"[{section}]\n{key} = 0.4\n")
    with pytest.raises(ConfigError, match=rf"{old}.*is gone.*'{new}'"):
        load_settings(tmp_path, environ={})


def test_the_manual_names_every_setting() -> None:
    manual = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", manual))
    settings = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in type(field.default).model_fields
    }
    assert settings - named == set()
