"""Seeded variants of a corpus's training rows: width, punctuation, spacing, case, tag order, code-switching."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser
from tqdm import tqdm

from data.build.shards import CORPUS
from data.cli import UserError, run_cli
from data.files import atomic_file

TO_HALF_WIDTH = str.maketrans("，。！？；：（）", ",.!?;:()")
TO_FULL_WIDTH = str.maketrans(",!?;:()", "，！？；：（）")
HAN_EDGE = re.compile(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])")
TAG_BREAK = re.compile(r"\s*[,，]\s*")
SOURCE_PREFIX = "augmented:"  # before the name of the source of a variant
Draw = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Share of the rows that each variant is made of, 0 to 1; at most one variant a row, and the row itself stays."""

    punctuation: float = 0.02  # Chinese punctuation half-width, or English-style with spaces
    spacing: float = 0.02  # a space between Chinese and Latin, or none at all
    case: float = 0.02  # English in lower, upper or title case
    tags: float = 0.05  # a list of tags in another order, the same on both sides
    switched: float = 0.05  # some Chinese words replaced by their English from the dictionary domain


@dataclass(frozen=True)
class Row:
    """The two sides of a pair."""

    en: str
    zh: str


def half_width(row: Row, draw: Draw) -> Row:
    """Chinese with ASCII punctuation, as many type it."""
    return Row(row.en, row.zh.translate(TO_HALF_WIDTH if draw.random() < 0.7 else TO_FULL_WIDTH))


def respaced(row: Row, draw: Draw) -> Row:
    """Spaces between Chinese and Latin put in or taken out."""
    if draw.random() < 0.5:
        return Row(row.en, HAN_EDGE.sub(" ", row.zh))
    return Row(row.en, re.sub(r"(?<=[\u4e00-\u9fff]) (?=[A-Za-z0-9])|(?<=[A-Za-z0-9]) (?=[\u4e00-\u9fff])", "", row.zh))


def recased(row: Row, draw: Draw) -> Row:
    """English in another case: the case of a prompt carries no meaning."""
    return Row((str.lower, str.upper, str.title)[int(draw.integers(3))](row.en), row.zh)


def reordered(row: Row, draw: Draw) -> Row:
    """A comma-separated list in another order, the same for both sides; other rows stay as they are."""
    en, zh = TAG_BREAK.split(row.en), TAG_BREAK.split(row.zh)
    if len(en) != len(zh) or len(en) < 3 or max(map(len, en)) > 40:
        return row
    order = draw.permutation(len(en))
    return Row(", ".join(en[i] for i in order), "，".join(zh[i] for i in order))


def make_code_switcher(glosses: dict[str, str]) -> Callable[[Row, Draw], Row]:
    """Code-switching: a Chinese word whose dictionary gloss occurs in the English side becomes that English.

    Words are the longest matches in the dictionary. Half of the rows get no spaces around the English, as many people
    type none and a tokenizer may split the two differently.
    """
    longest = max(map(len, glosses), default=0)

    def switched(row: Row, draw: Draw) -> Row:
        english, start, out, swaps = f" {row.en.lower()} ", 0, list[str](), 0
        space = " " if draw.random() < 0.5 else ""
        while start < len(row.zh):
            prefixes = (row.zh[start : start + size] for size in range(min(longest, len(row.zh) - start), 1, -1))
            word = next((prefix for prefix in prefixes if prefix in glosses), row.zh[start])
            gloss = glosses.get(word)
            if gloss and swaps < 2 and re.search(rf"\b{re.escape(gloss)}\b", english) and draw.random() < 0.5:
                left = " " if out and out[-1].isascii() else space  # two English words never run together
                out.append(f"{left}{gloss}{space}")
                swaps += 1
            else:
                out.append(word)
            start += len(word)
        return Row(row.en, " ".join("".join(out).split())) if swaps else row

    return switched


def load_glosses(tables: Iterator[pa.Table]) -> dict[str, str]:
    """Chinese word to one short English gloss, from rows of the dictionary domain; the first gloss stays."""
    glosses = dict[str, str]()
    for table in tables:
        words = table.filter(pa.compute.equal(table["domain"], "dictionary"))
        for en, zh in zip(words["en"].to_pylist(), words["zh"].to_pylist(), strict=True):
            gloss = en.lower().removeprefix("to ").removeprefix("a ").removeprefix("an ")
            if 1 <= len(zh) <= 6 and gloss.isascii() and len(gloss.split()) <= 2:
                glosses.setdefault(zh, gloss)
    return glosses


def augmented_rows(table: pa.Table, augmentation: Augmentation, glosses: dict[str, str], draw: Draw) -> pa.Table:
    """Variants of rows of `table`, marked in `source` and `id`."""
    transforms = (
        (augmentation.punctuation, half_width),
        (augmentation.spacing, respaced),
        (augmentation.case, recased),
        (augmentation.tags, reordered),
        (augmentation.switched, make_code_switcher(glosses)),
    )
    edges = np.cumsum([share for share, _ in transforms])
    chosen = np.searchsorted(edges, draw.random(table.num_rows), side="right")
    new_rows = list[dict[str, Any]]()
    picked = np.flatnonzero(chosen < len(transforms))
    for kind, row in zip(chosen[picked].tolist(), table.take(pa.array(picked)).to_pylist(), strict=True):
        old = Row(row["en"], row["zh"])
        new = transforms[kind][1](old, draw)
        if new != old and row["domain"] != "dictionary":
            name = transforms[kind][1].__name__
            new_rows.append(
                row
                | {"en": new.en, "zh": new.zh, "source": f"{SOURCE_PREFIX}{row['source']}", "id": f"{row['id']}~{name}"}
            )
    return pa.Table.from_pylist(new_rows, CORPUS)


def augment(corpus: Path, augmentation: Augmentation, seed: int) -> int:
    """Write `train/augmented-NNNNN.parquet` beside each shard, replacing older ones; returns the number of rows."""
    shards = sorted((corpus / "train").glob("part-*.parquet"))
    if not shards:
        raise UserError(f"{corpus}: no train/part-*.parquet in it; is this a folder that data.build wrote?")
    if sum(asdict(augmentation).values()) > 1:
        raise UserError("the shares of the variants add up to more than 1; lower them")
    glosses, total = load_glosses(pq.read_table(shard) for shard in shards), 0
    for number, shard in enumerate(tqdm(shards, desc="augment", unit=" shards")):
        table = augmented_rows(pq.read_table(shard), augmentation, glosses, np.random.default_rng([seed, number]))
        path = shard.with_name(shard.name.replace("part-", "augmented-"))
        with atomic_file(path) as partial:
            pq.write_table(table, partial, compression="zstd")
        total += table.num_rows
    return total


def main() -> None:
    """Read the command line and augment."""
    parser = ArgumentParser(prog="data.augment", description=__doc__, exit_on_error=False)
    parser.add_argument("corpus", type=Path, help="folder that data.build wrote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_class_arguments(Augmentation, as_group=False)
    args = parser.parse_args()
    shares = Augmentation(**{name: getattr(args, name) for name in Augmentation.__dataclass_fields__})
    print(f"{augment(args.corpus, shares, args.seed):,} rows made, marked {SOURCE_PREFIX}SOURCE")


if __name__ == "__main__":
    run_cli(main)
