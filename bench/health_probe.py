"""Asks a server's `/health` ten times a second, from a process of its own, so that only the server can be late.

    python -m bench.health_probe PORT SECONDS

Prints one JSON object: `seconds`, how long each reply took, and `unwell`, the texts of those that were not 200. The
standard library alone: it starts in a moment, and its own work is not measured.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Final

PAUSE_S: Final = 0.1


def main() -> None:
    port, lasts_s = int(sys.argv[1]), float(sys.argv[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seconds: list[float] = []
    unwell: list[str] = []
    ends_at = time.monotonic() + lasts_s
    while (began := time.monotonic()) < ends_at:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        text = reply.read().decode()
        seconds.append(time.monotonic() - began)
        if reply.status != http.client.OK:
            unwell.append(text[:500])
        time.sleep(PAUSE_S)
    json.dump({"seconds": seconds, "unwell": unwell}, sys.stdout)


if __name__ == "__main__":
    main()
