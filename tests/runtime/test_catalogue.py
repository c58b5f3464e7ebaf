"""The catalogue of models on engines that are scripted here, and on a file that changes under it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripted import bursts, create, ended, hub_of, installed, speak
from vivavoce.config import Settings, load_settings
from vivavoce.errors import EngineError, SetupError, Unavailable
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis
from vivavoce.plugins import EngineInfo, EngineSettings, KnownModel
from vivavoce.runtime import catalogue as module
from vivavoce.runtime import engines, entries
from vivavoce.runtime.catalogue import Catalogue, features_of
from vivavoce.runtime.entries import read_entries
from vivavoce.testing.engines import ScriptedEngine


class Aligner:
    """Counts its starts."""

    started = 0

    async def start(self) -> None:
        self.started += 1


class Shop:
    """Makes engines by the model's name, and keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.absent: set[str] = set()
        self.gate: threading.Event | None = None

    def plugin(self, kind: str, name: str) -> Any:
        shop = self

        class Factory:
            @classmethod
            def known(cls) -> list[KnownModel]:
                return [KnownModel(name=f"{name}-{size}", model=size) for size in ("small", "large")]

            @classmethod
            def describe(cls, settings: EngineSettings) -> EngineInfo:
                if settings.model is not None and settings.model in shop.absent:
                    raise SetupError(f"--model {settings.model}: there is no such directory")
                return replace(ScriptedEngine().info, languages=frozenset({"nl", "en"}))

            def __new__(cls, settings: EngineSettings) -> Any:
                return Made(shop, name, settings)

        return Factory


class Made(ScriptedEngine):
    """An engine that says what it is, or fails as its model's name says."""

    def __init__(self, shop: Shop, name: str, settings: EngineSettings) -> None:
        super().__init__(lambda _: f"{name} {settings.model}")
        if shop.gate is not None and name != "main":
            shop.gate.wait(60)
        if settings.model == "cuda":
            raise SetupError("--device cuda: no CUDA device is found; use --device cpu")
        self.closed, self.told = False, settings
        self.info = replace(self.info, languages=frozenset({"en", "nl"}), word_times=settings.model != "untimed")
        shop.made.append(self)

    def transcribe(self, clips: Any) -> list[Hypothesis]:
        if self.told.model == "broken":
            raise EngineError("the GPU is out of memory")
        return super().transcribe(clips)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shop(monkeypatch) -> Shop:
    made = Shop()
    monkeypatch.setattr(engines, "plugin", made.plugin)
    for part in (engines, entries):
        monkeypatch.setattr(part, "plugin_names", lambda kind: ["main", "other"])
    return made


@asynccontextmanager
async def catalogue_of(data_dir: Path, text: str = "", **settings: Any) -> AsyncIterator[Catalogue]:
    """Open a catalogue whose file has this text."""
    write(data_dir, text)
    told = load_settings(data_dir=data_dir, engine="main", decode_threads=1, **settings)
    found = await Catalogue.open(told, aligner=Aligner(), diarizer=None)  # type: ignore[arg-type] - no process is needed
    try:
        yield found
    finally:
        await found.close()


def write(data_dir: Path, text: str) -> None:
    (data_dir / "models.new").write_text(text, encoding="utf-8")
    (data_dir / "models.new").replace(data_dir / "models.toml")


DUTCH = '[dutch]\nengine = "other"\nmodel = "d"\n'


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_model_is_loaded_once_when_it_is_asked_for_and_shared(shop, tmp_path):
    """Before that only the default is there, which every unknown name stands for."""
    async with catalogue_of(tmp_path, DUTCH, engine_threads=3) as catalogue:
        (main,) = shop.made
        first, second, unknown = await asyncio.gather(*(catalogue.take(name) for name in ("dutch", "dutch", "fast")))
        assert len(shop.made) == 2
        dutch = shop.made[1]
        assert first.pool is second.pool
        assert first.pool.engine is dutch
        assert unknown.pool.engine is main
        assert dutch.told == EngineSettings(model="d", engine_threads=3, decode_threads=1)
        assert main.calls == dutch.calls == [["warm-up"]]
        assert main.released == dutch.released == ["warm-up"]
        assert [pool.engine for pool in catalogue.pools] == [main, dutch]
    assert main.closed
    assert dutch.closed


