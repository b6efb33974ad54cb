"""Chinese merges appended to a CLIP tokenizer: `extended`'s vocabulary.

CLIP's byte-level BPE encodes a Chinese character as two or three byte tokens. The merges learned here come after
all of the teacher's, and each begins with the lead byte of a CJK character, so that they never apply to another string:
English, accents, emoji, numbers, kana and Hangul keep their ids; only CJK punctuation and full-width letters, whose
first two bytes Chinese shares, may not. The pre-tokenizer isolates runs of Chinese: CLIP's alone would take 大fish左侧
for one run of letters, in which the English word does not end and falls into pieces that the teacher never saw. The
run's last token carries `</w>`, so that every piece exists twice, inside a run and at its end (see `tied_embeddings`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import regex
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from distill.student.tokenizer import invisible_normalizer, normalization_map, script_normalizer

WORD_END = "</w>"
LONGEST_WORD = 8
"""Most characters of a dictionary word, and of a token."""
HAN_RUN = regex.compile(r"\p{Han}+")
HAN_WORD = "[\u3005\u3007\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufa6d\ufa70-\ufad9]+"
"""Han of the basic plane, with 々〇〻, as ranges, which every library parses alike; HAN_RUN has all planes."""
# Full-width forms that prompts use, with the ASCII characters whose meaning they share.
FULLWIDTH_TO_ASCII = {"，": ",", "。": ".", "、": ",", "！": "!", "？": "?", "：": ":", "；": ";", "（": "(", "）": ")"}
_LEAD_BYTES = range(0xE3, 0xEA)  # U+3000 to U+9FFF: radicals, compatibility forms and Extension B on stay in bytes
_BYTE_SYMBOLS: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class VocabularyConfig:
    """How much Chinese the student's tokenizer learns."""

    words: int = 64_000
    """Merges of characters into words, beyond the single characters."""
    min_character_count: int = 3
    """Rarer characters stay byte tokens."""
    sample_rows: int = 5_000_000
    """It learns from about this many rows of a larger corpus."""

    def __post_init__(self) -> None:
        if self.words < 0 or min(self.min_character_count, self.sample_rows) < 1:
            raise ValueError(
                "student.extended.vocabulary: words must be >= 0, min_character_count and sample_rows >= 1"
            )


