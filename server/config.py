"""Settings: where each default stands, once, and where a value may come from.

Sources in rising order: the defaults here, `tailor.toml`, the environment (`TAILOR_SECTION_KEY`),
command-line flags. An unknown key or a bad value is refused with its name and its source; a section's
model is frozen, so a part can hold it and never see it change.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from server.errors import ConfigError

DEFAULT_CHAT_MODEL = "smollm2-135m-instruct"
DEFAULT_CHAT_MODEL_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what adapters call it
DEFAULT_EMBEDDER = "multilingual-e5-small"
ENGLISH_EMBEDDER = "all-minilm-l6-v2"  # smaller, and as good for English alone
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
Quantize = Literal["none", "int8", "int4"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    password: SecretStr = SecretStr("")  # needed when host is not loopback
    allowed_origins: tuple[str, ...] = ()  # besides the server's own address
    allowed_hosts: tuple[str, ...] = ()  # names in Host besides this machine's; empty: any, where a login is needed
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")  # whose X-Forwarded-For is believed; addresses, networks
    session_days: float = Field(default=30, gt=0)
    max_message_bytes: int = Field(default=256 * 1024, ge=1024)
    max_upload_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    max_connections: int = Field(default=2000, ge=1)
    max_connections_per_address: int = Field(default=500, ge=1)  # not of this machine and of trusted proxies
    max_sockets_per_user: int = Field(default=1000, ge=1)  # open WebSockets
    header_seconds: float = Field(default=10, gt=0)  # in which a request's head has to be there
    body_seconds: float = Field(default=30, gt=0)  # in which a body has to be there, and a second more for each …
    body_bytes_per_second: int = Field(default=1024, ge=1)  # … so many bytes that came
    write_seconds: float = Field(default=60, gt=0)  # that a reader may take nothing of what waits for it
    stream_keep_seconds: float = Field(default=600, ge=0)  # a finished answer's events stay resumable
    drain_seconds: float = Field(default=30, ge=0)  # running answers may go on after SIGTERM


class PathSettings(Section):
    """Folders of the workspace; relative ones are taken from the folder of `tailor.toml`."""

    prompts: Path = Path("prompts")
    knowledge: Path = Path("knowledge")
    adapters: Path = Path("adapters")
    data: Path = Path("data")


class StorageSettings(Section):
    reserve_bytes: int = Field(default=16 * 1024**2, ge=0)  # kept free, so that deleting works on a full disk; 0: none


class LoggingSettings(Section):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ModelSettings(Section):
    name: str = DEFAULT_CHAT_MODEL  # the default, a hub id, or a folder
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context_length: int = Field(default=0, ge=0)  # 0: what the model was made for
    quantize: Quantize = "none"  # of the linear layers' weights


GPU_DEFAULTS = {"max_batch": 64, "prefill_tokens": 1024}


class EngineSettings(Section):
    max_batch: int = Field(default=16, ge=1)  # rows that generate together
    max_waiting: int = Field(default=256, ge=0)  # over it: "busy"
    max_per_user: int = Field(default=64, ge=1)  # running and waiting rows of one user
    prefill_tokens: int = Field(default=256, ge=16)  # prompt tokens computed in one step
    max_tokens: int = Field(default=4096, ge=1)  # of one answer; a request for more is cut to it
    kv_bytes: int = Field(default=2 * 1024**3, ge=1024**2)  # keys and values of running rows; on a processor
    prefix_bytes: int = Field(default=1024**3, ge=0)  # prefix cache, for prompts that begin alike; 0: none, anywhere
    gpu_memory: float = Field(default=0.92, gt=0, le=1)  # of a card: what may be used, by others too; on a GPU
    max_loras: int = Field(default=8, ge=1)
    adapter_bytes: int = Field(default=1024**3, ge=1024**2)  # of all loaded adapters
    max_lora_rank: int = Field(default=64, ge=1)

    def on(self, device: str) -> EngineSettings:
        """With a card's own defaults for what was not set: it computes many rows at the price of few."""
        if device == "cpu":
            return self
        return self.model_copy(
            update={name: n for name, n in GPU_DEFAULTS.items() if name not in self.model_fields_set}
        )


