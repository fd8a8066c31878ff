"""The markup of captions."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.captions import caption_words
from reserve.data.sources.transcripts.markup import read_markup, time_tag
from reserve.data.types import Cue


def read(text):
    return read_markup(Cue(10, 14, tuple(text.split("\n"))))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<i>Hi</i> <c.colorE5E5E5>there</c> <v Anna>you</v>", "Hi there you"),
        ("Tom &amp; Jerry&#39;s&nbsp;day", "Tom & Jerry's day"),
        ("AT&T and R&B &notit", "AT&T and R&B &notit"),
        ("&lt;b&gt; is a tag", "<b> is a tag"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("one<br>two<BR/>three", "one\ntwo\nthree"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢字"),
        (r"{\an8}above {a comment}it", "above it"),
        (r"{\p1}m 0 0 l 100 0 100 100{\p0}sign", "sign"),
        (r"{\an7\pos(1,2)\p4}m 0 0 l 1 0\nl 5 5", ""),
        (r"{\pos(3,4)\pbo2}text", "text"),
        ("m 0 0 l 100 0 100.5 100 -3 100", ""),
        ("m is a letter", "m is a letter"),
        ("{y:i}slanted", "slanted"),
        ("3 < 4 and 5 > 4 <3", "3 < 4 and 5 > 4 <3"),
        ("zero\u200bwidth\ufeff so\xadft", "zerowidth soft"),
        ("  a  \n \n b ", "a\nb "),
        ("<b><i>x</b>y</i>", "xy"),
    ],
)
def test_text(text, plain):
    assert read(text).text == plain


def test_time_tags_and_styles_keep_their_places():
    caption = read("one<00:00:11.000><c> <u>two</u></c><00:12,5> three")
    assert caption.text == "one two three"
    assert [tuple(span) for span in caption.spans] == [(0, 3, 10, 11.0), (3, 7, 11.0, 12.5), (7, 13, 12.5, None)]
    assert [(caption.text[mark.first : mark.last], mark.style) for mark in caption.marks] == [("two", ("u",))]


def test_karaoke_times_count_from_the_beginning_of_the_cue():
    words = caption_words(read(r"{\k20}hel{\K30}lo {\kf50}there{\ko100} friend"))
    assert [(word.text, word.start, word.end) for word in words] == [
        ("hello", 10, pytest.approx(10.5)),
        ("there", pytest.approx(10.5), pytest.approx(11)),
        ("friend", pytest.approx(11), pytest.approx(12)),
    ]


@pytest.mark.parametrize("seconds", [0, 1.5, 59.9996, 3599.9999, 86_399.5])
def test_time_tag_is_read_back(seconds):
    assert read(f"a{time_tag(seconds)}b").spans[1].start == pytest.approx(seconds, abs=1e-3)
