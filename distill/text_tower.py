"""CLIP text towers: guarded loading, the fastest form for a device, and their output on a batch of ids.

A causal tower needs no padding mask: it pools at the first end-of-text token and does not attend to what follows.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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

from data.cli import UserError, one_line, panics_as_errors

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

    def detached_leaf(self) -> "EncoderOutput":
        """The same values as leaves of a new graph, whose gradients are kept."""
        hidden_states, pooled = (t.detach().requires_grad_() for t in (self.hidden_states, self.pooled))
        return EncoderOutput(hidden_states, pooled, self.text_mask)

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


def load_pretrained_model(
    cls: Any,  # noqa: ANN401  # a model class of transformers or diffusers
    source: str,
    option: str,
    what: str,
    **kwargs: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """`cls.from_pretrained(source, **kwargs)` from safetensors: every weight there and finite; else UserError.

    `source` is a local folder or a Hub id, `option` names the command-line option or key that gave it, `what` the model
    ("CLIP text tower").
    """
    model, missing = _load_with_missing(cls, source, option, what, **kwargs)
    check_weights(model, missing, f"{option}: {source!r}")
    return model


def _load_with_missing(
    cls: Any,  # noqa: ANN401
    source: str,
    option: str,
    what: str,
    **kwargs: Any,  # noqa: ANN401
) -> tuple[Any, set[str]]:
    folder = (
        resolve_source(source, option) if "subfolder" in kwargs else component_source(source, option, "text_encoder")
    )
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]  # missing weights are one line of ours
    try:
        model, info = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **kwargs)
    except Exception as error:  # damaged files raise whatever their reader meets
        raise UserError(f"{option}: {source!r} holds no {what} in safetensors ({one_line(error)})") from error
    return model, set(info["missing_keys"])


def check_weights(model: nn.Module, missing: Collection[str], where: str) -> None:
    """UserError for a missing weight, or one that is not finite: a diverged training, or an overflow in fp16."""
    if missing:
        raise UserError(f"{where} has no weight {min(missing)}; its files are incomplete or of another kind of model")
    if broken := next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None):
        raise UserError(f"{where}: the weight {broken} is not finite; take an earlier checkpoint or another download")


def resolve_source(name: str, option: str) -> str:
    """The folder or Hub id `name` with `~` expanded; of a `text_encoder/` or `tokenizer/`, the folder around both.

    The path of a local folder that does not exist raises UserError.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")):
            raise UserError(f"{option}: no folder {name!r} (looked in {Path.cwd()})")
        return name
    siblings = [folder.absolute().parent / sibling for sibling in _COMPONENTS]
    has_siblings = folder.name in _COMPONENTS and all(sibling.is_dir() for sibling in siblings)
    return str(folder.parent if has_siblings else folder)


_COMPONENTS = {"text_encoder": "config.json", "tokenizer": "tokenizer_config.json"}
"""Folders of a pipeline, and of an exported student, with the file by which each is known."""


def component_source(name: str, option: str, component: str) -> str:
    """The same, or the `component` inside where the folder is a pipeline's and has none at its root."""
    source = resolve_source(name, option)
    inside, marker = Path(source) / component, _COMPONENTS[component]
    return str(inside) if (inside / marker).is_file() and not (Path(source) / marker).is_file() else source


def load_tower(name: str, option: str) -> CLIPTextModelWithProjection:
    """A CLIP text tower with its projection, float32; text encoders of SD 2.x pipelines get the identity for one."""
    model: CLIPTextModelWithProjection
    model, missing = _load_with_missing(
        CLIPTextModelWithProjection, name, option, "CLIP text tower", dtype=torch.float32, attention_dropout=0.0
    )
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


def load_any_tokenizer(name: str, option: str, **settings: str) -> Any:  # noqa: ANN401  # the class that the folder names
    """The tokenizer of a local folder or a Hub id."""
    folder = component_source(name, option, "tokenizer")
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(folder, **settings)
    except Exception as error:  # as above
        raise UserError(f"{option}: {name!r} holds no tokenizer ({one_line(error)})") from error


def load_clip_tokenizer(name: str, option: str, **settings: str) -> PreTrainedTokenizerFast:
    """The CLIP tokenizer of a local folder or a Hub id, or one that spells as it does (`extended`'s)."""
    tokenizer = load_any_tokenizer(name, option, **settings)
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not is_clip_bpe(tokenizer):
        raise UserError(f"{option}: {name!r} has a {type(tokenizer).__name__}; a CLIPTokenizer is needed")
    return tokenizer


def is_clip_bpe(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether words are spelled by merges of bytes, the last piece with `</w>`."""
    model = tokenizer.backend_tokenizer.model
    return isinstance(model, BPE) and model.end_of_word_suffix == "</w>"


class QuickMlp(nn.Module):
    """CLIP's feed-forward block around x * sigmoid(1.702 x), with the fused SiLU instead: silu(1.702 x) / 1.702.

    The two factors go into the weights, which are smaller than the activations; the values are the same.
    """

    def __init__(self, mlp: CLIPMLP) -> None:
        """Take over the two linear layers of `mlp` under their own names."""
        super().__init__()
        self.fc1: nn.Linear = mlp.fc1
        self.fc2: nn.Linear = mlp.fc2

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


def encode_ids(model: CLIPTextModelWithProjection, ids: torch.Tensor, layer: StateLayer = "last") -> EncoderOutput:
    """Output for `ids` [batch, length], float32."""
    out = model(input_ids=ids, output_hidden_states=layer != "last")
    hidden_states: torch.Tensor = out.last_hidden_state if layer == "last" else out.hidden_states[-2]
    if layer == "penultimate_normed":
        hidden_states = model.text_model.final_layer_norm(hidden_states)
    eos_id = model.config.eos_token_id
    assert isinstance(eos_id, int)
    return EncoderOutput(hidden_states.float(), out.text_embeds.float(), text_mask(ids, eos_id))


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
