"""What the words of a question name, as numbers: the targets of supervised attention."""

from __future__ import annotations

from compression.backends.embedded.cells import CELL_NAMES
from compression.backends.embedded.textures import COLOUR_NAMES, TYPES
from compression.backends.embedded.vocabulary import QUARTERS, VOCABULARY

# A type's index, or one of these.
ANY_OBJECT, BUILDINGS, RIVER, FIRST_CORNER, FIRST_CELL = 6, 7, 8, 10, 20
NAMES: dict[int, int] = {
    **{VOCABULARY[kind]: index for index, kind in enumerate(TYPES)},
    **{VOCABULARY[f"{kind}s"]: index for index, kind in enumerate(TYPES)},
    VOCABULARY["object"]: ANY_OBJECT,
    VOCABULARY["objects"]: ANY_OBJECT,
    VOCABULARY["buildings"]: BUILDINGS,
    VOCABULARY["river"]: RIVER,
}
PLURALS = {VOCABULARY["objects"], *(VOCABULARY[f"{kind}s"] for kind in TYPES)}
COLOUR_IDS = {VOCABULARY[colour]: index for index, colour in enumerate(COLOUR_NAMES)}
QUARTER_IDS = {VOCABULARY[quarter]: index for index, quarter in enumerate(QUARTERS)}
# Row-major over the largest layout.
CELL_IDS = {VOCABULARY[name]: index for index, name in enumerate(CELL_NAMES)}
