"""What OpenCC makes of characters that stand alone."""

import opencc

_CHINESE = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0xF900, 0xFB00), *range(0x20000, 0x2A6E0)]


def changed_alone(way: opencc.OpenCC) -> dict[int, str]:
    """Code point to what `way` makes of its character, for all that it changes."""
    found = way.convert("\n".join(map(chr, _CHINESE))).split("\n")
    return {point: new for point, new in zip(_CHINESE, found, strict=True) if new != chr(point)}
