"""Other ways to write the same Chinese: traditional characters, full-width letters and digits.

The corpora are simplified and of normal width (`data.clean`), so a student has seen no other. Its tokenizer therefore
writes every prompt so, character by character, before it cuts it into tokens: 戴帽子拿劍的貓 gives the states of
戴帽子拿剑的猫. Characters that share a simplified one become one, in training as later: 乾, 幹 and 干 are 干, and
著, which Taiwan writes where 着 is meant, is 着 in 著名 too. Phrases are not looked at.

Any fast tokenizer as a student's: with start, end and padding named, and the text of its pieces.
"""

import tempfile
from functools import cache
from pathlib import Path

import opencc
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from data.clean.characters import opencc_single_chars
from data.cli import UserError
from distill.text_tower import load_any_tokenizer

_COMPATIBILITY = 0xF900  # from here on NFC, which comes first, has left none, or they lie beyond the basic plane
_ALSO_SIMPLIFIED = "么"  # traditional in OpenCC's eyes, and yet the simplified character of 什么
_BY_PHRASE = {"揹": "背", "瞭": "了", "彷": "仿", "藉": "借", "妳": "你", "牠": "它"}  # alone, OpenCC leaves them
_WIDE = [*range(0xFF10, 0xFF1A), *range(0xFF41, 0xFF5B)]  # digits and small letters; capitals are small by then
_WIDE_TO_ASCII = 0xFF01 - 0x21


@cache
def normalization_map() -> dict[int, int]:
    """Code point to the code point that is read in its place; what is not there stays as it is."""
    mapping = {wide: wide - _WIDE_TO_ASCII for wide in _WIDE}
    mapping |= {ord(character): ord(simple) for character, simple in _BY_PHRASE.items()}
    for region in ("t2s", "hk2s", "tw2s"):  # the forms of Hong Kong and Taiwan where the general ones say nothing
        for character, simple in opencc_single_chars(opencc.OpenCC(region)).items():
            # What lies beyond the basic plane has no token, and is not cut from other letters.
            if character < _COMPATIBILITY and simple <= "\uffff" and chr(character) not in _ALSO_SIMPLIFIED:
                mapping.setdefault(character, ord(simple))
    return {character: mapping.get(read, read) for character, read in mapping.items()}  # 薴, 苧, 苎


def script_normalizer() -> normalizers.Precompiled:
    """The same for a tokenizer: one look into SentencePiece's table a character, however many there are."""
    sentencepiece.set_min_log_level(2)  # else it tells of every table on stderr
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text("".join(f"{one:X}\t{other:X}\n" for one, other in sorted(normalization_map().items())))
        compiled = sentencepiece.SentencePieceNormalizer(rule_tsv=str(rules))
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    model.ParseFromString(compiled.serialized_model_proto())
    return normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)


def load_fast_tokenizer(name: str, key: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local folder or Hub id; `key` names the option in errors.

    Where it has no end-of-text or start of its own, its separator and class token are named so (BERT's).
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


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, max_length: int, folder: Path) -> None:
    """Save the tokenizer as that of a student with `slots` positions."""
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def token_texts(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """The text of every piece that is no special token: id -> surface, without the marks of word beginnings."""
    special = set(tokenizer.all_special_ids)
    every = {index: piece.removeprefix("##").replace("▁", "") for piece, index in tokenizer.get_vocab().items()}
    return {index: text for index, text in sorted(every.items()) if text and index not in special}
