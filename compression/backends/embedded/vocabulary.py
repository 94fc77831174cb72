"""The closed vocabulary of the embedded model, and how free text is brought onto it."""

from __future__ import annotations

import re
from functools import cache

from compression.backends.embedded.cells import CELL_NAMES, THUMBNAIL
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.textures import COLOURS, COVERS, TYPES

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<image>")
PAD_ID, BOS_ID, EOS_ID, UNKNOWN_ID, IMAGE_ID = range(len(SPECIAL_TOKENS))
LETTERS = ("A", "B", "C", "D")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
QUARTERS = ("northwest", "northeast", "southwest", "southeast")
SIDES = ("north", "south", "east", "west")
YES_NO = ("yes", "no")

_FRAME_WORDS = (
    "question answer options : ? is there a how many are objects object what colour the land cover around where "
    "relative to in which quarter on side of river has most buildings building corner largest road cell"
)
# What people write → what the model was taught. Plain plurals of types are words of their own.
_SYNONYMS = {
    "an": "a",
    "color": "colour",
    "colored": "colour",
    "coloured": "colour",
    "airplane": "plane",
    "airplanes": "planes",
    "aeroplane": "plane",
    "aircraft": "plane",
    "boat": "ship",
    "boats": "ships",
    "vessel": "ship",
    "lorry": "truck",
    "lorries": "trucks",
    "automobile": "car",
    "woods": "forest",
    "woodland": "forest",
    "cropland": "farmland",
    "fields": "farmland",
    "grassland": "grass",
    "meadow": "grass",
    "sand": "desert",
    "biggest": "largest",
    "houses": "buildings",
    "house": "building",
    "violet": "purple",
    "quadrant": "quarter",
    "landcover": "land cover",
    "0": "zero",
    "1": "one",
    "2": "two",
    "3": "three",
    "4": "four",
    "5": "five",
    "6": "six",
}
_COMPOUND = re.compile(r"\b(north|south)[\s-]+(east|west)(?:ern)?\b")
_OPTIONS = re.compile(r"\boptions\s*:", re.IGNORECASE)
_LETTER = re.compile(r"\b([A-D])\b")
_SPLIT = re.compile(r"[a-z0-9]+|[?]")


@cache
def vocabulary() -> dict[str, int]:
    """Number every word the model knows: special tokens first, then letters, then words in order.

    Returns:
        Word → token id.
    """
    words = set(_FRAME_WORDS.split())
    for fact in FACTS:
        words |= set(fact.text.split()) | set(fact.choices)
    words |= {*CELL_NAMES, THUMBNAIL, *COLOURS, *TYPES, *COVERS, *NUMBERS, *QUARTERS, *SIDES, *YES_NO} | {
        f"{kind}s" for kind in TYPES
    }
    return {word: index for index, word in enumerate((*SPECIAL_TOKENS, *LETTERS, *sorted(words)))}


VOCABULARY = vocabulary()


def tokenise_text(text: str) -> tuple[str, ...]:
    """Split free text into lower-case words, with synonyms and spellings brought onto the vocabulary.

    Words the model does not know stay as they are: `unknown_words` lists them. Punctuation other than "?" is dropped.

    >>> tokenise_text("What color is the airplane, please?")
    ('what', 'colour', 'is', 'the', 'plane', 'please', '?')
    """
    stem, *options = _OPTIONS.split(text, maxsplit=1)
    plain = _COMPOUND.sub(r"\1\2", stem.lower())
    words: list[str] = []
    for word in _SPLIT.findall(plain):
        word = _SYNONYMS.get(word, word)
        if word not in VOCABULARY and word.endswith("s") and word[:-1] in VOCABULARY:
            word = word[:-1]
        elif word not in VOCABULARY and word.endswith("ern") and word[:-3] in VOCABULARY:
            word = word[:-3]
        words.extend(word.split())
    if options:
        # The letters of options are words of their own, unlike the article "a".
        listed = (_LETTER.split(part) for part in options)
        words.append("options")
        for pieces in listed:
            for piece in pieces:
                words.extend((piece,) if piece in LETTERS else tokenise_text(piece))
    return tuple(words)


def unknown_words(text: str) -> tuple[str, ...]:
    """List the words of a text that the model was never taught, in order and once each.

    >>> unknown_words("Is there a red zebra?")
    ('zebra',)
    """
    return tuple(dict.fromkeys(word for word in tokenise_text(text) if word not in VOCABULARY))
