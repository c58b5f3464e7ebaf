"""Custom vocabulary: names are written where they were misheard, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.process import cdist

from recordings import TRANSCRIPTS
from sound import g711, recording_at
from utterance_laws import TEXTS, check_words, utterance, utterances
from vivavoce.addons import likenesses
from vivavoce.addons.vocabulary import Vocabulary, VocabularyAddon, VocabularyEntry
from vivavoce.engines.moonshine import MoonshineEngine
from vivavoce.model import SAMPLE_RATE, AudioFormat, Clip
from vivavoce.plugins import AddonSettings
from vivavoce.speech.audio import AudioDecoder

NAMES = [
    "Gladia",
    "Okonkwo",
    "LiveKit",
    "Priya Raghunathan",
    "AT&T",
    "Veltrix 900",
    "Leicester",
    "Thessaloniki",
    "Thornquist",
    "O'Shaughnessy",
    "Kubernetes",
    "Zelensky",
    "Lisinopril",
]

NOT_SAID = """
Okonkwo, Thornquist, Wojciechowski, Yusuf Demir, Saoirse, Oyelaran, Anoushka, Tsukamoto, Abernathy, Delacroix,
Zielinski, Shelvington, Ekaterina, Hrvoje, Kaczmarek, Nakamura, Quispe, Takahashi, Wetherby, Zsofia, Cosgrove, Farouk,
Ivanovic, Lachlan, Orlaith, Sunita, Villanueva, Zubair, Cardew, Ferreira, Isolde, Laszlo, O'Shaughnessy, Stavros,
Gladia, Grafana, Zendesk, Databricks, Nginx, Pipecat, Trello, Splunk, Heroku, Stripe, Ozempic, Lisinopril, Xarelto,
Januvia, SwiftTrack, Orbivex, SureHome, Solara, Xfinity, Fitbit, iRobot, Ubiquiti, Huawei, Skoda, Citroen, Tesla,
Lucid, Lavazza, Oatly, Decathlon, Etsy, Duolingo, Peloton, Notion, Worcestershire, Llandudno, Kirkcaldy, Milngavie,
Groningen, Maastricht, Dusseldorf, Uppsala, Reykjavik, Krakow, Ljubljana, Sarajevo, Heraklion, Marrakech, Abuja,
Kampala, Lilongwe, Johannesburg, Karachi, Chennai, Kolkata, Dhaka, Vientiane, Kuala Lumpur, Manila, Kyoto, Busan,
Chongqing, Novosibirsk, Albuquerque, Poughkeepsie, Baton Rouge
"""
"""A hundred names of people, products and places, none of them said in the recordings."""


def heard(text: str, *entries: str | VocabularyEntry, intensity: float = 0.5, confidence: float = 0.4) -> str:
    """Give a text, all of whose words have one confidence, under a vocabulary."""
    listed = [VocabularyEntry(value=entry) if isinstance(entry, str) else entry for entry in entries]
    before = utterance(text.split())
    before = replace(before, words=tuple(replace(word, confidence=confidence) for word in before.words))
    return Vocabulary(listed, intensity).rewrite(before, final=True).text


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("is mister Okonquo there", "is mister Okonkwo there"),
        ("Thorne Quist, please.", "Thornquist, please."),
        ("(from lester)", "(from Leicester)"),
        ("a parcel to Fessaloniki", "a parcel to Thessaloniki"),
        ("ask preia ragunatan again", "ask Priya Raghunathan again"),
        ("Okonquo's order", "Okonkwo's order"),
        ("on live kit, or Live-Kit", "on LiveKit, or LiveKit"),
        ("the veltricks nine hundred", "the Veltrix 900"),
        ("oshaughnessy?", "O'Shaughnessy?"),
        ("we run coobernetties.", "we run Kubernetes."),
        ("my living up-road account", "my Lisinopril account"),
    ],
)
def test_names_are_written_where_other_words_were_heard(text, becomes):
    """By sound, over word borders in both directions; punctuation and a possessive stay."""
    assert heard(text, *NAMES) == becomes


@pytest.mark.parametrize("name", ["two_cities", "beckett"])
def test_what_was_heard_right_stays(name):
    """Real sentences without any of the names are left alone, even where the engine was not sure of them."""
    assert heard(TRANSCRIPTS[name], *NAMES) == TRANSCRIPTS[name]


def test_names_that_nobody_said_are_not_heard_in_telephone_speech():
    """Of the words that the default engine writes for µ-law in pieces of 6 s, one in 200 is replaced at most."""
    rule = Vocabulary([VocabularyEntry(value=name.strip()) for name in NOT_SAID.split(",")], 0.5)
    engine = MoonshineEngine()
    written = replaced = 0
    for name in ("two_cities", "beckett", "endgame_nagg_nell"):
        decoder = AudioDecoder(AudioFormat(encoding="ulaw", sample_rate=8000))
        samples = decoder.feed(g711(recording_at(name, 8000), "mulaw"))[0]
        for at in range(0, len(samples), 6 * SAMPLE_RATE):
            clip = Clip(key="a", samples=samples[at : at + 6 * SAMPLE_RATE], final=True)
            (hypothesis,) = engine.transcribe([clip])
            before = replace(utterance([]), words=hypothesis.words)
            after = rule.rewrite(before, final=True)
            written += len(before.words)
            replaced += len({id(word) for word in before.words} - {id(word) for word in after.words})
    engine.close()
    assert written > 150
    assert replaced <= written / 200


@pytest.mark.parametrize(
    ("entry", "text", "becomes"),
    [
        ("RSVP", "please r s v p by friday", "please RSVP by friday"),
        ("IEEE 802.11", "in I E E E 802.11, yes", "in IEEE 802.11, yes"),
        ("LiveKit", "on l i v e k i t's site", "on LiveKit's site"),
    ],
)
def test_an_entry_is_found_in_however_many_words_its_letters_are(entry, text, becomes):
    """Engines write spelled words letter by letter."""
    assert heard(text, entry) == becomes


@pytest.mark.parametrize(
    ("entry", "text", "becomes"),
    [
        ("BMW X5", "a b m w x five please", "a BMW X5 please"),
        ("GPT-4", "we use g p t four daily", "we use GPT-4 daily"),
        ("GPT-4o mini", "g p t four oh mini, now", "GPT-4o mini, now"),
        ("SAP S/4HANA", "we run s a p s four hana", "we run SAP S/4HANA"),
        ("AT&T", "call a t and t now", "call AT&T now"),
    ],
)
def test_what_is_spelled_out_counts_as_one_word(entry, text, becomes):
    """None of its letters is left over."""
    assert heard(text, entry, confidence=0.6) == becomes


@pytest.mark.parametrize(
    ("entry", "text", "intensity", "becomes"),
    [
        *(("阿里巴巴", "我们用阿里巴巴的服务", intensity, "我们用阿里巴巴的服务") for intensity in (0.0, 0.5, 1.0)),
        *(("微信支付", "我用微信支付买", intensity, "我用微信支付买") for intensity in (0.0, 0.5, 1.0)),
        ("天天", "今天很好", 1.0, "今天很好"),
        ("微信支付", "我用微信支持买", 1.0, "我用微信支付买"),
        ("阿里巴巴", "用阿里巴吧", 1.0, "用阿里巴巴"),
        ("株式会社任天堂", "株式会社任天党の", 0.5, "株式会社任天堂の"),
        ("セブンイレブン", "セブンイレブで", 0.5, "セブンイレブンで"),
    ],
)
def test_a_script_without_blanks_is_one_run_of_letters(entry, text, intensity, becomes):
    """Engines write a word for each character there."""
    rule = Vocabulary([VocabularyEntry(value=entry)], intensity)
    assert rule.rewrite(utterance(list(text), language="zh"), final=True).text == becomes


def test_an_entry_that_was_written_right_is_left_to_itself():
    """It is the same object, and no other entry takes a part of it."""
    before = utterance("Priya Raghunathan of Gladia, AT&T's".split())  # noqa: SIM905 - a line to read
    rule = Vocabulary([VocabularyEntry(value=name) for name in [*NAMES, "Gladiya", "Priyanka"]], 1.0)
    assert rule.rewrite(before, final=True) is before


def test_case_is_mended_but_not_that_of_everyday_words():
    """`kubernetes` is the entry; `it` is rarely the department."""
    assert heard("kubernetes runs it", "Kubernetes", "IT") == "Kubernetes runs it"


def test_an_unsure_word_is_given_up_before_a_sure_one():
    """The engine's confidence is evidence."""
    assert heard("a cup, please", "Cupra", confidence=0.99) == "a cup, please"
    assert heard("to Pelloton", "Peloton", confidence=0.9) == "to Peloton"
    assert heard("I am checking", "Chongqing", confidence=0.97) == "I am checking"
    assert heard("by delivery", "Deliveroo", confidence=0.99) == "by delivery"
    assert heard("by delivery", "Deliveroo", confidence=0.05) == "by Deliveroo"


