"""Languages by code, tag or name, as people and yt-dlp write them in names of files."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import product
from string import ascii_lowercase

_NO_LANGUAGE = frozenset({"und", "mul", "mis", "zxx", "xxx", "qaa"})
# A script, or a region by letters or number.
_SUBTAG = re.compile(r"[A-Za-z]{4}|[A-Za-z]{2}|\d{3}")
_SEPARATOR = re.compile(r"[-_ ]+")
# Regions that people write in lower case although the letters are also the code of another language: en-ca is from
# Canada, not translated from Catalan.
_REGIONS_IN_LOWER_CASE = {
    "bn": ("in",),
    "de": ("ch",),
    "en": ("ca", "ie", "in", "sg", "uk", "za"),
    "es": ("ar", "co", "la"),
    "fr": ("be", "ca", "ch"),
    "it": ("ch",),
    "nl": ("be",),
    "pt": ("br",),
    "ta": ("in",),
    "ur": ("in",),
    "zh": ("sg", "tw"),
}
# Names of two or three letters are too easily something else.
_MIN_NAME = 4
# Tags besides the languages of two letters whose names are known.
_OTHER_TAGS = """
    nb ast ceb chr ckb fil gsw haw hmn kok lus mai mni nan nso yue zh-Hans zh-Hant zh-CN zh-TW zh-HK en-US en-GB en-AU
    en-CA en-IN es-419 es-ES es-MX es-US fr-CA fr-FR fr-BE fr-CH de-AT de-CH de-DE nl-BE pt-BR pt-PT sr-Latn sr-Cyrl
"""
# People name a language in English, in itself, or in their own.
_NAMING_LANGUAGES = ("en", "de", "es", "fr", "it", "pt")
_OTHER_NAMES = {
    "brazilian": "pt-BR",
    "castellano": "es-ES",
    "castilian": "es-ES",
    "english (uk)": "en-GB",
    "english (us)": "en-US",
    "farsi": "fa",
    "flemish": "nl-BE",
    "latin american spanish": "es-419",
    "latin spanish": "es-419",
    "latino": "es-419",
    "mandarin": "zh",
    "simplified chinese": "zh-Hans",
    "tagalog": "fil",
    "traditional chinese": "zh-Hant",
    "\u7b80\u4f53\u4e2d\u6587": "zh-Hans",
    "\u7e41\u9ad4\u4e2d\u6587": "zh-Hant",
}


@cache
def standard_code(code: str) -> str | None:
    """The usual code of a language, "" for codes that name none, None if there is no such code."""
    import langcodes

    if code in _NO_LANGUAGE:
        return ""
    try:
        language = langcodes.Language.get(code)
    except ValueError:
        return None
    if not language.is_valid():
        return None
    return {"nb": "no"}.get(code := language.prefer_macrolanguage().language or "", code)


def with_subtag(language: str, tag: str, subtag: str) -> str | None:
    """`tag`, which begins with `language`, with a script or region added; None if `subtag` is neither."""
    import langcodes

    is_other_language = subtag.islower() and subtag != language and standard_code(subtag) is not None
    if is_other_language and subtag not in _REGIONS_IN_LOWER_CASE.get(language, ()):
        return None
    if not _SUBTAG.fullmatch(subtag):
        return None
    longer = langcodes.Language.get(f"{tag}-{subtag}")
    return longer.to_tag() if longer.is_valid() and longer.to_tag() != tag else None


def is_other_region(tag: str, wanted: str) -> bool:
    """Whether the region or script of `tag` differs from what `wanted`, a tag of the same language, says. A tag without
    them means the usual ones: zh is zh-Hans-CN."""
    import langcodes

    asked = langcodes.Language.get(wanted)
    own, full = (langcodes.Language.get(part).maximize() for part in (tag, wanted))
    if not asked.script and not asked.territory:
        return False
    return own.script != full.script or bool(asked.territory and own.territory != full.territory)


def tag_of_name(name: str) -> str | None:
    """The tag of a language's name: "English", "Deutsch", "francais", "Portuguese (Brazil)", "British English"."""
    names = _tags_by_name()
    text = folded(_SEPARATOR.sub(" ", name))
    if len(text) < _MIN_NAME and text.isascii():
        return None
    if (tag := names.get(text)) is not None:
        return tag
    has_region = text.rpartition(" ")[2] in names or text.partition(" (")[0] in names
    return _regional_tag(text) if has_region else None


def folded(text: str) -> str:
    """`text` without case and accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part))


def _regional_tag(name: str) -> str | None:
    """The tag of a name such as "british english"."""
    import langcodes

    try:
        found = langcodes.find(name)
    except LookupError:
        return None
    # The library also takes a language's name with other words behind it.
    return found.to_tag() if found.territory or found.script else None


@cache
def _tags_by_name() -> dict[str, str]:
    import langcodes

    codes = [code for code in map("".join, product(ascii_lowercase, repeat=2)) if standard_code(code) == code]
    names: dict[str, str] = {}
    for tag in [*codes, *_OTHER_TAGS.split()]:
        language = langcodes.Language.get(tag)
        for own in (*(language.display_name(naming) for naming in _NAMING_LANGUAGES), language.autonym()):
            names.setdefault(folded(_SEPARATOR.sub(" ", own)), tag)
    return names | _OTHER_NAMES
