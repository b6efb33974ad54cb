"""From a configuration to a student: made anew for a run, or taken from a run's folder."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from transformers import CLIPTokenizer

from distill import tower
from distill.student.chinese_bpe import extend_tokenizer, new_surfaces, twin_rows
from distill.student.extended import ExtendedConfig, ExtendedStudent
from distill.student.glosses import gloss_rows

_LONGEST_WORD = 8


def build_tokenizer(config: ExtendedConfig, teacher: str, corpus: Path, folder: Path) -> None:
    """Learn the student's tokenizer on the corpus and save it as `folder`, whole or not at all."""
    rows = pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")
    alone = pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{2,{_LONGEST_WORD}}}$")
    words = pc.unique(rows.to_table(columns=["zh"], filter=alone)["zh"]).to_pylist()
    sentences = _texts(rows, ~alone) if rows.count_rows(filter=~alone) else iter(words)
    tokenizer = extend_tokenizer(tower.load_tokenizer(teacher, "teacher"), sentences, words, config.vocabulary)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)


def _texts(rows: pa.dataset.Dataset, chosen: pc.Expression) -> Iterator[str]:
    """The Chinese of the chosen rows, read as it is asked for: a corpus need not fit into memory."""
    for batch in rows.to_batches(columns=["zh"], filter=chosen):
        yield from batch["zh"].to_pylist()


def build_student(
    config: ExtendedConfig, teacher: str, tokenizer: CLIPTokenizer, senses: Mapping[str, list[str]], on_cpu: bool
) -> ExtendedStudent:
    """The student at step 0; `senses` are the glosses of words, empty where a checkpoint will follow."""
    model = tower.load_tower(teacher, "teacher")
    size = model.config.vocab_size
    embedding = model.text_model.embeddings.token_embedding.weight.detach()
    surfaces = new_surfaces(tokenizer, size)
    first_rows = gloss_rows(surfaces, senses, tower.load_tokenizer(teacher, "teacher"), embedding)
    return ExtendedStudent(model, len(tokenizer), twin_rows(tokenizer, size), first_rows, config.freeze, on_cpu)
