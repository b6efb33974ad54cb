"""From scores to verdicts: which rows stay, which are held out, and why the others are rejected."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.build.cache import ScoredSource
from data.build.config import Limits, ResolvedCorpus, reject_rules
from data.build.row_streams import SIGNED, Floats, Records, RowStreams, exact_median, split_held_out
from data.clean.benchmarks import Exclusions
from data.clean.characters import Mask
from data.clean.hashing import BANDS, RowHashes, band_keys, first_n_per_key, near_duplicates
from data.clean.scores import SCORES
from data.sources.benchmark_files import image_id

ReasonCodes = npt.NDArray[np.int8]
KEPT, VALID = "", "valid"  # verdicts of rows that stay
NUM_EXAMPLES = 10  # of a reason, in the report
MIN_RATIOS = 100  # rows of a domain; fewer tell nothing about its length ratios
MIN_RATIO_DEVIATION = 0.05
NEAR_MIN_EN_CHARS, NEAR_MIN_ZH_CHARS = 24, 6  # shorter rows have too few n-grams to be compared
RULE_COLUMNS = ["fault", "image", *SCORES, "en_key", "zh_key"]


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
        if severity is None:
            worst = [(0.0, row + start) for row in inside[:NUM_EXAMPLES].tolist()]
        else:
            values = severity[inside].astype(np.float64)
            order = np.lexsort((inside, -values))[:NUM_EXAMPLES]
            worst = [(float(values[i]), int(inside[i]) + start) for i in order]
        ranked = self.examples.get(reason, []) + worst
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


def select_rows(
    resolved: ResolvedCorpus, scored_sources: list[ScoredSource], exclusions: Exclusions, scratch: Path
) -> Selection:
    """Reject by rules, fitted length ratios, benchmarks and duplicates, and hold out; in this order.

    Of rows that repeat each other the first stays: people's before a machine's, then in the order of the config.
    """
    rows = RowStreams(scored_sources, _source_spans(scored_sources), scratch)
    log = RejectLog(np.zeros(rows.total, np.int8))
    for block in rows.blocks(RULE_COLUMNS):
        limits = resolved.limits[scored_sources[block.source].source.domain]
        _reject_by_rules(block.batch, block.rows.start, limits, exclusions, log)
    _reject_length_ratios(rows, resolved, log)
    _reject_duplicates(rows, resolved, log)
    for domain, limits in resolved.limits.items():
        _reject_near_duplicates(rows, domain, limits, log)
    if any(limits.needs_similarity for limits in resolved.limits.values()):
        _reject_dissimilar(rows, resolved, log)
    split = split_held_out(rows, log.codes == 0, list(resolved.limits), resolved.config.valid_per_domain)
    log.codes[split.valid] = log.code(VALID)
    log.reject(split.shared, "shares_valid")
    return Selection(log, rows.spans)


def _source_spans(scored_sources: list[ScoredSource]) -> tuple[slice, ...]:
    """Consecutive rows for every source, those that people wrote before those that a machine made."""
    starts, row = dict[int, int](), 0
    for number in sorted(range(len(scored_sources)), key=lambda n: bool(scored_sources[n].source.machine)):
        starts[number] = row
        row += scored_sources[number].num_rows
    return tuple(slice(starts[n], starts[n] + source.num_rows) for n, source in enumerate(scored_sources))


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


def _reject_length_ratios(rows: RowStreams, resolved: ResolvedCorpus, log: RejectLog) -> None:
    """Length ratios too far from the median of their domain's distinct pairs, in robust deviations (1.4826 MAD)."""
    distinct = (log.codes == 0) & ~_surplus_rows(rows, "pair", log.codes == 0, [1] * len(rows.sources))
    for domain, limits in resolved.limits.items():
        if sum(int(distinct[span].sum()) for span in rows.domain_spans(domain)) < MIN_RATIOS:
            continue

        def ratios(domain: str = domain) -> Iterator[Floats]:
            for block in rows.blocks(["log_ratio"], domain):
                yield block.column("log_ratio")[distinct[block.rows]].astype(np.float32, copy=False)

        def deviations(median: np.float32, ratios: Callable[[], Iterator[Floats]] = ratios) -> Iterator[Floats]:
            return (np.abs(block - median) for block in ratios())

        median = exact_median(ratios)
        deviation = max(1.4826 * float(exact_median(partial(deviations, median))), MIN_RATIO_DEVIATION)
        for block in rows.blocks(["log_ratio"], domain):
            severity = np.abs(block.column("log_ratio") - median) / deviation
            log.reject(severity > limits.max_ratio_deviations, "length_ratio", severity, block.rows.start)


