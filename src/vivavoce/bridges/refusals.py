"""Refusals of calls over UDP: why somebody was turned away, in the log and counted, without a flood of lines.

Anybody can send datagrams, from any address. So a peer is logged once in `PEER_EVERY_S`, and all of them together once
in `LOG_EVERY_S`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import structlog

from vivavoce import errors
from vivavoce.errors import VivavoceError
from vivavoce.runtime import metrics
from vivavoce.wire.call import NAMES

log = structlog.get_logger()

LOG_EVERY_S = 1.0
PEER_EVERY_S = 60.0
MAX_PEERS = 1024
"""Peers whose last line is remembered."""

MAX_REASON_CHARS = 400


class Refusals:
    """The refusals of one bridge."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._logged: OrderedDict[str, float] = OrderedDict()
        self._logged_at = float("-inf")

    def count(self, peer: str, reason: str, **more: object) -> None:
        """Note that a call from the address `peer` was refused."""
        metrics.CALLS.labels(self._bridge, "refused").inc()
        self.log(peer, reason, **more)

    def log(self, peer: str, reason: str, **more: object) -> None:
        """Say why something of a peer's was not taken, though it may not be a call."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at < LOG_EVERY_S or now - self._logged.get(peer, float("-inf")) < PEER_EVERY_S:
            return
        self._logged_at = self._logged[peer] = now
        self._logged.move_to_end(peer)
        if len(self._logged) > MAX_PEERS:
            self._logged.popitem(last=False)
        log.warning("call refused", bridge=self._bridge, peer=peer, reason=reason[:MAX_REASON_CHARS], **more)


def reason_of(error: Exception) -> str:
    """Give what is wrong, for a log and for the caller; of an error that nobody foresaw its kind alone."""
    return errors.reason_of(error, NAMES) if isinstance(error, VivavoceError) else type(error).__name__
