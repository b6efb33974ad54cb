"""The default student: the teacher's own transformer and tokenizer, plus rows for Chinese tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast

from data.cli import UserError
from data.loader.batches import Vocabulary
from data.loader.token_store import DomainTokens
from distill.loading import load_clip_tokenizer
from distill.student.base import ClipStudent, Language, OutputRows, StudentKind, vocabulary_of
from distill.student.chinese_bpe import (
    FULLWIDTH_TOKENS,
    WORD_END,
    VocabularyConfig,
    chinese_texts,
    extend_tokenizer,
    is_word,
    training_rows,
)
from distill.student.word_alignment import first_rows
from distill.text_tower import Pretrained, load_tower

Freeze = Literal["none", "embeddings", "transformer"]


class SplitEmbedding(nn.Module):
    """A token embedding in two tables, the teacher's and the new one, where several ids may share a row."""

    def __init__(self, teacher: torch.Tensor, new: torch.Tensor, row_of_id: torch.Tensor) -> None:
        """`teacher` [old, width], `new` [rows, width]; `row_of_id` [vocabulary] counts through both tables."""
        super().__init__()
        self.teacher = nn.Parameter(teacher.clone())
        self.new = nn.Parameter(new.clone())
        self.register_buffer("row_of_id", row_of_id, persistent=False)
        self.row_of_id: torch.Tensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [batch, length, width] of `ids` [batch, length]."""
        row, old = self.row_of_id[ids], len(self.teacher)
        known = F.embedding(row.clamp(max=old - 1), self.teacher)
        return torch.where((row < old)[..., None], known, F.embedding((row - old).clamp(min=0), self.new))

    @property
    def weight(self) -> torch.Tensor:
        """One stock table [vocabulary, width] with gradients, shared rows repeated."""
        return F.embedding(self.row_of_id, torch.cat([self.teacher, self.new]))


class _RowIndex(nn.Module):
    """Ids and rows of `OutputRows`, and the teacher's rows that Chinese tokens share."""

    def __init__(self, embedding: SplitEmbedding, eos_id: int, language: str) -> None:
        super().__init__()
        row, old = embedding.row_of_id, len(embedding.teacher)
        used = torch.arange(old)
        if language == "zh":
            used = torch.unique(torch.cat([row[old:], torch.tensor([eos_id])]))
        place = torch.full((int(row.max()) + 1,), -1)
        place[used] = torch.arange(len(used))
        ids = used
        if language == "zh":  # the first of the ids that share a row
            ids = used.scatter_reduce(0, place[row[old:]], torch.arange(old, len(row)), "amin", include_self=False)
        for name, buffer in (("shared", used[used < old]), ("ids", ids), ("of_id", place[row])):
            self.register_buffer(name, buffer, persistent=False)
        self.shared: torch.Tensor
        self.ids: torch.Tensor
        self.of_id: torch.Tensor


class ExtendedStudent(ClipStudent):
    """A CLIP text tower whose vocabulary has grown; before training its English output is bit-exactly the teacher's."""

    def __init__(
        self,
        teacher: Pretrained,
        vocabulary: Vocabulary,
        embedding: SplitEmbedding,
        config: "ExtendedConfig",
        on_cpu: bool,
    ) -> None:
        """Start as `teacher` with `embedding`."""
        super().__init__(teacher.copy_model(), teacher.state_layer, vocabulary, on_cpu)
        self.text.text_model.embeddings.token_embedding = embedding
        self._rows = nn.ModuleDict({name: _RowIndex(embedding, vocabulary.eos_id, name) for name in get_args(Language)})
        if config.freeze == "transformer":
            self.text.requires_grad_(False)
            self.embedding.new.requires_grad_(True)
        self.embedding.teacher.requires_grad_(config.freeze == "none")
        self.text.text_projection.requires_grad_(config.train_projection)

    @property
    def embedding(self) -> SplitEmbedding:
        """The token embedding."""
        embedding: SplitEmbedding = self.text.text_model.embeddings.token_embedding
        return embedding

    def output_rows(self, language: Language) -> OutputRows:
        """For English the teacher's rows; for Chinese those of the new tokens and of the end-of-text."""
        index, embedding = self._rows[language], self.embedding
        assert isinstance(index, _RowIndex)
        shared = embedding.teacher[index.shared] if language == "zh" else embedding.teacher
        table = torch.cat([shared, embedding.new]) if language == "zh" else shared
        return OutputRows(table, index.ids, index.of_id)


