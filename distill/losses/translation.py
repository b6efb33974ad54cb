"""The auxiliary decoder's cross-entropy.

The auxiliary decoder: it must say a sentence from the student's states, and is left out by the export.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BartConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
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
    """Of the pairs whose English the student reads, it says every n-th: the softmax is over the whole vocabulary."""

    def __post_init__(self) -> None:
        """Refuse a decoder without a layer."""
        if min(self.layers, self.heads, self.every) < 1:
            raise ValueError("losses.translation.decoder: layers, heads and every must be at least 1")


class Decoder(nn.Module):
    """A causal transformer with cross-attention to the text of a student's states.

    Its input embeddings and its output rows are the student's own token embeddings, given with every call. Where
    several ids share a row, one learned direction decides between the row's owner and its twins.
    """

    def __init__(self, config: DecoderConfig, width: int, state_width: int, max_length: int) -> None:
        """`width` is that of the embeddings, `state_width` that of the states, `slots` the longest sentence."""
        super().__init__()
        if width % config.heads:
            raise UserError(
                f"losses.translation.decoder.heads: {config.heads} heads do not divide the width {width} of embeddings"
            )
        bart_config = BartConfig(
            vocab_size=1,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
            decoder_start_token_id=None,
            forced_eos_token_id=None,
            d_model=width,
            decoder_layers=config.layers,
            decoder_attention_heads=config.heads,
            decoder_ffn_dim=4 * width,
            max_position_embeddings=max_length,
            dropout=0.0,
            attention_dropout=0.0,
            is_decoder=True,
            is_encoder_decoder=False,
        )
        self.body = BartDecoder(bart_config)
        del self.body.embed_tokens  # the student's are used
        self.read = nn.Sequential(nn.LayerNorm(state_width), nn.Linear(state_width, width))
        self.language = nn.Embedding(len(_LANGUAGES), width)
        self.say = nn.Linear(width, width)
        self.twin = nn.Linear(width, 1)
        for weight in (self.language.weight, self.say.weight):  # every token is as likely as any at first
            nn.init.normal_(weight, std=0.02)

    def forward(
        self, student: StudentEncoder, states: EncoderOutput, ids: torch.Tensor, eos_id: int, language: Language
    ) -> torch.Tensor:
        """Cross-entropy of `ids` [batch, slots] given `states` of the same rows: mean over the global batch's tokens.

        The start token is given, every token up to the first end-of-text is asked for, padding is not.
        """
        hidden = self._run(student, states, ids[:, :-1], language).last_hidden_state
        assert hidden is not None
        target_mask = text_mask(ids, eos_id)[:, 1:]
        logits = self._logits(hidden[target_mask], student)
        losses = F.cross_entropy(logits.float(), ids[:, 1:][target_mask], reduction="sum")
        return losses / mean_over_ranks(target_mask.sum().float())

    @torch.no_grad()
    def generate(
        self,
        student: StudentEncoder,
        states: EncoderOutput,
        start: int,
        eos_id: int,
        language: Language,
        max_tokens: int,
    ) -> torch.Tensor:
        """The likeliest token at each place, int64 [batch, at most `most`], with end-of-text after the sentence's."""
        generated = torch.full((len(states.hidden_states), 1), start, device=states.hidden_states.device)
        unfinished = torch.ones_like(generated[:, 0], dtype=torch.bool)
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        while unfinished.any() and generated.shape[1] <= max_tokens:
            hidden = self._run(student, states, generated[:, -1:], language, past).last_hidden_state
            assert hidden is not None
            best = self._logits(hidden[:, -1], student).argmax(dim=1)
            generated = torch.cat([generated, best.where(unfinished, eos_id)[:, None]], dim=1)
            unfinished = unfinished & (best != eos_id)
        return generated[:, 1:]

    def _run(
        self,
        student: StudentEncoder,
        states: EncoderOutput,
        ids: torch.Tensor,
        language: Language,
        past: Cache | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """One pass over `ids`, which follow what `past` holds; `past` grows in place."""
        out: BaseModelOutputWithPastAndCrossAttentions = self.body(
            inputs_embeds=student.embed(ids) + self.language.weight[_LANGUAGES[language]],
            encoder_hidden_states=self.read(states.hidden_states),
            encoder_attention_mask=states.text_mask.long(),
            past_key_values=past,
            use_cache=past is not None,
        )
        return out

    def _logits(self, hidden: torch.Tensor, student: StudentEncoder) -> torch.Tensor:
        """Over the student's vocabulary, of `hidden` [..., width]."""
        logits = F.linear(self.say(hidden), student.output_table())
        tied_logits: torch.Tensor = self.twin(hidden) * student.tied_rows()
        return logits + tied_logits


DIRECTIONS = ("zh_from_zh", "zh_from_en", "en_from_zh", "en_from_en")


@dataclass(frozen=True)
class Translation:
    """A small decoder must say the sentence from the student's states: they have to hold what it says.

    -log p(token | tokens before it, states), mean over the tokens, for each direction with a weight. The decoder is
    trained in the same step and left out by the export.
    """

    zh_from_zh: float = 0.1
    zh_from_en: float = 0.1
    en_from_zh: float = 0.0
    en_from_en: float = 0.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    schedule: LossSchedule = field(default_factory=LossSchedule)

    def __post_init__(self) -> None:
        """Refuse a decoder that says nothing."""
        if not any(self.weights.values()):
            raise ValueError("losses.translation: every direction has weight 0; give one a weight, or leave it out")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each direction that has one."""
        every = (self.zh_from_zh, self.zh_from_en, self.en_from_zh, self.en_from_en)
        return {direction: weight for direction, weight in zip(DIRECTIONS, every, strict=True) if weight}

    def terms(self, step: LossInput) -> LossTerms:
        """`translation_zh_from_en` and so on."""
        return {
            f"translation_{direction}": w * step.translation_losses[direction] for direction, w in self.weights.items()
        }
