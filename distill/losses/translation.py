"""An auxiliary decoder that generates the sentence from the student's states, for training and to read it back."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BartConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.models.bart.modeling_bart import BartDecoder

from data.cli import UserError, one_line
from data.files import read_json, write_json
from data.loader.batches import Vocabulary
from distill.distributed import mean_over_ranks
from distill.losses.base import LossInput, LossSchedule, LossTerms
from distill.student.base import Language, OutputRows, StudentEncoder
from distill.text_tower import EncoderOutput, text_mask

_CHUNK = 1024  # tokens
TRANSLATION_BYTES = 3 * 4 * _CHUNK * 49_408
"""Of a chunk's logits, their float32 copy and its gradient, for the English of CLIP's tokenizer."""
_LANGUAGES: dict[Language, int] = {"zh": 0, "en": 1}


@dataclass(frozen=True)
class DecoderConfig:
    """The size of the decoder."""

    layers: int = 2
    heads: int = 4
    every: int = 1
    """It decodes every n-th of the pairs with student English."""

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.every) < 1:
            raise ValueError("losses.translation.decoder: layers, heads and every must be at least 1")

    @property
    def rows(self) -> slice:
        """The rows that it decodes, of the pairs with student English."""
        return slice(None, None, self.every)


class Decoder(nn.Module):
    """A causal transformer with cross-attention to the text positions of a student's states.

    Its input and output embeddings are the student's token embeddings, passed with every call. It chooses among the
    rows of a language: tokens of another language are read, never chosen.
    """

    def __init__(self, config: DecoderConfig, width: int, state_width: int, max_length: int) -> None:
        """`width` is that of the embeddings, `state_width` that of the states; `max_length` in tokens."""
        super().__init__()
        if width % config.heads:
            raise UserError(
                f"losses.translation.decoder.heads: {config.heads} heads do not divide the width {width} of embeddings"
            )
        bart_config = BartConfig(
            d_model=width, decoder_layers=config.layers, decoder_attention_heads=config.heads,
            decoder_ffn_dim=4 * width, max_position_embeddings=max_length, dropout=0.0, attention_dropout=0.0,
            is_decoder=True, is_encoder_decoder=False, vocab_size=1, pad_token_id=0, bos_token_id=None,
            eos_token_id=None, decoder_start_token_id=None, forced_eos_token_id=None,
        )  # fmt: skip
        self.body = BartDecoder(bart_config)
        del self.body.embed_tokens  # the student's are used
        self.read = nn.Sequential(nn.LayerNorm(state_width), nn.Linear(state_width, width))
        self.language = nn.Embedding(len(_LANGUAGES), width)
        self.say = nn.Linear(width, width)
        for weight in (self.language.weight, self.say.weight):  # near-uniform logits at step 0
            nn.init.normal_(weight, std=0.02)

    def forward(
        self, student: StudentEncoder, states: EncoderOutput, ids: torch.Tensor, language: Language
    ) -> torch.Tensor:
        """Cross-entropy of `ids` [batch, length] given `states` of the same rows: mean over the global batch's tokens.

        The targets are the tokens of `language` from the second to the first end-of-text.
        """
        hidden, rows = self._run(student, states, ids[:, :-1], language), student.output_rows(language)
        targets = rows.of_id[ids[:, 1:]]
        mask = text_mask(ids, student.vocabulary.eos_id)[:, 1:] & (targets >= 0)
        said, targets = self.say(hidden[mask]), targets[mask]
        chunks = [*zip(torch.split(said, _CHUNK), torch.split(targets, _CHUNK), strict=True)]
        if len(chunks) == 1:
            losses = _cross_entropy(said, targets, rows.table)
        else:  # logits of one chunk are there at once; those of the backward pass are computed again
            each = (checkpoint(_cross_entropy, *chunk, rows.table, use_reentrant=False) for chunk in chunks)
            losses = torch.stack([*each]).sum()
        return losses / mean_over_ranks(mask.sum().float())

    @torch.no_grad()
    def generate(
        self, student: StudentEncoder, states: EncoderOutput, start: int, language: Language, max_tokens: int
    ) -> torch.Tensor:
        """Greedy decoding from the token `start`: int64 [batch, at most `max_tokens`], padded with end-of-text."""
        eos_id = student.vocabulary.eos_id
        generated = torch.full((len(states.hidden_states), 1), start, device=states.hidden_states.device)
        unfinished = torch.ones_like(generated[:, 0], dtype=torch.bool)
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        rows: OutputRows = student.output_rows(language)
        while unfinished.any() and generated.shape[1] <= max_tokens:
            hidden = self._run(student, states, generated[:, -1:], language, past)
            best = rows.ids[F.linear(self.say(hidden[:, -1]), rows.table).argmax(dim=1)]
            generated = torch.cat([generated, best.where(unfinished, eos_id)[:, None]], dim=1)
            unfinished = unfinished & (best != eos_id)
        return generated[:, 1:]

    def _run(
        self, student: StudentEncoder, states: EncoderOutput, ids: torch.Tensor, language: Language,
        past: Cache | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Last hidden states for `ids`, which follow the tokens cached in `past`; `past` is updated in place."""
        hidden: torch.Tensor = self.body(
            inputs_embeds=student.embed(ids) + self.language.weight[_LANGUAGES[language]],
            encoder_hidden_states=self.read(states.hidden_states),
            encoder_attention_mask=states.text_mask.long(),
            past_key_values=past,
            use_cache=past is not None,
        ).last_hidden_state
        return hidden


