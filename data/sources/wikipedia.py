"""Wikipedia's dumps: titles that language links pair, and the abstracts of the articles under them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.cli import UserError
from data.sources.base import Pair, Source, pair_batches
from data.sources.io import open_decompressed, read_lines
from data.sources.tmx_sgml import iter_elements

INSERT = re.compile(r"\((\d+),'((?:[^'\\]|\\.)*)','((?:[^'\\]|\\.)*)'\)")
PAGE = re.compile(r"\((\d+),0,'((?:[^'\\]|\\.)*)',")
PREFIX = re.compile(r"^(?:Wikipedia|维基百科|維基百科)[:：]\s*")


@dataclass(frozen=True)
class LinkedArticle:
    """An article that both Wikipedias have."""

    page: int  # its id in the English one
    en: str
    zh: str


@dataclass(frozen=True, kw_only=True)
class WikipediaTitles(Source):
    """enwiki's `langlinks.sql` and `page.sql` dumps: titles of articles that both Wikipedias have."""

    langlinks: str
    page: str
    language: str = "zh"

    @property
    def paths(self) -> tuple[str, ...]:
        """The links, then the pages."""
        return (self.langlinks, self.page)

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair a linked article; `line` is its page id."""
        articles = self.linked_articles(root)
        yield from pair_batches(
            (Pair(_strip_disambiguation(a.en), _strip_disambiguation(a.zh), a.page) for a in articles), 0
        )

    def linked_articles(self, root: str) -> Iterator[LinkedArticle]:
        """The articles in the order of the pages, titles as they stand."""
        links = dict[str, str]()
        for lines in read_lines(root, self.langlinks, self.encoding):
            for line in lines.text.to_pylist():
                for match in INSERT.finditer(line):
                    if match[2] == self.language:
                        links[match[1]] = _unescape_title(match[3])
        if not links:
            raise UserError(
                f"{self.langlinks}: no link to language {self.language!r}; is this enwiki's langlinks dump?"
            )
        for lines in read_lines(root, self.page, self.encoding):
            for line in lines.text.to_pylist():
                for match in PAGE.finditer(line):
                    if match[1] in links:
                        yield LinkedArticle(int(match[1]), _unescape_title(match[2]), links[match[1]])


@dataclass(frozen=True, kw_only=True)
class WikipediaAbstracts(WikipediaTitles):
    """The abstracts dumps of both Wikipedias (`*-abstract.xml.gz`) under the same links.

    The two are written independently, so they are comparable, not parallel: set `min_similarity` for the domain.
    """

    en: str
    zh: str

    @property
    def paths(self) -> tuple[str, ...]:
        """The English abstracts, the Chinese ones, the links, the pages."""
        return (self.en, self.zh, self.langlinks, self.page)

    def read(self, root: str) -> Iterator[pa.RecordBatch]:
        """Yield one pair an article that has an abstract in English; `line` counts the English abstracts."""
        zh_titles = {linked.en: linked.zh for linked in self.linked_articles(root)}
        wanted = set(zh_titles.values())
        chinese = {title: text for title, text in abstracts(root, self.zh) if title in wanted}
        yield from pair_batches(self._pairs(root, zh_titles, chinese), 0)

    def _pairs(self, root: str, zh_titles: dict[str, str], chinese: dict[str, str]) -> Iterator[Pair]:
        for number, (title, text) in enumerate(abstracts(root, self.en), 1):
            other = chinese.get(zh_titles.get(title, ""))
            yield Pair(text, other or "", number, fault="one_sided" if other is None else "")


def abstracts(root: str, path: str) -> Iterator[tuple[str, str]]:
    """Title and abstract of every article of a dump, streamed."""
    with open_decompressed(root, path) as stream:
        for article in iter_elements(stream, path, "doc"):
            title = PREFIX.sub("", article.findtext("title") or "").strip()
            yield title, "".join("".join(part.itertext()) for part in article.iter("abstract")).strip()


def _unescape_title(written: str) -> str:
    """A title of a SQL dump as readers see it: no escapes, no underscores."""
    return re.sub(r"\\(.)", r"\1", written).replace("_", " ")


def _strip_disambiguation(title: str) -> str:
    """A title without "(disambiguation)"."""
    return re.sub(r" \([^()]*\)$", "", title)
