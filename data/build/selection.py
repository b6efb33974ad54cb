"""From scores to verdicts: which rows stay, which are held out, and why the others go."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.build.cache import Scored
from data.build.config import Plan
from data.build.similarity import similarities
from data.clean.benchmarks import Forbidden, image_id
from data.clean.dedup import HASHES, Codes, first_rows, held_out, near_repeats
from data.clean.hashing import Keys, mixed
from data.clean.rules import needs_similarity, rules
from data.clean.scores import SCORES

WORST = 10
KEPT, VALID = "", "valid"  # verdicts of rows that stay


@dataclass
class Ledger:
    """All rows of all sources in config order, as columns of numbers; `reasons[code]` names a verdict."""

    reasons: list[str] = field(default_factory=lambda: [KEPT, VALID])
    worst: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # reason -> (badness, row)

    def code(self, reason: str) -> int:
        """The code of a reason, new or known."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def note(self, reason: str, rows: npt.NDArray[np.int64], badness: npt.NDArray[np.generic] | None = None) -> None:
        """Remember the worst of `rows` for the report; without `badness` the first ones."""
        if len(rows) == 0:
            return
        value = np.zeros(len(rows)) if badness is None else badness.astype(np.float64)
        best = np.lexsort((rows, -value))[:WORST]
        found = self.worst.get(reason, []) + [(float(value[i]), int(rows[i])) for i in best]
        self.worst[reason] = sorted(found, key=lambda item: (-item[0], item[1]))[:WORST]


@dataclass(frozen=True)
class Verdicts:
    """A code for every row: `codes[starts[i]:starts[i + 1]]` are the rows of source i."""

    codes: Codes
    starts: npt.NDArray[np.int64]
    ledger: Ledger


def decide(plan: Plan, scored: list[Scored], forbidden: Forbidden) -> Verdicts:
    """Accept by thresholds, fit length ratios, keep out benchmarks, drop duplicates, hold out; in this order."""
    starts = np.concatenate([[0], np.cumsum([s.count for s in scored])]).astype(np.int64)
    total = int(starts[-1])
    codes, domain = np.zeros(total, np.int8), np.zeros(total, np.int16)
    en, zh, record = (np.zeros(total, np.uint64) for _ in range(3))
    ratio = np.zeros(total, np.float32)
    ledger, domains = Ledger(), list(plan.limits)
    for number, part in enumerate(scored):
        row = int(starts[number])
        for batch in part.columns(["fault", "image", "file", "line", *SCORES, "en_key", "zh_key"]):
            span = slice(row, row + batch.num_rows)
            domain[span] = domains.index(part.source.domain)
            en[span], zh[span] = batch["en_key"].to_numpy(), batch["zh_key"].to_numpy()
            record[span] = _record(number, batch)
            ratio[span] = batch["log_ratio"].to_numpy()
            codes[span] = _accepted(batch, row, plan, part, forbidden, ledger)
            row += batch.num_rows
    _fit_ratios(codes, ratio, domain, domains, plan, ledger)
    _drop_repeats(codes, en, zh, domain, plan, ledger)
    _drop_near(codes, domain, scored, plan, ledger)
    _drop_unlike(codes, scored, starts, plan, ledger)
    split = held_out(en, zh, record, domain, codes == 0, plan.recipe.valid_per_domain)
    codes[split.valid] = ledger.code(VALID)
    _reject(codes, split.shared, "shares_valid", ledger)
    return Verdicts(codes, starts, ledger)


def _record(number: int, batch: pa.RecordBatch) -> Keys:
    """A key of (source, file, line): rows cut from one record go to one side of the split."""
    place = batch["line"].to_numpy().astype(np.uint64) | (batch["file"].to_numpy().astype(np.uint64) << np.uint64(40))
    return mixed(place ^ (np.uint64(number) << np.uint64(52)))


def _accepted(
    batch: pa.RecordBatch, start: int, plan: Plan, part: Scored, forbidden: Forbidden, ledger: Ledger
) -> Codes:
    """Reader's faults, then the rules, then the benchmarks; codes [batch rows]."""
    codes = np.zeros(batch.num_rows, np.int8)
    rows = start + np.arange(batch.num_rows, dtype=np.int64)
    fault = pc.dictionary_encode(batch["fault"])
    for index, reason in enumerate(fault.dictionary.to_pylist()):
        if reason:
            hit = fault.indices.to_numpy() == index
            codes[hit] = ledger.code(reason)
            ledger.note(reason, rows[hit])
    for reason, hit in _leaks(batch, forbidden):
        hit &= codes == 0
        codes[hit] = ledger.code(reason)
        ledger.note(reason, rows[hit])
    table = {name: batch[name].to_numpy() for name in SCORES}
    for rule in rules(table, plan.limits[part.source.domain]):
        hit = (codes == 0) & (rule.badness > rule.limit)
        if hit.any():
            codes[hit] = ledger.code(rule.reason)
            ledger.note(rule.reason, rows[hit], rule.badness[hit])
    return codes


