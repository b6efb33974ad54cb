"""How the sides end: a question beside a statement, a sentence beside one that was cut off."""

import numpy as np
import numpy.typing as npt

from data.clean.alphabet import among
from data.clean.codepoints import Ints, Mask, Points, Text
from data.compiled import compiled

CLOSING = "\"'”’)）」』》】]"  # may stand after the stop
STOPS, QUESTIONS = ".!。！…", "?？"
NONE, STOP, QUESTION = 0, 1, 2


def endings(en: Text, zh: Text) -> npt.NDArray[np.float32]:
    """1 where one side asks and the other does not, 0.5 where only one side ends in a stop, else 0, [rows]."""
    left, right = _kinds(en), _kinds(zh)
    asks = (left == QUESTION) != (right == QUESTION)
    return np.where(asks, 1, np.where(left != right, 0.5, 0)).astype(np.float32)


def _kinds(text: Text) -> npt.NDArray[np.int8]:
    kinds = np.zeros(text.rows, np.int8)
    _look_at_ends(text.points, text.starts, among(CLOSING), among(STOPS), among(QUESTIONS), kinds)
    return kinds


@compiled
def _look_at_ends(
    points: Points, starts: Ints, closing: Mask, stops: Mask, questions: Mask, kinds: npt.NDArray[np.int8]
) -> None:
    for row in range(len(kinds)):
        place = starts[row + 1] - 1
        while place >= starts[row] and closing[points[place]]:
            place -= 1
        if place >= starts[row]:
            kinds[row] = QUESTION if questions[points[place]] else STOP if stops[points[place]] else NONE