def test_intensity_goes_from_the_same_sound_to_eager():
    """What passes at one intensity passes at a higher one; the entry's own counts before the default."""
    assert [heard("to Mosschricht", "Maastricht", intensity=each) for each in (0.0, 0.5, 1.0)] == [
        "to Mosschricht",
        "to Maastricht",
        "to Maastricht",
    ]
    assert heard("from lester", "Leicester", intensity=0.0) == "from Leicester"
    assert heard("to Mosschricht", VocabularyEntry(value="Maastricht", intensity=0.0)) == "to Mosschricht"
    assert heard("to Mosschricht", VocabularyEntry(value="Maastricht", intensity=1.0), intensity=0) == "to Maastricht"


def test_pronunciations_say_what_spelling_does_not():
    """A name that is not said as it is spelled is heard by its given pronunciation only."""
    assert heard("to mullguy now", "Milngavie") == "to mullguy now"
    assert heard("to mullguy now", VocabularyEntry(value="Milngavie", pronunciations=("Mulguy",))) == "to Milngavie now"


def test_the_best_of_overlapping_entries_wins():
    """Whatever their order in the list."""
    for names in (["Jansen", "Janssens"], ["Janssens", "Jansen"]):
        assert heard("mister yansens", *names, intensity=1.0) == heard("mister yansens", *names[::-1], intensity=1.0)
    assert heard("Thorne Quist", "Thornbury", "Thornquist", "Quinn") == "Thornquist"


