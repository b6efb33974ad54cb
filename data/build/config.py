"""A corpus config: its sources, the benchmarks to keep out, the limits of the cleaning, how much is held out."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.cli import UserError, checked_config, read_yaml
from data.sources.aligned import Captions, Interleaved, Moses
from data.sources.base import Source
from data.sources.delimited import Csv, Markdown, Tsv
from data.sources.dictionaries import Cedict, Omw
from data.sources.documents import Mapping, Poems, PromptList, Squad, Tags
from data.sources.jsonl import Jsonl, JsonRecords
from data.sources.localisation import ByKey
from data.sources.mtdata import Mtdata
from data.sources.subtitles import Srt, Subtitles
from data.sources.tables import Hub, Parquet, Xlsx
from data.sources.tmx_sgml import Sgml, Tmx, WmtXml
from data.sources.wikipedia import WikipediaAbstracts, WikipediaTitles

Floats = npt.NDArray[np.float32]

# The formats by the name that `format:` of a source gives.
FORMATS: dict[str, type[Source]] = {
    "tsv": Tsv,
    "moses": Moses,
    "jsonl": Jsonl,
    "json": JsonRecords,
    "csv": Csv,
    "parquet": Parquet,
    "hub": Hub,
    "xlsx": Xlsx,
    "mtdata": Mtdata,
    "tmx": Tmx,
    "sgml": Sgml,
    "wmt_xml": WmtXml,
    "by_key": ByKey,
    "interleaved": Interleaved,
    "markdown": Markdown,
    "srt": Srt,
    "subtitles": Subtitles,
    "captions": Captions,
    "poems": Poems,
    "squad": Squad,
    "prompt_list": PromptList,
    "tags": Tags,
    "mapping": Mapping,
    "cedict": Cedict,
    "omw": Omw,
    "wikipedia_titles": WikipediaTitles,
    "wikipedia_abstracts": WikipediaAbstracts,
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one domain; a field a rule, in the order in which they are checked."""

    min_en_chars: int = 1
    min_zh_chars: int = 1
    max_en_chars: int = 480  # CLIP reads 77 tokens, about 330 characters
    max_zh_chars: int = 180
    min_en_latin: float = 0.7  # of the letters
    min_zh_han: float = 0.3  # of Han characters and foreign words; Chinese text may name things in Latin letters
    max_zh_kana: float = 0.1
    max_run: int = 9  # one character repeated
    max_period: float = 0.8
    max_marks: float = 0.5  # punctuation and symbols among all but spaces
    max_ratio_deviations: float = 5.0  # |log length ratio - its median in the domain|, in robust deviations
    max_brackets: int = 2  # unbalanced brackets
    numbers: bool = True  # reject rows whose numbers disagree
    max_foreign: float = 0.15  # foreign less English function words, as a share of words
    max_cantonese: int = 0  # characters that only written Cantonese has
    max_banned: int = 0  # 1: keep rows with a word of the config's `banned_words`
    max_ending: float = 1.0  # 1: anything; 0.5: no question beside a statement; 0: both sides end alike
    max_benchmark_held: float = 0.75  # of a benchmark text's n-grams in the row, on either side
    max_benchmark_alike: float = 0.6  # n-gram similarity to a benchmark text, on either side
    near_duplicate: float = 0.85  # estimated similarity to an earlier pair; above 1: off
    min_similarity: float = -1.0  # cosine of the sides' sentence vectors; -1: not measured
    max_shift: float = 2.0  # how much better a neighbouring line may fit; 2: not measured
    shift_below: float = 0.45  # a pair at least this similar is never called shifted
    max_same_en: int = 8  # rows that may share an English side; the first in the order of the config stay
    max_same_zh: int = 8

    @property
    def needs_similarity(self) -> bool:
        """Whether these limits need sentence vectors."""
        return self.min_similarity > -1 or self.max_shift < 2