def _surplus_rows(rows: RowStreams, keys: str, active: Mask, allowed: Sequence[int]) -> Mask:
    """The active rows after the first of their key, as many as are `allowed` for the source of the row, [rows]."""
    surplus = np.zeros(rows.total, bool)
    order = sorted(range(len(rows.spans)), key=lambda n: rows.spans[n].start)
    stops, of_source = (np.array(v) for v in ([rows.spans[n].stop for n in order], [allowed[n] for n in order]))
    for group in rows.key_groups(keys, active):
        max_per_key = of_source[np.searchsorted(stops, group["row"], side="right")].astype(np.int64)
        first = first_n_per_key(np.ascontiguousarray(group["key"]), max_per_key)
        surplus[group["row"][~first]] = True
    return surplus


def _reject_duplicates(rows: RowStreams, resolved: ResolvedCorpus, log: RejectLog) -> None:
    """The first row of every pair stays; of rows that share one side, as many as their domain allows."""
    sources = [scored_source.source for scored_source in rows.sources]
    limits = [resolved.limits[source.domain] for source in sources]
    same_zh = [max(limit.max_same_zh, s.senses_per_entry) for limit, s in zip(limits, sources, strict=True)]
    log.reject(_surplus_rows(rows, "pair", log.codes == 0, [1] * len(sources)), "duplicate")
    log.reject(_surplus_rows(rows, "en", log.codes == 0, [limit.max_same_en for limit in limits]), "same_en")
    log.reject(_surplus_rows(rows, "zh", log.codes == 0, same_zh), "same_zh")


def _reject_near_duplicates(rows: RowStreams, domain: str, limits: Limits, log: RejectLog) -> None:
    """Pairs that nearly repeat an earlier one of their domain, by its threshold; short rows are left alone."""
    if limits.near_duplicate > 1:
        return
    duplicates, active = np.zeros(rows.total, bool), log.codes == 0

    def signed() -> Iterator[Records]:
        for block in rows.blocks(["en_chars", "zh_chars", "signature"], domain):
            is_long = (block.column("en_chars") >= NEAR_MIN_EN_CHARS) & (block.column("zh_chars") >= NEAR_MIN_ZH_CHARS)
            yield block.records(SIGNED, active[block.rows] & is_long, block.column("signature"))

    count = sum(int(active[span].sum()) for span in rows.domain_spans(domain))
    fits = rows.fits(count)
    whole = [np.concatenate([np.empty(0, SIGNED), *signed()])] if fits else []

    def mark_band(band: int) -> None:
        def keys(records: Records) -> RowHashes:
            return band_keys(records["signature"], band).astype(np.uint64)

        for group in rows.groups(whole or signed(), keys, count):
            found = near_duplicates(np.ascontiguousarray(group["signature"]), band, limits.near_duplicate)
            duplicates[group["row"][found]] = True

    with ThreadPoolExecutor(2 if fits else 1) as pool:  # each needs a table of buckets
        list(pool.map(mark_band, range(BANDS)))
    log.reject(duplicates, "near_duplicate")


def _reject_dissimilar(rows: RowStreams, resolved: ResolvedCorpus, log: RejectLog) -> None:
    """Pairs whose sides do not mean the same, or whose neighbour's Chinese fits better (subtitles shifted by one)."""
    from data.build.similarity import source_similarities  # few corpora measure it

    for span, scored_source in zip(rows.spans, rows.sources, strict=True):
        limits, row = resolved.limits[scored_source.source.domain], span.start
        for table in source_similarities(scored_source, log.codes[span] == 0) if limits.needs_similarity else ():
            own, neighbour = table["own"].to_numpy(), table["rival"].to_numpy()
            dissimilarity = np.nan_to_num(limits.min_similarity - own, nan=-1)
            log.reject(dissimilarity > 0, "unlike", dissimilarity, row)
            shift = np.nan_to_num(np.where(own < limits.shift_below, neighbour - own - limits.max_shift, -1), nan=-1)
            log.reject(shift > 0, "shifted", shift, row)
            row += table.num_rows
