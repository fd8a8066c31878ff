"""The narration of a synthetic video: a grammar of several hundred words about what the scene shows."""

from __future__ import annotations

import random
import re

from reserve.synthetic.story import COLOURS, SHAPES, Scene

COUNTS = ("one", "two", "three")
CLOSE_PROBABILITY = 0.1
PLAIN_PROBABILITY = 0.5

# Every sentence names the colour or the shape and takes about two seconds: any 1.7 s of speech identify the scene.
# {things} is the shape, singular or plural; {verb|…} is a verb that agrees with it.
# The first sentence of each kind is the plainest and is used half of the time.
SENTENCES = {
    "intro": (
        "{opener} {count} {colour} {things}",
        "{count} {size} {colour} {things}",
        "{time} {count} {colour} {things}",
        "{teller} {count} {colour} {things}",
        "{count} {things}, {colour} like {likeness}",
    ),
    "motion": (
        "{colour} {things} {move}",
        "{manner} {colour} {things} {move}",
        "our {mood} {things} {move}",
    ),
    "place": (
        "{things} {where}",
        "{colour} {things} {where}",
        "{where} {verb|stay} the {things}",
        "{mood} {things} {where}",
    ),
    "sound": (
        "{colour} {things} {cry}",
        "{things} {cry} like {source}",
        "hear, the {things} {cry}",
    ),
    "close": (
        "{praise} {colour} {things}",
        "{farewell} {colour} {things}",
    ),
}

OPENERS = (
    "look at", "now meet", "admire", "we have", "we meet", "we find", "watch", "you can see", "I spot", "greet",
    "notice", "behold", "follow", "imagine", "count", "discover",
)  # fmt: skip
TELLERS = (
    "grandmother drew", "the captain likes", "a girl painted", "our teacher brought", "the pilot found",
    "children know", "the king wanted", "nobody forgets", "my brother built", "the doctor dreamed", "someone lost",
    "a sailor wished",
)  # fmt: skip
TIMES = (
    "in the morning", "at noon", "in the evening", "after lunch", "before dinner", "on monday", "on tuesday",
    "on friday", "on sunday", "in winter", "in summer", "in spring", "a moment later", "once again", "soon",
    "finally",
)  # fmt: skip
SIZES = {
    1: ("giant", "huge", "big", "enormous", "great", "large", "massive", "single"),
    2: ("medium", "equal", "twin", "matching", "middle sized", "fine"),
    3: ("small", "little", "tiny", "short", "mini", "slim"),
}
MOODS = (
    "happy", "quiet", "brave", "gentle", "shiny", "funny", "clever", "proud", "friendly", "curious", "lazy", "wild",
    "calm", "bright", "lovely", "pretty", "strange", "magic", "busy", "cheerful",
)  # fmt: skip
MANNERS = (
    "slowly", "quickly", "gently", "smoothly", "again", "always", "carefully", "together", "now", "steadily",
    "often", "suddenly", "nicely", "bravely",
)  # fmt: skip
PRAISES = (
    "what wonderful", "such beautiful", "I love", "we enjoy", "everybody likes", "how nice are", "remember",
    "thank you", "well done",
)  # fmt: skip
FAREWELLS = ("goodbye", "see you later", "farewell", "so long", "good night", "bye bye", "we leave behind")