# What a domain has instead of the defaults above; `limits` and `limits_by_domain` of a config go before both.
# Names and tags are short, several to a thing and alike: their ratios vary, and a near repetition is another name.
DOMAIN_LIMITS: dict[str, dict[str, Any]] = {
    "dictionary": {
        "max_ratio_deviations": 8.0, "min_en_latin": 0.9, "max_same_en": 40, "max_foreign": 1.0, "near_duplicate": 2.0,
    },
    "prompt": {"max_ratio_deviations": 8.0, "max_foreign": 1.0, "near_duplicate": 2.0},
    "poetry": {"near_duplicate": 0.92},
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One reject reason: rows where `severity` exceeds `limit`."""

    reason: str
    severity: Floats  # [rows]
    limit: float


def reject_rules(score: dict[str, Floats], limits: Limits) -> list[Rule]:
    """The rules in the order in which they are checked; the first that a row breaks is its reason."""
    return [
        Rule("en_empty", -score["en_chars"], -limits.min_en_chars + 0.5),
        Rule("zh_empty", -score["zh_chars"], -limits.min_zh_chars + 0.5),
        Rule("identical", score["identical"], 0.5),
        Rule("zh_script", -score["zh_han"], -limits.min_zh_han),
        Rule("zh_kana", score["zh_kana"], limits.max_zh_kana),
        Rule("en_script", -score["en_latin"], -limits.min_en_latin),
        Rule("marks", score["marks"], limits.max_marks),
        Rule("en_long", score["en_chars"], limits.max_en_chars),
        Rule("zh_long", score["zh_chars"], limits.max_zh_chars),
        Rule("run", score["run"], limits.max_run),
        Rule("repetition", score["period"], limits.max_period),
        Rule("brackets", score["brackets"], limits.max_brackets),
        Rule("en_language", score["foreign"], limits.max_foreign),
        Rule("zh_language", score["cantonese"], limits.max_cantonese),
        Rule("numbers", score["numbers"], 0.5 if limits.numbers else 2.0),
        Rule("banned_word", score["banned"], limits.max_banned + 0.5),
        Rule("ending", score["ending"], limits.max_ending),
        Rule("benchmark_overlap", np.maximum(score["en_held"], score["zh_held"]), limits.max_benchmark_held),
        Rule("benchmark_near", np.maximum(score["en_alike"], score["zh_alike"]), limits.max_benchmark_alike),
    ]


@dataclass(frozen=True, kw_only=True)
class Download:
    """A published file that `python -m data.fetch` brings to `path`; checked where `sha256` or `size` are stated."""

    path: str
    url: str = ""  # empty: it must be fetched by hand, as `note` says
    sha256: str = ""
    size: int = 0  # in bytes
    note: str = ""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url {self.url!r} does not start with https:// or http://")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The whole config of one corpus; `limits` override DOMAIN_LIMITS, and `limits_by_domain` `limits`, by field."""

    sources: tuple[dict[str, Any], ...]
    benchmarks: tuple[str, ...] = ()
    benchmark_folder: str = ""  # where `benchmarks` that are names, such as flickr30k-cn, are looked for
    banned_words: str = ""  # a file with a word a line; rows that hold one are rejected
    limits: dict[str, Any] = field(default_factory=dict)
    limits_by_domain: dict[str, dict[str, Any]] = field(default_factory=dict)
    valid_per_domain: int = 200
    rows_per_shard: int = 500_000
    downloads: tuple[Download, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty; name at least one")
        if self.rows_per_shard < 1 or self.valid_per_domain < 0:
            raise ValueError("rows_per_shard must be at least 1 and valid_per_domain at least 0")


@dataclass(frozen=True)
class ResolvedCorpus:
    """A checked config: typed sources, and limits for each domain."""

    root: str  # folder of the config file; every relative path starts here
    config_text: str  # the config file as it stands
    config: CorpusConfig
    sources: tuple[Source, ...]
    limits: dict[str, Limits]


def load_corpus_config(path: Path) -> ResolvedCorpus:
    """Read and check a corpus config; UserError names the file and the key."""
    config, root = read_yaml(path, CorpusConfig, "CONFIG"), str(path.resolve().parent)
    parsed = [parse_source(entry, f"{path}: sources.{n}") for n, entry in enumerate(config.sources)]
    sources = tuple(source.expanded(root) for source in parsed)
    name, count = Counter(source.name for source in sources).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: two sources are named {name!r}; names must differ")
    domains = list[str](dict.fromkeys(source.domain for source in sources))
    for domain in config.limits_by_domain:
        if domain not in domains:
            raise UserError(
                f"{path}: limits_by_domain.{domain}: no source has this domain; they have {', '.join(domains)}"
            )
    limits = {domain: _domain_limits(config, domain, path) for domain in domains}
    return ResolvedCorpus(root, path.read_text(encoding="utf-8"), config, sources, limits)


def parse_source(entry: dict[str, Any], location: str) -> Source:
    """One entry of `sources`, as the reader that its format names; UserError begins with its `location`."""
    name, format_name = entry.get("name", "no name"), entry.get("format")
    where = f"{location} ({name}): "
    if not isinstance(format_name, str) or format_name not in FORMATS:
        raise UserError(f"{where}format {format_name!r} is not one of {', '.join(FORMATS)}")
    source = checked_config({key: entry[key] for key in entry if key != "format"}, FORMATS[format_name], where)
    if not source.paths:
        raise UserError(f"{where}files is empty; name at least one")
    if any("\0" in path for path in source.paths):
        raise UserError(f"{where}a path holds a NUL character; in quotes write a backslash twice")
    if not source.license.strip():
        raise UserError(f"{where}license is empty; name the licence that the publisher states")
    if not source.name or not all(c.isalnum() or c in "-_." for c in source.name) or source.name[0] == ".":
        raise UserError(f"{where}source name {source.name!r}: use letters, digits, '-', '_' and '.'")
    return source


def _domain_limits(config: CorpusConfig, domain: str, path: Path) -> Limits:
    checked_config(config.limits, Limits, f"{path}: limits.")
    overrides = config.limits | config.limits_by_domain.get(domain, {})
    return checked_config(DOMAIN_LIMITS.get(domain, {}) | overrides, Limits, f"{path}: limits_by_domain.{domain}.")
