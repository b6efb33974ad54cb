"""An auxiliary decoder that generates the sentence from the student's states; training only, not exported."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BartConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.models.bart.modeling_bart import BartDecoder

from data.cli import UserError
from distill.distributed import mean_over_ranks
from distill.losses.base import LossInput, LossSchedule, LossTerms
from distill.student.base import StudentEncoder
from distill.text_tower import EncoderOutput, text_mask

Language = Literal["zh", "en"]
_LANGUAGES: dict[Language, int] = {"zh": 0, "en": 1}


@dataclass(frozen=True)
class DecoderConfig:
    """The size of the decoder."""

    layers: int = 2
    heads: int = 4
    every: int = 1
    """It decodes every n-th of the pairs with student English: the softmax is over the whole vocabulary."""

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.every) < 1:
            raise ValueError("losses.translation.decoder: layers, heads and every must be at least 1")


class Decoder(nn.Module):
    """A causal transformer with cross-attention to the text positions of a student's states.

    Its input and output embeddings are the student's token embeddings, passed with every call. Where several ids share
    a row, one learned direction decides between the owner of the row and the tied ids.
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
        self.twin = nn.Linear(width, 1)
        for weight in (self.language.weight, self.say.weight):  # near-uniform logits at step 0
            nn.init.normal_(weight, std=0.02)

    def forward(
        self, student: StudentEncoder, states: EncoderOutput, ids: torch.Tensor, language: Language
    ) -> torch.Tensor:
        """Cross-entropy of `ids` [batch, length] given `states` of the same rows: mean over the global batch's tokens.

        The targets are all tokens from the second to the first end-of-text.
        """
        hidden = self._run(student, states, ids[:, :-1], language)
        target_mask = text_mask(ids, student.vocabulary.eos_id)[:, 1:]
        logits = self._logits(hidden[target_mask], student)
        losses = F.cross_entropy(logits.float(), ids[:, 1:][target_mask], reduction="sum")
        return losses / mean_over_ranks(target_mask.sum().float())

    @torch.no_grad()
    def generate(
        self, student: StudentEncoder, states: EncoderOutput, start: int, language: Language, max_tokens: int
    ) -> torch.Tensor:
        """Greedy decoding from the token `start`: int64 [batch, at most `max_tokens`], padded with end-of-text."""
        eos_id = student.vocabulary.eos_id
        generated = torch.full((len(states.hidden_states), 1), start, device=states.hidden_states.device)
        unfinished = torch.ones_like(generated[:, 0], dtype=torch.bool)
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        while unfinished.any() and generated.shape[1] <= max_tokens:
            hidden = self._run(student, states, generated[:, -1:], language, past)
            best = self._logits(hidden[:, -1], student).argmax(dim=1)
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

    def _logits(self, hidden: torch.Tensor, student: StudentEncoder) -> torch.Tensor:
        """Logits over the student's vocabulary for `hidden` [..., width]."""
        tied_logits: torch.Tensor = self.twin(hidden) * student.tied_rows()
        return F.linear(self.say(hidden), student.output_table()) + tied_logits


DIRECTIONS = ("zh_from_zh", "zh_from_en", "en_from_zh", "en_from_en")


@dataclass(frozen=True)
class Translation:
    """Cross-entropy of a small decoder on the student's states, so that these retain the sentence's content.

    -log p(token | tokens before it, states), mean over the tokens, for each direction with a weight. The decoder is
    trained in the same step and not exported.
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
