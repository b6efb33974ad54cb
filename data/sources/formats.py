"""The formats by name: what `format:` of a source in a corpus config may say."""

from data.sources.cedict import Cedict
from data.sources.csv_table import Csv
from data.sources.documents import Poems, PromptList, Squad, Tags
from data.sources.jsonl import Jsonl
from data.sources.moses import Moses
from data.sources.source import Source
from data.sources.srt import Srt
from data.sources.tsv import Tsv

FORMATS: dict[str, type[Source]] = {
    "tsv": Tsv,
    "moses": Moses,
    "jsonl": Jsonl,
    "csv": Csv,
    "squad": Squad,
    "poems": Poems,
    "prompt_list": PromptList,
    "tags": Tags,
    "cedict": Cedict,
    "srt": Srt,
}
