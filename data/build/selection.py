"""From scores to verdicts: which rows stay, which are held out, and why the others go."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.build.cache import ScoredSource
from data.build.config import ResolvedCorpus
from data.build.similarity import source_similarities
from data.clean.benchmarks import Exclusions, image_id
from data.clean.dedup import NUM_HASHES, ReasonCodes, first_n_per_key, near_duplicates, split_held_out
from data.clean.hashing import RowHashes, splitmix64
from data.clean.rules import needs_similarity, reject_rules
from data.clean.scores import SCORES

NUM_EXAMPLES = 10
KEPT, VALID = "", "valid"  # verdicts of rows that stay


@dataclass
class RejectLog:
    """All rows of all sources in config order, as columns of numbers; `reasons[code]` names a verdict."""

    reasons: list[str] = field(default_factory=lambda: [KEPT, VALID])
    examples: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # reason -> (badness, row)

    def code(self, reason: str) -> int:
        """The code of a reason, new or known."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def record(self, reason: str, rows: npt.NDArray[np.int64], severity: npt.NDArray[np.generic] | None = None) -> None:
        """Remember the worst of `rows` for the report; without `badness` the first ones."""
        if len(rows) == 0:
            return
        value = np.zeros(len(rows)) if severity is None else severity.astype(np.float64)
        best = np.lexsort((rows, -value))[:NUM_EXAMPLES]
        ranked = self.examples.get(reason, []) + [(float(value[i]), int(rows[i])) for i in best]
        self.examples[reason] = sorted(ranked, key=lambda item: (-item[0], item[1]))[:NUM_EXAMPLES]


@dataclass(frozen=True)
class Selection:
    """A code for every row: `codes[starts[i]:starts[i + 1]]` are the rows of source i."""

    codes: ReasonCodes
    starts: npt.NDArray[np.int64]
    reject_log: RejectLog


def select_rows(resolved: ResolvedCorpus, scored_sources: list[ScoredSource], exclusions: Exclusions) -> Selection:
    """Accept by thresholds, fit length ratios, keep out benchmarks, drop duplicates, hold out; in this order."""
    starts = np.concatenate([[0], np.cumsum([s.num_rows for s in scored_sources])]).astype(np.int64)
    total = int(starts[-1])
    codes, domain = np.zeros(total, np.int8), np.zeros(total, np.int16)
    en, zh, record = (np.zeros(total, np.uint64) for _ in range(3))
    ratio = np.zeros(total, np.float32)
    reject_log, domains = RejectLog(), list(resolved.limits)
    for number, scored_source in enumerate(scored_sources):
        row = int(starts[number])
        for batch in scored_source.iter_columns(["fault", "image", "file", "line", *SCORES, "en_key", "zh_key"]):
            span = slice(row, row + batch.num_rows)
            domain[span] = domains.index(scored_source.source.domain)
            en[span], zh[span] = batch["en_key"].to_numpy(), batch["zh_key"].to_numpy()
            record[span] = _record_hashes(number, batch)
            ratio[span] = batch["log_ratio"].to_numpy()
            codes[span] = _apply_rules(batch, row, resolved, scored_source, exclusions, reject_log)
            row += batch.num_rows
    _reject_length_ratios(codes, ratio, domain, domains, resolved, reject_log)
    _drop_duplicates(codes, en, zh, domain, resolved, reject_log)
    _drop_near_duplicates(codes, domain, scored_sources, resolved, reject_log)
    _drop_dissimilar(codes, scored_sources, starts, resolved, reject_log)
    split = split_held_out(en, zh, record, domain, codes == 0, resolved.config.valid_per_domain)
    codes[split.valid] = reject_log.code(VALID)
    _reject(codes, split.shared, "shares_valid", reject_log)
    return Selection(codes, starts, reject_log)


def _record_hashes(number: int, batch: pa.RecordBatch) -> RowHashes:
    """A key of (source, file, line): rows cut from one record go to one side of the split."""
    position = batch["line"].to_numpy().astype(np.uint64) | (
        batch["file"].to_numpy().astype(np.uint64) << np.uint64(40)
    )
    return splitmix64(position ^ (np.uint64(number) << np.uint64(52)))


def _apply_rules(
    batch: pa.RecordBatch,
    start: int,
    resolved: ResolvedCorpus,
    scored_source: ScoredSource,
    exclusions: Exclusions,
    reject_log: RejectLog,
) -> ReasonCodes:
    """Reader's faults, then the rules, then the benchmarks; codes [batch rows]."""
    codes = np.zeros(batch.num_rows, np.int8)
    rows = start + np.arange(batch.num_rows, dtype=np.int64)
    fault = pc.dictionary_encode(batch["fault"])
    for index, reason in enumerate(fault.dictionary.to_pylist()):
        if reason:
            hit = fault.indices.to_numpy() == index
            codes[hit] = reject_log.code(reason)
            reject_log.record(reason, rows[hit])
    for reason, hit in _benchmark_hits(batch, exclusions):
        hit &= codes == 0
        codes[hit] = reject_log.code(reason)
        reject_log.record(reason, rows[hit])
    table = {name: batch[name].to_numpy() for name in SCORES}
    for rule in reject_rules(table, resolved.limits[scored_source.source.domain]):
        hit = (codes == 0) & (rule.severity > rule.limit)
        if hit.any():
            codes[hit] = reject_log.code(rule.reason)
            reject_log.record(rule.reason, rows[hit], rule.severity[hit])
    return codes


