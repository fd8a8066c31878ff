"""The special token ids of the released vocabulary (SPEC 3). Ids 10 and up are ordinary byte-level BPE tokens."""

PAD = 0
START = 1
END = 2
MASK = 3
MASKAUDIO = 4
AUDIOSPAN = 5
LTOVPOOL = 6
UNUSED0 = 7
UNK = 8
RESETCTX = 9

SPECIAL_TOKENS = (
    "<|PAD|>",
    "<|START|>",
    "<|END|>",
    "<|MASK|>",
    "<|MASKAUDIO|>",
    "<|AUDIOSPAN|>",
    "<|LTOVPOOL|>",
    "<|unused0|>",
    "<|UNK|>",
    "<|RESETCTX|>",
)
"""The special tokens as text; the index of each is its id."""

VOCABULARY_SIZE = 32768
