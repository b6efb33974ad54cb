# ruff: noqa: ANN401  ComfyUI is untyped
"""A STUB of the interface of ComfyUI that the node uses; it is not ComfyUI, and nothing here shows that ComfyUI runs.

Written from the signatures in comfy/sd.py and comfy/sd1_clip.py: rows fixed at the teacher's number, a tokenizer of
its own by default, state dictionaries loaded without strictness, prompts as (id, weight) in chunks of 77.
"""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

ROWS = 520
"""What stands for ComfyUI's fixed 49,408: the rows of the tests' teacher."""


class SDClipModel(torch.nn.Module):
    def __init__(
        self, device: str = "cpu", dtype: torch.dtype | None = None, textmodel_json_config: Any = None,
        special_tokens: Any = None, return_projected_pooled: bool = True, model_options: Any = None,
        layer: str = "last", layer_idx: int | None = None, layer_norm_hidden_state: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.special_tokens = special_tokens
        known = {**textmodel_json_config, "vocab_size": ROWS}
        self.transformer = CLIPTextModelWithProjection(CLIPTextConfig(**known))
        width = textmodel_json_config["hidden_size"]
        self.transformer.text_projection = torch.nn.Linear(width, width, bias=False)  # square, as ComfyUI has it
        self.train(mode=False)
        self.layer_idx = layer_idx if layer == "hidden" else None
        assert layer_norm_hidden_state == (layer == "last")

    def load_sd(self, sd: dict[str, torch.Tensor]) -> Any:
        return self.transformer.load_state_dict(sd, strict=False)

    @torch.no_grad()
    def encode_token_weights(self, chunks: list[list[tuple[int, float]]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([[number for number, _ in chunk] for chunk in chunks])
        found = self.transformer(input_ids=ids, output_hidden_states=True)
        states = found.last_hidden_state if self.layer_idx is None else found.hidden_states[self.layer_idx]
        return states.reshape(1, -1, states.shape[-1]), found.text_embeds[:1]


class SD1ClipModel(torch.nn.Module):
    def __init__(
        self, device: str = "cpu", dtype: Any = None, model_options: Any = None, clip_model: Any = None
    ) -> None:
        super().__init__()
        self.clip_l = clip_model(device=device, dtype=dtype, model_options={"model_name": "clip_l"})

    def encode_token_weights(self, chunks: Any) -> Any:
        return self.clip_l.encode_token_weights(chunks["l"])


class SDXLClipModel(torch.nn.Module):
    def __init__(self, device: str = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        raise NotImplementedError("makes encoders of the released sizes")

    def encode_token_weights(self, chunks: Any) -> Any:
        (first, _), (second, pooled) = (getattr(self, f"clip_{x}").encode_token_weights(chunks[x]) for x in "lg")
        return torch.cat([first, second], dim=2), pooled


class SDTokenizer:
    def __init__(
        self, tokenizer_path: str, embedding_directory: Any = None, embedding_size: int = 768,
        tokenizer_class: Any = None, tokenizer_data: Any = None, embedding_key: str = "clip_l",
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer_class.from_pretrained(tokenizer_path)
        self.embedding_size, self.embedding_key = embedding_size, embedding_key
        self.start, self.end = self.tokenizer("")["input_ids"]

    def tokenize_with_weights(self, text: str) -> list[list[tuple[int, float]]]:
        raise NotImplementedError("the node has its own")

    def _try_get_embedding(self, name: str) -> tuple[Any, str]:
        return (torch.ones(2, self.embedding_size), "") if name == "风格" else (None, "")


def token_weights(text: str, weight: float) -> list[tuple[str, float]]:
    """`(text:weight)` without nesting."""
    found = []
    for part in re.split(r"(\([^()]*\))", text):
        inner, _, number = part[1:-1].rpartition(":") if part.startswith("(") else (part, "", "")
        found.append((inner, float(number)) if number else (part, weight))
    return found


class SD1Tokenizer:
    def __init__(
        self, embedding_directory: Any = None, tokenizer_data: Any = None, tokenizer: Any = SDTokenizer
    ) -> None:
        self.clip_l = tokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)

    def tokenize_with_weights(self, text: str) -> dict[str, Any]:
        return {"l": self.clip_l.tokenize_with_weights(text)}


class SDXLTokenizer:
    clip_l: Any
    clip_g: Any

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        """Theirs makes CLIP's own two."""

    def tokenize_with_weights(self, text: str) -> dict[str, Any]:
        return {"l": self.clip_l.tokenize_with_weights(text), "g": self.clip_g.tokenize_with_weights(text)}


class CLIP:
    def __init__(self, target: Any, embedding_directory: Any = None, parameters: int = 0) -> None:
        self.cond_stage_model = target.clip(**target.params, device="cpu", dtype=torch.float32, model_options={})
        self.tokenizer = target.tokenizer(embedding_directory=embedding_directory, tokenizer_data={})

    def encode(self, text: str) -> torch.Tensor:
        return self.encode_pooled(text)[0]

    def encode_pooled(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = self.cond_stage_model.encode_token_weights(
            self.tokenizer.tokenize_with_weights(text)
        )
        return found


def install(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    """Put the stub where `import comfy.sd` finds it, for one test."""
    contents: dict[str, dict[str, Any]] = {
        "comfy": {}, "comfy.sd": {"CLIP": CLIP},
        "comfy.sd1_clip": {"SDClipModel": SDClipModel, "SD1ClipModel": SD1ClipModel, "SDTokenizer": SDTokenizer,
                           "SD1Tokenizer": SD1Tokenizer, "token_weights": token_weights,
                           "escape_important": str, "unescape_important": str},
        "comfy.sdxl_clip": {"SDXLClipModel": SDXLClipModel, "SDXLTokenizer": SDXLTokenizer},
        "comfy.utils": {"load_torch_file": lambda path, safe_load: load_file(path)},
        "folder_paths": {"get_folder_paths": lambda kind: [str(models / kind)], "models_dir": str(models),
                         "add_model_folder_path": lambda kind, path: None},
    }  # fmt: skip
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