def _benchmark_hits(batch: pa.RecordBatch, exclusions: Exclusions) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    keys = exclusions.text_hashes
    if len(keys):
        for name in ("en_key", "zh_key"):
            row_hashes = batch[name].to_numpy()
            at = np.minimum(np.searchsorted(keys, row_hashes), len(keys) - 1)
            yield "benchmark_text", keys[at] == row_hashes
    if exclusions.image_ids:
        images = pc.dictionary_encode(batch["image"])
        bad = np.array([image_id(i) in exclusions.image_ids for i in images.dictionary.to_pylist()], bool)
        yield "benchmark_image", bad[images.indices.to_numpy()]


def _reject(
    codes: ReasonCodes,
    hit: npt.NDArray[np.bool_],
    reason: str,
    reject_log: RejectLog,
    severity: npt.NDArray[np.generic] | None = None,
) -> None:
    rows = np.flatnonzero(hit & (codes == 0))
    if len(rows):
        codes[rows] = reject_log.code(reason)
        reject_log.record(reason, rows, None if severity is None else severity[rows])


def _reject_length_ratios(
    codes: ReasonCodes,
    ratio: npt.NDArray[np.float32],
    domain: npt.NDArray[np.int16],
    domains: list[str],
    resolved: ResolvedCorpus,
    reject_log: RejectLog,
) -> None:
    """Length ratios are judged against their own domain: its median, in robust deviations (1.4826 MAD)."""
    severity = np.zeros(len(codes), np.float32)
    hit = np.zeros(len(codes), bool)
    for code, name in enumerate(domains):
        inside = domain == code
        active = ratio[inside & (codes == 0)]
        if len(active) < 100:
            continue
        median = np.median(active)
        deviation = max(1.4826 * float(np.median(np.abs(active - median))), 0.05)
        severity[inside] = np.abs(ratio[inside] - median) / deviation
        hit |= inside & (severity > resolved.limits[name].max_ratio_deviations)
    _reject(codes, hit, "length_ratio", reject_log, severity)


def _drop_duplicates(
    codes: ReasonCodes,
    en: RowHashes,
    zh: RowHashes,
    domain: npt.NDArray[np.int16],
    resolved: ResolvedCorpus,
    reject_log: RejectLog,
) -> None:
    """The first row of every pair stays; of rows that share one side, as many as their domain allows."""
    pair = splitmix64(en ^ splitmix64(zh + np.uint64(1)))
    _reject(codes, ~first_n_per_key(pair, codes == 0, np.ones(len(codes), np.int64)), "duplicate", reject_log)
    limits = list(resolved.limits.values())
    for reason, keys, allowed in (
        ("same_en", en, np.array([each.max_same_en for each in limits])),
        ("same_zh", zh, np.array([each.max_same_zh for each in limits])),
    ):
        _reject(codes, ~first_n_per_key(keys, codes == 0, allowed[domain]), reason, reject_log)


def _drop_near_duplicates(
    codes: ReasonCodes,
    domain: npt.NDArray[np.int16],
    scored_sources: list[ScoredSource],
    resolved: ResolvedCorpus,
    reject_log: RejectLog,
) -> None:
    """Pairs that nearly repeat an earlier one, by their domain's threshold; rows of few n-grams are left alone."""
    table = np.empty((len(codes), NUM_HASHES), np.uint8)
    long_enough, row = np.zeros(len(codes), bool), 0
    for scored_source in scored_sources:
        for batch in scored_source.iter_columns(["en_chars", "zh_chars", "signature"]):
            span = slice(row, row + batch.num_rows)
            flat = np.frombuffer(batch["signature"].buffers()[1], np.uint8)[batch["signature"].offset * NUM_HASHES :]
            table[span] = flat[: batch.num_rows * NUM_HASHES].reshape(-1, NUM_HASHES)
            long_enough[span] = (batch["en_chars"].to_numpy() >= 24) & (batch["zh_chars"].to_numpy() >= 6)
            row += batch.num_rows
    for code, limits in enumerate(resolved.limits.values()):
        if limits.near_duplicate <= 1:
            active = (codes == 0) & long_enough & (domain == code)
            _reject(codes, near_duplicates(table, active, limits.near_duplicate), "near_duplicate", reject_log)


def _drop_dissimilar(
    codes: ReasonCodes,
    scored_sources: list[ScoredSource],
    starts: npt.NDArray[np.int64],
    resolved: ResolvedCorpus,
    reject_log: RejectLog,
) -> None:
    """Pairs whose sides do not mean the same, or whose neighbour's Chinese fits better (subtitles shifted by one)."""
    dissimilarity, shifted = np.full(len(codes), -1, np.float32), np.full(len(codes), -1, np.float32)
    for number, scored_source in enumerate(scored_sources):
        limits = resolved.limits[scored_source.source.domain]
        if needs_similarity(limits):
            span = slice(int(starts[number]), int(starts[number + 1]))
            table = source_similarities(scored_source, codes[span] == 0)
            similarity, neighbour_similarity = table["own"].to_numpy(), table["rival"].to_numpy()
            dissimilarity[span] = np.nan_to_num(limits.min_similarity - similarity, nan=-1)
            shift_margin = np.where(
                similarity < limits.shift_below, neighbour_similarity - similarity - limits.max_shift, -1
            )
            shifted[span] = np.nan_to_num(shift_margin, nan=-1)
    _reject(codes, dissimilarity > 0, "unlike", reject_log, dissimilarity)
    _reject(codes, shifted > 0, "shifted", reject_log, shifted)
