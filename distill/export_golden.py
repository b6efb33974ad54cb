"""Golden vectors: 20 prompts with their ids, states and features, against which any other runtime can be checked."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerFast

PROMPTS = (
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
        found = model(input_ids=ids)
    place = folder / "golden"
    place.mkdir()
    prompts = json.dumps(PROMPTS, ensure_ascii=False, indent=2) + "\n"
    (place / "prompts.json").write_text(prompts, encoding="utf-8")
    vectors = {"input_ids": ids, "last_hidden_state": found.last_hidden_state, "text_embeds": found.text_embeds}
    save_file({name: value.clone() for name, value in vectors.items()}, place / "vectors.safetensors", {"format": "pt"})


def padded_ids(tokenizer: PreTrainedTokenizerFast, slots: int) -> torch.Tensor:
    """The golden prompts as ids [20, slots]."""
    found = tokenizer(list(PROMPTS), padding="max_length", truncation=True, max_length=slots, return_tensors="pt")
    ids: torch.Tensor = found.input_ids
    return ids
