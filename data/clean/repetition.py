"""Text that repeats itself: "ha ha ha ha", "la la la", an alphabet of dashes."""

import numpy as np
import numpy.typing as npt

from data.clean.codepoints import Ints, Points, Text
from data.compiled import compiled

PERIODS, SHORTEST = 8, 24  # characters


def periodic(text: Text) -> npt.NDArray[np.float32]:
    """Largest share, over periods of 1 to 8, of characters that equal the one a period before; rows under 24 are 0."""
    best = np.zeros(text.rows, np.float32)
    _periodic(text.points, text.starts, best)
    return best


@compiled
def _periodic(points: Points, starts: Ints, best: npt.NDArray[np.float32]) -> None:
    for row in range(len(best)):
        part = points[starts[row] : starts[row + 1]]
        if len(part) < SHORTEST:
            continue
        for period in range(1, PERIODS + 1):
            same = 0
            for place in range(len(part) - period):
                same += part[place] == part[place + period]
            best[row] = max(best[row], np.float32(same / (len(part) - period)))
