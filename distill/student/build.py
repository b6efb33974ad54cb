"""From a configuration to a student: made anew for a run, or taken from a run's folder."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from transformers import PreTrainedTokenizerFast

from data.cli import UserError
from distill import text_tower
from distill.student.base import StudentTower
from distill.student.chinese_bpe import extend_tokenizer, new_surfaces, twin_rows
from distill.student.extended import ExtendedConfig, ExtendedStudent
from distill.student.init_embeddings import gloss_rows
from distill.student.multilingual import MultilingualConfig, MultilingualStudent, first_multilingual
from distill.student.tokenizer import load_words, save_words
from distill.student.xlmr import XlmrConfig, XlmrStudent, load_encoder
from distill.text_tower import Pretrained

Kind = ExtendedConfig | MultilingualConfig | XlmrConfig
_LONGEST_WORD = 8


def build_tokenizer(config: Kind, teacher: PreTrainedTokenizerFast, corpus: Path, slots: int, folder: Path) -> None:
    """Learn the student's tokenizer on the corpus, or take the given one; saved as `folder`, whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(config, MultilingualConfig):
        save_words(_clip_words(config), slots, partial)
    elif isinstance(config, XlmrConfig):
        save_words(load_words(config.model, "student.xlmr.model"), slots, partial)
    else:
        _extended_tokenizer(config, teacher, corpus).save_pretrained(partial)
    partial.rename(folder)


def load_student_tokenizer(config: Kind, folder: Path, key: str) -> PreTrainedTokenizerFast:
    """The tokenizer that `build_tokenizer` saved; `key` names the option in errors."""
    name = str(folder.absolute())
    return text_tower.load_tokenizer(name, key) if isinstance(config, ExtendedConfig) else load_words(name, key)


def check_student(config: Kind) -> None:
    """Refuse a tokenizer or encoder that is not there, before anything is written."""
    if isinstance(config, MultilingualConfig):
        _clip_words(config)
    elif isinstance(config, XlmrConfig):
        load_words(config.model, "student.xlmr.model")
        load_encoder(config.model)


def _clip_words(config: MultilingualConfig) -> PreTrainedTokenizerFast:
    words = load_words(config.tokenizer, "student.multilingual.tokenizer")
    if words.eos_token_id == 2:
        raise UserError(
            f"student.multilingual.tokenizer: {config.tokenizer!r} ends texts with id 2, which transformers reads as "
            "'pool at the largest id'; take another tokenizer, or train one with python -m data.vocab"
        )
    return words


def _extended_tokenizer(
    config: ExtendedConfig, teacher: PreTrainedTokenizerFast, corpus: Path
) -> PreTrainedTokenizerFast:
    rows = pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")
    alone = pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{2,{_LONGEST_WORD}}}$")
    words = pc.unique(rows.to_table(columns=["zh"], filter=alone)["zh"]).to_pylist()
    sentences = _texts(rows, ~alone) if rows.count_rows(filter=~alone) else iter(words)
    return extend_tokenizer(teacher, sentences, words, config.vocabulary)


def _texts(rows: pa.dataset.Dataset, chosen: pc.Expression) -> Iterator[str]:
    """The Chinese of the chosen rows, read as it is asked for: a corpus need not fit into memory."""
    for batch in rows.to_batches(columns=["zh"], filter=chosen):
        yield from batch["zh"].to_pylist()


@overload
def build_student(
    config: ExtendedConfig,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    senses: Mapping[str, list[str]],
    on_cpu: bool,
) -> ExtendedStudent: ...


@overload
def build_student(
    config: Kind, teacher: Pretrained, tokenizer: PreTrainedTokenizerFast, senses: Mapping[str, list[str]], on_cpu: bool
) -> StudentTower: ...


def build_student(
    config: Kind, teacher: Pretrained, tokenizer: PreTrainedTokenizerFast, senses: Mapping[str, list[str]], on_cpu: bool
) -> StudentTower:
    """The student at step 0; `senses` are the glosses of words, empty where a checkpoint will follow."""
    if isinstance(config, ExtendedConfig):
        return _extended(config, teacher, tokenizer, senses, on_cpu)
    if isinstance(config, MultilingualConfig):
        model = first_multilingual(config, teacher.model, teacher.tokenizer, tokenizer, senses)
        return MultilingualStudent(model, teacher.states, on_cpu)
    end_of_text = tokenizer.eos_token_id
    assert isinstance(end_of_text, int)
    return XlmrStudent(config, end_of_text, teacher.width, teacher.model.text_projection.out_features, teacher.slots)


def _extended(
    config: ExtendedConfig,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    senses: Mapping[str, list[str]],
    on_cpu: bool,
) -> ExtendedStudent:
    """The extended student at step 0."""
    size = teacher.model.config.vocab_size
    embedding = teacher.model.text_model.embeddings.token_embedding.weight.detach()
    first_rows = gloss_rows(new_surfaces(tokenizer, size), senses, teacher.tokenizer, embedding)
    twins = twin_rows(tokenizer, size)
    return ExtendedStudent(teacher, len(tokenizer), twins, first_rows, config.freeze, on_cpu)