class EmbeddingSettings(Section):
    name: str = DEFAULT_EMBEDDER  # the default, all-minilm-l6-v2, a hub id, or a folder
    quantize: Literal["none", "int8"] = "int8"  # products of 8 bits on a processor, where texts keep their vectors


class RetrievalSettings(Section):
    passages: int = Field(default=5, ge=1)  # most passages given to the model
    chunk_tokens: int = Field(default=160, ge=32)  # in the embedder's tokens
    min_likelihood: float = Field(default=0.4, ge=0, le=1)  # that a passage answers: the evidence gate
    dense_weight: float = Field(default=0.45, ge=0, le=1)  # the rest is lexical
    debounce_ms: int = Field(default=200, ge=0)
    max_suspicion: float = Field(default=1.0, ge=0, le=1)  # of a passage that is used; 1 leaves none out
    read: int = Field(default=6, ge=0, le=50)  # best passages read together with the question; 0: none
    reranker: str = ""  # a folder or hub id of a cross-encoder; empty: none
    generations: int = Field(default=20, ge=2)  # of the index that are kept for rollback
    parse_seconds: float = Field(default=60, gt=0)  # that reading one file may take
    parse_mb: int = Field(default=1024, ge=64)  # memory that reading one file may take


class MemorySettings(Section):
    recall: int = Field(default=6, ge=0)  # most memories put into one prompt
    min_likelihood: float = Field(default=0.5, ge=0, le=1)  # that a memory, or a past turn, is about what is asked
    max_chars: int = Field(default=500, ge=20)  # of one memory
    model_pass: bool = False  # the model reads what users say, too, when it is idle
    earlier_turns: int = Field(default=6, ge=0)  # most turns of past chats put into one prompt


class RouterSettings(Section):
    min_likelihood: float = Field(default=0.6, ge=0, le=1)  # that a message belongs to any domain, to pick one


class PromptSettings(Section):
    evidence_tokens: int = Field(default=1200, ge=64)  # budget of one turn's evidence
    memory_tokens: int = Field(default=600, ge=0)  # budget of the memories that one turn adds
    chats_tokens: int = Field(default=800, ge=0)  # budget of the turns of past chats quoted in one prompt
    low_water: float = Field(default=0.6, gt=0, lt=1)  # compaction stops at this share of the prompt budget
    default_domain: str = "general"


class LimitSettings(Section):
    """Of each user; 0: none."""

    messages_per_minute: int = Field(default=0, ge=0)
    tokens_per_day: int = Field(default=0, ge=0)  # of prompts and answers; a day is UTC's


class OidcSettings(Section):
    """An OpenID Connect provider to log in at; needs the extra `oidc`. Empty issuer: none."""

    issuer: str = ""  # as the provider writes it, such as https://id.example.org
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scope: str = "openid profile email"
    redirect_url: str = ""  # of /api/oidc/callback as browsers reach it; empty: as they asked for it
    label: str = ""  # on the button
    name_claim: str = "preferred_username"  # what a new account is named after
    groups_claim: str = ""  # a list of names, such as "groups"; empty: nothing is mapped
    role_map: dict[str, str] = {}  # from one of those names to a role
    group_map: dict[str, str] = {}  # from one of those names to a group
    create_accounts: bool = True  # for people who are not known yet


class AuditSettings(Section):
    keep_days: float = Field(default=365, ge=1, le=3650)  # how long the audit log keeps a row


class Settings(Section):
    server: ServerSettings = ServerSettings()
    paths: PathSettings = PathSettings()
    storage: StorageSettings = StorageSettings()
    logging: LoggingSettings = LoggingSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    memory: MemorySettings = MemorySettings()
    router: RouterSettings = RouterSettings()
    prompts: PromptSettings = PromptSettings()
    audit: AuditSettings = AuditSettings()
    oidc: OidcSettings = OidcSettings()
    limits: LimitSettings = LimitSettings()


@dataclass(frozen=True)
class _Value:
    value: Any
    source: str


