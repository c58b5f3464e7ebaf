"""What add-ons found, as rows; `sql` runs the statements."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, assert_never

from sqlalchemy import Select, select

from vivavoce.model import Entity, Feature, Finding, Sentiment, Translation, Utterance, Word
from vivavoce.stores.schema import findings

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from vivavoce.model import Findings

_COLUMNS = [findings.c[name] for name in Finding.__dataclass_fields__]


def finding_row(session_id: str, finding: Finding) -> dict[str, Any]:
    """Give the row of a finding."""
    row = {name: getattr(finding, name) for name in Finding.__dataclass_fields__}
    return {**row, "session_id": session_id, "found": _written(finding.found)}


def findings_of(session_id: str) -> Select[Any]:
    """Select a session's findings by feature, utterance and target."""
    query = select(*_COLUMNS).where(findings.c.session_id == session_id)
    return query.order_by(findings.c.feature, findings.c.utterance_id, findings.c.target)


def finding(row: RowMapping) -> Finding:
    """Read a finding."""
    feature = Feature(row["feature"])
    found = None if row["found"] is None else _read(feature, row["found"])
    return Finding(**{**row, "feature": feature, "found": found})


def _written(found: Findings | None) -> Any:
    match found:
        case None | str():
            return found
        case Translation():
            return asdict(found)
        case tuple():
            return [asdict(each) for each in found]
        case _:
            assert_never(found)


def _read(feature: Feature, written: Any) -> Findings:
    match feature:
        case Feature.NAMED_ENTITY_RECOGNITION | Feature.PII_REDACTION:
            return tuple(Entity(**each) for each in written)
        case Feature.SENTIMENT_ANALYSIS:
            return tuple(Sentiment(**each) for each in written)
        case Feature.TRANSLATION:
            return Translation(target=written["target"], utterance=_utterance(written["utterance"]))
        case Feature.SUMMARIZATION | Feature.CUSTOM_VOCABULARY | Feature.CUSTOM_SPELLING:
            return str(written)
        case _:
            assert_never(feature)


def _utterance(written: dict[str, Any]) -> Utterance:
    return Utterance(**{**written, "words": tuple(Word(**word) for word in written["words"])})