async def test_an_idle_model_is_unloaded_after_its_last_session_and_loaded_again(shop, tmp_path):
    """A lease counts once however often it is given back, and the default stays."""
    async with catalogue_of(tmp_path, DUTCH, model_idle=0.02) as catalogue:
        one, two = await catalogue.take("dutch"), await catalogue.take("dutch")
        default = await catalogue.take("")
        default.give_back()
        for _ in range(3):
            one.give_back()
        main, dutch = shop.made
        assert len(catalogue.pools) == 2
        two.give_back()
        await until(lambda: dutch.closed)
        assert [pool.engine for pool in catalogue.pools] == [main]
        again = await catalogue.take("dutch")
        assert again.pool.engine is shop.made[2]
        assert not main.closed


async def test_a_model_is_not_idle_while_it_is_loaded(shop, tmp_path):
    """Who was told to come again finds it, however short the time."""
    shop.gate = threading.Event()
    async with catalogue_of(tmp_path, DUTCH, model_idle=0.01) as catalogue:
        with pytest.raises(Unavailable):
            await catalogue.take("dutch", patience_s=0.01)
        timer = catalogue._slots["dutch"].timer
        await until(lambda: catalogue._slots["dutch"].timer is not timer)
        shop.gate.set()
        assert (await catalogue.take("dutch")).pool.engine is shop.made[1]
        assert len(shop.made) == 2


async def test_a_model_without_idle_time_stays(shop, tmp_path):
    """By default nothing is unloaded."""
    async with catalogue_of(tmp_path, DUTCH) as catalogue:
        (await catalogue.take("dutch")).give_back()
        assert (await catalogue.take("dutch")).pool.engine is shop.made[1]
        assert len(shop.made) == 2


@pytest.mark.parametrize(("model", "why"), [("cuda", "no CUDA device"), ("broken", "out of memory")])
async def test_a_model_that_cannot_be_loaded_is_one_line_in_the_log_and_503(shop, tmp_path, capsys, model, why):
    """It is not tried again at once, and other models are none the worse."""
    async with catalogue_of(tmp_path, f'[bad]\nengine = "other"\nmodel = "{model}"\n') as catalogue:
        for _ in range(2):
            with pytest.raises(Unavailable, match="bad cannot be loaded"):
                await catalogue.take("bad")
        lines = [line for line in "".join(capsys.readouterr()).splitlines() if "model not loaded" in line]
        assert len(lines) == 1
        assert why in lines[0]
        assert all(engine.closed for engine in shop.made[1:])
        assert (await catalogue.take("")).pool.engine is shop.made[0]


async def test_a_default_model_that_cannot_decode_is_refused_at_the_start(shop, tmp_path):
    """Nobody is told that the server is ready."""
    with pytest.raises(SetupError, match="the engine main was loaded, but the GPU is out of memory"):
        async with catalogue_of(tmp_path, model="broken"):
            pass
    assert [engine.closed for engine in shop.made] == [True]


