"""TMX: translation units of OPUS, the European institutions and translation memories, streamed."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

from data.command import UserError
from data.sources.files import BROKEN, broken, opened
from data.sources.source import Pair, PairSource

LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, kw_only=True)
class Tmx(PairSource):
    """Units with a variant in each language; "zh" also means zh-CN, ZH_TW and the like."""

    en: str = "en"
    zh: str = "zh"

    def pairs(self, root: str, path: str) -> Iterator[Pair]:
        """Yield one pair a unit; `line` counts units."""
        with opened(root, path) as stream:
            yield from self._pairs(stream, path)

    def _pairs(self, stream: IO[bytes], path: str) -> Iterator[Pair]:
        number = 0
        parser = ElementTree.iterparse(stream, events=("start", "end"))
        parents = list[ElementTree.Element]()
        try:
            for event, element in parser:
                if event == "start":
                    parents.append(element)
                    continue
                parents.pop()
                if element.tag == "tu":
                    number += 1
                    yield self._pair(element, number)
                    if parents:
                        parents[-1].remove(element)  # what was read is freed: a TMX may be larger than memory
        except ElementTree.ParseError as error:
            raise UserError(f"{path}:{error.position[0]}: not well-formed TMX ({error}); fetch it again") from error
        except (*BROKEN, gzip.BadGzipFile, zlib.error) as error:
            raise broken(path, error) from error

    def _pair(self, unit: ElementTree.Element, number: int) -> Pair:
        texts = dict[str, str]()
        for variant in unit.iter("tuv"):
            language = (variant.get(LANGUAGE) or variant.get("lang") or "").lower().replace("_", "-")
            segment = variant.find("seg")
            if segment is not None:
                texts.setdefault(language.split("-")[0], "".join(segment.itertext()))
        en, zh = texts.get(self.en), texts.get(self.zh)
        if en is None or zh is None:
            return Pair(en or "", zh or "", number, fault="languages")
        return Pair(en, zh, number)
