"""A CLIP text tower, a corpus and a configuration that train in a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

SLOTS = 77
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "r e", "re d</w>", "d o", "do g</w>"]
COLOURS = {"red": "红色", "blue": "蓝色", "white": "白色", "black": "黑色", "green": "绿色"}
ANIMALS = {"cat": "猫", "dog": "狗", "bird": "鸟", "horse": "马", "fish": "鱼", "sheep": "羊"}
PLACES = {"the grass": "草地", "the snow": "雪地", "the sea": "大海"}


def teacher_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE in the published layout: 256 bytes, 256 bytes that end a word, merges, two special tokens."""
    symbols = list(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    pieces = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(merge.split()) for merge in MERGES)]
    vocab = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges = [tuple(merge.split()) for merge in MERGES]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=SLOTS)  # type: ignore[arg-type]


def teacher_model(vocabulary: int) -> CLIPTextModelWithProjection:
    """Two layers of width 32 with weights of a fixed seed, lively enough that sentences differ."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=SLOTS,
        projection_dim=16,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        initializer_factor=1.0,
    )
    torch.manual_seed(5)
    model = CLIPTextModelWithProjection(config)
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.normal_(std=0.5)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def write_teacher(folder: Path) -> Path:
    """The tiny teacher, as transformers saves it."""
    tokenizer = teacher_tokenizer()
    tokenizer.save_pretrained(folder)
    teacher_model(len(tokenizer)).save_pretrained(folder)
    return folder


def captions() -> list[tuple[str, str]]:
    """Ninety English-Chinese pairs."""
    return [
        (f"a {colour} {animal} on {place}", f"{where}上的一只{hue}的{beast}")
        for colour, hue in COLOURS.items()
        for animal, beast in ANIMALS.items()
        for place, where in PLACES.items()
    ]


def write_shard(path: Path, pairs: Sequence[tuple[str, str]], domains: Sequence[str]) -> None:
    """One Parquet shard of a corpus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    en, zh = [en for en, _ in pairs], [zh for _, zh in pairs]
    pq.write_table(pa.table({"en": en, "zh": zh, "domain": list(domains)}), path)


def write_corpus(folder: Path) -> Path:
    """Two domains, training rows in two shards and a held-out slice."""
    words = [*COLOURS.items(), *ANIMALS.items(), *PLACES.items()]
    rows = captions()
    write_shard(folder / "train" / "part-00000.parquet", rows[:50], ["caption"] * 50)
    write_shard(
        folder / "train" / "part-00001.parquet", rows[50:80] + words, ["caption"] * 30 + ["dictionary"] * len(words)
    )
    write_shard(folder / "valid" / "part-00000.parquet", rows[80:], ["caption"] * 10)
    return folder


def run_options(teacher: Path, corpus: Path, out: Path) -> dict[str, Any]:
    """A run's configuration as a tree: six steps of eight pairs."""
    return {
        "teacher": str(teacher),
        "out_dir": str(out),
        "student": {"extended": {"vocabulary": {"words": 12, "min_character_count": 1}}},
        "data": {"corpus": str(corpus), "window": 2},
        "train": {
            "steps": 6,
            "batch_size": 8,
            "english_every": 2,
            "full_share": 0.34,
            "warmup": 2,
            "precision": "fp32",
            "log_every": 1,
            "eval_every": 3,
            "save_every": 3,
        },
    }


def weights_at(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The weights of a run's checkpoint."""
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


def write_config(path: Path, tree: dict[str, Any]) -> list[str]:
    """The tree as a YAML file, and the options that name it."""
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return ["--config", str(path)]
