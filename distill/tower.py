"""Loading and running a CLIP text tower, teacher or student."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tokenizers.models import BPE
from torch import nn
from transformers import AutoTokenizer, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from data.command import UserError, one_line, panics_as_errors
from distill.states import States, up_to_end

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
    check_local(name, key)
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
        _project_nothing(model)
    elif info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"{key}: {name!r} has no weight {missing}; name a CLIP model with a text tower")
    refuse_broken_weights(model, f"{key}: {name!r}")
    _name_end_of_text(model)
    return model


def load_tokenizer(name: str, key: str, **settings: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a local folder or a Hub id: a CLIPTokenizer, or one that spells as it does (`extended`'s)."""
    tokenizer = any_tokenizer(name, key, **settings)
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not spells_as_clip(tokenizer):
        raise UserError(f"{key}: {name!r} has a {type(tokenizer).__name__}; a CLIPTokenizer is needed")
    return tokenizer


def spells_as_clip(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether words are spelled by merges of bytes, the last piece with `</w>`."""
    model = tokenizer.backend_tokenizer.model
    return isinstance(model, BPE) and model.end_of_word_suffix == "</w>"


def any_tokenizer(name: str, key: str, **settings: str) -> Any:  # noqa: ANN401  # whichever class the folder names
    """The tokenizer of a local folder or a Hub id."""
    check_local(name, key)
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(name, **settings)
    except Exception as error:  # the same
        raise UserError(f"{key}: {name!r} holds no tokenizer ({one_line(error)})") from error


def prepare(model: CLIPTextModelWithProjection, on_cpu: bool) -> CLIPTextModelWithProjection:
    """The same function on the fastest path of the device, set in place.

    On a CPU the backward pass of fused attention is several times slower than plain products at caption length.
    """
    if on_cpu:
        model.set_attn_implementation("eager")
    for layer in model.text_model.encoder.layers:
        if isinstance(layer.mlp, CLIPMLP) and isinstance(layer.mlp.activation_fn, QuickGELUActivation):
            layer.mlp = QuickMlp(layer.mlp)
    return model


def run(model: CLIPTextModelWithProjection, ids: torch.Tensor, layer: StateLayer = "last") -> States:
    """States of `ids` [batch, slots]; no mask: the tower is causal, and Stable Diffusion reads its padding."""
    out = model(input_ids=ids, output_hidden_states=layer != "last")
    tokens: torch.Tensor = out.last_hidden_state if layer == "last" else out.hidden_states[-2]
    if layer == "penultimate_normed":
        tokens = model.text_model.final_layer_norm(tokens)
    end_of_text = model.config.eos_token_id
    assert isinstance(end_of_text, int)
    text = up_to_end(ids, end_of_text)
    return States(tokens=tokens.float(), pooled=out.text_embeds.float(), is_text=text)


def refuse_broken_weights(model: nn.Module, place: str) -> None:
    """UserError where a weight is not a finite number: a training that broke, or a conversion to fp16 that did."""
    broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if broken is not None:
        raise UserError(f"{place}: the weight {broken} is not finite; export an earlier step")


def _name_end_of_text(model: CLIPTextModelWithProjection) -> None:
    """Make `eos_token_id` explicit, in place.

    Configs of the first CLIP release say 2 (or nothing), by which transformers pools at the largest id: the teacher's
    end-of-text, but not the student's, whose new tokens come after it.
    """
    if model.config.eos_token_id in (None, 2):
        model.config.eos_token_id = model.text_model.eos_token_id = model.config.vocab_size - 1


def _project_nothing(model: CLIPTextModelWithProjection) -> None:
    """Pool the end-of-text state itself, in place: the text encoders of SD 2.x pipelines come without projection."""
    width = model.config.hidden_size
    model.config.projection_dim = width
    model.text_projection = nn.Linear(width, width, bias=False)
    nn.init.eye_(model.text_projection.weight).requires_grad_(False)


def check_local(name: str, key: str) -> None:
    """Refuse a name that looks like a local folder where there is none."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"{key}: no folder {name!r} (looked in {Path.cwd()})")
