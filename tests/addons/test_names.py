"""Names: the code that loads and asks a model, on a small pipeline that the test makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chat import chatting, says
from entity_table import utterance
from vivavoce.addons.entities import NamedEntities, find
from vivavoce.addons.names import SpacyNames
from vivavoce.addons.redaction import PiiRedaction, Redaction
from vivavoce.errors import AddonError, SetupError
from vivavoce.plugins import AddonSettings


@pytest.fixture(scope="module")
def spacy() -> ModuleType:
    """The library, where the extra is installed."""
    return pytest.importorskip("spacy")


@pytest.fixture(scope="module")
def pipeline(spacy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipeline on disk that knows a handful of names, under the labels that trained ones use."""
    made = spacy.blank("en")
    made.add_pipe("entity_ruler").add_patterns(
        [
            {"label": "PERSON", "pattern": "Ada Lovelace"},
            {"label": "ORG", "pattern": "Analytical Engines"},
            {"label": "GPE", "pattern": "London"},
            {"label": "PERSON", "pattern": "May"},
            {"label": "CARDINAL", "pattern": "two"},
        ]
    )
    folder = tmp_path_factory.mktemp("pipeline")
    made.to_disk(folder)
    return str(folder)


def test_names_stand_beside_what_rules_find(pipeline: str) -> None:
    """People, organisations and places come from the model, under our names for them; its other labels are left out."""
    said = utterance("Ada Lovelace, of Analytical Engines in London, has two of them for twenty euros.")
    looker = NamedEntities(AddonSettings(names="spacy", names_pipeline=pipeline))
    assert [(entity.kind, entity.text) for entity in looker.look(said, ())] == [
        ("NAME", "Ada Lovelace"),
        ("ORGANIZATION", "Analytical Engines"),
        ("LOCATION", "London"),
        ("MONEY", "twenty euros"),
    ]


def test_rules_go_before_the_model_where_both_find_something(pipeline: str) -> None:
    """A date that the model takes for a person is a date."""
    assert [entity.kind for entity in find(utterance("on May 5"), names=SpacyNames(pipeline))] == ["DATE"]


def test_names_are_redacted_where_a_model_is_given(pipeline: str) -> None:
    """Finals lose them, and partials the last word, which may be the first of a name."""
    rule = Redaction(("NAME",), names=SpacyNames(pipeline))
    assert rule.rewrite(utterance("I am Ada Lovelace, hello"), final=True).text == "I am [NAME_1], hello"
    assert rule.rewrite(utterance("I am Ada"), final=False).text == "I am"


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (PiiRedaction, {"entity_types": ["NAME"], "processed_text_type": "MARKER", "redact_audio": False}),
        (NamedEntities, {}),
    ],
    ids=["redaction", "entities"],
)
def test_the_pipeline_is_loaded_when_a_session_is_opened(
    pipeline: str, make: Any, options: Mapping[str, Any], spacy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the server starts, nor by the first text, which comes on the event loop; once, whoever asks for it."""
    copy = Path(shutil.copytree(pipeline, Path(pipeline).parent / f"of-{make.__name__}"))
    loads: list[str] = []
    load = spacy.load
    monkeypatch.setattr(spacy, "load", lambda name: loads.append(name) or load(name))
    addon = make(AddonSettings(names="spacy", names_pipeline=str(copy)))
    assert loads == []
    parts = addon.open(options, ["en"])
    assert loads == [str(copy)]
    said = utterance("I am Ada Lovelace, hello")
    if parts.rule is not None:
        assert parts.rule.rewrite(said, final=True).text == "I am [NAME_1], hello"
    else:
        assert parts.by_target[""].look(said, ())[0].text == "Ada Lovelace"
    make(AddonSettings(names="spacy", names_pipeline=str(copy))).open(options, ["en"])
    assert loads == [str(copy)]


@pytest.mark.usefixtures("spacy")
def test_a_pipeline_that_cannot_be_loaded_is_told_when_a_session_is_opened(tmp_path: Path) -> None:
    """Not with the library's words, which are about its own files."""
    (tmp_path / "config.cfg").write_text("nonsense")
    with pytest.raises(AddonError, match="the spaCy pipeline for names cannot be loaded"):
        SpacyNames(str(tmp_path)).load()


@pytest.mark.usefixtures("spacy")
def test_a_pipeline_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    """One line says what to name instead; nothing is downloaded."""
    for missing in (str(tmp_path), "no_such_pipeline", "not a name"):
        with pytest.raises(SetupError, match="no spaCy pipeline"):
            SpacyNames(missing)


def test_a_language_models_names_stand_beside_what_rules_find() -> None:
    """Where both see something in the same words, the rule has it."""
    named = [{"kind": "NAME", "text": "Ada"}, {"kind": "LOCATION", "text": "London"}, {"kind": "NAME", "text": "May 5"}]
    said = utterance("Ada is in London on May 5.")
    with chatting(lambda _: says(json.dumps({"names": named}))) as chat:
        endpoint = chat.endpoint()
        addon = NamedEntities(
            AddonSettings(names="llm", llm_url=endpoint.url, llm_model=endpoint.model, llm_key=endpoint.key)
        )
        found = addon.look(said, ())
        addon.close()
    assert [(entity.kind, entity.text) for entity in found] == [
        ("NAME", "Ada"),
        ("LOCATION", "London"),
        ("DATE", "May 5"),
    ]


def test_a_pipeline_has_to_be_named() -> None:
    """The setting alone says nothing."""
    with pytest.raises(SetupError, match="--names-pipeline"):
        NamedEntities(AddonSettings(names="spacy"))
