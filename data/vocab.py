"""`python -m data.vocab --corpus CORPUS --out DIR --size N`: a SentencePiece vocabulary for both languages of a corpus.

Written as sentencepiece.model and as tokenizer.json with its config, which `transformers.AutoTokenizer` loads; the
`multilingual` student takes the folder.
"""

import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import sentencepiece
from jsonargparse import ArgumentParser
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tqdm import tqdm

from data.cli import UserError, run_cli
from data.files import atomic_folder, write_json

UNK_TOKEN, BOS_TOKEN, PAD_TOKEN, EOS_TOKEN = "<unk>", "<s>", "<pad>", "</s>"
"""Ids 0 to 3 in this order: transformers reads an end-of-text id of 2 as "pool at the largest id"."""
MAX_LENGTH = 77
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": MAX_LENGTH,
    "clean_up_tokenization_spaces": False,
    "unk_token": UNK_TOKEN,
    "bos_token": BOS_TOKEN,
    "pad_token": PAD_TOKEN,
    "eos_token": EOS_TOKEN,
}


def main(arguments: list[str] | None = None) -> None:
    """Train on the corpus's training rows and write the folder, whole or not at all."""
    parser = ArgumentParser(prog="python -m data.vocab", exit_on_error=False, description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m data.build wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist")
    parser.add_argument("--size", type=int, default=32_000, help="pieces, bytes and special tokens included")
    parser.add_argument("--coverage", type=float, default=0.9995, help="share of characters that are pieces; 1: all")
    parser.add_argument("--sentences", type=int, default=2_000_000, help="sentences trained on, drawn from all")
    args = parser.parse_args(arguments)
    if args.out.exists():
        raise UserError(f"--out {args.out}: exists already; name a new folder")
    if not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: no folder {args.out.parent}; make it first")
    shards = sorted((args.corpus / "train").glob("*.parquet"))
    if not shards:
        raise UserError(f"--corpus {args.corpus}: no train/*.parquet there; build one with python -m data.build")
    model = train_unigram(corpus_sentences(shards), args.size, args.coverage, args.sentences)
    tokenizer = unigram_tokenizer(model)
    with atomic_folder(args.out) as partial:
        partial.mkdir()
        (partial / "sentencepiece.model").write_bytes(model)
        tokenizer.save(str(partial / "tokenizer.json"))
        write_json(TOKENIZER_CONFIG, partial / "tokenizer_config.json")
    print(f"{args.out}: {tokenizer.get_vocab_size()} pieces")


def normalise_for_vocab(text: str) -> str:
    """`text` as the tokenizer normalises it: compatibility forms, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def corpus_sentences(shards: list[Path]) -> Iterator[str]:
    """Both sides of every pair, normalised, streamed from disk."""
    rows = pa.dataset.dataset(shards, format="parquet")
    with tqdm(total=rows.count_rows(), desc="read", unit=" pairs", unit_scale=True, leave=False) as bar:
        for batch in rows.to_batches(columns=["en", "zh"]):
            for side in ("en", "zh"):
                yield from filter(None, map(normalise_for_vocab, batch[side].to_pylist()))
            bar.update(len(batch))


def train_unigram(texts: Iterator[str], size: int, coverage: float, max_sentences: int) -> bytes:
    """A SentencePiece unigram model with byte fallback; UserError where `size` does not fit the texts."""
    model_file = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts,
            model_writer=model_file,
            vocab_size=size,
            model_type="unigram",
            character_coverage=coverage,
            byte_fallback=True,
            normalization_rule_name="identity",  # normalise_for_vocab has done it
            input_sentence_size=max_sentences,
            shuffle_input_sentence=True,
            unk_id=0,
            bos_id=1,
            pad_id=2,
            eos_id=3,
            num_threads=1,  # more give other pieces from run to run
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"--size {size}: does not fit this corpus ({error})") from error
    return model_file.getvalue()


def unigram_tokenizer(model: bytes) -> Tokenizer:
    """The model as a fast tokenizer that wraps every text in start and end."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    fast_tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    fast_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    fast_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    fast_tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    fast_tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in (UNK_TOKEN, BOS_TOKEN, PAD_TOKEN, EOS_TOKEN)]
    )
    fast_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A {EOS_TOKEN}",
        special_tokens=[
            (BOS_TOKEN, fast_tokenizer.token_to_id(BOS_TOKEN)),
            (EOS_TOKEN, fast_tokenizer.token_to_id(EOS_TOKEN)),
        ],
    )
    return fast_tokenizer


if __name__ == "__main__":
    run_cli(main)
