"""The contract checkers must find what is broken: each store here breaks one promise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vivavoce.events import StoredMessage
from vivavoce.model import ApiKey, Finding, SessionRecord, Utterance
from vivavoce.plugins import Write
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore
from vivavoce.testing.stores import check_audio_files, check_store


class PiecemealStore(SqlStore):
    """Commits each write by itself."""

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            await super().commit([write])


class BackwardsStore(SqlStore):
    """Gives messages the wrong way round."""

    async def messages(self, session_id: str, *, start: int = 0, limit: int | None = None) -> list[StoredMessage]:
        return (await super().messages(session_id, start=start, limit=limit))[::-1]


class RoundingStore(SqlStore):
    """Loses digits."""

    async def finals(self, session_id: str) -> list[Utterance]:
        return [replace(final, confidence=round(final.confidence)) for final in await super().finals(session_id)]


class CarelessStore(SqlStore):
    """Takes a failed add-on for one that found nothing."""

    async def findings(self, session_id: str) -> list[Finding]:
        return [
            replace(finding, found=() if finding.found is None else finding.found)
            for finding in await super().findings(session_id)
        ]


class NaiveStore(SqlStore):
    """Loses time zones."""

    async def session(self, session_id: str) -> SessionRecord | None:
        record = await super().session(session_id)
        return record and replace(record, created_at=record.created_at.replace(tzinfo=None))


class UnpagedStore(SqlStore):
    """Gives everything on every page."""

    async def list_sessions(self, *, offset: int, limit: int, **filters: Any) -> list[SessionRecord]:
        return await super().list_sessions(offset=0, limit=2**31, **filters)


class ForgivingStore(SqlStore):
    """Lets revoked keys in."""

    async def key_by_hash(self, key_hash: str) -> ApiKey | None:
        return next((key for key in await self.keys() if key.key_hash == key_hash), None)


class ForgetfulStore(SqlStore):
    """Keeps nothing over a restart."""

    async def close(self) -> None:
        for record in await self.unfinished_sessions():
            await self.delete_session(record.id)
        await super().close()


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (PiecemealStore, "all writes or none"),
        (BackwardsStore, "by seq"),
        (RoundingStore, "finals come back whole"),
        (CarelessStore, "findings come back whole"),
        (NaiveStore, "as it was added"),
        (UnpagedStore, "a page starts at its offset"),
        (ForgivingStore, "a revoked key is not found"),
        (ForgetfulStore, "after reopening"),
    ],
)
async def test_a_broken_store_is_found_out(sqlite_file: Path, broken: type[SqlStore], promise: str) -> None:
    """The checker names the promise that the store breaks."""
    with pytest.raises(AssertionError, match=promise):
        await check_store(lambda: broken.open(f"sqlite:///{sqlite_file}"))


async def test_a_used_store_will_do(sqlite_file: Path) -> None:
    """The checker can be run again on the database that it filled."""
    for _ in range(2):
        await check_store(lambda: SqlStore.open(f"sqlite:///{sqlite_file}"))


class OverwritingAudio(LocalAudio):
    """Keeps the last chunk only."""

    def append(self, session_id: str, data: bytes) -> None:
        self.delete(session_id)
        super().append(session_id, data)


class LengtheningAudio(LocalAudio):
    """Reads beyond the end."""

    def read(self, session_id: str, offset: int, size: int) -> bytes:
        return super().read(session_id, offset, size).ljust(size, b"\0")


class GrowingAudio(LocalAudio):
    """Appends what is to be written over older bytes."""

    def overwrite(self, session_id: str, offset: int, data: bytes) -> None:
        self.append(session_id, data)


@pytest.mark.parametrize("broken", [OverwritingAudio, LengtheningAudio, GrowingAudio])
def test_broken_audio_files_are_found_out(tmp_path: Path, broken: type[LocalAudio]) -> None:
    """The checker raises for files that break a promise."""
    with pytest.raises(AssertionError, match="broken promise"):
        check_audio_files(broken(tmp_path))
