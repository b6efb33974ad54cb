"""Mark-up out of text: HTML tags and entities, wiki quotes, subtitle codes; only in the rows that show its signs."""

import html
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.clean.alphabet import among
from data.clean.codepoints import Ints, Mask, Points, Text, decode, encode, replaced, rows_of
from data.compiled import compiled
from data.pair import TEXT

TAGS = re.compile(r"<[^<>\n]{1,120}>|\{\\[^{}\n]{0,200}(?:\}|$)|'{2,5}|\{[yY]:[a-z]{1,9}\}", re.MULTILINE)
ENTITY = re.compile(r"&(?:amp;)?(#?[0-9A-Za-z]{2,10};)")
BREAKS = re.compile(r"\\[Nnh]|<br ?/?>", re.IGNORECASE)
SIGNS = "<&{\\"  # a row with none of these, nor two apostrophes together, has no mark-up
QUOTE = ord("'")


def edited(text: Text, rows: Mask, edit: Callable[[str], str]) -> Text:
    """Apply `edit` to the few rows where `rows` is true, all in one string with a line a row."""
    chosen = np.flatnonzero(rows)
    if not len(chosen):
        return text
    column = pc.replace_substring_regex(encode(rows_of(text, chosen)), "[\\n\\r]", " ")
    changed = edit("\n".join(column.to_pylist())).split("\n")
    if len(changed) != len(chosen):
        raise AssertionError("an edit changed the number of lines")
    return replaced(text, chosen, decode(pa.array(changed, TEXT)))


def marked(text: Text) -> Mask:
    """True for the rows that may hold mark-up, [rows]."""
    found = np.zeros(text.rows, bool)
    _marked(text.points, text.starts, among(SIGNS), found)
    return found


@compiled
def _marked(points: Points, starts: Ints, signs: Mask, found: Mask) -> None:
    for row in range(len(found)):
        quoted = False
        for point in points[starts[row] : starts[row + 1]]:
            found[row] |= signs[point] or (quoted and point == QUOTE)
            quoted = point == QUOTE


def unmarked(lines: str) -> str:
    """HTML entities resolved (also twice-escaped ones), tags and subtitle codes removed."""
    lines = ENTITY.sub(_entity, lines)
    return TAGS.sub("", BREAKS.sub(" ", lines))


def _entity(match: re.Match[str]) -> str:
    plain = html.unescape("&" + match.group(1))
    return match.group(0) if plain.startswith("&") and len(plain) > 1 else plain.replace("\n", " ").replace("\r", " ")
