"""Following a session from outside, over restarts of the server and lost connections."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from vivavoce.cli.client import ServerError, base_url

PATIENCE_S, PAUSE_S = 60.0, 1.0
"""How long a server may be away, and how often it is looked for."""

MAX_MESSAGE_BYTES = 2 << 20
CLOSE_NORMAL, CLOSE_TRY_LATER, FATAL, FORBIDDEN = 1000, 1013, range(4400, 4500), 403


def messages_of(url: str, key: str | None, session_id: str, start: int, *, partials: bool) -> Iterator[dict[str, Any]]:
    """Give a session's messages from a `seq` on until the session is over, each once; raises `ServerError`."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    path = f"/v2/live/{quote(session_id, safe='')}/events?partials={str(partials).lower()}"
    address = f"ws{base_url(url).removeprefix('http')}{path}"
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with connect(
                f"{address}&from={start}",
                additional_headers={"x-gladia-key": key or "none"},
                max_size=MAX_MESSAGE_BYTES,
            ) as socket:
                while True:
                    message = json.loads(socket.recv())
                    start = message.get("seq", start - 1) + 1
                    until = time.monotonic() + PATIENCE_S
                    yield message
        except ConnectionClosed as error:
            code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else (0, "")
            if code == CLOSE_NORMAL:
                return
            if code in FATAL or code == CLOSE_TRY_LATER:
                raise ServerError(f"the server refused: {reason}") from error
        except (OSError, InvalidHandshake) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code == FORBIDDEN:
                raise ServerError(f"no session can have the id {session_id}, or the server watches none") from error
        if time.monotonic() > until:
            raise ServerError("the server is away; go on later with --from " + str(start))
        time.sleep(PAUSE_S)
