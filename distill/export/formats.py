"""Golden vectors: 20 prompts with their ids, states and features, against which any other runtime can be checked.

What makes the exported folder a sentence-transformers model as well: stock modules and no code of ours.

Transformer -> pooling, for CLIP the state at the last token, which is the end-of-text -> Dense -> normalise.

The encoder as one safetensors file, under the key names that other programs look for.

`clip_l.safetensors` has transformers' own names, by which ComfyUI's and Forge's loaders know a CLIP-L.
`webui.safetensors` has the names that a Stable Diffusion 1 checkpoint gives its encoder, as AUTOMATIC1111 and every
checkpoint merger read them; a checkpoint knows no text projection. `comfyui_node.py` is what ComfyUI needs besides.

Write an `xlmr` student as what it is: an encoder with a pooling and a projection, for sentence-transformers.

At the root the encoder with its tokenizer, as transformers loads it; beside it the stock modules that pool and project;
in `states.safetensors` the projection of its states into the teacher's width.
"""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import AutoModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.files import atomic_folder
from distill.export import comfyui_node
from distill.export.folder import TOKENIZER_PROBES, check_output_folder, write_tokenizer
from distill.student.xlmr import XlmrStudent

GOLDEN_PROMPTS = (
    "",
    "机械狗",
    "戴帽子拿剑的猫",
    "梵高星空",
    "阿拉斯加千年不化的雪山 一架红色直升机正在起飞",
    "孤舟蓑笠翁，独钓寒江雪。",
    "一只白色的狗在草地上追逐黄色的飞盘",
    "两个穿红衣服的小女孩坐在长椅上吃冰淇淋",
    "赛博朋克风格的城市夜景，霓虹灯，雨夜，8k，超高清",
    "水墨画：山、云、亭子（留白）",
    "a 红色的helicopter over雪山, cinematic lighting",
    "masterpiece，best quality，一个女孩，长发，微笑",
    "機械狗在月球上",
    "低质量，模糊，变形的手",
    "a photo of a cat",
    "Two men in green shirts are standing in a yard.",
    "an astronaut riding a horse on mars, highly detailed, 8k",
    "Café ☕ naïve 3.14",
    "龘靐齉",
    "一幅非常非常长的画，" * 12,
)


def write_golden(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `golden/prompts.json` and `golden/vectors.safetensors` into `folder`.

    Vectors: input_ids [20, slots] padded as diffusers pads them, last_hidden_state [20, slots, width] and text_embeds
    [20, dim] in float32 on the CPU.
    """
    ids = padded_ids(tokenizer, model.config.max_position_embeddings)
    with torch.inference_mode():
        outputs = model(input_ids=ids)
    golden_folder = folder / "golden"
    golden_folder.mkdir()
    prompts = json.dumps(GOLDEN_PROMPTS, ensure_ascii=False, indent=2) + "\n"
    (golden_folder / "prompts.json").write_text(prompts, encoding="utf-8")
    vectors = {"input_ids": ids, "last_hidden_state": outputs.last_hidden_state, "text_embeds": outputs.text_embeds}
    save_file(
        {name: value.clone() for name, value in vectors.items()},
        golden_folder / "vectors.safetensors",
        {"format": "pt"},
    )


def padded_ids(tokenizer: PreTrainedTokenizerFast, max_length: int) -> torch.Tensor:
    """The golden prompts as ids [20, slots]."""
    encoding = tokenizer(
        list(GOLDEN_PROMPTS), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    )
    ids: torch.Tensor = encoding.input_ids
    return ids


Pooling = Literal["cls_token", "lasttoken", "mean_tokens"]

# The names of the classes up to release 5; release 6 knows them still and moves them itself.
MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Dense", "sentence_transformers.models.Dense"),
    ("3_Normalize", "sentence_transformers.models.Normalize"),
)


def write_sentence_modules(
    folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write modules.json and its modules into `folder`, whose root holds the transformers model."""
    write_modules(folder, model.text_projection.weight, "lasttoken", tokenizer.model_max_length)


def write_modules(folder: Path, projection: torch.Tensor, pooling: Pooling, max_length: int) -> None:
    """The same for a model pooled in this way, whose pooled state is multiplied by `projection` [dim, width]."""
    dim, width = projection.shape
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(MODULES)]
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "lasttoken", "mean_tokens")}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    _write_json(
        folder / "2_Dense" / "config.json",
        {"in_features": width, "out_features": dim, "bias": False,
         "activation_function": "torch.nn.modules.linear.Identity"},
    )  # fmt: skip
    save_file({"linear.weight": projection.detach().contiguous().clone()}, folder / "2_Dense" / "model.safetensors")
    (folder / "3_Normalize").mkdir()


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


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


def export_sentence_encoder(student: XlmrStudent, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write `student` to the folder `out`, whole or not at all, and compare what loads with what was trained."""
    check_output_folder(out)
    with atomic_folder(out) as folder:
        student.encoder.save_pretrained(folder)
        write_tokenizer(tokenizer, folder, student.vocabulary.max_length)
        write_modules(
            folder,
            student.to_pooled.weight,
            "cls_token" if student.pooling == "first" else "mean_tokens",
            student.vocabulary.max_length,
        )
        states = {f"linear.{name}": weight.detach().clone() for name, weight in student.to_states.named_parameters()}
        save_file(states, folder / "states.safetensors")
        _verify_encoder(folder, student, tokenizer)


@torch.no_grad()
def _verify_encoder(folder: Path, student: XlmrStudent, tokenizer: PreTrainedTokenizerFast) -> None:
    """Any difference between the loaded encoder and the trained one is a bug."""
    loaded = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    trained = student.encoder.eval()
    batch = tokenizer(
        list(TOKENIZER_PROBES),
        padding=True,
        truncation=True,
        max_length=student.vocabulary.max_length,
        return_tensors="pt",
    )
    ids, mask = batch["input_ids"], batch["attention_mask"]
    loaded_states, trained_states = (
        model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (loaded, trained)
    )
    if not torch.allclose(loaded_states, trained_states, atol=1e-6):
        raise RuntimeError(f"{folder}: the encoder loads with other states than the trained one")
