"""Tokens for watching: each opens one session until it expires, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.api.watch import check_watch_token, new_watch_token
from vivavoce.errors import Unauthorized
from vivavoce.model import SessionRecord, Status, now
from vivavoce.runtime.hub import hash_of

RECORD = SessionRecord(
    id="7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5",
    owner="local",
    token_hash=hash_of("the session's own token"),
    status=Status.DONE,
    created_at=now(),
    request={},
)
SOON = int(time.time()) + 3600
TOKEN = new_watch_token(RECORD, SOON)


def test_a_token_opens_its_session() -> None:
    """Until it expires, whatever becomes of the session."""
    check_watch_token(RECORD, TOKEN)
    check_watch_token(replace(RECORD, status=Status.ERROR), TOKEN)


@pytest.mark.parametrize(
    "record",
    [replace(RECORD, id="9" + RECORD.id[1:]), replace(RECORD, token_hash=hash_of("another"))],
    ids=["another session", "the same id, made again"],
)
def test_it_opens_no_other(record: SessionRecord) -> None:
    """Neither anybody else's, nor one that would be made again under its id."""
    with pytest.raises(Unauthorized):
        check_watch_token(record, TOKEN)


def test_it_opens_nothing_once_it_has_expired() -> None:
    """The end is part of what is signed, so nobody can put it off."""
    expired = new_watch_token(RECORD, int(time.time()))
    for token in (expired, f"{SOON}.{expired.partition('.')[2]}"):
        with pytest.raises(Unauthorized):
            check_watch_token(RECORD, token)


@given(st.text() | st.text("0123456789abcdef.²٣ ", max_size=90) | st.integers().map(str))
def test_nothing_else_opens_a_session(token: str) -> None:
    """Anything at all is refused, and nothing breaks on it."""
    with pytest.raises(Unauthorized):
        check_watch_token(RECORD, token)


def test_tokens_show_nothing_of_what_signs_them() -> None:
    """Neither the session's own token nor what is stored of it."""
    assert RECORD.token_hash not in TOKEN
    assert hash_of(TOKEN) != RECORD.token_hash
