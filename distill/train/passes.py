"""Passes of an encoder over the texts of a step: texts of about one length together, and large passes in chunks."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F

from distill.text_tower import EncoderOutput


def split_rows(ids: torch.Tensor, tokens_at_once: int | None) -> tuple[torch.Tensor, ...]:
    """`ids` [rows, length] in chunks of at most `tokens_at_once` positions (None: all), but at least one row."""
    return (ids,) if tokens_at_once is None else torch.split(ids, max(1, tokens_at_once // ids.shape[1]))


def chunked(
    encode: Callable[[torch.Tensor], EncoderOutput], ids: torch.Tensor, tokens_at_once: int | None
) -> EncoderOutput:
    """The output of `encode` for `ids`, computed in chunks of rows."""
    return EncoderOutput.cat([encode(chunk) for chunk in split_rows(ids, tokens_at_once)])


@dataclass(frozen=True)
class Passes:
    """Several `texts`, int64 [rows, length] each, joined into as few passes as their lengths allow."""

    texts: Sequence[torch.Tensor]
    lengths: Sequence[int]
    """Where each text is encoded: the length of its pass."""
    pad_id: int

    @property
    def ids(self) -> list[torch.Tensor]:
        """The ids of every pass, the longest first."""
        return [torch.cat([_padded(text, at, self.pad_id) for text in self._at(at)]) for at in self._pass_lengths]

    def split(self, outputs: Sequence[EncoderOutput]) -> list[EncoderOutput]:
        """The output of each of the `texts`, in its own length, from those of the passes."""
        parts = {
            at: iter(output.split([len(text) for text in self._at(at)]))
            for at, output in zip(self._pass_lengths, outputs, strict=True)
        }
        each = zip(self.texts, self.lengths, strict=True)
        return [next(parts[at]) if at == text.shape[1] else next(parts[at]).cropped(text.shape[1]) for text, at in each]

    @property
    def positions(self) -> int:
        """Positions of all passes, padding included."""
        return sum(len(text) * at for text, at in zip(self.texts, self.lengths, strict=True))

    @property
    def _pass_lengths(self) -> list[int]:
        return sorted(set(self.lengths), reverse=True)

    def _at(self, at: int) -> list[torch.Tensor]:
        return [text for text, length in zip(self.texts, self.lengths, strict=True) if length == at]


def _padded(text: torch.Tensor, length: int, pad_id: int) -> torch.Tensor:
    return text if text.shape[1] == length else F.pad(text, (0, length - text.shape[1]), value=pad_id)


def join_passes(texts: Sequence[torch.Tensor], pad_id: int, launch_cost: int) -> Passes:
    """The cheapest passes over `texts`, where one costs its positions, padding included, and `launch_cost` positions.

    Texts of one length are always one pass.
    """
    rows = Counter[int]()
    for text in texts:
        rows[text.shape[1]] += len(text)
    longest, *shorter = sorted(rows, reverse=True)

    def cost(at: dict[int, int]) -> int:
        return sum(count * at[length] for length, count in rows.items()) + launch_cost * len(set(at.values()))

    options = []
    for joined in product((True, False), repeat=len(shorter)):  # whether it is padded to the next longer length
        at = {longest: longest}
        for length, longer, join in zip(shorter, (longest, *shorter), joined, strict=False):
            at[length] = at[longer] if join else length
        options.append(at)
    best = min(options, key=cost)
    return Passes(texts, [best[text.shape[1]] for text in texts], pad_id)
