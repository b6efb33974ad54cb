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
Kind = TypeVar("Kind")
SPACES = ("remove", "comma", "keep")


@dataclass(frozen=True, kw_only=True)
class Recipe:
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
class Plan:
    """A checked recipe: typed sources, and limits for each domain."""

    root: str  # folder of the config file; every relative path starts here
    text: str  # the config file as it stands
    recipe: Recipe
    sources: tuple[Source, ...]
    limits: dict[str, Limits]


def load_plan(path: Path) -> Plan:
    """Read and check a corpus config; UserError names the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a corpus config") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(written, dict):
        raise UserError(f"{path}: a corpus config is a mapping with the key `sources`; see configs/corpus/")
    recipe = parsed(Recipe, written, str(path))
    if recipe.rows_per_shard < 1 or recipe.valid_per_domain < 0:
        raise UserError(f"{path}: rows_per_shard must be at least 1 and valid_per_domain at least 0")
    sources = tuple(_source(entry, f"{path}: sources.{n}") for n, entry in enumerate(recipe.sources))
    _check_names(sources, path)
    unknown = set(recipe.limits_by_domain) - {source.domain for source in sources}
    if unknown:
        raise UserError(f"{path}: limits_by_domain.{sorted(unknown)[0]}: no source has this domain")
    limits = {source.domain: _limits(recipe, source.domain, path) for source in sources}
    return Plan(str(path.resolve().parent), text, recipe, sources, limits)


def parsed(kind: type[Kind], written: dict[str, Any], where: str) -> Kind:
    """An instance of dataclass `kind` from a mapping, by jsonargparse; unknown keys are errors that name the key."""
    known = [f.name for f in fields(cast(Any, kind))]
    for key in written:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; the keys are {', '.join(known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "it", fail_untyped=False)
    try:
        return cast(Kind, parser.instantiate_classes(parser.parse_object({"it": written})).it)
    except ArgumentError as error:
        raise UserError(f"{where}: {str(error).replace('it.', '')}") from error


def _source(entry: dict[str, Any], where: str) -> Source:
    name = entry.get("name", "no name")
    rest = {key: value for key, value in entry.items() if key != "format"}
    chosen = entry.get("format")
    if chosen not in FORMATS:
        raise UserError(f"{where} ({name}): format {chosen!r} is not one of {', '.join(FORMATS)}")
    source: Source = parsed(FORMATS[chosen], rest, f"{where} ({name})")
    if source.domain not in DOMAINS:
        raise UserError(f"{where} ({name}): domain {source.domain!r} is not one of {', '.join(DOMAINS)}")
    if source.spaces not in SPACES:
        raise UserError(f"{where} ({name}): spaces {source.spaces!r} is not one of {', '.join(SPACES)}")
    if not source.paths:
        raise UserError(f"{where} ({name}): files is empty; name at least one")
    if not source.license.strip():
        raise UserError(f"{where} ({name}): license is empty; name the licence that the publisher states")
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


def _limits(recipe: Recipe, domain: str, path: Path) -> Limits:
    written = recipe.limits_by_domain.get(domain, {})
    parsed(Limits, written, f"{path}: limits_by_domain.{domain}")
    return replace(recipe.limits, **written)
