"""How each ending that a session wants shows on a WebSocket, whichever door it came in by."""

from __future__ import annotations

from vivavoce.runtime.mailbox import Ending
from vivavoce.wire.live import CloseCode

CLOSE_CODES = {
    Ending.FINISHED: CloseCode.NORMAL,
    Ending.REPLACED: CloseCode.REPLACED,
    Ending.LOST: CloseCode.RESTART,
    Ending.SLOW: CloseCode.RESTART,
    Ending.FAILED: CloseCode.FAILED,
    Ending.RESTARTING: CloseCode.RESTART,
}
