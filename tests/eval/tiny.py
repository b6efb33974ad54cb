"""Random CLIP models small enough for a test, and the benchmark files to score them on."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from distill.student.chinese_bpe import split_at_chinese

WIDTH = 16


def tiny_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE of CLIP's own form: 512 bytes, some merges, start and end of text."""
    return _byte_pairs([])


def tiny_student_tokenizer() -> PreTrainedTokenizerFast:
    """The same with 猫 above it, as a student has Chinese."""
    return split_at_chinese(_byte_pairs([("ç", "Į"), ("çĮ", "«"), ("çĮ", "«</w>")]))  # 猫 is the bytes e7 8c ab


def _byte_pairs(above: list[tuple[str, str]]) -> CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    merges: Any = [("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    for first, second in above:
        merges.append((first, second))
        vocab[first + second] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def tiny_clip(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> CLIPModel:
    """A CLIPModel of 2 + 1 layers for 32-pixel pictures, with weights wide enough that features differ."""
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=WIDTH,
    )  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
    model.train(False)
    return model


def text_half(clip: CLIPModel) -> CLIPTextModelWithProjection:
    """The text tower of `clip` with its projection, sharing no memory with it."""
    text: Any = clip.config.text_config
    model = CLIPTextModelWithProjection(text)
    wanted = model.state_dict()
    model.load_state_dict({name: weight for name, weight in clip.state_dict().items() if name in wanted})
    model.train(False)
    return model


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A whole CLIPModel with its tokenizer, as on the Hub."""
    tokenizer = tiny_tokenizer()
    tiny_clip(tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_text_half(folder: Path, seed: int = 0) -> Path:
    """A student's folder: text tower with projection, and tokenizer."""
    tokenizer = tiny_tokenizer()
    text_half(tiny_clip(tokenizer, seed)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_translator(folder: Path) -> Path:
    """A random sequence-to-sequence model of bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(["<s>", "<pad>", "</s>", *letters])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=64
    ).save_pretrained(folder)
    config = BartConfig(
        vocab_size=260, d_model=16, max_position_embeddings=256, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder
