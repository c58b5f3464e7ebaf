"""Local translation models, on a tiny one with random weights: shapes, loading and failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from marian_model import make_model
from vivavoce.addons import marian
from vivavoce.addons.marian import MarianModels
from vivavoce.errors import AddonError, SetupError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with one good model and things that are none."""
    place = tmp_path_factory.mktemp("models")
    make_model(place / "en-nl")
    (place / "README").write_text("ours")
    (place / "archive").mkdir()
    return place


def test_the_pairs_are_the_names_of_directories(directory):
    """Whatever else lies there is passed over."""
    assert MarianModels(directory).pairs == {("en", "nl")}


def test_each_text_has_a_translation(directory):
    """One for one, without marks of pieces, the same each time; nothing for nothing."""
    models = MarianModels(directory)
    found = models.translate("en", "nl", ["hello there", "", "can you help me", "hello there"])
    assert len(found) == 4
    assert found[0] == found[3] != ""
    assert found[1] == ""
    assert "▁" not in "".join(found)
    assert models.translate("en", "nl", []) == []
    assert models.translate("en", "nl", ["", " "]) == ["", ""]


def test_a_text_with_too_many_pieces_is_translated_span_by_span(directory, monkeypatch):
    """More than the model has places for is not cut off."""
    models = MarianModels(directory)
    [one] = models.translate("en", "nl", ["hello"])
    pieces = models._models["en", "nl"]._source.encode("hello")
    monkeypatch.setattr(marian, "MAX_PIECES", len(pieces))
    assert models.translate("en", "nl", ["hello hello hello"]) == [" ".join([one] * 3)]


def test_the_end_of_a_sentence_is_shown_once(tmp_path):
    """Whether the converter had the library add it or not, the model sees the same."""
    make_model(tmp_path / "en-nl")
    make_model(tmp_path / "en-de", add_source_eos=True)
    models = MarianModels(tmp_path)
    assert models.translate("en", "nl", ["good morning"]) == models.translate("en", "de", ["good morning"])


def test_threads_share_a_model(directory):
    """Calls at the same time load once and give what calls one by one give."""
    models = MarianModels(directory)
    texts = ["hello there", "we are open until five", "can you help me", "good morning"] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: models.translate("en", "nl", [text])[0], texts))
    alone = MarianModels(directory)
    assert found == [alone.translate("en", "nl", [text])[0] for text in texts]
    assert len(models._models) == 1
    models.close()
    assert models._models == {}


def test_a_pair_without_a_model_is_an_error(directory):
    """The other way round needs a model of its own."""
    with pytest.raises(AddonError, match="no model translates from nl to en"):
        MarianModels(directory).translate("nl", "en", ["hallo"])


@pytest.mark.parametrize("file", ["model.bin", "source.spm", "config.json"])
def test_a_broken_model_is_told_when_it_is_needed(tmp_path, file):
    """The reason names the pair and no place on this machine."""
    make_model(tmp_path / "en-nl")
    (tmp_path / "en-nl" / file).write_bytes(b"not this")
    with pytest.raises(AddonError, match="from en to nl cannot be loaded") as caught:
        MarianModels(tmp_path).translate("en", "nl", ["hello"])
    assert str(tmp_path) not in str(caught.value)


def test_an_incomplete_model_is_told_at_the_start(tmp_path):
    """The line names what is missing."""
    make_model(tmp_path / "en-nl")
    (tmp_path / "en-nl" / "target.spm").unlink()
    (tmp_path / "en-nl" / "config.json").unlink()
    with pytest.raises(SetupError, match=r"--translation-models: .*en-nl has no config.json and no target.spm"):
        MarianModels(tmp_path)


def test_a_directory_that_is_not_there_is_told_at_the_start(tmp_path):
    """The line names the setting."""
    with pytest.raises(SetupError, match="--translation-models: cannot read"):
        MarianModels(tmp_path / "nowhere")
