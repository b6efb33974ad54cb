"""sentence-transformers' own multilingual distillation on the same pairs: its MSELoss under its own trainer.

Its student is ours at step 0, exported to a folder that it loads with its stock modules; its teacher likewise. As its
documentation has it, the teacher's embeddings are computed first, by `encode`, and counted. It reads the English and
the Chinese of every pair; ours runs twice, as shipped and with the English of every pair.
"""

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MSELoss  # type: ignore[import-not-found]

from distill.export.folder import export
from distill.export.formats import write_sentence_modules
from distill.student.build import load_student_tokenizer
from distill.train.config import ResolvedConfig
from distill.train.main import make_accelerator
from distill.train.setup import make_parts, prepare
from distill.train.trainer import Trainer
from eval.speed.measure import seconds


class Peer:
    """Their teacher and student, loaded from `work`, and the pairs in the order of the corpus."""

    def __init__(self, work: Path, domain: str, precision: str, batch_size: int) -> None:
        """Load what `compare` has written."""
        self._teacher = SentenceTransformer(str(work / "peer-teacher"))
        self._student = SentenceTransformer(str(work / "peer-student"))
        self._work, self._half, self._size = work, precision == "bf16", batch_size
        folder = ds.dataset(work / "corpus" / "train", format="parquet")
        self._rows = folder.to_table(columns=["en", "zh"], filter=pc.field("domain") == domain)

    def train(self, first: int, count: int) -> float:
        """Seconds to embed the English of `count` pairs and to train one epoch on them, without what goes before."""
        rows = self._rows.take([row % len(self._rows) for row in range(first, first + count)])
        english, chinese = rows["en"].to_pylist(), rows["zh"].to_pylist()
        label: list[Any] = []
        spent = seconds(
            lambda: label.extend(self._teacher.encode(english, batch_size=self._size, show_progress_bar=False))
        )
        told = SentenceTransformerTrainingArguments(
            output_dir=str(self._work / "peer-run"), per_device_train_batch_size=self._size, num_train_epochs=1,
            bf16=self._half, use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to="none",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=self._student,
            args=told,
            train_dataset=Dataset.from_dict({"english": english, "non_english": chinese, "label": label}),
            loss=MSELoss(self._student),
        )
        return spent + seconds(trainer.train)


def compare(resolved: ResolvedConfig, domain: str, work: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Time of their trainer over ours for `steps` batches of pairs, round by round; ours on tight steps."""
    config = resolved.run
    prepared = prepare(resolved, 1)
    pretrained = prepared.pretrained
    export(pretrained.model, pretrained.tokenizer, work / "peer-teacher", [write_sentence_modules])
    ours: dict[str, Trainer] = {}
    for name, every in (("as shipped", config.train.english_every), ("all English", 1)):
        changed = replace(config, train=replace(config.train, full_share=0.0, english_every=every))
        accelerator = make_accelerator(changed)
        own = replace(pretrained, model=pretrained.copied())
        parts = make_parts(changed, accelerator, prepared.store, own)
        ours[name] = Trainer(parts, changed.train, accelerator, work)
    words = load_student_tokenizer(config.student.kind, config.out_dir / "tokenizer", "out_dir")
    export(ours["as shipped"].parts.task.student.stock(), words, work / "peer-student", [write_sentence_modules])
    size = config.train.batch_size
    peer = Peer(work, domain, config.train.precision, size)
    found: dict[str, list[float]] = {name: [] for name in ours}
    for number in range(-1, rounds):  # the first, which fills caches, does not count
        each = range(max(number, 0) * steps, (max(number, 0) + 1) * steps)
        theirs = peer.train(each[0] * size, len(each) * size)
        for name, trainer in ours.items():
            spent = seconds(partial(_train, trainer, each))
            if number >= 0:
                found[name].append(theirs / spent)
    return {
        name: {"median": round(statistics.median(r), 2), "least": round(min(r), 2), "most": round(max(r), 2)}
        for name, r in found.items()
    }


def _train(trainer: Trainer, steps: range) -> None:
    for step in steps:
        trainer.step(step, trainer.parts.readings)