def test_nothing_is_heard_across_the_end_of_a_sentence():
    """`Thorne. Quist` are two sentences."""
    assert heard("Thorne. Quist", "Thornquist") == "Thorne. Quist"


def test_a_joined_word_spans_the_time_of_its_parts():
    """From the first one's start to the last one's end, with the mean of their confidences."""
    after = Vocabulary([VocabularyEntry(value="Thornquist")], 0.5).rewrite(utterance(["Thorne", "Quist"]), final=True)
    (word,) = after.words
    assert (word.text, word.start, word.end) == ("Thornquist", 0.0, 1.0)
    assert word.confidence == pytest.approx(0.505)


def test_entries_of_another_language_are_not_looked_for():
    """An entry with a language is for utterances of that language; one without is for all."""
    dutch = VocabularyEntry(value="Okonkwo", language="nl")
    assert heard("mister Okonquo", dutch) == "mister Okonquo"
    before = utterance(["meneer", "Okonkwoo,"], language="nl")
    for entry in (dutch, VocabularyEntry(value="Okonkwo")):
        assert Vocabulary([entry], 1.0).rewrite(before, final=True).text == "meneer Okonkwo,"


def test_other_languages_are_compared_by_letters():
    """Without sounds, a few letters may be wrong, the fewer the lower the intensity; accents do not count."""
    rule = Vocabulary([VocabularyEntry(value="Scheveningen"), VocabularyEntry(value="Łódź")], 0.5)
    for text, becomes in [("Scheveninge", "Scheveningen"), ("Scheefeninge", "Scheefeninge"), ("Łodz", "Łódź")]:
        assert rule.rewrite(utterance([text], language="nl"), final=True).text == becomes