async def test_a_failed_model_is_tried_again_later(shop, tmp_path, monkeypatch):
    """As a GPU may have room again."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    async with catalogue_of(tmp_path, '[bad]\nengine = "other"\nmodel = "broken"\n') as catalogue:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await catalogue.take("bad")
        assert len(shop.made) == 3


async def test_who_comes_while_a_model_is_loaded_is_told_to_come_again(shop, tmp_path):
    """Loading goes on, and who waits without limit gets it."""
    shop.gate = threading.Event()
    async with catalogue_of(tmp_path, DUTCH) as catalogue:
        with pytest.raises(Unavailable, match="is being loaded"):
            await catalogue.take("dutch", patience_s=0.01)
        patient = asyncio.create_task(catalogue.take("dutch", patience_s=None))
        shop.gate.set()
        assert (await patient).pool.engine is shop.made[1]
        assert len(shop.made) == 2


async def test_a_changed_file_counts_for_new_sessions(shop, tmp_path):
    """Those there keep what they have; the old model goes with the last of them, one with mistakes changes nothing."""
    async with catalogue_of(tmp_path, DUTCH) as catalogue:
        old = await catalogue.take("dutch")
        write(tmp_path, DUTCH.replace('"d"', '"e"') + '[new]\nengine = "other"\n')
        new = await catalogue.take("dutch")
        assert [engine.told.model for engine in shop.made[1:]] == ["d", "e"]
        assert (await catalogue.take("new")).pool.engine is shop.made[3]
        assert not shop.made[1].closed
        old.give_back()
        await until(lambda: shop.made[1].closed)
        write(tmp_path, "[dutch]\nengine = 3\n")
        assert (await catalogue.take("dutch")).pool is new.pool
        write(tmp_path, "")
        assert (await catalogue.take("dutch")).pool.engine is shop.made[0]
        assert not shop.made[2].closed


async def test_partials_may_come_from_another_model_or_engine(shop, tmp_path):
    """Two engines as one, each made from its own table."""
    text = (
        DUTCH.replace("dutch", "quick")
        + '[both]\nengine = "other"\nmodel = "big"\ndevice = "cpu"\npartials = "quick"\n'
        + '[mixed]\nengine = "other"\npartials = "main"\n'
    )
    async with catalogue_of(tmp_path, text) as catalogue:
        samples = np.zeros(SAMPLE_RATE, np.float32)
        said = {}
        for name in ("both", "mixed"):
            engine = (await catalogue.take(name)).pool.engine
            clips = [Clip(key="k", samples=samples, final=final) for final in (True, False)]
            said[name] = [" ".join(word.text for word in each.words) for each in engine.transcribe(clips)]
        assert said == {"both": ["other big", "other d"], "mixed": ["other None", "main None"]}
    assert [engine.calls[0] for engine in shop.made] == [["warm-up"]] * 5


async def test_the_aligner_starts_for_the_first_model_without_word_times(shop, tmp_path):
    """Not before."""
    async with catalogue_of(tmp_path, DUTCH + '[slow]\nengine = "other"\nmodel = "untimed"\n') as catalogue:
        await catalogue.take("dutch")
        assert catalogue._aligner.started == 0
        await catalogue.take("slow")
        assert catalogue._aligner.started == 1


async def test_models_are_listed_with_those_that_could_be_had(shop, tmp_path):
    """The default first; languages of what is not loaded by its factory; nothing that is installed is offered."""
    text = DUTCH + '[mine]\nengine = "other"\nmodel = "small"\n'
    async with catalogue_of(tmp_path, text, model="large") as catalogue:
        await catalogue.take("dutch")
        listed = await catalogue.models()
    assert [(each.name, each.loaded, each.get) for each in listed] == [
        ("main", True, None),
        ("dutch", True, None),
        ("mine", False, None),
        ("main-small", False, "vivavoce models download main-small"),
        ("other-large", False, "vivavoce models download other-large"),
    ]
    assert [each.default for each in listed] == [True, False, False, False, False]
    assert listed[2].languages == {"en", "nl"}
    assert listed[2].features == ("code_switching", "language_detection", "word_times")
    assert listed[3].languages is None


async def test_a_model_that_is_not_here_is_not_installed(shop, tmp_path, monkeypatch):
    """How to get it is said, until it is here; what it would stand for is still to be had."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    place = tmp_path / "models" / "other-large"
    text = f'[other-large]\nengine = "other"\nmodel = "{place}"\n[mine]\nengine = "other"\nmodel = "small"\n'
    both = '[both]\nengine = "other"\npartials = "mine"\n'
    shop.absent = {"small", str(place)}
    async with catalogue_of(tmp_path, text + both) as catalogue:
        before = {each.name: each for each in await catalogue.models()}
        await catalogue.take("mine")
        shop.absent = set()
        after = {each.name: each for each in await catalogue.models()}
    assert {name: each.get for name, each in before.items() if not name.startswith("main")} == {
        "both": "vivavoce models verify both",
        "mine": "vivavoce models verify mine",
        "other-large": "vivavoce models download other-large",
        "other-small": "vivavoce models download other-small",
    }
    assert before["mine"].languages is None
    assert {name for name, each in after.items() if each.get is None} == {"main", "both", "mine", "other-large"}
    assert after["other-large"].languages == {"en", "nl"}
    assert "other-small" not in after


