"""CLIP text towers: loading, the fastest form for a device, and their output on a batch of ids.

A causal tower needs no padding mask: it pools at the first end-of-text token and does not attend to what follows.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPEncoderLayer

from data.cli import UserError
from distill.loading import check_weights, component_source, load_clip_tokenizer, load_with_missing

StateLayer = Literal["last", "penultimate", "penultimate_normed"]
"""Hidden states that a UNet attends to: the last ones (SD 1.x), those before the last layer (SDXL), or the latter
through the final norm (SD 2.x)."""


@dataclass(frozen=True)
class EncoderOutput:
    """Hidden states, pooled embedding and text mask of one batch.

    hidden_states: [batch, length, width]; pooled: [batch, projection], the projected end-of-text state;
    text_mask: [batch, length] bool, true from start-of-text up to the first end-of-text.
    """

    hidden_states: torch.Tensor
    pooled: torch.Tensor
    text_mask: torch.Tensor

    def rows(self, rows: slice) -> "EncoderOutput":
        """The output of some rows of the batch."""
        return EncoderOutput(self.hidden_states[rows], self.pooled[rows], self.text_mask[rows])

    def split(self, rows: Sequence[int]) -> list["EncoderOutput"]:
        """The output in parts of these numbers of rows."""
        tensors = (self.hidden_states, self.pooled, self.text_mask)
        return [EncoderOutput(*parts) for parts in zip(*(torch.split(t, list(rows)) for t in tensors), strict=True)]

    def cropped(self, length: int) -> "EncoderOutput":
        """The output at the first `length` positions; those that are left out are padding."""
        return EncoderOutput(self.hidden_states[:, :length], self.pooled, self.text_mask[:, :length])

    def detached_leaf(self) -> "EncoderOutput":
        """The same values as leaves of a new graph, whose gradients are kept."""
        hidden_states, pooled = (t.detach().requires_grad_() for t in (self.hidden_states, self.pooled))
        return EncoderOutput(hidden_states, pooled, self.text_mask)

    @staticmethod
    def of_pooled(pooled: torch.Tensor) -> "EncoderOutput":
        """`pooled` alone: hidden states of no position, [batch, 0, 0]."""
        no_text = pooled.new_empty(len(pooled), 0, dtype=torch.bool)
        return EncoderOutput(pooled.new_empty(len(pooled), 0, 0), pooled, no_text)

    @staticmethod
    def cat(outputs: Sequence["EncoderOutput"]) -> "EncoderOutput":
        """Outputs of one length as one batch, in order."""
        return EncoderOutput(
            torch.cat([output.hidden_states for output in outputs]),
            torch.cat([output.pooled for output in outputs]),
            torch.cat([output.text_mask for output in outputs]),
        )


def text_mask(ids: torch.Tensor, eos_id: int) -> torch.Tensor:
    """True up to and including the first end-of-text of each row, bool [batch, length]; padding may use the same id."""
    ends = ids == eos_id
    return ends.cumsum(dim=1) - ends.int() == 0


def padded_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> torch.Tensor:
    """Ids of `texts` as a pipeline passes them, padded or cut to `max_length`: int64 [texts, max_length]."""
    ids: torch.Tensor = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    ).input_ids
    return ids


def load_tower(name: str, option: str) -> CLIPTextModelWithProjection:
    """A CLIP text tower with its projection, float32: the identity where it has none, as in SD 2.x pipelines."""
    settings = {"dtype": torch.float32, "attention_dropout": 0.0, **_projection_dim(name, option)}
    model: CLIPTextModelWithProjection
    model, missing = load_with_missing(CLIPTextModelWithProjection, name, option, "CLIP text tower", **settings)
    if missing == {"text_projection.weight"}:
        missing = set()
        width = model.config.hidden_size
        model.config.projection_dim = width
        model.text_projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(model.text_projection.weight).requires_grad_(False)
    check_weights(model, missing, f"{option}: {name!r}")
    if model.config.eos_token_id in (None, 2):
        # Configs of the first CLIP release say 2 (or nothing), by which transformers pools at the largest id: the
        # teacher's end-of-text, but not the student's, whose new tokens come after it.
        model.config.eos_token_id = model.text_model.eos_token_id = model.config.vocab_size - 1
    return model


def _projection_dim(name: str, option: str) -> dict[str, int]:
    """The projection's width where a whole CLIP model says it; OpenCLIP's leave the text tower's own at its default."""
    source = component_source(name, option, "text_encoder")
    try:
        config = CLIPTextConfig.get_config_dict(source.name, subfolder=source.subfolder)[0]
    except OSError:
        return {}  # loading the model names what is missing
    return {"projection_dim": config["projection_dim"]} if {"text_config", "projection_dim"} <= config.keys() else {}


