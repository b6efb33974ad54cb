"""Tokenizers of students: one script for all ways to write the same Chinese, and the special tokens named.

The corpora are simplified and of normal width (`data.clean`), so a student has seen nothing else. Its tokenizer
therefore maps traditional characters and the forms of Chinese that the cleaning folds (full width, radicals), character
by character, before it splits the text into tokens, and deletes invisible characters beside Chinese: 戴帽子拿劍的貓
gives the states of 戴帽子拿剑的猫. Characters that share a simplified one become one, in training as later: 乾, 幹 and
干 are 干, and 著, which Taiwan writes where 着 is meant, is 着 in 著名 too. Phrases are not considered.
"""

import tempfile
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import opencc
import regex
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerFast

from data.clean.characters import DELETE, HAN, char_classes, normalisation_table, opencc_single_chars
from data.cli import UserError
from distill.loading import load_any_tokenizer

CHINESE_FORMS = ((0x2E80, 0x3040), (0xFE10, 0xFE20), (0xFE30, 0xFE70), (0xFF01, 0xFF66), (0xFFE0, 0xFFE7))
"""Radicals, CJK symbols, vertical, small and full-width forms; all others, as µ or ﾊ, keep the teacher's ids."""
_COMPATIBILITY = 0xF900  # from here on NFC, which runs first, leaves none, or they lie beyond the basic plane
_ALSO_SIMPLIFIED = "么"  # traditional to OpenCC, and yet the simplified character of 什么
_BY_PHRASE = {"揹": "背", "瞭": "了", "彷": "仿", "藉": "借", "妳": "你", "牠": "它"}  # alone, OpenCC leaves them
_BESIDE = "[\u2e80-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20]"
"""Chinese and its punctuation, beside which invisible characters are dropped."""


@cache
def normalization_map() -> dict[int, int]:
    """Code point -> the code point that replaces it; all others stay as they are.

    Forms of Chinese that the cleaning folds to one character, and traditional characters.
    """
    table, mapping = normalisation_table(chinese=True)[:DELETE], {}
    for point in (table != np.arange(DELETE)).nonzero()[0].tolist():
        folded = int(table[point])
        is_chinese = any(first <= point < end for first, end in CHINESE_FORMS) or bool(char_classes()[folded] & HAN)
        # NFC, lower case and spaces come before, so that what they change needs no entry.
        if is_chinese and folded not in (DELETE, 32) and unicodedata.is_normalized("NFC", chr(point)):
            mapping[point] = ord(chr(folded).lower())
    mapping |= {ord(character): ord(simple) for character, simple in _BY_PHRASE.items()}
    for region in ("t2s", "hk2s", "tw2s"):  # forms of Hong Kong and Taiwan where the general map has none
        for character, simple in opencc_single_chars(opencc.OpenCC(region)).items():
            # Characters beyond the basic plane have no token, and are not split from other letters.
            if character < _COMPATIBILITY and simple <= "\uffff" and chr(character) not in _ALSO_SIMPLIFIED:
                mapping.setdefault(character, ord(simple))
    return {character: mapping.get(read, read) for character, read in mapping.items()}  # 薴, 苧, 苎


def script_normalizer() -> normalizers.Precompiled:
    """`normalization_map` as a tokenizer's normalizer, compiled by SentencePiece: one lookup a character."""
    sentencepiece.set_min_log_level(2)  # else it logs every table to stderr
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text("".join(f"{one:X}\t{other:X}\n" for one, other in sorted(normalization_map().items())))
        compiled = sentencepiece.SentencePieceNormalizer(rule_tsv=str(rules))
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    model.ParseFromString(compiled.serialized_model_proto())
    return normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)


@cache
def invisible_characters() -> tuple[int, ...]:
    """Code points that the cleaning deletes and that may stand in a text: controls, marks of direction, private use."""
    deleted = (normalisation_table(chinese=True)[:DELETE] == DELETE).nonzero()[0].tolist()
    return tuple(point for point in deleted if unicodedata.category(chr(point)) not in ("Cn", "Cs"))


def invisible_normalizer() -> normalizers.Replace:
    """Deletes `invisible_characters` beside Chinese, where the cleaning does too; elsewhere the teacher's ids stay."""
    points = set(invisible_characters())
    starts = [point for point in sorted(points) if point - 1 not in points]
    ends = [point for point in sorted(points) if point + 1 not in points]
    ranges = "".join(
        regex.escape(chr(start)) + (f"-{regex.escape(chr(end))}" if end > start else "")
        for start, end in zip(starts, ends, strict=True)
    )
    beside = f"(?<={_BESIDE}|{_BESIDE} )[{ranges}]+|[{ranges}]+(?= ?{_BESIDE})"
    return normalizers.Replace(Regex(beside), "")


def load_fast_tokenizer(name: str, key: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local folder or Hub id; `key` names the option in errors.

    Without end-of-text or start tokens of its own (BERT), its separator and class token serve as such.
    """
    tokenizer = load_any_tokenizer(name, key)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{key}: {name!r} has a {type(tokenizer).__name__}; one with a tokenizer.json is needed")
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token
    tokenizer.bos_token = tokenizer.bos_token or tokenizer.cls_token
    ids = tokenizer("").input_ids
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None or ids[-1:] != [tokenizer.eos_token_id]:
        raise UserError(f"{key}: {name!r} does not end every text with its end-of-text, or has no padding token")
    return tokenizer


def token_texts(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """The text of every token that is not special, by id, without the marks of WordPiece and SentencePiece."""
    special = set(tokenizer.all_special_ids)
    texts = {index: piece.removeprefix("##").replace("▁", "") for piece, index in tokenizer.get_vocab().items()}
    return {index: text for index, text in sorted(texts.items()) if text and index not in special}
