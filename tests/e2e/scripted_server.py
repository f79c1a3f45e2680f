"""The server on a workspace with a scripted engine, as a process of its own that can be killed: prints its port."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from tests.fakes import ScriptedEngine
from tests.live import make_app


class _Server(uvicorn.Server):
    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    engine = ScriptedEngine(lambda request, prompt: "So it is. " * 8, adapters=["helper"], pause=0.005)
    config = uvicorn.Config(make_app(Path(sys.argv[1]), engine), port=0, log_level="error", ws="websockets-sansio")
    _Server(config).run()
