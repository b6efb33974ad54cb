"""A corpus config: which sources, which benchmarks to keep out, what is accepted, how much is held out.

The formats by name: what `format:` of a source in a corpus config may say.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from data.clean.rules import Limits
from data.cli import UserError
from data.sources.aligned import Captions, Moses
from data.sources.base import Source
from data.sources.delimited import Csv, Tsv
from data.sources.dictionaries import Cedict, Omw
from data.sources.documents import Poems, PromptList, Squad, Tags
from data.sources.jsonl import Jsonl
from data.sources.subtitles import Srt, Subtitles
from data.sources.tables import Hub, Mapping, Parquet
from data.sources.tmx_sgml import Sgml, Tmx
from data.sources.wikipedia import WikipediaAbstracts, WikipediaTitles

FORMATS: dict[str, type[Source]] = {
    "tsv": Tsv,
    "moses": Moses,
    "jsonl": Jsonl,
    "csv": Csv,
    "parquet": Parquet,
    "hub": Hub,
    "tmx": Tmx,
    "sgml": Sgml,
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


DOMAINS = ("caption", "general", "subtitle", "encyclopedia", "news", "poetry", "prompt", "dictionary")
ConfigClass = TypeVar("ConfigClass")
SPACES = ("remove", "comma", "keep")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The whole config of one corpus; `limits_by_domain` overrides `limits` field by field."""

    sources: tuple[dict[str, Any], ...]
    benchmarks: tuple[str, ...] = ()
    benchmark_folder: str = ""  # where `benchmarks` that are names, such as flickr30k-cn, are looked for
    banned_words: str = ""  # a file with a word a line; rows that hold one go
    limits: Limits = field(default_factory=Limits)
    limits_by_domain: dict[str, dict[str, Any]] = field(default_factory=dict)
    valid_per_domain: int = 200
    rows_per_shard: int = 500_000


@dataclass(frozen=True)
class ResolvedCorpus:
    """A checked recipe: typed sources, and limits for each domain."""

    root: str  # folder of the config file; every relative path starts here
    config_text: str  # the config file as it stands
    config: CorpusConfig
    sources: tuple[Source, ...]
    limits: dict[str, Limits]


def load_corpus_config(path: Path) -> ResolvedCorpus:
    """Read and check a corpus config; UserError names the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a corpus config") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        raw_config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw_config, dict):
        raise UserError(f"{path}: a corpus config is a mapping with the key `sources`; see configs/corpus/")
    config = parse_config(CorpusConfig, raw_config, str(path))
    if config.rows_per_shard < 1 or config.valid_per_domain < 0:
        raise UserError(f"{path}: rows_per_shard must be at least 1 and valid_per_domain at least 0")
    sources = tuple(_parse_source(entry, f"{path}: sources.{n}") for n, entry in enumerate(config.sources))
    _check_names(sources, path)
    unknown = set(config.limits_by_domain) - {source.domain for source in sources}
    if unknown:
        raise UserError(f"{path}: limits_by_domain.{sorted(unknown)[0]}: no source has this domain")
    limits = {source.domain: _domain_limits(config, source.domain, path) for source in sources}
    return ResolvedCorpus(str(path.resolve().parent), text, config, sources, limits)


def parse_config(config_class: type[ConfigClass], raw_config: dict[str, Any], location: str) -> ConfigClass:
    """An instance of dataclass `kind` from a mapping, by jsonargparse; unknown keys are errors that name the key."""
    known = [f.name for f in fields(cast(Any, config_class))]
    for key in raw_config:
        if key not in known:
            raise UserError(f"{location}: unknown key {key!r}; the keys are {', '.join(known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, "it", fail_untyped=False)
    try:
        return cast(ConfigClass, parser.instantiate_classes(parser.parse_object({"it": raw_config})).it)
    except ArgumentError as error:
        raise UserError(f"{location}: {str(error).replace('it.', '')}") from error


def _parse_source(entry: dict[str, Any], location: str) -> Source:
    name = entry.get("name", "no name")
    options = {key: value for key, value in entry.items() if key != "format"}
    format_name = entry.get("format")
    if format_name not in FORMATS:
        raise UserError(f"{location} ({name}): format {format_name!r} is not one of {', '.join(FORMATS)}")
    source: Source = parse_config(FORMATS[format_name], options, f"{location} ({name})")
    if source.domain not in DOMAINS:
        raise UserError(f"{location} ({name}): domain {source.domain!r} is not one of {', '.join(DOMAINS)}")
    if source.spaces not in SPACES:
        raise UserError(f"{location} ({name}): spaces {source.spaces!r} is not one of {', '.join(SPACES)}")
    if not source.paths:
        raise UserError(f"{location} ({name}): files is empty; name at least one")
    if not source.license.strip():
        raise UserError(f"{location} ({name}): license is empty; name the licence that the publisher states")
    return source


def _check_names(sources: tuple[Source, ...], path: Path) -> None:
    seen = set[str]()
    if not sources:
        raise UserError(f"{path}: sources is empty; name at least one")
    for source in sources:
        if not source.name or not all(c.isalnum() or c in "-_." for c in source.name) or source.name[0] == ".":
            raise UserError(f"{path}: source name {source.name!r}: use letters, digits, '-', '_' and '.'")
        if source.name in seen:
            raise UserError(f"{path}: two sources are named {source.name!r}; names must differ")
        seen.add(source.name)


def _domain_limits(config: CorpusConfig, domain: str, path: Path) -> Limits:
    overrides = config.limits_by_domain.get(domain, {})
    parse_config(Limits, overrides, f"{path}: limits_by_domain.{domain}")
    return replace(config.limits, **overrides)
