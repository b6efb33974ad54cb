"""The two protocols of zero-shot retrieval: Chinese-CLIP's and OpenAI's."""

from dataclasses import dataclass
from typing import Literal

Name = Literal["chinese-clip", "openai"]


@dataclass(frozen=True)
class Protocol:
    """How pictures and captions are made ready; `max_length` is in tokens, start and end of text included."""

    name: Name
    transform: Literal["squash", "crop"]
    max_length: int
    lower_case: bool
    straight_quotes: bool


CHINESE_CLIP = Protocol("chinese-clip", transform="squash", max_length=52, lower_case=True, straight_quotes=True)
OPENAI = Protocol("openai", transform="crop", max_length=77, lower_case=False, straight_quotes=False)
PROTOCOLS: dict[Name, Protocol] = {protocol.name: protocol for protocol in (CHINESE_CLIP, OPENAI)}


def prepared(text: str, protocol: Protocol) -> str:
    """A caption as the protocol hands it to the tokenizer."""
    if protocol.straight_quotes:
        text = text.replace("“", '"').replace("”", '"')
    return text.lower() if protocol.lower_case else text
