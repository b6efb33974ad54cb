"""The student as ONNX, in float32 and in int8, each run and compared with the trained model."""

import importlib
import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from distill.export.formats import GOLDEN_PROMPTS
from distill.text_tower import padded_ids

OPSET = 18
TOLERANCE = 1e-4
"""The largest difference from the trained model that any state or feature may have."""
SINGLE_FILE_BYTES = 1_500_000_000
"""Above it the weights go to a file of their own: a protobuf cannot exceed 2 GB."""


def require_packages() -> None:
    """Raise UserError unless the packages of the extra `onnx` are there."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX needs the package {name}; install the extra: pip install 'yuqiao[onnx]'")


class OnnxModule(torch.nn.Module):
    """The encoder as ONNX sees it: ids [batch, length] to last_hidden_state [batch, length, hidden_size] and
    text_embeds [batch, dim]."""

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        """Share the weights of `model`."""
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States for prompts, features for retrieval."""
        outputs: Any = self.model(input_ids=input_ids)
        return outputs.last_hidden_state, outputs.text_embeds


def write_onnx(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `onnx/model.onnx` and `onnx/model_int8.onnx`; float32 further than TOLERANCE away raises RuntimeError."""
    require_packages()
    onnx_folder = folder / "onnx"
    onnx_folder.mkdir()
    max_length = int(model.config.max_position_embeddings)
    export_onnx(model, max_length, onnx_folder / "model.onnx")
    error = max_difference(onnx_folder / "model.onnx", model, tokenizer)
    if error > TOLERANCE:
        raise RuntimeError(
            f"{onnx_folder / 'model.onnx'}: differs from the trained model by {error:.2e}, over {TOLERANCE}"
        )
    quantise(onnx_folder / "model.onnx", onnx_folder / "model_int8.onnx")
    max_difference(onnx_folder / "model_int8.onnx", model, tokenizer)


def export_onnx(model: CLIPTextModelWithProjection, max_length: int, path: Path) -> None:
    """Export with opset OPSET; batch and length (up to `max_length`) are free."""
    outputs = ["last_hidden_state", "text_embeds"]
    export_module(OnnxModule(model), torch.int64, max_length, "input_ids", outputs, path)


def export_module(
    module: torch.nn.Module, ids_type: torch.dtype, max_length: int, input_name: str, outputs: list[str], path: Path
) -> None:
    """Export `module`, which takes ids [batch, length] of `ids_type`, under these names."""
    size = sum(weight.numel() for weight in module.parameters()) * 4
    ids = torch.ones((2, 9), dtype=ids_type)  # any two rows of any length: only the shape is traced
    dynamic_dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2, max=max_length)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (ids,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=outputs,
            dynamic_shapes=(dynamic_dims,),
            external_data=size > SINGLE_FILE_BYTES,
            verbose=False,
        )


def quantise(path: Path, target: Path) -> None:
    """Write int8 weights with one scale for each channel; activations are quantised at run time."""
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # its advice on pre-processing changes nothing here
    try:
        quantization.quantize_dynamic(path, target, weight_type=quantization.QuantType.QInt8, per_channel=True)
    finally:
        root.setLevel(level)


def max_difference(path: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> float:
    """The largest difference of any output on the golden prompts: padded to the full length, and in shorter batches."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    padded = padded_ids(tokenizer, GOLDEN_PROMPTS, int(model.config.max_position_embeddings))
    largest = 0.0
    for ids in (padded, padded[:3, :20].contiguous(), padded[1:2, :6].contiguous()):
        onnx_outputs = session.run(None, {"input_ids": ids.numpy()})
        with torch.inference_mode():
            torch_outputs = OnnxModule(model)(ids)
        largest = max(
            largest, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(onnx_outputs, torch_outputs, strict=True))
        )
    return largest
