"""Encodings: read right, or refused; a wrong reading is the one thing that must not happen."""

from __future__ import annotations

import pytest

from reserve.data.sources.encodings import DAMAGED, decode_text
from reserve.errors import BadInput

ENGLISH = ("so we went to the café and it was closed", "that is what the señor said to me", "we’ll wait for you then")
TEXTS = {
    "en": ENGLISH,
    "fr": ("où êtes-vous allés après le dîner", "je ne sais pas où il a été élevé", "c'est très français à mon goût"),
    "de": ("wir müssen über die Brücke gehen", "das Mädchen heißt Käthe und ist größer", "er läuft schon früh zurück"),
    "es": (
        "¿dónde está la niña pequeña?",
        "mañana iremos al jardín con José",
        "el año pasado él también salió por la noche",
    ),
    "pt": ("não sei onde estão as crianças", "a situação é muito difícil para nós", "amanhã vamos à praia então"),
    "cs": ("příliš žluťoučký kůň úpěl ďábelské ódy", "kde je naše malé dítě dnes večer", "děkuji že jste přišli"),
    "pl": ("zażółć gęślą jaźń powiedział chłopiec", "gdzie są moje książki i zeszyty", "dziękuję że przyszłaś"),
    "hu": ("árvíztűrő tükörfúrógép a műhelyben", "hol van a gyerek és az anyja", "köszönöm hogy eljöttél hozzánk"),
    "ru": ("мы пошли домой и легли спать", "где же моя большая книга", "спасибо что вы пришли сегодня"),
    "uk": ("ми пішли додому і лягли спати", "де ж моя велика книжка її немає", "дякую що ви прийшли сьогодні"),
    "el": ("πήγαμε στο σπίτι και κοιμηθήκαμε", "πού είναι το μεγάλο μου βιβλίο", "ευχαριστώ που ήρθατε σήμερα"),
    "he": ("הלכנו הביתה והלכנו לישון", "איפה הספר הגדול שלי עכשיו", "תודה שבאתם אלינו היום"),
    "ar": ("ذهبنا إلى البيت ثم نمنا", "أين كتابي الكبير يا صديقي", "شكرا لكم على الحضور اليوم"),
    "tr": ("eve gittik ve çok geç uyuduk", "büyük kitabım nerede şimdi", "bugün geldiğiniz için teşekkürler ışığım"),
    "ja": ("私たちは家に帰って寝ました", "私の大きい本はどこにありますか", "今日は来てくれてありがとう"),
    "zh": ("我们回家以后就睡觉了", "我的那本大书现在在哪里", "谢谢你们今天来看我们"),
    "zh-Hant": ("我們回家以後就睡覺了", "我的那本大書現在在哪裡", "謝謝你們今天來看我們"),
    "ko": ("우리는 집에 가서 잠을 잤습니다", "내 큰 책은 지금 어디에 있습니까", "오늘 와 주셔서 감사합니다"),
}
CODE_PAGES = {
    **dict.fromkeys(["en", "fr", "de", "es", "pt"], ("cp1252", "mac-roman", "cp850")),
    **dict.fromkeys(["cs", "pl", "hu"], ("cp1250", "iso8859-2")),
    "ru": ("cp1251", "koi8-r", "iso8859-5", "cp866"),
    "uk": ("cp1251", "koi8-u"),
    "el": ("cp1253", "iso8859-7"),
    "he": ("cp1255",),
    "ar": ("cp1256",),
    "tr": ("cp1254",),
    "ja": ("cp932", "euc-jp"),
    "zh": ("gb18030",),
    "zh-Hant": ("big5",),
    "ko": ("cp949",),
}
# Files of three lines in the usual code page of a language must be read, not just refused.
READ = ("fr", "es", "pt", "cs", "pl", "hu", "ru", "el", "ja", "ko", "zh")


def srt(lines: tuple[str, ...]) -> str:
    return "".join(
        f"{index + 1}\n00:00:{index:02},000 --> 00:00:{index + 1:02},000\n{line}\n\n"
        for index, line in enumerate(lines)
    )


