"""Loading and running a CLIP text tower, teacher or student.

What an encoder says of a batch.

The teacher as it is loaded, once a process: what the run's teacher and student are made from.

Texts in batches of like length, padded no further than the longest.

No mask is needed: the tower is causal and pools at the first end-of-text, so it does not see what follows.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers.models import BPE
from torch import nn
from transformers import AutoTokenizer, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from data.cli import UserError, one_line, panics_as_errors


@dataclass(frozen=True)
class EncoderOutput:
    """A tower's output on one batch.

    tokens: [batch, slots, width] final hidden states; pooled: [batch, projection] projected end-of-text state;
    is_text: [batch, slots] bool, true from start-of-text up to the first end-of-text.
    """

    hidden_states: torch.Tensor
    pooled: torch.Tensor
    text_mask: torch.Tensor

    def rows(self, chosen: slice) -> "EncoderOutput":
        """The states of some rows."""
        return EncoderOutput(self.hidden_states[chosen], self.pooled[chosen], self.text_mask[chosen])


def text_mask(ids: torch.Tensor, eos_id: int) -> torch.Tensor:
    """True up to and including the first end-of-text of each row, bool [batch, slots]; padding uses the same id."""
    ends = ids == eos_id
    return ends.cumsum(dim=1) - ends.int() == 0


StateLayer = Literal["last", "penultimate", "penultimate_normed"]
"""Which states a UNet reads: the last ones (SD 1.x), those before the last layer (SDXL), or these through the final
norm (SD 2.x)."""


class QuickMlp(nn.Module):
    """CLIP's feed-forward part around x * sigmoid(1.702 x), with the fused SiLU instead: silu(1.702 x) / 1.702.

    The two factors go into the weights, which are smaller than the activations; the values are the same.
    """

    def __init__(self, mlp: CLIPMLP) -> None:
        """Take over the two products of `mlp` under their own names."""
        super().__init__()
        self.fc1: nn.Linear = mlp.fc1
        self.fc2: nn.Linear = mlp.fc2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of `x` [..., width], the same shape."""
        up = F.silu(F.linear(x, 1.702 * self.fc1.weight, 1.702 * self.fc1.bias))
        return F.linear(up, self.fc2.weight / 1.702, self.fc2.bias)


def load_tower(name: str, key: str) -> CLIPTextModelWithProjection:
    """The text tower with its projection, float32, of a local folder or a Hub id; `key` names the option in errors."""
    check_local_folder(name, key)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # ours say more
    set_verbosity_error()  # type: ignore[no-untyped-call]  # what is missing is one line of ours, below
    try:
        model: CLIPTextModelWithProjection
        info: dict[str, set[str]]
        model, info = CLIPTextModelWithProjection.from_pretrained(  # type: ignore[misc]
            name, dtype=torch.float32, output_loading_info=True, attention_dropout=0.0, use_safetensors=True
        )
    except Exception as error:  # a damaged folder raises whatever its reader stumbles over
        raise UserError(f"{key}: {name!r} holds no CLIP text tower in safetensors ({one_line(error)})") from error
    if info["missing_keys"] == {"text_projection.weight"}:
        _add_identity_projection(model)
    elif info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"{key}: {name!r} has no weight {missing}; name a CLIP model with a text tower")
    check_finite_weights(model, f"{key}: {name!r}")
    _set_eos_token_id(model)
    return model


