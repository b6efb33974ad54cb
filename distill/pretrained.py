"""The teacher as it is loaded, once a process: what the run's teacher and student are made from."""

import copy
from dataclasses import dataclass

from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.command import UserError
from distill.tower import StateLayer, load_tokenizer, load_tower


@dataclass(frozen=True)
class Pretrained:
    """A CLIP text tower with its tokenizer, and which of its states a UNet reads."""

    model: CLIPTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast
    states: StateLayer = "last"

    @property
    def slots(self) -> int:
        """Most tokens of a prompt."""
        return int(self.model.config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Width of the states."""
        return int(self.model.config.hidden_size)

    def copied(self) -> CLIPTextModelWithProjection:
        """The model again, to be changed."""
        return copy.deepcopy(self.model)


def load_pretrained(name: str, states: StateLayer = "last", padding: str | None = None) -> Pretrained:
    """The teacher of a folder or Hub id; `padding` is the token that fills a prompt, None for the tokenizer's own."""
    tokenizer = load_tokenizer(name, "teacher")
    if padding is not None:
        if padding not in tokenizer.get_vocab():
            raise UserError(f"padding: {padding!r} is no token of {name!r}; Stable Diffusion 2 and SDXL pad with '!'")
        # As the pipeline's own tokenizer is made: where a text has the token, it is read as a special one too.
        tokenizer = load_tokenizer(name, "teacher", pad_token=padding)
    return Pretrained(load_tower(name, "teacher"), tokenizer, states)
