"""sentence-transformers' own multilingual distillation on the same pairs: its MSELoss under its own trainer.

Teacher and student are ours at step 0, exported to folders that it loads with its stock modules. As in its
documentation, the teacher's embeddings are computed first, by `encode`, and count. It reads the English and the Chinese
of every pair; ours runs twice, as shipped and with the English of every pair.
"""

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
from accelerate import PartialState
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MSELoss  # type: ignore[import-not-found]

from distill.distributed import keep_freed_memory
from distill.export.folder import export
from distill.export.formats import write_sentence_modules
from distill.train.config import RunConfig
from distill.train.main import make_accelerator
from distill.train.setup import build_setup, prepare_run
from distill.train.trainer import Trainer
from eval.speed.measure import timed


class SentenceTransformersPeer:
    """The peer's teacher and student, loaded from `work`, and the pairs in the order of the corpus."""

    def __init__(self, work: Path, domain: str, precision: str, batch_size: int) -> None:
        """Load the folders that `time_against_peer` writes."""
        self._device = PartialState().device
        self._teacher = SentenceTransformer(str(work / "peer-teacher"), device=str(self._device))
        self._student = SentenceTransformer(str(work / "peer-student"), device=str(self._device))
        self._work, self._half, self._size = work, precision == "bf16", batch_size
        folder = ds.dataset(work / "corpus" / "train", format="parquet")
        self._rows = folder.to_table(columns=["en", "zh"], filter=pc.field("domain") == domain)

    def train(self, first: int, count: int) -> float:
        """Seconds to embed the English of `count` pairs and to train one epoch on them; set-up does not count."""
        rows = self._rows.take([row % len(self._rows) for row in range(first, first + count)])
        english, chinese = rows["en"].to_pylist(), rows["zh"].to_pylist()
        label: list[Any] = []
        elapsed = timed(
            lambda: label.extend(self._teacher.encode(english, batch_size=self._size, show_progress_bar=False))
        )
        training_args = SentenceTransformerTrainingArguments(
            output_dir=str(self._work / "peer-run"), per_device_train_batch_size=self._size, num_train_epochs=1,
            bf16=self._half, use_cpu=self._device.type == "cpu", save_strategy="no", report_to="none",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=self._student,
            args=training_args,
            train_dataset=Dataset.from_dict({"english": english, "non_english": chinese, "label": label}),
            loss=MSELoss(self._student),
        )
        return elapsed + timed(trainer.train)


def time_against_peer(config: RunConfig, domain: str, work: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of the peer's trainer over ours for `steps` batches, round by round; ours dynamically padded.

    Each with the memory settings that it has by itself.
    """
    prepared = prepare_run(config, 1)
    pretrained = prepared.pretrained
    export(pretrained.model, pretrained.tokenizer, work / "peer-teacher", [write_sentence_modules])
    trainers: dict[str, Trainer] = {}
    for name, every in (("as shipped", config.train.english_every), ("all English", 1)):
        changed = replace(config, train=replace(config.train, full_share=0.0, english_every=every))
        accelerator = make_accelerator(changed)
        model_copy = replace(pretrained, model=pretrained.copy_model())
        setup = build_setup(changed, accelerator, prepared.store, model_copy)
        trainers[name] = Trainer(setup, changed.train, accelerator, work)
    tokenizer = config.student.kind.load_tokenizer(config.out_dir / "tokenizer", "out_dir")
    export(
        trainers["as shipped"].setup.task.student.to_clip(), tokenizer, work / "peer-student", [write_sentence_modules]
    )
    size = config.train.batch_size
    peer = SentenceTransformersPeer(work, domain, config.train.precision, size)
    ratios: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(-1, rounds):  # the first fills caches and does not count
        step_range = range(max(number, 0) * steps, (max(number, 0) + 1) * steps)
        keep_freed_memory(False)
        peer_seconds = peer.train(step_range[0] * size, len(step_range) * size)
        keep_freed_memory(accelerator.device.type == "cpu")
        for name, trainer in trainers.items():
            elapsed = timed(partial(_train, trainer, step_range))
            if number >= 0:
                ratios[name].append(peer_seconds / elapsed)
    return {
        name: {"median": round(statistics.median(r), 2), "least": round(min(r), 2), "most": round(max(r), 2)}
        for name, r in ratios.items()
    }


def _train(trainer: Trainer, steps: range) -> None:
    for step in steps:
        trainer.step(step, trainer.setup.loader)
