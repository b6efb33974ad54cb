"""From scores to verdicts: which rows stay, which are held out, and why the others are rejected."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.build.cache import ScoredSource
from data.build.config import Limits, ResolvedCorpus, reject_rules
from data.clean.benchmarks import Exclusions
from data.clean.characters import Mask
from data.clean.dedup import NUM_HASHES, ReasonCodes, first_n_per_key, near_duplicates, split_held_out
from data.clean.hashing import RowHashes, splitmix64
from data.clean.scores import SCORES
from data.sources.benchmark_rows import image_id

KEPT, VALID = "", "valid"  # verdicts of rows that stay
NUM_EXAMPLES = 10  # of a reason, in the report
MIN_RATIOS = 100  # rows of a domain; fewer tell nothing about its length ratios
MIN_RATIO_DEVIATION = 0.05
NEAR_MIN_EN_CHARS, NEAR_MIN_ZH_CHARS = 24, 6  # shorter rows have too few n-grams to be compared
ROW_COLUMNS = ["fault", "image", "file", "line", *SCORES, "en_key", "zh_key"]


@dataclass
class RejectLog:
    """The verdict on every row of all sources in config order: `reasons[codes[row]]`, first come, first served."""

    codes: ReasonCodes  # [rows]; 0 while a row is kept
    reasons: list[str] = field(default_factory=lambda: [KEPT, VALID])
    examples: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # reason -> (severity, row), worst first

    def code(self, reason: str) -> int:
        """The code of a reason, new or known."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def reject(self, mask: Mask, reason: str, severity: npt.NDArray[np.generic] | None = None, start: int = 0) -> None:
        """Reject the kept rows of `mask`, whose first is row `start`, and remember the worst of them as examples."""
        inside = np.flatnonzero(mask & (self.codes[start : start + len(mask)] == 0))
        if not len(inside):
            return
        self.codes[inside + start] = self.code(reason)
        values = np.zeros(len(inside)) if severity is None else severity[inside].astype(np.float64)
        worst = np.lexsort((inside, -values))[:NUM_EXAMPLES]
        ranked = self.examples.get(reason, []) + [(float(values[i]), int(inside[i]) + start) for i in worst]
        self.examples[reason] = sorted(ranked, key=lambda item: (-item[0], item[1]))[:NUM_EXAMPLES]


@dataclass(frozen=True)
class Selection:
    """The verdicts; `spans[i]` are the rows of source i."""

    reject_log: RejectLog
    spans: tuple[slice, ...]

    @property
    def codes(self) -> ReasonCodes:
        """The code of every row, [rows]."""
        return self.reject_log.codes


@dataclass(frozen=True)
class RowColumns:
    """What is compared between sources, [rows] each."""

    domain: npt.NDArray[np.int16]  # index into the domains of the config
    en: RowHashes
    zh: RowHashes
    record: RowHashes  # of source, file and line: rows cut from one record
    log_ratio: npt.NDArray[np.float32]
    is_long: Mask  # whether the row has n-grams enough to be compared with others

    @property
    def pair(self) -> RowHashes:
        """A key of both sides."""
        return splitmix64(self.en ^ splitmix64(self.zh + np.uint64(1)))