class QuickMlp(nn.Module):
    """CLIP's feed-forward block around x * sigmoid(1.702 x), with the fused SiLU instead: silu(1.702 x) / 1.702.

    The two factors go into the weights, which are smaller than the activations; the values are the same.
    """

    def __init__(self, mlp: CLIPMLP) -> None:
        """Take over the two linear layers of `mlp` under their own names."""
        super().__init__()
        self.fc1: nn.Linear = mlp.fc1
        self.fc2: nn.Linear = mlp.fc2

    @torch.no_grad()
    def frozen(self) -> nn.Sequential:
        """The same values with the factors in the weights for good, in place; no copy."""
        self.fc1.weight.mul_(1.702), self.fc1.bias.mul_(1.702), self.fc2.weight.div_(1.702)
        return nn.Sequential(self.fc1, nn.SiLU(), self.fc2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output of the shape of `x`, [..., width]."""
        up = F.silu(F.linear(x, 1.702 * self.fc1.weight, 1.702 * self.fc1.bias))
        return F.linear(up, self.fc2.weight / 1.702, self.fc2.bias)


def optimize_for_device(model: CLIPTextModelWithProjection, on_cpu: bool) -> CLIPTextModelWithProjection:
    """The same function on the fastest path of the device, set in place.

    On a CPU the backward pass of fused attention is several times slower than plain products at caption length.
    """
    if on_cpu:
        model.set_attn_implementation("eager")
    for layer in model.text_model.encoder.layers:
        if isinstance(layer.mlp, CLIPMLP) and isinstance(layer.mlp.activation_fn, QuickGELUActivation):
            layer.mlp = QuickMlp(layer.mlp)
    return model


def freeze(model: CLIPTextModelWithProjection) -> None:
    """Prepare `model`, in place, for the same values at every call: what is the same in each is computed here."""
    model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    for layer in model.text_model.encoder.layers:
        if isinstance(layer.mlp, QuickMlp):
            layer.mlp = layer.mlp.frozen()


def convert_products(model: CLIPTextModelWithProjection) -> None:
    """Keep the weights of the matrix products of a frozen `model` in bf16, as autocast converts them at every call."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)


def encode_ids(model: CLIPTextModelWithProjection, ids: torch.Tensor, layer: StateLayer = "last") -> EncoderOutput:
    """Output for `ids` [batch, length], float32.

    The layers are called one by one: transformers captures states by hooks, at which torch.compile breaks the graph.
    """
    text = model.text_model
    states, mask, last = states_before_last_layer(model, ids)
    final: torch.Tensor = text.final_layer_norm(last(states, attention_mask=mask, is_causal=True))
    if layer == "penultimate_normed":
        states = text.final_layer_norm(states)
    pooled = final[torch.arange(len(ids), device=ids.device), end_positions(model, ids)]
    hidden_states = final if layer == "last" else states
    return EncoderOutput(hidden_states.float(), model.text_projection(pooled).float(), text_mask(ids, _eos_id(model)))


def end_positions(model: CLIPTextModelWithProjection, ids: torch.Tensor) -> torch.Tensor:
    """The position of each row's first end-of-text, where `model` pools, int64 [batch]."""
    return (ids == _eos_id(model)).int().argmax(dim=1)


def _eos_id(model: CLIPTextModelWithProjection) -> int:
    eos_id = model.config.eos_token_id
    assert isinstance(eos_id, int)
    return eos_id


def states_before_last_layer(
    model: CLIPTextModelWithProjection, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, CLIPEncoderLayer]:
    """States [batch, length, width] before the last layer, the mask that layers are called with, and that layer."""
    states: torch.Tensor = model.text_model.embeddings(input_ids=ids)
    mask = _causal_mask(states) if model.config._attn_implementation == "eager" else None  # others need no mask
    *first, last = model.text_model.encoder.layers
    for each in first:
        states = each(states, attention_mask=mask, is_causal=True)
    return states, mask, last


def _causal_mask(states: torch.Tensor) -> torch.Tensor:
    length = states.shape[1]
    return torch.full((length, length), torch.finfo(states.dtype).min, device=states.device).triu(1)[None, None]


@dataclass(frozen=True)
class Pretrained:
    """A CLIP text tower with its tokenizer, and the layer whose states a UNet attends to."""

    model: CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast
    state_layer: StateLayer = "last"

    @property
    def max_length(self) -> int:
        """Maximum number of tokens of a prompt."""
        return int(self.model.config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def copy_model(self) -> CLIPTextModelWithProjection:
        """A deep copy of the model."""
        return copy.deepcopy(self.model)


def load_pretrained(name: str, state_layer: StateLayer = "last", padding: str | None = None) -> Pretrained:
    """The teacher of a folder or Hub id; `padding` is the token that fills a prompt, None for the tokenizer's own."""
    tokenizer = load_clip_tokenizer(name, "teacher")
    if padding is not None:
        if padding not in tokenizer.get_vocab():
            raise UserError(f"padding: {padding!r} is no token of {name!r}; Stable Diffusion 2 and SDXL pad with '!'")
        # Like the pipeline's own tokenizer, which parses this token in a text as a special one too.
        tokenizer = load_clip_tokenizer(name, "teacher", pad_token=padding)
    return Pretrained(load_tower(name, "teacher"), tokenizer, state_layer)
