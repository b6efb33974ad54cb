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
from distill.student.base import StudentEncoder
from distill.student.chinese_bpe import extend_tokenizer, new_token_texts, tied_embeddings
from distill.student.extended import ExtendedConfig, ExtendedStudent
from distill.student.init_embeddings import embeddings_from_translations
from distill.student.multilingual import MultilingualConfig, MultilingualStudent, init_multilingual
from distill.student.tokenizer import load_fast_tokenizer, save_tokenizer
from distill.student.xlmr import XlmrConfig, XlmrStudent, load_encoder
from distill.text_tower import Pretrained

StudentKind = ExtendedConfig | MultilingualConfig | XlmrConfig
_LONGEST_WORD = 8


def build_tokenizer(
    config: StudentKind, teacher: PreTrainedTokenizerFast, corpus: Path, max_length: int, folder: Path
) -> None:
    """Learn the student's tokenizer on the corpus, or take the given one; saved as `folder`, whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(config, MultilingualConfig):
        save_tokenizer(_clip_tokenizer(config), max_length, partial)
    elif isinstance(config, XlmrConfig):
        save_tokenizer(load_fast_tokenizer(config.model, "student.xlmr.model"), max_length, partial)
    else:
        _extended_tokenizer(config, teacher, corpus).save_pretrained(partial)
    partial.rename(folder)


def load_student_tokenizer(config: StudentKind, folder: Path, key: str) -> PreTrainedTokenizerFast:
    """The tokenizer that `build_tokenizer` saved; `key` names the option in errors."""
    name = str(folder.absolute())
    return (
        text_tower.load_clip_tokenizer(name, key)
        if isinstance(config, ExtendedConfig)
        else load_fast_tokenizer(name, key)
    )


def check_student(config: StudentKind) -> None:
    """Refuse a tokenizer or encoder that is not there, before anything is written."""
    if isinstance(config, MultilingualConfig):
        _clip_tokenizer(config)
    elif isinstance(config, XlmrConfig):
        load_fast_tokenizer(config.model, "student.xlmr.model")
        load_encoder(config.model)


def _clip_tokenizer(config: MultilingualConfig) -> PreTrainedTokenizerFast:
    tokenizer = load_fast_tokenizer(config.tokenizer, "student.multilingual.tokenizer")
    if tokenizer.eos_token_id == 2:
        raise UserError(
            f"student.multilingual.tokenizer: {config.tokenizer!r} ends texts with id 2, which transformers reads as "
            "'pool at the largest id'; take another tokenizer, or train one with python -m data.vocab"
        )
    return tokenizer


def _extended_tokenizer(
    config: ExtendedConfig, teacher: PreTrainedTokenizerFast, corpus: Path
) -> PreTrainedTokenizerFast:
    rows = pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")
    is_word = pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{2,{_LONGEST_WORD}}}$")
    words = pc.unique(rows.to_table(columns=["zh"], filter=is_word)["zh"]).to_pylist()
    sentences = _texts(rows, ~is_word) if rows.count_rows(filter=~is_word) else iter(words)
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
    config: StudentKind,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    senses: Mapping[str, list[str]],
    on_cpu: bool,
) -> StudentEncoder: ...


def build_student(
    config: StudentKind,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    senses: Mapping[str, list[str]],
    on_cpu: bool,
) -> StudentEncoder:
    """The student at step 0; `senses` are the glosses of words, empty where a checkpoint will follow."""
    if isinstance(config, ExtendedConfig):
        return _extended(config, teacher, tokenizer, senses, on_cpu)
    if isinstance(config, MultilingualConfig):
        model = init_multilingual(config, teacher.model, teacher.tokenizer, tokenizer, senses)
        return MultilingualStudent(model, teacher.state_layer, on_cpu)
    eos_id = tokenizer.eos_token_id
    assert isinstance(eos_id, int)
    return XlmrStudent(config, eos_id, teacher.width, teacher.model.text_projection.out_features, teacher.max_length)


def _extended(
    config: ExtendedConfig,
    teacher: Pretrained,
    tokenizer: PreTrainedTokenizerFast,
    translations: Mapping[str, list[str]],
    on_cpu: bool,
) -> ExtendedStudent:
    """The extended student at step 0."""
    size = teacher.model.config.vocab_size
    embedding = teacher.model.text_model.embeddings.token_embedding.weight.detach()
    init_embeddings = embeddings_from_translations(
        new_token_texts(tokenizer, size), translations, teacher.tokenizer, embedding
    )
    tied_ids = tied_embeddings(tokenizer, size)
    return ExtendedStudent(teacher, len(tokenizer), tied_ids, init_embeddings, config.freeze, on_cpu)