def extend_tokenizer(
    teacher: PreTrainedTokenizerFast, sentences: Iterable[str], dictionary: Sequence[str], config: VocabularyConfig
) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer with Chinese merges and their tokens appended, and runs of Chinese isolated.

    `sentences` is the Chinese of the corpus. Unless `dictionary` is empty, every token is (the beginning of) one of its
    words, for which a translation may be known.
    """
    model = json.loads(teacher.backend_tokenizer.to_str())["model"]
    vocab: dict[str, int] = {**model["vocab"], **teacher.get_added_vocab()}
    merges: list[tuple[str, str]] = [(first, second) for first, second in model["merges"]]
    known = set(merges)
    for pair in _byte_merges(model, *_learn(sentences, dictionary, config)):
        if pair not in known:
            known.add(pair)
            merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    return split_at_chinese(
        CLIPTokenizer(
            vocab=vocab,
            merges=merges,  # type: ignore[arg-type]
            bos_token=str(teacher.bos_token),
            eos_token=str(teacher.eos_token),
            unk_token=str(teacher.unk_token),
            pad_token=str(teacher.pad_token),  # Stable Diffusion 2 pads with "!"
            model_max_length=teacher.model_max_length,
        )
    )


def split_at_chinese(clip_tokenizer: CLIPTokenizer) -> PreTrainedTokenizerFast:
    """The same tokenizer with words split around runs of Chinese, which are normalised by `script_normalizer`.

    No longer a `CLIPTokenizer`, which makes its rules from code; loaded as one, it gives the same ids for simplified
    Chinese that does not touch other letters.
    """
    rules = json.loads(clip_tokenizer.backend_tokenizer.to_str())
    words, byte_level = rules["pre_tokenizer"]["pretokenizers"]
    # 〇 is a number to Unicode, at which CLIP's rule, and that of ByteLevel after it, would split 二〇二四年.
    words["pattern"]["Regex"] = f"{HAN_WORD}|{words['pattern']['Regex']}"
    byte_level["use_regex"] = False
    cut = Tokenizer.from_str(json.dumps(rules))
    cut.normalizer = normalizers.Sequence([cut.normalizer, script_normalizer(), invisible_normalizer()])
    cut.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(HAN_WORD), behavior="isolated"), cut.pre_tokenizer]
    )
    cut.decoder = decoders.Sequence(
        # Not decoders.Strip, which panics where there is nothing to strip.
        [decoders.Replace(WORD_END, spell(" ")), decoders.ByteLevel(), decoders.Replace(Regex(" $"), "")]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=cut,
        bos_token=clip_tokenizer.bos_token,
        eos_token=clip_tokenizer.eos_token,
        unk_token=clip_tokenizer.unk_token,
        pad_token=clip_tokenizer.pad_token,
        model_max_length=clip_tokenizer.model_max_length,
    )


def spell(text: str) -> str:
    """`text` in the printable byte symbols of byte-level BPE."""
    return "".join(_BYTE_SYMBOLS[byte] for byte in text.encode())


FULLWIDTH_TOKENS = {spell(wide): narrow for wide, narrow in FULLWIDTH_TO_ASCII.items()}
"""The ASCII characters by the byte symbols of their full-width forms."""


def _learn(
    sentences: Iterable[str], dictionary: Sequence[str], config: VocabularyConfig
) -> tuple[list[str], list[tuple[str, str]]]:
    """Characters, most frequent first, and BPE merges of characters into words in order of rank."""
    table = normalization_map()
    runs = Counter(run for sentence in sentences for run in HAN_RUN.findall(sentence.translate(table)))
    counts: Counter[str] = Counter()
    for run, times in runs.items():
        for character in run:
            counts[character] += times
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    characters = [
        character
        for character, count in by_count
        if count >= config.min_character_count and character.encode()[0] in _LEAD_BYTES
    ]
    if not config.words:
        return characters, []
    segment = _segmenter(characters, [word.translate(table) for word in dictionary])
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(characters) + config.words,
        initial_alphabet=sorted(characters),
        limit_alphabet=len(characters),
        min_frequency=2,
        max_token_length=LONGEST_WORD,
        show_progress=False,
    )
    bpe.train_from_iterator(segment(runs), trainer)
    pairs = json.loads(bpe.to_str())["model"]["merges"]
    return characters, [(first, second) for first, second in pairs]


def _segmenter(characters: Sequence[str], dictionary: Sequence[str]) -> Callable[[Counter[str]], Iterator[str]]:
    """Longest-match segmentation into dictionary words, as text with spaces; the identity without a dictionary."""
    words = [word for word in dictionary if 2 <= len(word) <= LONGEST_WORD and HAN_RUN.fullmatch(word)]

    def repeat(runs: Counter[str]) -> Iterator[str]:
        return (run for run, times in runs.items() for _ in range(times))

    if not words:
        return repeat
    # WordPiece with an empty continuation prefix is longest-match-first segmentation, in Rust.
    vocab = {"[UNK]": 0}
    for word in (*characters, *words):
        vocab.setdefault(word, len(vocab))
    matcher = models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix="", max_input_chars_per_word=100_000)

    def segment(runs: Counter[str]) -> Iterator[str]:
        for run, times in runs.items():
            line = " ".join(token.value for token in matcher.tokenize(run))
            for _ in range(times):
                yield line

    return segment


def _byte_merges(
    model: dict[str, Any], characters: Sequence[str], words: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """The learned pieces as merges of byte symbols, inside a run and at its end, in the order of their rank."""
    merges = [tuple(pair) for pair in model["merges"]]
    inside = models.BPE(vocab=model["vocab"], merges=merges)
    at_end = models.BPE(vocab=model["vocab"], merges=merges, end_of_word_suffix=WORD_END)
    for character in (*FULLWIDTH_TO_ASCII, *characters):
        for spelling in (inside, at_end):
            pieces = [token.value for token in spelling.tokenize(spell(character))]
            for length in range(1, len(pieces)):
                yield "".join(pieces[:length]), pieces[length]
    for first, second in words:
        yield spell(first), spell(second)
        yield spell(first), spell(second) + WORD_END


_FERTILITY_ROWS = 2000  # a domain


def training_rows(corpus: Path) -> pa.dataset.Dataset:
    """The training split of a corpus."""
    return pa.dataset.dataset(sorted((corpus / "train").glob("*.parquet")), format="parquet")


def is_word(min_length: int) -> pc.Expression:
    """Filter of rows whose Chinese is one word: dictionary entries, tags, class names."""
    return pc.match_substring_regex(pc.field("zh"), rf"^\p{{Han}}{{{min_length},{LONGEST_WORD}}}$")


def chinese_texts(rows: pa.dataset.Dataset, filter_: pc.Expression, share: float) -> Iterator[str]:
    """The Chinese of a random `share` of some rows, the same every time; streamed: a corpus may not fit in memory."""
    random = np.random.default_rng(0)
    for batch in rows.to_batches(columns=["zh"], filter=filter_):
        texts = batch["zh"] if share >= 1 else batch["zh"].filter(pa.array(random.random(len(batch)) < share))
        yield from texts.to_pylist()


def fertility(corpus: Path, tokenizer: Tokenizer) -> Mapping[str, float]:
    """Tokens per Chinese character of each domain, over its held-out rows, or its first training rows.

    Characters that are not Han (punctuation, Latin, digits) are removed first; start and end tokens do not count.
    """
    valid = sorted((corpus / "valid").glob("*.parquet"))
    rows = pa.dataset.dataset(valid, format="parquet") if valid else training_rows(corpus)
    by_domain = {}
    for domain in sorted(pc.unique(rows.to_table(columns=["domain"])["domain"]).to_pylist()):
        texts = rows.filter(pc.field("domain") == domain).head(_FERTILITY_ROWS, columns=["zh"])["zh"].to_pylist()
        runs = ["".join(HAN_RUN.findall(text)) for text in texts]
        if characters := sum(map(len, runs)):
            encodings = tokenizer.encode_batch_fast(runs, add_special_tokens=False)
            by_domain[domain] = sum(len(encoding.ids) for encoding in encodings) / characters
    return by_domain
