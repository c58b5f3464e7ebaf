"""The outbox in SQL: what sessions owe to callbacks and webhooks, and the secrets that sign it.

Statements and rows only; `sql` runs them. A delivery is written in the transaction of the message that it carries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter, Select, bindparam, case, func, insert, or_, select, text, update

from vivavoce.model import DeadLetter, Delivery, DeliveryReport, DeliveryState, Lane
from vivavoce.stores.schema import outbox, signing_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Executable, RowMapping

    from vivavoce.model import Outcome

# Spelled out rather than bound, since only so a database sees that the index of waiting rows will do.
_WAITING = text("state = 'waiting'")
_DELIVERY_COLUMNS = [outbox.c[name] for name in Delivery.__dataclass_fields__]
_LETTER_COLUMNS = [outbox.c[name] for name in DeadLetter.__dataclass_fields__]


def delivery_row(session_id: str, delivery: Delivery) -> dict[str, Any]:
    """Give the row of a new delivery."""
    row = {name: getattr(delivery, name) for name in Delivery.__dataclass_fields__}
    return {**row, "session_id": session_id, "state": DeliveryState.WAITING}


def waiting_lanes() -> Select[Any]:
    """Select the sessions and lanes that owe, those that have owed for longest first."""
    first = func.min(outbox.c.position)
    query = select(outbox.c.session_id, outbox.c.lane).where(_WAITING)
    return query.group_by(outbox.c.session_id, outbox.c.lane).order_by(first)


def waiting_deliveries(session_id: str, lane: Lane, limit: int) -> Select[Any]:
    """Select the first deliveries of a lane that wait."""
    query = select(*_DELIVERY_COLUMNS).where(outbox.c.session_id == session_id, outbox.c.lane == lane, _WAITING)
    return query.order_by(outbox.c.position).limit(limit)


def delivery(row: RowMapping) -> Delivery:
    """Read a delivery."""
    return Delivery(**{**row, "lane": Lane(row["lane"])})


def note_outcomes(outcomes: Sequence[Outcome]) -> tuple[Executable, list[dict[str, Any]]]:
    """Give the statement that notes outcomes, and its rows."""
    state: BindParameter[str] = bindparam("new_state")
    body = case((state == DeliveryState.DELIVERED.value, ""), else_=outbox.c.body)
    values = {"state": state, "body": body, **{name: bindparam(name) for name in ("attempts", "next_at", "reason")}}
    rows = [
        {
            "key": outcome.delivery_id,
            "new_state": outcome.state.value,
            "attempts": outcome.attempts,
            "next_at": outcome.next_at,
            "reason": outcome.reason,
        }
        for outcome in outcomes
    ]
    return update(outbox).where(outbox.c.id == bindparam("key"), _WAITING).values(values), rows


def count_states(session_id: str) -> Select[Any]:
    """Select how many deliveries of a session are in each lane and state."""
    query = select(outbox.c.lane, outbox.c.state, func.count().label("number"))
    return query.where(outbox.c.session_id == session_id).group_by(outbox.c.lane, outbox.c.state)


def dead_letters(session_id: str, limit: int) -> Select[Any]:
    """Select the first dead deliveries of a session."""
    dead = outbox.c.state == DeliveryState.DEAD.value
    query = select(*_LETTER_COLUMNS).where(outbox.c.session_id == session_id, dead)
    return query.order_by(outbox.c.position).limit(limit)


def report(counts: Sequence[RowMapping], dead: Sequence[RowMapping]) -> DeliveryReport:
    """Put both into a report."""
    return DeliveryReport(
        counts={(Lane(row["lane"]), DeliveryState(row["state"])): row["number"] for row in counts},
        dead=tuple(DeadLetter(**{**row, "lane": Lane(row["lane"])}) for row in dead),
    )


def valid_secrets(owner: str, at: datetime) -> Select[Any]:
    """Select an owner's secrets that are valid, the newest first."""
    secrets = signing_secrets.c
    valid = or_(secrets.expires_at.is_(None), secrets.expires_at > at)
    return select(secrets.secret).where(secrets.owner == owner, valid).order_by(secrets.created_at.desc())


def rotation(owner: str, secret: str, at: datetime, old_until: datetime) -> tuple[Executable, Executable]:
    """Give the statements that let older secrets expire and add a new one."""
    secrets = signing_secrets.c
    later = or_(secrets.expires_at.is_(None), secrets.expires_at > old_until)
    expire = update(signing_secrets).where(secrets.owner == owner, later).values(expires_at=old_until)
    return expire, insert(signing_secrets).values(owner=owner, secret=secret, created_at=at)
