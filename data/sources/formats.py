"""The formats by name: what `format:` of a source in a corpus config may say."""

from data.sources.cedict import Cedict
from data.sources.csv_table import Csv
from data.sources.documents import Poems, PromptList, Squad, Tags
from data.sources.joined import Captions, Omw
from data.sources.jsonl import Jsonl
from data.sources.moses import Moses
from data.sources.sgml import Sgml
from data.sources.source import Source
from data.sources.srt import Srt
from data.sources.subtitles import Subtitles
from data.sources.tables import Hub, Mapping, Parquet
from data.sources.tmx import Tmx
from data.sources.tsv import Tsv
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