@dataclass(frozen=True)
class ExtendedConfig(StudentKind):
    """The teacher's transformer with Chinese tokens appended to its vocabulary."""

    shares_english_tokens: ClassVar[bool] = True
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    freeze: Freeze = "embeddings"
    """embeddings: the teacher's own rows stay; transformer: only new rows train, and English is bit-exact."""
    train_projection: bool = False
    """Train the projection too, which leaves the space of the teacher's images and of SDXL's pooled input."""

    def check(self) -> None:
        """Needs nothing but the teacher."""

    def make_tokenizer(self, teacher: Pretrained, corpus: Path) -> PreTrainedTokenizerFast:
        """The teacher's tokenizer with Chinese merges trained on the corpus, words taken from its dictionary rows."""
        rows, word = training_rows(corpus), is_word(2)
        words = pc.unique(rows.to_table(columns=["zh"], filter=word)["zh"]).to_pylist()
        count = rows.count_rows(filter=~word)
        sentences = chinese_texts(rows, ~word, self.vocabulary.sample_rows / count) if count else iter(words)
        return extend_tokenizer(teacher.tokenizer, sentences, words, self.vocabulary)

    def load_tokenizer(self, folder: Path, option: str) -> PreTrainedTokenizerFast:
        """The tokenizer that `build_tokenizer` wrote."""
        return load_clip_tokenizer(str(folder.absolute()), option)

    def build(
        self,
        teacher: Pretrained,
        tokenizer: PreTrainedTokenizerFast,
        pairs: Mapping[str, DomainTokens] | None,
        on_cpu: bool,
    ) -> ExtendedStudent:
        """The extended student at step 0."""
        old = teacher.model.text_model.embeddings.token_embedding.weight.detach()
        row_of_id = _rows_of_ids(len(old), len(tokenizer), tied_embeddings(tokenizer, len(old)))
        if pairs is None:
            new = old.new_zeros(int(row_of_id.max()) + 1 - len(old), old.shape[1])
        else:
            new = first_rows(pairs, row_of_id.numpy(), old, start=len(old))
        vocabulary, embedding = vocabulary_of(tokenizer, teacher.max_length), SplitEmbedding(old, new, row_of_id)
        return ExtendedStudent(teacher, vocabulary, embedding, self, on_cpu)


def _rows_of_ids(num_old: int, num_tokens: int, tied_ids: Mapping[int, int]) -> torch.Tensor:
    """The row of each id, int64 [tokens]: the teacher's first, then one for each new id that uses no other's."""
    row_of_id = torch.arange(num_tokens)
    owners = [token for token in range(num_old, num_tokens) if token not in tied_ids]
    row_of_id[owners] = torch.arange(num_old, num_old + len(owners))
    for token, owner in tied_ids.items():
        row_of_id[token] = row_of_id[owner]
    return row_of_id


def tied_embeddings(tokenizer: PreTrainedTokenizerFast, teacher_size: int) -> dict[int, int]:
    """Tokens that share an embedding: id -> the id whose row it uses.

    A Chinese piece means the same at the end of a run as inside it, and full-width punctuation the same as ASCII
    punctuation; the teacher's own English rows are not tied to each other.
    """
    vocab = tokenizer.get_vocab()
    tied = {
        vocab[token]: vocab[token.removesuffix(WORD_END)]
        for token in vocab
        if token.endswith(WORD_END) and min(vocab[token], vocab.get(token.removesuffix(WORD_END), 0)) >= teacher_size
    }
    for wide, narrow in FULLWIDTH_TOKENS.items():
        for end in ("", WORD_END):
            if wide + end in vocab and narrow + end in vocab:
                tied[vocab[wide + end]] = vocab[narrow + end]
    return tied


_TABLE, _PROJECTION = "text_model.embeddings.token_embedding.weight", "text_projection.weight"
_MAX_CHANGE = 0.1  # of the token rows, in their norm: half precision changes them by 0.001, another model by about 1


@dataclass(frozen=True)
class Graft:
    """What a finished student has over the teacher that it was taught from."""

    student: Mapping[str, torch.Tensor]
    teacher: Mapping[str, torch.Tensor]

    @torch.no_grad()
    def apply(self, target: ExtendedStudent) -> None:
        """Add the difference to every weight of `target` that trains, and take over the rows of new tokens, in place.

        `target` has the student's tokenizer. Its frozen weights and its projection stay its own teacher's.
        """
        for name, weight in target.text.named_parameters():
            if weight.requires_grad and name in self.teacher.keys() - {_PROJECTION}:
                weight.add_(self.student[name] - self.teacher[name])
        embedding, table, own = target.embedding, self.student[_TABLE], self.teacher[_TABLE]
        if embedding.teacher.requires_grad:
            embedding.teacher.add_(table[: len(own)] - own)
        row = embedding.row_of_id - len(own)
        embedding.new[row[row >= 0]] = table[row >= 0]


def load_graft(init: str, init_teacher: str, teacher: Pretrained) -> Graft:
    """What the student `init` has over `init_teacher`, for `teacher`; UserError where the three do not fit."""
    student, own = load_tower(init, "init").state_dict(), load_tower(init_teacher, "init_teacher").state_dict()
    if not teacher.tokenizer.get_vocab().items() <= load_clip_tokenizer(init, "init").get_vocab().items():
        raise UserError(f"init: {init!r} spells English otherwise than the teacher; take a student of its architecture")
    for key, weights in (("init", student), ("init_teacher", own)):
        for name, weight in teacher.model.named_parameters():
            shape = weights[name].shape if name in weights else ("absent",)
            if shape != weight.shape and name not in (_TABLE, _PROJECTION):
                raise UserError(
                    f"{key}: {name} is {[*shape]}, the teacher's {[*weight.shape]}; all three are of one architecture"
                )
    rows, table = own[_TABLE], student[_TABLE]
    change = (table[: len(rows)] - rows).norm() / rows.norm() if len(rows) <= len(table) else torch.tensor(torch.inf)
    if change > _MAX_CHANGE:
        raise UserError(f"init_teacher: {init_teacher!r} is not the teacher of {init!r}: its token rows are others")
    return Graft(student, own)