def load_clip_tokenizer(name: str, key: str, **settings: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a local folder or a Hub id: a CLIPTokenizer, or one that spells as it does (`extended`'s)."""
    tokenizer = load_any_tokenizer(name, key, **settings)
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not is_clip_bpe(tokenizer):
        raise UserError(f"{key}: {name!r} has a {type(tokenizer).__name__}; a CLIPTokenizer is needed")
    return tokenizer


def is_clip_bpe(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether words are spelled by merges of bytes, the last piece with `</w>`."""
    model = tokenizer.backend_tokenizer.model
    return isinstance(model, BPE) and model.end_of_word_suffix == "</w>"


def load_any_tokenizer(name: str, key: str, **settings: str) -> Any:  # noqa: ANN401  # whichever class the folder names
    """The tokenizer of a local folder or a Hub id."""
    check_local_folder(name, key)
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(name, **settings)
    except Exception as error:  # the same
        raise UserError(f"{key}: {name!r} holds no tokenizer ({one_line(error)})") from error


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


def encode_ids(model: CLIPTextModelWithProjection, ids: torch.Tensor, layer: StateLayer = "last") -> EncoderOutput:
    """States of `ids` [batch, slots]; no mask: the tower is causal, and Stable Diffusion reads its padding."""
    out = model(input_ids=ids, output_hidden_states=layer != "last")
    tokens: torch.Tensor = out.last_hidden_state if layer == "last" else out.hidden_states[-2]
    if layer == "penultimate_normed":
        tokens = model.text_model.final_layer_norm(tokens)
    end_of_text = model.config.eos_token_id
    assert isinstance(end_of_text, int)
    text = text_mask(ids, end_of_text)
    return EncoderOutput(hidden_states=tokens.float(), pooled=out.text_embeds.float(), text_mask=text)


def check_finite_weights(model: nn.Module, place: str) -> None:
    """UserError where a weight is not a finite number: a training that broke, or a conversion to fp16 that did."""
    broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if broken is not None:
        raise UserError(f"{place}: the weight {broken} is not finite; export an earlier step")


def _set_eos_token_id(model: CLIPTextModelWithProjection) -> None:
    """Make `eos_token_id` explicit, in place.

    Configs of the first CLIP release say 2 (or nothing), by which transformers pools at the largest id: the teacher's
    end-of-text, but not the student's, whose new tokens come after it.
    """
    if model.config.eos_token_id in (None, 2):
        model.config.eos_token_id = model.text_model.eos_token_id = model.config.vocab_size - 1


def _add_identity_projection(model: CLIPTextModelWithProjection) -> None:
    """Pool the end-of-text state itself, in place: the text encoders of SD 2.x pipelines come without projection."""
    width = model.config.hidden_size
    model.config.projection_dim = width
    model.text_projection = nn.Linear(width, width, bias=False)
    nn.init.eye_(model.text_projection.weight).requires_grad_(False)


def check_local_folder(name: str, key: str) -> None:
    """Refuse a name that looks like a local folder where there is none."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"{key}: no folder {name!r} (looked in {Path.cwd()})")


@dataclass(frozen=True)
class Pretrained:
    """A CLIP text tower with its tokenizer, and which of its states a UNet reads."""

    model: CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast
    state_layer: StateLayer = "last"

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt."""
        return int(self.model.config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Width of the states."""
        return int(self.model.config.hidden_size)

    def copy_model(self) -> CLIPTextModelWithProjection:
        """The model again, to be changed."""
        return copy.deepcopy(self.model)


def load_pretrained(name: str, state_layer: StateLayer = "last", padding: str | None = None) -> Pretrained:
    """The teacher of a folder or Hub id; `padding` is the token that fills a prompt, None for the tokenizer's own."""
    tokenizer = load_clip_tokenizer(name, "teacher")
    if padding is not None:
        if padding not in tokenizer.get_vocab():
            raise UserError(f"padding: {padding!r} is no token of {name!r}; Stable Diffusion 2 and SDXL pad with '!'")
        # As the pipeline's own tokenizer is made: where a text has the token, it is read as a special one too.
        tokenizer = load_clip_tokenizer(name, "teacher", pad_token=padding)
    return Pretrained(load_tower(name, "teacher"), tokenizer, state_layer)


@dataclass(frozen=True)
class PaddedBatch:
    """`rows` [batch] say which texts these are; `ids` [batch, length] are filled up with the end-of-text."""

    rows: list[int]
    ids: NDArray[np.int64]


def length_sorted_batches(ids: Sequence[Sequence[int]], eos_id: int, batch_size: int) -> list[PaddedBatch]:
    """All texts, shortest first."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    batches = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = len(ids[rows[-1]])
        batches.append(
            PaddedBatch(rows, np.array([[*ids[row], *[eos_id] * (longest - len(ids[row]))] for row in rows]))
        )
    return batches