def select_rows(resolved: ResolvedCorpus, scored_sources: list[ScoredSource], exclusions: Exclusions) -> Selection:
    """Reject by rules, fitted length ratios, benchmarks and duplicates, and hold out; in this order.

    Of rows that repeat each other the first stays: people's before a machine's, then in the order of the config.
    """
    spans = _source_spans(scored_sources)
    total, domains, limits = max(span.stop for span in spans), list(resolved.limits), list(resolved.limits.values())
    en, zh, record = (np.zeros(total, np.uint64) for _ in range(3))
    rows = RowColumns(np.zeros(total, np.int16), en, zh, record, np.zeros(total, np.float32), np.zeros(total, bool))
    log = RejectLog(np.zeros(total, np.int8))
    for number, scored_source in enumerate(scored_sources):
        row, domain = spans[number].start, domains.index(scored_source.source.domain)
        for batch in scored_source.iter_columns(ROW_COLUMNS):
            span = slice(row, row + batch.num_rows)
            rows.domain[span] = domain
            rows.en[span], rows.zh[span] = batch["en_key"].to_numpy(), batch["zh_key"].to_numpy()
            rows.record[span] = _record_hashes(number, batch)
            rows.log_ratio[span] = batch["log_ratio"].to_numpy()
            en_chars, zh_chars = batch["en_chars"].to_numpy(), batch["zh_chars"].to_numpy()
            rows.is_long[span] = (en_chars >= NEAR_MIN_EN_CHARS) & (zh_chars >= NEAR_MIN_ZH_CHARS)
            _reject_by_rules(batch, row, limits[domain], exclusions, log)
            row += batch.num_rows
    _reject_length_ratios(rows, limits, log)
    _reject_duplicates(rows, spans, scored_sources, resolved, log)
    _reject_near_duplicates(rows, spans, scored_sources, resolved, log)
    if any(domain_limits.needs_similarity for domain_limits in limits):
        _reject_dissimilar(scored_sources, spans, resolved, log)
    split = split_held_out(rows.en, rows.zh, rows.record, rows.domain, log.codes == 0, resolved.config.valid_per_domain)
    log.codes[split.valid] = log.code(VALID)
    log.reject(split.shared, "shares_valid")
    return Selection(log, spans)


def _source_spans(scored_sources: list[ScoredSource]) -> tuple[slice, ...]:
    """Consecutive rows for every source, those that people wrote before those that a machine made."""
    starts, row = dict[int, int](), 0
    for number in sorted(range(len(scored_sources)), key=lambda n: bool(scored_sources[n].source.machine)):
        starts[number] = row
        row += scored_sources[number].num_rows
    return tuple(slice(starts[n], starts[n] + source.num_rows) for n, source in enumerate(scored_sources))


def _record_hashes(number: int, batch: pa.RecordBatch) -> RowHashes:
    """A key of (source, file, line): rows cut from one record go to one side of the split."""
    file, line = batch["file"].to_numpy().astype(np.uint64), batch["line"].to_numpy().astype(np.uint64)
    return splitmix64((line | (file << np.uint64(40))) ^ (np.uint64(number) << np.uint64(52)))


def _reject_by_rules(batch: pa.RecordBatch, start: int, limits: Limits, exclusions: Exclusions, log: RejectLog) -> None:
    """The reader's faults, then the benchmarks, then the rules."""
    fault = pc.dictionary_encode(batch["fault"])
    for index, reason in enumerate(fault.dictionary.to_pylist()):
        if reason:
            log.reject(fault.indices.to_numpy() == index, reason, start=start)
    for reason, mask in _benchmark_hits(batch, exclusions):
        log.reject(mask, reason, start=start)
    for rule in reject_rules({name: batch[name].to_numpy() for name in SCORES}, limits):
        log.reject(rule.severity > rule.limit, rule.reason, rule.severity, start)


def _benchmark_hits(batch: pa.RecordBatch, exclusions: Exclusions) -> Iterator[tuple[str, Mask]]:
    keys = exclusions.text_hashes
    if len(keys):
        for name in ("en_key", "zh_key"):
            row_hashes = batch[name].to_numpy()
            i = np.minimum(np.searchsorted(keys, row_hashes), len(keys) - 1)
            yield "benchmark_text", keys[i] == row_hashes
    if exclusions.image_ids:
        images = pc.dictionary_encode(batch["image"])
        bad = np.array([image_id(name) in exclusions.image_ids for name in images.dictionary.to_pylist()], bool)
        yield "benchmark_image", bad[images.indices.to_numpy()]


