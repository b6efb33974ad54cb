"""Corpora by their name in the index of mtdata, https://github.com/thammegowda/mtdata, read as their layout is read.

`python -m data.fetch` looks a name up and notes what the index says beside the files; a build needs mtdata no more.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.cli import UserError, checked_config
from data.files import write_json
from data.sources.aligned import Moses
from data.sources.base import Source
from data.sources.compressed import COMPRESSED, TAR
from data.sources.delimited import Tsv
from data.sources.tmx_sgml import Sgml, Tmx, WmtXml

# In a process of its own: importing mtdata configures logging and reads a cache of its own in the user's home.
QUERY = """
import json, sys
from mtdata.index import INDEX
entries = {str(entry.did): entry for entry in INDEX.get_entries()}
found = {}
for name in sys.argv[1:]:
    entry = entries.get(name)
    if entry is None:
        word, languages = name.split("-")[1:2], name.split("-")[3:]
        found[name] = sorted(n for n in entries if n.split("-")[3:] == languages and word and word[0][:4] in n)[:8]
        continue
    urls = [entry.url] if isinstance(entry.url, str) else list(entry.url)
    citations = [INDEX.ref_db.get_bibtex(key) for key in entry.cite or ()]
    found[name] = {"urls": urls, "ext": entry.ext, "members": list(entry.in_paths or ()), "citations": citations,
                   "layout": entry.in_ext or "", "columns": list(entry.cols or ())}
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class IndexEntry:
    """What the index says of a corpus."""

    urls: tuple[str, ...]
    ext: str
    members: tuple[str, ...] = ()  # of an archive; patterns
    layout: str = ""  # of a member; empty: as `ext` says
    columns: tuple[int, ...] = ()  # of a table, from 0
    citations: tuple[str, ...] = ()  # BibTeX


@dataclass(frozen=True, kw_only=True)
class Mtdata(Source):
    """A corpus by its id in mtdata's index, such as OPUS-ccmatrix-v1-eng-zho; its files lie in `folder`."""

    id: str
    folder: str = "mtdata"

    @property
    def paths(self) -> tuple[str, ...]:
        """What the index says of the corpus."""
        return (f"{self.folder}/{self.id}.json",)

    def downloads(self, entry: IndexEntry) -> dict[str, str]:
        """Path -> address of its files."""
        numbers = [""] if len(entry.urls) == 1 else [f".{n}" for n in range(len(entry.urls))]
        return {f"{self.folder}/{self.id}{n}.{entry.ext}": url for n, url in zip(numbers, entry.urls, strict=True)}

    def expanded(self, root: str) -> Source:
        """The reader of the corpus's layout; UserError where it was not fetched."""
        try:
            note = json.loads(Path(root, *self.paths).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(
                f"source {self.name}: {self.id} is not fetched; run `python -m data.fetch CONFIG`"
            ) from None
        entry = checked_config(note, IndexEntry, f"{self.paths[0]}: ")
        common: dict[str, Any] = {field.name: vars(self)[field.name] for field in fields(Source)}
        files = tuple(self.downloads(entry))
        is_archive = entry.ext == "zip" or bool(TAR.search(f".{entry.ext}"))
        files = tuple(f"{files[0]}!{member}" for member in entry.members) if is_archive else files
        layout = entry.layout or COMPRESSED.sub("", entry.ext)
        is_flipped = not self.id.split("-")[3].startswith("eng")
        en, zh = (files[-1:], files[:1]) if is_flipped else (files[:1], files[-1:])
        if layout == "txt" and len(files) == 2:
            return Moses(**common, en=en, zh=zh)
        if layout == "sgm" and len(files) == 2:
            return Sgml(**common, en=en, zh=zh)
        if layout == "tsv":
            first, second = entry.columns or (0, 1)
            return Tsv(**common, files=files, en=1 + (second if is_flipped else first),
                       zh=1 + (first if is_flipped else second))  # fmt: skip
        if layout == "tmx":
            return Tmx(**common, files=files)
        if layout == "wmt21xml":
            return WmtXml(**common, files=files)
        raise UserError(f"source {self.name}: {self.id} is {layout} in {entry.ext}, which is not read; name its files")

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield what the reader of the layout yields."""
        return self.expanded(root).read(root)


def look_up(corpora: list[Mtdata], root: Path) -> dict[str, IndexEntry]:
    """What mtdata's index says, by id, noted beside where the files belong; UserError names ids like an unknown one."""
    with tempfile.TemporaryDirectory() as folder:  # mtdata imports every mtdata*.py of the working directory
        ids = [corpus.id for corpus in corpora]
        done = subprocess.run([sys.executable, "-c", QUERY, *ids], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        if "No module named 'mtdata'" in done.stderr:
            raise UserError("format mtdata: mtdata is not installed; pip install 'yuqiao[mtdata]'")
        raise UserError(f"mtdata: {done.stderr.strip().rpartition(chr(10))[2][:200]}")
    found = json.loads(done.stdout.strip().rpartition("\n")[2])
    for corpus in corpora:
        if isinstance(found[corpus.id], list):
            fix = (
                f"there are {', '.join(found[corpus.id])}" if found[corpus.id] else "`mtdata list -l eng-zho` lists ids"
            )
            raise UserError(f"source {corpus.name}: mtdata knows no {corpus.id!r}; {fix}")
    entries = {name: checked_config(note, IndexEntry, f"{name}: ") for name, note in found.items()}
    for corpus in corpora:
        path = root / corpus.paths[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(asdict(entries[corpus.id]), path)
    return entries
