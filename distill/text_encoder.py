"""CLIP text encoders with their tokenizers, one or SDXL's two: features, states, pooled states of texts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from data.cli import UserError
from data.loader.batches import Vocabulary
from distill.losses.translation import Reader, load_reader
from distill.text_tower import EncoderOutput, padded_ids, text_mask

_READER_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class TextEncoder:
    """A CLIP text encoder with its tokenizer."""

    model: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerBase
    source: str = field(default="", kw_only=True)
    """Folder or Hub id that it was loaded from, where its decoder lies if it has one."""

    @property
    def max_length(self) -> int:
        """Most tokens of a text, start and end included."""
        return int(self.model.config.max_position_embeddings)

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return int(self.model.config.hidden_size)

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return int(self.model.config.projection_dim or 0)

    @torch.inference_mode()
    def encode(self, texts: Iterable[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Features [texts, feature_dim] of prompts or captions, float32 and of length 1, in the order of `texts`.

        They are comparable by dot product with the image features of the teacher's CLIP. A text of more than
        `max_length` tokens is cut, the end-of-text kept; an end-of-text inside a text ends it. `texts` is a list, an
        array, a Series or a generator; a row that is no text raises TypeError, half a character ValueError.
        """
        if not isinstance(self.model, CLIPTextModelWithProjection):
            raise UserError("encode: this encoder has no projection; load a whole exported student by load_student")
        rows = _checked_texts(texts)
        ids = self.tokenizer(rows, truncation=True, max_length=self.max_length).input_ids if rows else []
        features = np.zeros((len(rows), self.feature_dim), dtype=np.float32)
        for batch in length_sorted_batches(ids, int(self.tokenizer.eos_token_id), batch_size):
            text_embeds = self.model(input_ids=torch.from_numpy(batch.ids).to(self.model.device)).text_embeds
            features[batch.rows] = F.normalize(text_embeds.float(), dim=-1).cpu().numpy()
        return features

    @torch.no_grad()
    def states(self, texts: Iterable[str], batch_size: int = 64) -> torch.Tensor:
        """Last hidden states [texts, max_length, hidden_size], padding included, for the UNet of Stable Diffusion 1.x.

        That of 2.x reads the states of `text_encoder/`, which has a layer less: `load_text_encoder`.
        """
        none = torch.zeros(0, self.max_length, self.hidden_size, dtype=self.model.dtype, device=self.model.device)
        return torch.cat([none, *(output.last_hidden_state for output in self.padded_outputs(texts, batch_size))])

    @cached_property
    def reader(self) -> Reader | None:
        """The decoder of the export; None where it has none."""
        if not self.source:
            return None
        try:
            files = [Path(str(cached_file(self.source, name, subfolder="decoder"))) for name in _READER_FILES]
        except OSError:
            return None
        table, eos_id = self.model.get_input_embeddings().weight, int(self.tokenizer.eos_token_id)
        assert isinstance(table, torch.Tensor)
        return load_reader(files[0], files[1], table, Vocabulary(eos_id, eos_id, self.max_length))

    @torch.no_grad()
    def read_back(self, text: str) -> str:
        """What the student understood of a prompt: its states, translated into English by its decoder.

        Greedy, from the states of the text alone. A text of more than `max_length` tokens is cut. UserError where the
        export has no decoder.
        """
        if self.reader is None:
            raise UserError(
                "read_back: this student has no decoder; export one with --parts decoder, which pairs of SDXL have not "
                "(docs/use.md)"
            )
        tokens = self.tokenizer(_checked_texts([text]), truncation=True, max_length=self.max_length)
        ids = torch.tensor(tokens.input_ids, device=self.model.device)
        states = self.model(input_ids=ids).last_hidden_state.float()
        mask = text_mask(ids, int(self.tokenizer.eos_token_id))
        said = self.reader.read(EncoderOutput(states, states[:, 0], mask), int(ids[0, 0]))
        return str(self.tokenizer.decode(said[0], skip_special_tokens=True)).strip()

    @torch.no_grad()
    def padded_outputs(self, texts: Iterable[str], batch_size: int) -> Iterator[Any]:
        """The model's output, every layer's states included, for one batch of padded texts after another."""
        rows = _checked_texts(texts)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            ids = padded_ids(self.tokenizer, batch, self.max_length)
            yield self.model(input_ids=ids.to(self.model.device), output_hidden_states=True)


@dataclass(frozen=True)
class TextEncoderPair(TextEncoder):
    """SDXL's two text encoders: `model` and `tokenizer` are the first's; features are those of the second."""

    second: TextEncoder

    @property
    def hidden_size(self) -> int:
        """Width of the states of both side by side."""
        return super().hidden_size + self.second.hidden_size

    @property
    def feature_dim(self) -> int:
        """Width of the features and of the pooled state."""
        return self.second.feature_dim

    def encode(self, texts: Iterable[str], batch_size: int = 64) -> NDArray[np.float32]:
        """`TextEncoder.encode` of the second encoder."""
        return self.second.encode(texts, batch_size)

    def states(self, texts: Iterable[str], batch_size: int = 64) -> torch.Tensor:
        """What SDXL's UNet reads: states before each encoder's last layer, side by side [texts, max_length, width]."""
        rows = _checked_texts(texts)
        none = torch.zeros(0, self.max_length, self.hidden_size, dtype=self.model.dtype, device=self.model.device)
        both = zip(self.padded_outputs(rows, batch_size), self.second.padded_outputs(rows, batch_size), strict=True)
        return torch.cat([none, *(torch.cat([each.hidden_states[-2] for each in pair], dim=2) for pair in both)])

    def pooled(self, texts: Iterable[str], batch_size: int = 64) -> torch.Tensor:
        """The UNet's other input: the second encoder's projected pooled states [texts, feature_dim], not normalised."""
        model = self.second.model
        none = torch.zeros(0, self.feature_dim, dtype=model.dtype, device=model.device)
        return torch.cat([none, *(output.text_embeds for output in self.second.padded_outputs(texts, batch_size))])


@dataclass(frozen=True)
class PaddedBatch:
    """Texts `rows` [batch] of a list; `ids` [batch, length] are padded with end-of-text."""

    rows: list[int]
    ids: NDArray[np.int64]


def length_sorted_batches(ids: Sequence[Sequence[int]], eos_id: int, batch_size: int) -> list[PaddedBatch]:
    """All texts, shortest first, each batch padded to its longest text."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    batches = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(ids[rows[-1]])
        padded = np.array([[*ids[row], *[eos_id] * (longest - len(ids[row]))] for row in rows])
        batches.append(PaddedBatch(rows, padded))
    return batches


def _checked_texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):  # iterable too, but nobody means its letters
        raise TypeError(f"{texts!r} is one text where a list is needed; put the one text into a list")
    rows: list[Any] = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)  # pyarrow, or any other
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"row {row} is {text!r}, no text; leave it out or give ''")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"row {row} holds half a character ({text!r}); read its file with the right encoding")
    return [str(text) for text in rows]