def test_options_are_read_as_the_contract_writes_them():
    """Texts and objects, with what they leave out; the default intensity is 0.5."""
    listed = ["Gladia", {"value": "Siobhan", "pronunciations": ["Shivawn"], "intensity": None, "language": "en"}]
    rule = Vocabulary.from_options({"vocabulary": listed})
    unsure = utterance("gladia asked shavorn".split(), confidence=0.3)  # noqa: SIM905 - a line to read
    assert rule.rewrite(unsure, final=False).text == "Gladia asked Siobhan"


def test_entries_that_cannot_be_said_or_are_endless_are_found_by_their_letters():
    """No entry fails, and none costs more than a bounded time."""
    endless = " ".join(["very"] * 11)
    assert heard(f"東京 and {endless.upper()}!", "東京", endless, "", "  ", "-", "…") == f"東京 and {endless}!"


@pytest.mark.parametrize(
    ("language", "entry", "letters"),
    [
        ("en", "Bavarakomite" * 5, "abcdefghijklmnopqrstuvwxyz"),
        ("en", "Bava Rakomi", "abcdefghijklmnopqrstuvwxyz"),
        ("de", "ab" * 38, "ab"),
        ("zh", "的一是不了人我在有他" * 8, "的一是不了人我在有他"),
    ],
)
def test_what_counts_as_one_word_is_compared_a_bounded_number_of_times(monkeypatch, language, entry, letters):
    """However long entries are, and however much is spelled out."""
    compared = []

    def counted(sounds, forms, **options):
        compared.extend(sounds)
        return cdist(sounds, forms, **options)

    monkeypatch.setattr(likenesses, "cdist", counted)
    said = utterance(list((letters * 300)[:300]), language=language)
    Vocabulary([VocabularyEntry(value=entry), VocabularyEntry(value=letters[:4])], 1.0).rewrite(said, final=True)
    assert len(compared) <= 2_500


ENTRIES = st.builds(
    VocabularyEntry,
    value=TEXTS | st.lists(TEXTS, min_size=1, max_size=3).map(" ".join) | st.sampled_from(NAMES),
    intensity=st.none() | st.floats(0, 1),
    pronunciations=st.lists(TEXTS, max_size=2).map(tuple),
    language=st.sampled_from([None, "en", "nl"]),
)
WORDS = TEXTS | st.sampled_from(
    ["live", "kit", "glad", "ya", "Okonquo,", "the", "nine", "hundred", "(Thorne", "Quist)."]
)


@given(st.lists(ENTRIES, max_size=5), utterances(WORDS), st.floats(0, 1), st.sampled_from(["en", "nl"]))
def test_any_vocabulary_keeps_order_and_times_and_always_says_the_same(entries, before, intensity, language):
    """Whatever is listened for in whatever was said: words in order, in the time of those before, twice the same."""
    before = replace(before, language=language)
    after = Vocabulary(entries, intensity).rewrite(before, final=True)
    check_words(before, after)
    assert Vocabulary(entries, intensity).rewrite(before, final=False) == after
    kept = {id(word) for word in before.words}
    values = " ".join(entry.value for entry in entries).split()
    for word in after.words:
        assert id(word) in kept or any(value in word.text for value in values) or word.text in before.text


@given(st.sets(st.sampled_from(NAMES)), utterances(WORDS), st.floats(0, 1))
def test_rewriting_twice_changes_nothing_more(names, before, intensity):
    """What was written is what would be written."""
    rule = Vocabulary([VocabularyEntry(value=name) for name in sorted(names)], intensity)
    once = rule.rewrite(before, final=True)
    assert rule.rewrite(once, final=True) is once


