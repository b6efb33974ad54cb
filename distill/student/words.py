"""Any fast tokenizer as a student's: with start, end and padding named, and the text of its pieces."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from data.command import UserError
from distill.tower import any_tokenizer


def load_words(name: str, key: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local folder or Hub id; `key` names the option in errors.

    Where it has no end-of-text or start of its own, its separator and class token are named so (BERT's).
    """
    words = any_tokenizer(name, key)
    if not isinstance(words, PreTrainedTokenizerFast):
        raise UserError(f"{key}: {name!r} has a {type(words).__name__}; one with a tokenizer.json is needed")
    words.eos_token = words.eos_token or words.sep_token
    words.bos_token = words.bos_token or words.cls_token
    ids = words("").input_ids
    if words.pad_token_id is None or words.eos_token_id is None or ids[-1:] != [words.eos_token_id]:
        raise UserError(f"{key}: {name!r} does not end every text with its end-of-text, or has no padding token")
    return words


def save_words(words: PreTrainedTokenizerFast, slots: int, folder: Path) -> None:
    """Save the tokenizer as that of a student with `slots` positions."""
    words.model_max_length = slots
    words.save_pretrained(folder)


def surfaces(words: PreTrainedTokenizerFast) -> dict[int, str]:
    """The text of every piece that is no special token: id -> surface, without the marks of word beginnings."""
    special = set(words.all_special_ids)
    every = {index: piece.removeprefix("##").replace("▁", "") for piece, index in words.get_vocab().items()}
    return {index: text for index, text in sorted(every.items()) if text and index not in special}
