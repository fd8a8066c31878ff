import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from reserve.synthetic import speech as module
from reserve.synthetic.speech import Voice, speak

TEXT = "look at one red star, in the dark forest, it slides to the left."


@pytest.fixture(scope="module")
def spoken():
    pytest.importorskip("espeakng_loader", reason="needs the extra demo")
    return speak(TEXT, Voice())


def test_every_word_has_its_time(spoken):
    assert [word.text for word in spoken.words] == TEXT.replace(",", "").replace(".", "").split()
    times = [time for word in spoken.words for time in (word.start, word.end)]
    assert times[0] == 0
    assert all(before <= after for before, after in pairwise(times))
    assert all(word.end > word.start for word in spoken.words)
    assert times[-1] == pytest.approx(len(spoken.waveform) / spoken.sample_rate, abs=1e-3)


def test_sound_is_where_words_are(spoken):
    inside = np.zeros(len(spoken.waveform), bool)
    for word in spoken.words:
        span = slice(round(word.start * spoken.sample_rate), round(word.end * spoken.sample_rate))
        inside[span] = True
        assert np.abs(spoken.waveform[span]).max() > 0.03, word
    assert (~inside).sum() > 0.1 * spoken.sample_rate  # the pauses at the commas
    assert np.abs(spoken.waveform[~inside]).max() <= module.SILENCE


def test_words_the_engine_merges_share_their_time(spoken):
    start = [word.text for word in spoken.words].index("in")  # espeak-ng says "in the" as one
    first, second = spoken.words[start : start + 2]
    assert first.end == second.start
    assert 0.04 < second.end - second.start < 0.4


def test_the_rate_changes_the_length(spoken):
    assert len(speak(TEXT, Voice(rate=240)).waveform) < 0.8 * len(spoken.waveform)


def test_the_same_text_always_sounds_the_same(spoken):
    breathy = Voice("en-us+f2")  # one of the voices that use random numbers
    before = speak(TEXT, breathy)
    time.sleep(1.1)  # by default the engine seeds them with the time in seconds
    np.testing.assert_array_equal(speak(TEXT, breathy).waveform, before.waveform)
    np.testing.assert_array_equal(speak(TEXT, Voice()).waveform, spoken.waveform)


def test_the_engine_works_below_a_long_path(spoken, tmp_path, monkeypatch):
    """The library itself fails if the path of its data has more than 159 characters."""
    import espeakng_loader

    deep = tmp_path / ("d" * 100) / ("e" * 100) / "espeak-ng-data"
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    np.testing.assert_array_equal(speak(TEXT, Voice()).waveform, spoken.waveform)


def test_unknown_voices_are_named(spoken):
    with pytest.raises(ValueError, match="no voice 'nobody'"):
        speak(TEXT, Voice("nobody"))


def test_text_without_words_is_refused(spoken):
    with pytest.raises(ValueError, match="no words to speak in ' , '"):
        speak(" , ", Voice())


def test_a_missing_engine_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"merlot-reserve\[demo\]"):
        module._Engine()