def _leaks(batch: pa.RecordBatch, forbidden: Forbidden) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    keys = forbidden.keys
    if len(keys):
        for name in ("en_key", "zh_key"):
            own = batch[name].to_numpy()
            at = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
            yield "benchmark_text", keys[at] == own
    if forbidden.images:
        images = pc.dictionary_encode(batch["image"])
        bad = np.array([image_id(i) in forbidden.images for i in images.dictionary.to_pylist()], bool)
        yield "benchmark_image", bad[images.indices.to_numpy()]


def _reject(
    codes: Codes,
    hit: npt.NDArray[np.bool_],
    reason: str,
    ledger: Ledger,
    badness: npt.NDArray[np.generic] | None = None,
) -> None:
    rows = np.flatnonzero(hit & (codes == 0))
    if len(rows):
        codes[rows] = ledger.code(reason)
        ledger.note(reason, rows, None if badness is None else badness[rows])


def _fit_ratios(
    codes: Codes,
    ratio: npt.NDArray[np.float32],
    domain: npt.NDArray[np.int16],
    domains: list[str],
    plan: Plan,
    ledger: Ledger,
) -> None:
    """Length ratios are judged against their own domain: its median, in robust deviations (1.4826 MAD)."""
    badness = np.zeros(len(codes), np.float32)
    hit = np.zeros(len(codes), bool)
    for code, name in enumerate(domains):
        inside = domain == code
        alive = ratio[inside & (codes == 0)]
        if len(alive) < 100:
            continue
        middle = np.median(alive)
        spread = max(1.4826 * float(np.median(np.abs(alive - middle))), 0.05)
        badness[inside] = np.abs(ratio[inside] - middle) / spread
        hit |= inside & (badness > plan.limits[name].max_ratio_deviations)
    _reject(codes, hit, "length_ratio", ledger, badness)


def _drop_repeats(codes: Codes, en: Keys, zh: Keys, domain: npt.NDArray[np.int16], plan: Plan, ledger: Ledger) -> None:
    """The first row of every pair stays; of rows that share one side, as many as their domain allows."""
    pair = mixed(en ^ mixed(zh + np.uint64(1)))
    _reject(codes, ~first_rows(pair, codes == 0, np.ones(len(codes), np.int64)), "duplicate", ledger)
    limits = list(plan.limits.values())
    for reason, keys, allowed in (
        ("same_en", en, np.array([each.max_same_en for each in limits])),
        ("same_zh", zh, np.array([each.max_same_zh for each in limits])),
    ):
        _reject(codes, ~first_rows(keys, codes == 0, allowed[domain]), reason, ledger)


def _drop_near(codes: Codes, domain: npt.NDArray[np.int16], scored: list[Scored], plan: Plan, ledger: Ledger) -> None:
    """Pairs that nearly repeat an earlier one, by their domain's threshold; rows of few n-grams are left alone."""
    table = np.empty((len(codes), HASHES), np.uint8)
    large, row = np.zeros(len(codes), bool), 0
    for part in scored:
        for batch in part.columns(["en_chars", "zh_chars", "signature"]):
            span = slice(row, row + batch.num_rows)
            flat = np.frombuffer(batch["signature"].buffers()[1], np.uint8)[batch["signature"].offset * HASHES :]
            table[span] = flat[: batch.num_rows * HASHES].reshape(-1, HASHES)
            large[span] = (batch["en_chars"].to_numpy() >= 24) & (batch["zh_chars"].to_numpy() >= 6)
            row += batch.num_rows
    for code, limits in enumerate(plan.limits.values()):
        if limits.near_duplicate <= 1:
            alive = (codes == 0) & large & (domain == code)
            _reject(codes, near_repeats(table, alive, limits.near_duplicate), "near_duplicate", ledger)


def _drop_unlike(codes: Codes, scored: list[Scored], starts: npt.NDArray[np.int64], plan: Plan, ledger: Ledger) -> None:
    """Pairs whose sides do not mean the same, or whose neighbour's Chinese fits better (subtitles shifted by one)."""
    unlike, shifted = np.full(len(codes), -1, np.float32), np.full(len(codes), -1, np.float32)
    for number, part in enumerate(scored):
        limits = plan.limits[part.source.domain]
        if needs_similarity(limits):
            span = slice(int(starts[number]), int(starts[number + 1]))
            table = similarities(part, codes[span] == 0)
            own, rival = table["own"].to_numpy(), table["rival"].to_numpy()
            unlike[span] = np.nan_to_num(limits.min_similarity - own, nan=-1)
            lead = np.where(own < limits.shift_below, rival - own - limits.max_shift, -1)
            shifted[span] = np.nan_to_num(lead, nan=-1)
    _reject(codes, unlike > 0, "unlike", ledger, unlike)
    _reject(codes, shifted > 0, "shifted", ledger, shifted)