def _cross_entropy(said: torch.Tensor, targets: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.linear(said, table).float(), targets, reduction="sum")


DIRECTIONS = ("zh_from_zh", "zh_from_en", "en_from_zh", "en_from_en")


@dataclass(frozen=True)
class Translation:
    """Cross-entropy of a small decoder on the student's states, so that these retain the sentence's content.

    -log p(token | tokens before it, states), mean over the tokens, for each direction with a weight. The decoder is
    trained in the same step.
    """

    zh_from_zh: float = 0.1
    zh_from_en: float = 0.1
    en_from_zh: float = 0.0
    en_from_en: float = 0.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        if not any(self.weights.values()):
            raise ValueError("losses.translation: every direction has weight 0; give one a weight, or leave it out")

    @property
    def weights(self) -> dict[str, float]:
        """Weight by direction, without those of weight 0."""
        weights = (self.zh_from_zh, self.zh_from_en, self.en_from_zh, self.en_from_en)
        return {direction: weight for direction, weight in zip(DIRECTIONS, weights, strict=True) if weight}

    def build_decoder(self, student: StudentEncoder) -> Decoder:
        """The decoder for a student, with initial weights."""
        width = student.output_table().shape[1]
        return Decoder(self.decoder, width, student.state_width, student.vocabulary.max_length)

    def terms(self, step: LossInput) -> LossTerms:
        """`translation_zh_from_en` and so on."""
        return {
            f"translation_{direction}": w * step.translation_losses[direction] for direction, w in self.weights.items()
        }


class ExportedEmbedding(StudentEncoder):
    """The token embedding of an exported student, whose first rows are those of English, for its decoder."""

    def __init__(self, table: torch.Tensor, num_english: int, vocabulary: Vocabulary) -> None:
        """Embed and choose tokens by `table` [vocabulary, width]."""
        super().__init__(vocabulary, table.shape[1])
        rows, width = table.shape
        self._embedding, self._num_english = nn.Embedding(rows, width, _weight=table.detach().float()), num_english

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        return self._embedding

    def output_rows(self, language: Language) -> OutputRows:
        """The rows of English, whatever the language."""
        ids = torch.arange(self._num_english, device=self._embedding.weight.device)
        return OutputRows(self._embedding.weight[: self._num_english], ids, ids)


@dataclass(frozen=True)
class Reader:
    """An exported student's decoder and embedding: says in English what the student's states hold."""

    decoder: Decoder
    words: ExportedEmbedding

    @torch.no_grad()
    def read(self, states: EncoderOutput, start: int) -> torch.Tensor:
        """English ids [batch, tokens] of `states`, by greedy decoding from the token `start`."""
        return self.decoder.generate(self.words, states, start, "en", self.words.vocabulary.max_length - 1)


def write_reader(decoder: Decoder, config: DecoderConfig, student: StudentEncoder, folder: Path) -> None:
    """Write a decoder that was trained with `student` to `folder`: config.json, model.safetensors."""
    folder.mkdir()
    english = student.output_rows("en").ids
    assert english.tolist() == [*range(len(english))]
    sizes = {"num_english": len(english), "state_width": student.state_width}
    write_json({"layers": config.layers, "heads": config.heads, **sizes}, folder / "config.json")
    weights = {name: weight.cpu().contiguous() for name, weight in decoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def load_reader(config: Path, weights: Path, table: torch.Tensor, vocabulary: Vocabulary) -> Reader:
    """The decoder of the two files that `write_reader` wrote, on the device of the embedding `table`."""
    try:
        shape = read_json(config)
        size = DecoderConfig(layers=shape["layers"], heads=shape["heads"])
        decoder = Decoder(size, table.shape[1], shape["state_width"], vocabulary.max_length)
        decoder.load_state_dict(load_file(weights))
        words = ExportedEmbedding(table, shape["num_english"], vocabulary)
    except Exception as error:  # a damaged file raises whatever its reader meets
        raise UserError(f"{weights.parent}: no decoder of this student ({one_line(error)}); export it again") from error
    return Reader(decoder.to(table.device).eval(), words)
