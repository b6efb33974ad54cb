"""Steps whose gradient is out of all proportion to those before it."""

import math
import statistics
from collections.abc import Iterable

WINDOW = 128
_FEWEST = 16  # norms that must be known before one can stand out
_LEAST = 0.05  # deviation of the logarithm: a very even run must not call 10 % more a spike


def is_spike(norm: float, before: Iterable[float], most: float) -> bool:
    """Whether `norm` lies more than `most` robust deviations above the norms `before`, all on a logarithmic scale.

    The deviation is 1.4826 times the median distance from the median, which one spike among them does not move.
    """
    logs = [math.log(max(each, 1e-30)) for each in before]
    if len(logs) < _FEWEST:
        return False
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(each - middle) for each in logs)
    return math.log(max(norm, 1e-30)) - middle > most * max(deviation, _LEAST)