LIKENESSES = {
    "red": ("a cherry", "a tomato", "blood", "a fire engine"),
    "orange": ("a carrot", "a pumpkin", "a fox", "apricots"),
    "yellow": ("a banana", "the sun", "butter", "a lemon"),
    "green": ("grass", "a frog", "a leaf", "fresh peas"),
    "turquoise": ("a lagoon", "a jewel", "a peacock", "tropical water"),
    "blue": ("the sky", "a whale", "jeans", "ink"),
    "purple": ("grapes", "lavender", "a plum", "violets"),
    "pink": ("a flamingo", "bubble gum", "a piglet", "candy"),
    "brown": ("chocolate", "coffee", "a bear", "wood"),
    "white": ("milk", "snow", "paper", "a ghost"),
}
MOVES = {
    "left": ("{verb|slide} left", "{verb|drift} to the left", "{verb|turn} left"),
    "right": ("{verb|move} right", "{verb|travel} to the right", "{verb|run} right"),
    "up": ("{verb|rise} up high", "{verb|climb} up", "{verb|fly} up"),
    "down": ("{verb|fall} down", "{verb|sink} down low", "{verb|drop} down"),
    "around": ("{verb|spin} around", "{verb|go} round and round", "{verb|dance} around"),
    "bounce": ("{verb|bounce} like balls", "{verb|jump} and {verb|bounce}", "{verb|hop} and {verb|bounce}"),
    "grow": ("{verb|grow} and {verb|shrink}", "{verb|grow} bigger, smaller", "{verb|grow} like dreams"),
    "shake": ("{verb|shake} with cold", "{verb|tremble} and {verb|shake}", "{verb|shake} nervously"),
}
WHERES = {
    "beach": ("on the sandy beach", "at the beach", "on a warm beach", "at the beach with shells"),
    "sea": ("in the deep sea", "in the sea waves", "on the salty sea", "by the stormy sea"),
    "city": ("in the crowded city", "above the city towers", "in the city streets", "in a grey city"),
    "desert": ("in the dry desert", "over desert dunes", "in the hot desert", "by the desert cactus"),
    "farm": ("on the quiet farm", "at the farm with cows", "near the farm barn", "on the farm fields"),
    "forest": ("in the dark forest", "under forest trees", "among forest mushrooms", "in the wild forest"),
    "mountain": ("on a snowy mountain", "on the icy mountain", "up the steep mountain", "over mountain rocks"),
    "space": ("in outer space", "between space planets", "in endless space", "with space rockets"),
}
CRIES = {
    "circle": ("{verb|hum}", "{verb|hum} softly"),
    "square": ("{verb|drum}", "{verb|drum} loudly"),
    "triangle": ("{verb|chime}", "{verb|chime} clearly"),
    "star": ("{verb|chirp}", "{verb|chirp} merrily"),
    "heart": ("{verb|thump}", "{verb|thump} deeply"),
    "diamond": ("{verb|wail}", "{verb|wail} sadly"),
    "cross": ("{verb|buzz}", "{verb|buzz} harshly"),
    "ring": ("{verb|trill}", "{verb|trill} sweetly"),
    "moon": ("{verb|hiss}", "{verb|hiss} faintly"),
    "arrow": ("{verb|tick}", "{verb|tick} sharply"),
}
SOURCES = {
    "circle": ("a fridge", "an engine", "an organ"),
    "square": ("a marching band", "thunder", "a wooden box"),
    "triangle": ("a church bell", "a phone", "an alarm"),
    "star": ("a sparrow", "a cricket", "baby birds"),
    "heart": ("footsteps", "a pulse", "a hammer"),
    "diamond": ("a siren", "an ambulance", "a wolf"),
    "cross": ("a bee", "a saw", "an electric razor"),
    "ring": ("a flute", "a referee", "a canary"),
    "moon": ("the wind", "a snake", "a steam train"),
    "arrow": ("a clock", "a typewriter", "a metronome"),
}


def narrate(scene: Scene, rng: random.Random) -> list[str]:
    """The 4 or 5 sentences spoken during `scene`, with commas as their only punctuation."""
    parts = ["intro", "motion", "place", "sound"]
    if rng.random() < CLOSE_PROBABILITY:
        parts.append("close")
    return [_fill_slots(_choose(SENTENCES[part], rng), scene, rng) for part in parts]


def describe(scene: Scene) -> str:
    """A short description for titles and chapters, such as "two red stars at the beach"."""
    where = "in space" if scene.place == "space" else f"at the {scene.place}"
    return f"{COUNTS[scene.count - 1]} {scene.colour} {_things(scene)} {where}"


def vocabulary() -> set[str]:
    """Every word that a narration can contain, in lower case."""
    texts = [*COLOURS, *COUNTS, *SHAPES, *map(plural, SHAPES)]
    texts += [*OPENERS, *TELLERS, *TIMES, *MOODS, *MANNERS, *PRAISES, *FAREWELLS]
    for table in (SENTENCES, SIZES, LIKENESSES, MOVES, WHERES, CRIES, SOURCES):
        texts += [text for entries in table.values() for text in entries]
    words: set[str] = set()
    for text in texts:
        for verb in re.findall(r"\{verb\|(\w+)\}", text):
            words |= {verb, third_person(verb)}
        words |= set(re.findall(r"[a-z']+", re.sub(r"\{[^}]*\}", "", text).lower()))
    return words


def _choose(sentences: tuple[str, ...], rng: random.Random) -> str:
    return sentences[0] if rng.random() < PLAIN_PROBABILITY else rng.choice(sentences[1:])


def _fill_slots(sentence: str, scene: Scene, rng: random.Random) -> str:
    """Fills the slots of a sentence for `scene`."""
    choices = {
        "opener": OPENERS,
        "teller": TELLERS,
        "time": TIMES,
        "mood": MOODS,
        "manner": MANNERS,
        "praise": PRAISES,
        "farewell": FAREWELLS,
        "size": SIZES[scene.count],
        "likeness": LIKENESSES[scene.colour],
        "move": MOVES[scene.motion],
        "where": WHERES[scene.place],
        "cry": CRIES[scene.shape],
        "source": SOURCES[scene.shape],
    }
    fixed = {"colour": scene.colour, "count": COUNTS[scene.count - 1], "things": _things(scene)}

    def fill(slot: re.Match[str]) -> str:
        name = slot.group(1)
        return fixed[name] if name in fixed else rng.choice(choices[name])

    while "{" in sentence:
        sentence = re.sub(r"\{([^}]*)\}", fill, agreeing(sentence, scene))
    return sentence


def agreeing(text: str, scene: Scene) -> str:
    """`text` with its slots {verb|…} filled by verbs in the number of the scene's things."""
    return re.sub(r"\{verb\|(\w+)\}", lambda verb: verb[1] if scene.count > 1 else third_person(verb[1]), text)


def _things(scene: Scene) -> str:
    return scene.shape if scene.count == 1 else plural(scene.shape)


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def third_person(verb: str) -> str:
    """The third person singular of a verb: slide, slides; fly, flies; buzz, buzzes."""
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")