def test_the_add_on_reads_the_contracts_options() -> None:
    """Texts and objects make one rule, and every entry is a hint for engines that take such."""
    options = {
        "vocabulary": ["Vivavoce", {"value": "Gladia", "pronunciations": ["glad ear"], "intensity": 0.9}, "Vivavoce"],
        "default_intensity": 0.6,
    }
    parts = VocabularyAddon(AddonSettings()).open(options, ["en"])
    assert parts.hints == ("Vivavoce", "Gladia")
    assert parts.rule is not None
    assert parts.rule.rewrite(utterance(["we", "use", "glad", "ear"]), final=True).text == "we use Gladia"


@pytest.mark.parametrize(
    ("languages", "hints"),
    [
        ([], ("Gladia", "Scheveningen", "Leicester")),
        (["en"], ("Gladia", "Leicester")),
        (["nl"], ("Gladia", "Scheveningen")),
        (["nl", "en"], ("Gladia", "Scheveningen", "Leicester")),
    ],
)
def test_entries_that_are_not_to_be_expected_are_no_hints(languages, hints):
    """Those of other languages than the session's, and those that only the same sound is to be taken for."""
    listed = [
        "Gladia",
        {"value": "Scheveningen", "language": "nl"},
        {"value": "Leicester", "language": "en"},
        {"value": "Zero", "intensity": 0},
    ]
    parts = VocabularyAddon(AddonSettings()).open({"vocabulary": listed}, languages)
    assert parts.hints == hints
    none = VocabularyAddon(AddonSettings()).open({"vocabulary": listed, "default_intensity": 0}, languages)
    assert none.hints == ()


def mended(text: str, entry: str, weights: float, language: str = "en") -> tuple[str, list[str]]:
    """Give a text of unsure words as it is mended by an engine that weighs all others alike, and what was asked."""
    asked: list[str] = []

    def weigh(texts):
        asked.extend(texts)
        return [weights] * len(texts)

    words = tuple(replace(word, confidence=0.4) for word in utterance(text.split()).words)
    rule = Vocabulary([VocabularyEntry(value=entry)], 0.5)
    return " ".join(word.text for word in rule.mend(words, language, weigh)), asked


UNLIKE = "this is about our real you. Can you help me?"


def test_an_entry_too_far_by_sound_is_written_where_the_engine_finds_it_likely():
    """Sound alone leaves the words; asked for the whole text with the entry in it, the engine decides."""
    assert heard(UNLIKE, "Aurelio") == UNLIKE
    text, asked = mended(UNLIKE, "Aurelio", 0.0)
    assert text == "this is about Aurelio. Can you help me?"
    assert text in asked
    assert mended(UNLIKE, "Aurelio", -30.0)[0] == UNLIKE


def test_an_engine_is_asked_about_few_texts_and_only_where_an_entry_is_near():
    """Each text that an engine weighs costs it a pass."""
    assert mended("my order number is four seven two", "Thessaloniki", 9.0) == ("my order number is four seven two", [])
    assert len(mended(UNLIKE * 9, "Aurelio", -30.0)[1]) <= 4


def test_an_engine_is_not_asked_in_languages_whose_sounds_are_not_known():
    """Letters are all there is to go by there."""
    assert mended(UNLIKE, "Aurelio", 9.0, "nl") == (UNLIKE, [])


def test_what_was_written_right_is_not_asked_about():
    """An entry's own letters stay."""
    assert mended("I spoke to Aurelio about it", "Aurelio", 9.0) == ("I spoke to Aurelio about it", [])


def test_an_engine_is_not_asked_about_entries_longer_than_anybody_says():
    """Marks are not said, so an entry of many sounds like one without; an engine would spend seconds on it."""
    assert mended(UNLIKE, "Aurelio" + "." * 200, 0.0) == (UNLIKE, [])
