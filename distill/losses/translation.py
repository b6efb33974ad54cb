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
from distill.losses.base import Schedule, Step, Terms
from distill.student.base import StudentTower
from distill.text_tower import States, up_to_end

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

    def __init__(self, config: DecoderConfig, width: int, state_width: int, slots: int) -> None:
        """`width` is that of the embeddings, `state_width` that of the states, `slots` the longest sentence."""
        super().__init__()
        if width % config.heads:
            raise UserError(
                f"losses.translation.decoder.heads: {config.heads} heads do not divide the width {width} of embeddings"
            )
        shape = BartConfig(
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
            max_position_embeddings=slots,
            dropout=0.0,
            attention_dropout=0.0,
            is_decoder=True,
            is_encoder_decoder=False,
        )
        self.body = BartDecoder(shape)
        del self.body.embed_tokens  # the student's are used
        self.read = nn.Sequential(nn.LayerNorm(state_width), nn.Linear(state_width, width))
        self.language = nn.Embedding(len(_LANGUAGES), width)
        self.say = nn.Linear(width, width)
        self.twin = nn.Linear(width, 1)
        for weight in (self.language.weight, self.say.weight):  # every token is as likely as any at first
            nn.init.normal_(weight, std=0.02)

    def forward(
        self, student: StudentTower, states: States, ids: torch.Tensor, end_of_text: int, language: Language
    ) -> torch.Tensor:
        """Cross-entropy of `ids` [batch, slots] given `states` of the same rows: mean over the global batch's tokens.

        The start token is given, every token up to the first end-of-text is asked for, padding is not.
        """
        hidden = self._run(student, states, ids[:, :-1], language).last_hidden_state
        assert hidden is not None
        asked = up_to_end(ids, end_of_text)[:, 1:]
        logits = self._logits(hidden[asked], student)
        losses = F.cross_entropy(logits.float(), ids[:, 1:][asked], reduction="sum")
        return losses / mean_over_ranks(asked.sum().float())

    @torch.no_grad()
    def generate(
        self, student: StudentTower, states: States, start: int, end_of_text: int, language: Language, most: int
    ) -> torch.Tensor:
        """The likeliest token at each place, int64 [batch, at most `most`], with end-of-text after the sentence's."""
        said = torch.full((len(states.tokens), 1), start, device=states.tokens.device)
        open_rows = torch.ones_like(said[:, 0], dtype=torch.bool)
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        while open_rows.any() and said.shape[1] <= most:
            hidden = self._run(student, states, said[:, -1:], language, past).last_hidden_state
            assert hidden is not None
            best = self._logits(hidden[:, -1], student).argmax(dim=1)
            said = torch.cat([said, best.where(open_rows, end_of_text)[:, None]], dim=1)
            open_rows = open_rows & (best != end_of_text)
        return said[:, 1:]

    def _run(
        self, student: StudentTower, states: States, ids: torch.Tensor, language: Language, past: Cache | None = None
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """One pass over `ids`, which follow what `past` holds; `past` grows in place."""
        out: BaseModelOutputWithPastAndCrossAttentions = self.body(
            inputs_embeds=student.embed(ids) + self.language.weight[_LANGUAGES[language]],
            encoder_hidden_states=self.read(states.tokens),
            encoder_attention_mask=states.is_text.long(),
            past_key_values=past,
            use_cache=past is not None,
        )
        return out

    def _logits(self, hidden: torch.Tensor, student: StudentTower) -> torch.Tensor:
        """Over the student's vocabulary, of `hidden` [..., width]."""
        logits = F.linear(self.say(hidden), student.output_table())
        likelier: torch.Tensor = self.twin(hidden) * student.twins()
        return logits + likelier


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
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        """Refuse a decoder that says nothing."""
        if not any(self.weights.values()):
            raise ValueError("losses.translation: every direction has weight 0; give one a weight, or leave it out")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each direction that has one."""
        every = (self.zh_from_zh, self.zh_from_en, self.en_from_zh, self.en_from_en)
        return {direction: weight for direction, weight in zip(DIRECTIONS, every, strict=True) if weight}

    def terms(self, step: Step) -> Terms:
        """`translation_zh_from_en` and so on."""
        return {f"translation_{direction}": w * step.spoken[direction] for direction, w in self.weights.items()}