async def test_closing_waits_for_what_is_being_loaded(shop, tmp_path):
    """Nothing stays in memory behind it."""
    shop.gate = threading.Event()
    async with catalogue_of(tmp_path, DUTCH) as catalogue:
        with pytest.raises(Unavailable):
            await catalogue.take("dutch", patience_s=0.01)
        asyncio.get_running_loop().call_later(0.02, shop.gate.set)
    assert len(shop.made) == 2
    assert all(engine.closed for engine in shop.made)


@pytest.mark.usefixtures(installed.__name__)
async def test_the_default_goes_on_with_a_session_whose_model_is_gone(tmp_path):
    """Audio that was taken is heard all the same, and the client is told by whom."""
    table = tmp_path / "data" / "models.toml"
    table.parent.mkdir()
    table.write_text('[mine]\nengine = "scripted"\nmodel = "m"\n')
    async with hub_of(tmp_path / "data", ScriptedEngine(lambda _: "before")) as hub:
        session = await create(hub, model="mine")
        await speak(session, bursts("s"), stop=False)
    table.write_text('[mine]\nengine = "faster-whisper"\nmodel = "/nowhere/at/all"\n')
    async with hub_of(tmp_path / "data", ScriptedEngine(lambda _: "after"), grace=0.1) as hub:
        await ended(hub, session.id)
        (final, *_) = await hub.store.finals(session.id)
        said = [
            message for message in await hub.store.messages(session.id) if "the default one goes on" in message.text
        ]
    assert final.text == "after"
    assert len(said) == 1


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[a", ["not valid TOML"]),
        ("a = 3", ["a must be a table"]),
        ('["a b"]\nengine = "main"', ["'a b' is no name"]),
        ("[a]\nmodel = 3", ["a.engine: must be given", "a.model: must be a text, got 3"]),
        ('[a]\nengine = "x"', ["a.engine: no engine named 'x' is installed (there are: main, other)"]),
        ('[a]\nengine = "main"\ndevice = "tpu"', ["a.device: must be one of 'auto', 'cpu' or 'cuda', got 'tpu'"]),
        ('[a]\nengine = "main"\nsize = 3', ["a.size: there is no such key"]),
        ('[a]\nengine = "main"\nengine_threads = 0', ["a.engine_threads: must be between 1 and 1024, got 0"]),
        ('[a]\nengine = "main"\npartials = "a"', ["a.partials: must name another model of the file, or an engine"]),
        ('[a]\nengine = "main"\npartials = "b"', ["a.partials: must name another model of the file, or an engine"]),
    ],
)
def test_mistakes_in_the_file_name_table_and_key(shop, tmp_path, text, lines):
    """One line each."""
    write(tmp_path, text)
    with pytest.raises(SetupError) as caught:
        read_entries(tmp_path / "models.toml")
    told = str(caught.value).splitlines()
    assert len(told) == len(lines)
    assert all(part in line for part, line in zip(lines, told, strict=True))
    with pytest.raises(SetupError):
        Catalogue(Settings(data_dir=tmp_path), Aligner(), None)  # type: ignore[arg-type] - as above


async def test_a_model_of_the_defaults_name_is_not_used(shop, tmp_path, capsys):
    """The server's own settings win, and the log says so."""
    async with catalogue_of(tmp_path, '[main]\nengine = "other"\n') as catalogue:
        assert (await catalogue.take("main")).pool.engine is shop.made[0]
        assert [each.name for each in await catalogue.models()][:1] == ["main"]
        assert len(shop.made) == 1
    assert "has the default one's name" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("languages", "detects", "features"),
    [
        ({"en"}, True, ("word_times",)),
        ({"en", "nl"}, True, ("code_switching", "language_detection", "word_times")),
        ({"en", "nl"}, False, ("word_times",)),
    ],
)
def test_features_are_what_the_engine_does(languages: set[str], detects: bool, features: tuple[str, ...]) -> None:
    """A model that only assumes one of its languages is not said to detect."""
    info = replace(ScriptedEngine().info, languages=frozenset(languages), detects=detects)
    assert features_of(info) == features
