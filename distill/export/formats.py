"""Further formats of an exported student: golden vectors, sentence-transformers, ComfyUI, WebUI, an `xlmr` folder.

Golden vectors are 20 prompts with their ids, states and features, against which any other runtime can be checked.
A sentence-transformers model is the folder itself with stock modules beside it, and no code of ours: transformer,
pooling (for CLIP the state at the last token, which is the end-of-text), projection, normalisation.
"""

import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import AutoModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from data.cli import UserError
from data.files import atomic_folder, write_json
from distill.export.folder import TOKENIZER_PROBES, Writer, check_output_folder, write_tokenizer
from distill.losses.translation import write_reader
from distill.student.xlmr import XlmrStudent
from distill.text_tower import padded_ids
from distill.train.checkpoint import OpenedRun, open_decoder

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


Pooling = Literal["cls_token", "lasttoken", "mean_tokens"]
# The names of the classes up to release 5; release 6 knows them still and moves them itself.
MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Dense", "sentence_transformers.models.Dense"),
    ("3_Normalize", "sentence_transformers.models.Normalize"),
)
COMFYUI_PACKAGE = Path(__file__).with_name("comfyui")
WEBUI_EXTENSION = Path(__file__).with_name("webui_extension.py")


def write_golden(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write `golden/prompts.json` and `golden/vectors.safetensors` into `folder`.

    Vectors: input_ids [20, max_length] padded as diffusers pads them, last_hidden_state [20, max_length, hidden_size]
    and text_embeds [20, dim] in float32 on the CPU.
    """
    ids = padded_ids(tokenizer, GOLDEN_PROMPTS, model.config.max_position_embeddings)
    with torch.inference_mode():
        outputs = model(input_ids=ids)
    vectors = {"input_ids": ids, "last_hidden_state": outputs.last_hidden_state, "text_embeds": outputs.text_embeds}
    vectors = {name: value.clone() for name, value in vectors.items()}
    (folder / "golden").mkdir()
    write_json(GOLDEN_PROMPTS, folder / "golden" / "prompts.json")
    save_file(vectors, folder / "golden" / "vectors.safetensors", {"format": "pt"})


def decoder_writer(run: Path, opened: OpenedRun) -> Writer:
    """A writer of `decoder/`, which translates states into English; UserError where a run has none that does."""
    decoder, translation = open_decoder(run, opened), opened.config.losses.translation
    assert translation is not None
    if not translation.en_from_zh or opened.config.states != "last":
        raise UserError(
            "--parts decoder: it reads English back from the last states of Chinese; train with "
            "losses.translation.en_from_zh above 0 and states: last, or leave it out"
        )

    def write(folder: Path, _model: CLIPTextModelWithProjection, _tokenizer: PreTrainedTokenizerFast) -> None:
        write_reader(decoder, translation.decoder, opened.student, folder / "decoder")

    return write


def write_sentence_modules(
    folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write modules.json and its modules into `folder`, whose root holds the transformers model."""
    write_modules(folder, model.text_projection.weight, "lasttoken", tokenizer.model_max_length)


def write_modules(folder: Path, projection: torch.Tensor, pooling: Pooling, max_length: int) -> None:
    """Write the modules of a model with this pooling, whose result is multiplied by `projection` [dim, hidden_size]."""
    dim, width = projection.shape
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(MODULES)]
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "lasttoken", "mean_tokens")}
    files: dict[str, object] = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        "1_Pooling/config.json": {"word_embedding_dimension": width, **modes},
        "2_Dense/config.json": {
            "in_features": width, "out_features": dim, "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }  # fmt: skip
    for path, _ in MODULES[1:]:
        (folder / path).mkdir()
    for name, value in files.items():
        write_json(value, folder / name)
    save_file({"linear.weight": projection.detach().contiguous().clone()}, folder / "2_Dense" / "model.safetensors")


def write_comfyui_node(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the custom-node package for ComfyUI to `comfyui/ComfyUI-Yuqiao/` in `folder`."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(COMFYUI_PACKAGE, folder / "comfyui" / "ComfyUI-Yuqiao", ignore=ignored)


def write_webui_extension(folder: Path, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the extension for AUTOMATIC1111's WebUI and Forge to `webui/yuqiao/` in `folder`."""
    scripts = folder / "webui" / "yuqiao" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copyfile(WEBUI_EXTENSION, scripts / "yuqiao.py")


def export_sentence_encoder(student: XlmrStudent, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write an `xlmr` student to the folder `out`, whole or not at all, and compare it as loaded with it as trained.

    At the root the encoder with its tokenizer, as transformers loads it; beside it the stock modules that pool and
    project; in `states.safetensors` the projection of its states into the teacher's width.
    """
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
    """Load the encoder as a user would; any difference from the trained one raises RuntimeError."""
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
