"""Labels of speakers, and speech that only looks like them."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.types import Cue


def spoken(*texts):
    cues = [Cue(2 * index, 2 * index + 2, tuple(text.split("\n"))) for index, text in enumerate(texts)]
    return " ".join(word.text for word in cues_to_words(cues))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["JOHN: hello there", "MARY: hi"], "hello there hi"),
        ([">> JOHN: hello", ">>> MARY: hi", "&gt;&gt; NAR: yes", ">> and you"], "hello hi yes and you"),
        (["- Hello.\n- Hi.", "–Yes. –No.", "Well — I mean — go"], "Hello. Hi. Yes. No. Well I mean go"),
        (["[John] hello", "[Mary]: hi", "[SPEAKER_01]: so"], "hello hi so"),
        (["SPEAKER_00: hello", "Speaker 1: hi", "speaker 2: so"], "hello hi so"),
        (["John Smith: hello", "good day", "John Smith: go on"], "hello good day go on"),
        (["John: hello", "Mary: hi", "John: so", "Mary: yes", "Bob: me too"], "hello hi so yes me too"),
        (["Dr. O'Neil (on phone): hello there", "I hear you"], "hello there I hear you"),
        (["(JOHN) hello there", "(laughs) yes"], "hello there yes"),
        (["<v John>hello</v>", "<v.loud Mary Ann>hi"], "hello hi"),
        (["♪ la la ♪", "# la la #"], "la la la la"),
        (["ÉLODIE: bonjour", "José: hola", "José: sí", "ИВАН: привет"], "bonjour hola sí привет"),
        (["太郎：はい そうです", "花子：ええ", "太郎：また"], "はい そうです ええ また"),
        (["MARIE : bonjour", "JOHN:Hello"], "bonjour Hello"),
        (["JOHN: Hi. MARY: Hello.", "JOHN: So? MARY: Yes."], "Hi. Hello. So? Yes."),
        (["JOHN:\nhello there", "MARY:\nhi"], "hello there hi"),
        (["Q: what is it", "A: a thing", "Q: why", "A: because"], "what is it a thing why because"),
        (["Will: we will go", "I will", "Will: yes", "Will: no"], "we will go I will yes no"),
        (["john: hi", "mary: yes", "john: so", "mary: ah", "john: ok", "mary: no"], "hi yes so ah ok no"),
        (["MAN #1: stop", "DR. O'NEIL (ON PHONE): hi"], "stop hi"),
        (["REMEMBER: GO HOME", ">> JOHN: HELLO", "SO WE WENT TO TOWN"], "REMEMBER: GO HOME HELLO SO WE WENT TO TOWN"),
    ],
)
def test_labels_are_not_spoken(texts, said):
    assert spoken(*texts) == said


@pytest.mark.parametrize(
    "texts",
    [
        ["Remember this: never give up", "Note: another thing", "Note: and one more", "Note: the last"],
        ["we left at 10:30 today", "the answer: yes", "so I said: no way", "Here is the thing: go"],
        ["Question: what is it", "Step 1: open it", "Step 2: close it"],
        ["made of a thing called\nDNA: it carries", "the code of all"],
        ["-5 degrees in twenty-five towns", "wait— what is it", "f (x) holds"],
        ["see http://example.org now", "My name is: Bob"],
        ["REMEMBER THIS: NEVER GIVE UP", "AT 10:30 WE LEFT TOWN", "I SAID: NO"],
        ["Tom & Jerry", "3 < 4 and 5 > 4", "5 % of it"],
        ["Today: the news", "note: keep this"],
    ],
)
def test_speech_stays(texts):
    assert spoken(*texts) == " ".join(texts).replace("\n", " ")