def _reject_length_ratios(rows: RowColumns, limits: list[Limits], log: RejectLog) -> None:
    """Length ratios too far from the median of their domain's distinct pairs, in robust deviations (1.4826 MAD)."""
    severity, mask = np.zeros(len(rows.domain), np.float32), np.zeros(len(rows.domain), bool)
    distinct = (log.codes == 0) & first_n_per_key(rows.pair, log.codes == 0, np.ones(len(log.codes), np.int64))
    for code, domain_limits in enumerate(limits):
        inside = rows.domain == code
        ratios = rows.log_ratio[inside & distinct]
        if len(ratios) >= MIN_RATIOS:
            median = np.median(ratios)
            deviation = max(1.4826 * float(np.median(np.abs(ratios - median))), MIN_RATIO_DEVIATION)
            severity[inside] = np.abs(rows.log_ratio[inside] - median) / deviation
            mask |= inside & (severity > domain_limits.max_ratio_deviations)
    log.reject(mask, "length_ratio", severity)


def _reject_duplicates(
    rows: RowColumns,
    spans: tuple[slice, ...],
    scored_sources: list[ScoredSource],
    resolved: ResolvedCorpus,
    log: RejectLog,
) -> None:
    """The first row of every pair stays; of rows that share one side, as many as their domain allows."""
    max_rows = np.ones(len(log.codes), np.int64)
    log.reject(~first_n_per_key(rows.pair, log.codes == 0, max_rows), "duplicate")
    sources = [scored_source.source for scored_source in scored_sources]
    for span, source in zip(spans, sources, strict=True):
        max_rows[span] = resolved.limits[source.domain].max_same_en
    log.reject(~first_n_per_key(rows.en, log.codes == 0, max_rows), "same_en")
    for span, source in zip(spans, sources, strict=True):
        max_rows[span] = max(resolved.limits[source.domain].max_same_zh, source.senses_per_entry)
    log.reject(~first_n_per_key(rows.zh, log.codes == 0, max_rows), "same_zh")


def _reject_near_duplicates(
    rows: RowColumns,
    spans: tuple[slice, ...],
    scored_sources: list[ScoredSource],
    resolved: ResolvedCorpus,
    log: RejectLog,
) -> None:
    """Pairs that nearly repeat an earlier one of their domain, by its threshold; short rows are left alone."""
    for code, (domain, limits) in enumerate(resolved.limits.items()):
        if limits.near_duplicate > 1:
            continue
        active = (log.codes == 0) & rows.is_long & (rows.domain == code)
        signatures = np.empty((int(active.sum()), NUM_HASHES), np.uint8)
        i = 0
        for span, scored_source in sorted(zip(spans, scored_sources, strict=True), key=lambda pair: pair[0].start):
            row = span.start
            for batch in scored_source.iter_columns(["signature"]) if scored_source.source.domain == domain else ():
                column, chosen = batch["signature"], active[row : row + batch.num_rows]
                flat = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * NUM_HASHES :]
                taken = flat[: batch.num_rows * NUM_HASHES].reshape(-1, NUM_HASHES)[chosen]
                signatures[i : i + len(taken)] = taken
                row, i = row + batch.num_rows, i + len(taken)
        duplicates = near_duplicates(signatures, np.ones(len(signatures), bool), limits.near_duplicate)
        active[active] = duplicates
        log.reject(active, "near_duplicate")


def _reject_dissimilar(
    scored_sources: list[ScoredSource], spans: tuple[slice, ...], resolved: ResolvedCorpus, log: RejectLog
) -> None:
    """Pairs whose sides do not mean the same, or whose neighbour's Chinese fits better (subtitles shifted by one)."""
    from data.build.similarity import source_similarities  # few corpora measure it

    dissimilarity, shift = (np.full(len(log.codes), -1, np.float32) for _ in range(2))
    for span, scored_source in zip(spans, scored_sources, strict=True):
        limits = resolved.limits[scored_source.source.domain]
        if limits.needs_similarity:
            table = source_similarities(scored_source, log.codes[span] == 0)
            own, neighbour = table["own"].to_numpy(), table["rival"].to_numpy()
            dissimilarity[span] = np.nan_to_num(limits.min_similarity - own, nan=-1)
            margin = np.where(own < limits.shift_below, neighbour - own - limits.max_shift, -1)
            shift[span] = np.nan_to_num(margin, nan=-1)
    log.reject(dissimilarity > 0, "unlike", dissimilarity)
    log.reject(shift > 0, "shifted", shift)
