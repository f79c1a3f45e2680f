"""The composition root: `create_app` builds every service once, wires them, and starts and stops them in order."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from watchfiles import awatch

from server.accounts import Accounts, AuditLog, Groups, Identities, OpenIdProvider, PasswordWorkers, Quotas, SignIn
from server.api import errors, websocket
from server.api.hub import Hub
from server.api.openai import routes as openai
from server.api.protocol import Changed
from server.api.revocation import Revocations
from server.api.routes import (
    account,
    conversations,
    health,
    knowledge,
    levers,
    memory,
    metrics,
    openid,
    session,
    users,
)
from server.api.services import CurrentUser, Services, open_reserve
from server.api.transport.request_log import RequestLog
from server.api.transport.security import SecurityMiddleware, content_security_policy
from server.chat import (
    ChatService,
    ConversationStore,
    LanguageCost,
    MemoryDependencies,
    PastChats,
    TraceStore,
    TurnDependencies,
    TurnPipeline,
)
from server.config import LOOPBACK, Settings
from server.database import Database
from server.embedding import SentenceEmbedder
from server.engine import AdapterCatalogue, Engine, LocalEngine
from server.memory import Episodes, MemoryStore, MemoryWriter
from server.model_router import ModelRouter
from server.model_store import ModelStore
from server.prompting import PromptLibrary, SharedDomains
from server.reserve import Reserve
from server.retrieval import LOCAL_USER, Access, KnowledgeBase, SharedKnowledge, index_lock
from server.types import Embedder
from server.user_data import UserData
from server.web import STATIC

log = logging.getLogger("tailor.app")

ROUTE_MODULES = (
    session, openid, account, users, health, metrics, memory, conversations, knowledge, levers, openai, websocket
)  # fmt: skip
RESCAN_MS = 5_000
ADMIN = "admin"  # the account that server.password opens


def build_engine(settings: Settings, report: Callable[[str], None] | None = None) -> LocalEngine:
    """The local engine on the configured model, which is fetched first if it is the default. Not started."""
    path = ModelStore(settings.paths.data / "models", report=report).chat_model(settings.model.name)
    return LocalEngine(path, settings.engine, settings.model, AdapterCatalogue(settings.paths.adapters))


def build_embedder(settings: Settings, report: Callable[[str], None] | None = None) -> Embedder:
    models = settings.paths.data / "models"
    path = ModelStore(models, report=report).embedder(settings.embedding.name)
    quantize = settings.embedding.quantize != "none"
    return SentenceEmbedder(path, quantize=quantize, calibrations=models / "calibrations", report=report or log.info)


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    embedder: Embedder | None = None,
    report: Callable[[str], None] | None = None,
) -> FastAPI:
    """The application for one workspace. Without `engine` and `embedder` the configured models are used;
    the default ones are fetched now, if they are not there yet, and `report` hears of it.

    Raises ConfigError, ModelError.
    """
    for folder in (settings.paths.prompts, settings.paths.knowledge, settings.paths.adapters):
        folder.mkdir(parents=True, exist_ok=True)
    engine = engine or build_engine(settings, report)
    embedder = embedder or build_embedder(settings, report)
    application = _Application(settings, engine, embedder)
    app = FastAPI(
        title="Tailor",
        version=application.services.version,
        lifespan=application.lifespan,
        dependencies=[Depends(open_reserve)],
        openapi_url=None,  # below, for those who are logged in
    )
    app.state.services = application.services
    for router in (memory.chats, *(module.router for module in ROUTE_MODULES)):
        app.include_router(router)
    errors.install_handlers(app)
    index = (STATIC / "index.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def client() -> HTMLResponse:
        return HTMLResponse(index, headers={"cache-control": "no-cache"})

    @app.get("/openapi.json", include_in_schema=False)
    async def schema(request: Request, user: CurrentUser) -> JSONResponse:
        return JSONResponse(request.app.openapi())

    app.mount("/static", _ClientFiles(directory=STATIC))
    app.add_middleware(
        SecurityMiddleware,
        settings=settings.server,
        login_needed=application.services.login_needed,
        policy=content_security_policy(index),
    )
    app.add_middleware(RequestLog)  # the outermost
    return app


class _ClientFiles(StaticFiles):
    """The web client: asked for again at each load, so that an upgrade never mixes old and new modules;
    the vendored libraries carry their version in their path and stay."""

    def file_response(self, full_path: str | PathLike[str], *args: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *args, **options)
        versioned = "vendor" in Path(full_path).parts
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response


@dataclass
class _Application:
    """The services of one application and their lifespan."""

    settings: Settings
    engine: Engine
    embedder: Embedder

    def __post_init__(self) -> None:
        settings, engine, embedder = self.settings, self.engine, self.embedder
        self.reserve = Reserve(settings.paths.data / "reserve", settings.storage.reserve_bytes)
        self.database = Database(settings.paths.data / "tailor.db", self.reserve)
        accounts = Accounts(self.database)
        memories = MemoryStore(self.database, embedder, settings.memory)
        library = PromptLibrary(settings.paths.prompts, settings.prompts.default_domain)
        domains = SharedDomains(library, lambda user: None if user == LOCAL_USER else accounts.principals_of(user))
        router = ModelRouter(embedder, settings.router, settings.prompts.default_domain)
        index = settings.paths.data / "index"
        files = KnowledgeBase(settings.paths.knowledge, index, embedder, settings.retrieval)
        access = Access(settings.paths.knowledge, index / "access.json", accounts.principals_of)
        shared_knowledge = SharedKnowledge(files, access)
        quotas = Quotas(self.database, settings.limits)
        pipeline = TurnPipeline(engine, settings.prompts, quotas.spend)
        store = ConversationStore(self.database)
        traces = TraceStore(self.database)
        turn_dependencies = TurnDependencies(
            engine, pipeline, domains, router, shared_knowledge, store, embedder, traces,
            LanguageCost(engine),
        )  # fmt: skip
        episodes = Episodes(self.database, embedder, settings.memory)
        writer = MemoryWriter(self.database, memories, engine, settings.memory)
        past_chats = PastChats(store, episodes, max_turns=settings.memory.earlier_turns)
        chat = ChatService(
            turn_dependencies,
            MemoryDependencies(memories, past_chats, writer),
            stream_retention_seconds=settings.server.stream_keep_seconds,
        )
        groups = Groups(self.database)
        user_data = UserData(self.database, chat, may_see=access.may_see)
        self.services = Services(
            settings=settings,
            engine=engine,
            embedder=embedder,
            domains=domains,
            router=router,
            knowledge=shared_knowledge,
            memory=memories,
            writer=writer,
            chat=chat,
            pipeline=pipeline,
            accounts=accounts,
            groups=groups,
            audit=AuditLog(self.database, settings.audit.keep_days),
            quotas=quotas,
            identities=Identities(self.database, accounts, groups, settings.oidc),
            openid=OpenIdProvider(settings.oidc) if settings.oidc.issuer else None,
            sign_in=SignIn(accounts, PasswordWorkers()),
            revocations=Revocations(accounts, chat, user_data),
            user_data=user_data,
            hub=Hub(),
            login_needed=_login_needed(settings, accounts),
            version=version("tailor-chat"),
            database=self.database,
        )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        services = self.services
        async with AsyncExitStack() as stack:
            stack.callback(self.database.close)
            stack.callback(services.sign_in.close)
            stack.callback(services.quotas.close)
            stack.enter_context(index_lock(self.settings.paths.data / "index"))
            await asyncio.to_thread(self.reserve.take)
            services.hub.bind(asyncio.get_running_loop())
            await services.engine.start()
            stack.push_async_callback(services.engine.close)
            files = services.knowledge.base
            files.subscribe(lambda: services.hub.announce(Changed("knowledge")))
            await files.start()
            stack.push_async_callback(files.close)
            services.chat.subscribe(lambda user: services.hub.announce(Changed("conversations"), user))
            await services.chat.start()
            stack.push_async_callback(services.chat.close)
            for watch in (self._watch_adapters(), self._watch_prompts(), services.revocations.run()):
                task = asyncio.create_task(watch)
                stack.push_async_callback(_cancel, task)
            gc.freeze()  # the modules and the model: to look through them all, time and again, would hold all answers
            stack.callback(gc.unfreeze)
            yield

    async def _watch_adapters(self) -> None:
        """A version folder that appears is loaded; one that goes, leaves."""
        services = self.services
        await services.engine.refresh_adapters()
        # After a while without changes, too: an adapter that was still used when its folder went leaves then.
        async for changes in _changes(self.settings.paths.adapters, recursive=True):
            await services.engine.refresh_adapters()
            if changes:
                services.hub.announce(Changed("adapters"))

    async def _watch_prompts(self) -> None:
        """Prompts are read anew when they are used; this only tells open pages."""
        async for changes in _changes(self.settings.paths.prompts, recursive=False):
            if changes:
                self.services.hub.announce(Changed("domains"))


async def _changes(folder: Path, *, recursive: bool) -> AsyncIterator[bool]:
    """Whether something has changed, at each change and each `RESCAN_MS`. A name that is not UTF-8 counts as a change:
    the library that watches gives up over it, and is begun again."""
    while True:
        try:
            watch = awatch(folder, recursive=recursive, rust_timeout=RESCAN_MS, yield_on_timeout=True)
            async for changes in watch:
                yield bool(changes)
            return
        except RuntimeError:
            log.warning("%s holds a name that is not UTF-8; rename it", folder.name)
            yield True


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _login_needed(settings: Settings, accounts: Accounts) -> bool:
    """With a password or a provider set, or accounts made; the password is the one of the account `admin`."""
    password = settings.server.password.get_secret_value()
    if password:
        accounts.ensure(ADMIN, password, admin=True)
    return settings.server.host not in LOOPBACK or bool(settings.oidc.issuer) or bool(accounts.list())
