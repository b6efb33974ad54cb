"""The encoder as one safetensors file, under the key names that other programs look for.

`clip_l.safetensors` has transformers' own names, by which ComfyUI's and Forge's loaders know a CLIP-L.
`webui.safetensors` has the names that a Stable Diffusion 1 checkpoint gives its encoder, as AUTOMATIC1111 and every
checkpoint merger read them; a checkpoint knows no text projection. `comfyui_node.py` is what ComfyUI needs besides.
"""

import shutil
from pathlib import Path

from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from distill import comfyui_node

WEBUI_PREFIX = "cond_stage_model.transformer."


def write_single_files(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `single_file/` into `folder`: clip_l.safetensors, webui.safetensors and comfyui_node.py."""
    weights = {name: weight.detach().contiguous().clone() for name, weight in model.state_dict().items()}
    inside = {WEBUI_PREFIX + name: weight for name, weight in weights.items() if name.startswith("text_model.")}
    place = folder / "single_file"
    place.mkdir()
    told = {"format": "pt", "vocab_size": str(len(tokenizer))}
    save_file(weights, place / "clip_l.safetensors", told)
    save_file(inside, place / "webui.safetensors", told)
    shutil.copyfile(comfyui_node.__file__, place / "comfyui_node.py")