def encode(text: str, encoding: str) -> bytes:
    return text.replace("’", "'").encode(encoding) if encoding == "cp850" else text.encode(encoding)


@pytest.mark.parametrize(
    ("language", "encoding"), [(language, page) for language, pages in CODE_PAGES.items() for page in pages]
)
@pytest.mark.parametrize("lines", [1, 3, 60])
def test_code_pages_are_right_or_refused(language, encoding, lines):
    text = srt((TEXTS[language] * 20)[:lines])
    try:
        decoded = decode_text(encode(text, encoding)).text
    except BadInput:
        assert not (lines >= 3 and language in READ and encoding == CODE_PAGES[language][0])
        return
    wanted = text.replace("’", "'") if encoding == "cp850" else text
    for read, written in zip(decoded.split(), wanted.split(), strict=True):
        assert read == written or DAMAGED in read


@pytest.mark.parametrize("word", ["café", "crème brûlée", "naïve", "señor", "Zoë", "“so”", "don’t", "São", "Ångström"])
def test_a_few_accents_in_english(word):
    text = srt((f"so we went to the {word} and it was good", "that is what I said to you"))
    assert decode_text(text.encode("cp1252")).text == text


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_unicode(language, encoding):
    text = srt(TEXTS[language])
    decoded = decode_text(text.encode(encoding))
    assert (decoded.text, decoded.warnings) == (text, [])


@pytest.mark.parametrize("language", [language for language in TEXTS if language != "en"])
def test_utf8_encoded_twice_is_undone(language):
    text = srt(TEXTS[language] * 3)
    for page in ("latin-1", "cp1252", "cp1251", "mac-roman", "gb18030"):
        try:
            twice = text.encode().decode(page).encode()
        except UnicodeDecodeError:
            continue
        try:
            decoded = decode_text(twice)
        except BadInput:
            continue
        assert decoded.text == text
        assert "twice" in decoded.warnings[0]
    assert decode_text(text.encode().decode("latin-1").encode()).text == text


def test_one_line_encoded_twice_is_undone():
    assert decode_text("cafÃ© and more".encode()).text == "café and more"


def test_mojibake_that_cannot_be_undone_is_refused():
    # The no-break spaces of à became spaces, as in many editors.
    text = "trÃ¨s Ã  cÃ´tÃ© de la forÃªt, voilÃ  â€¦ ÃŠtre ici dÃ©jÃ  l'Ã©tÃ©".replace("\xa0", " ")
    with pytest.raises(BadInput, match="read in another encoding"):
        decode_text(text.encode())


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("bad", [b"\xe9", b"\xff", b"\xc3", b"\x80"])
def test_a_bad_byte_costs_one_word(language, bad):
    content = srt(TEXTS[language]).encode()
    place = content.rindex(b"\n", 0, -2) + 1
    decoded = decode_text(content[:place] + bad + content[place:])
    assert decoded.warnings == ["1 damaged characters in it; the words with them are dropped"]
    words, damaged = srt(TEXTS[language]).split(), decoded.text.split()
    assert [word == other for word, other in zip(words, damaged, strict=True)].count(False) == 1


def test_cut_inside_a_letter():
    text = srt(("the crème brûlée",))
    content = text[: text.rindex("é")].encode()[:-3] + "é".encode()[:1]
    decoded = decode_text(content)
    assert decoded.text.split()[-2] == "crème"
    assert DAMAGED in decoded.text.split()[-1]
    assert decode_text(b"all of it is ASCII but cr\xc3").text == f"all of it is ASCII but cr{DAMAGED}"


def test_zero_bytes():
    text = srt(ENGLISH)
    holes = decode_text(text.replace("closed", "clo\0sed").encode() + bytes(4000))
    assert holes.text == text
    assert holes.warnings == ["4001 zero bytes in it; they were dropped"]


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 40, bytes(1000), b"\x7fELF\x02\x01\x01" + bytes(range(32)) * 9, b"\xff\xd8" * 500]
)
def test_binary_data(content):
    with pytest.raises(BadInput):
        decode_text(content)