def load_settings(
    workspace: Path,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of the workspace folder. `flags` maps 'section.key' to a value; None values are skipped.

    Raises ConfigError naming every bad key with its source.
    """
    values: dict[str, _Value] = {}
    for source in (
        _from_toml(workspace / "tailor.toml"),
        _from_environment(os.environ if environ is None else environ),
        _from_flags(flags or {}),
    ):
        values.update(source)
    problems = [_unknown(key, entry.source) for key, entry in values.items() if key not in _KEYS]
    if problems:
        raise ConfigError("\n".join(problems))
    settings = _build(values)
    _check_exposure(settings)
    return _with_absolute_paths(settings, workspace)


def _sections() -> dict[str, type[Section]]:
    return {name: type(field.default) for name, field in Settings.model_fields.items()}


_KEYS = {f"{name}.{key}" for name, section in _sections().items() for key in section.model_fields}
# Thresholds on cosines, which meant another thing for each embedder.
_REPLACED = {
    "retrieval.min_similarity": "retrieval.min_likelihood",
    "retrieval.min_coverage": "retrieval.min_likelihood",
    "memory.min_similarity": "memory.min_likelihood",
    "router.threshold": "router.min_likelihood",
}
_LISTS = {
    f"{name}.{key}"
    for name, section in _sections().items()
    for key, field in section.model_fields.items()
    if isinstance(field.default, tuple)
}  # in the environment: with commas between


def _from_toml(path: Path) -> Iterator[tuple[str, _Value]]:
    if not path.exists():
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for section, keys in document.items():
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: '{section}' stands outside a section; write it under [section]")
        for key, value in keys.items():
            yield f"{section}.{key}", _Value(value, str(path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Value]]:
    for name, text in environ.items():
        if not name.startswith("TAILOR_"):
            continue
        section, _, key = name.removeprefix("TAILOR_").lower().partition("_")
        value: Any = text
        if f"{section}.{key}" in _LISTS:
            value = [item.strip() for item in text.split(",") if item.strip()]
        yield f"{section}.{key}", _Value(value, f"environment variable {name}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, _Value]]:
    for key, value in flags.items():
        if value is not None:
            yield key, _Value(value, f"flag for {key}")


def _unknown(key: str, source: str) -> str:
    if key in _REPLACED:
        return (
            f"setting '{key}' ({source}) is gone: cosines became likelihoods, which mean the same for every embedder; "
            f"set '{_REPLACED[key]}' instead (0 to 1), or leave it out for the default"
        )
    near = difflib.get_close_matches(key, sorted(_KEYS), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown setting '{key}' ({source}){hint}"


def _build(values: Mapping[str, _Value]) -> Settings:
    tree: dict[str, dict[str, Any]] = {}
    for key, entry in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = entry.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"][:2])
            source = values[key].source if key in values else "defaults"
            lines.append(f"setting '{key}' ({source}): {problem['msg']}")
        raise ConfigError("\n".join(lines)) from error


def _check_exposure(settings: Settings) -> None:
    server = settings.server
    if server.host not in LOOPBACK and not server.password.get_secret_value():
        raise ConfigError(
            f"server.host is '{server.host}', which others can reach, and server.password is empty: "
            "set server.password (TAILOR_SERVER_PASSWORD) or use 127.0.0.1"
        )
    if settings.oidc.issuer and not settings.oidc.client_id:
        raise ConfigError("oidc.issuer is set and oidc.client_id is not: the provider has given you one")
    if "*" in server.allowed_origins:
        raise ConfigError("server.allowed_origins holds '*': name each origin, such as https://chat.example.org")
    for host in server.allowed_hosts:
        if not _HOST_NAME.fullmatch(host):
            raise ConfigError(
                f"server.allowed_hosts holds '{host}': name each host, without a port, such as tailor.lan"
            )
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise ConfigError(
                f"server.trusted_proxies holds '{proxy}': give addresses or networks ({error})"
            ) from error


def _with_absolute_paths(settings: Settings, workspace: Path) -> Settings:
    paths = settings.paths
    absolute = {name: (workspace / getattr(paths, name)).resolve() for name in PathSettings.model_fields}
    return settings.model_copy(update={"paths": PathSettings(**absolute)})
