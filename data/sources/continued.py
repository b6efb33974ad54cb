"""Sentences that subtitles cut into lines, put together again: the two languages cut them at different places."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.pair import RAW, TEXT

STARTS_LOW = r"^[\s\-–'\".…]*[a-z]"  # an English line that goes on with a sentence
ENDS_OPEN = r"[^.!?…\"'\s]\s*$"  # an English line that does not end one
MOST_LINES = 4


def continued(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Join each line that goes on with the one before it, both sides; the lines so used up are the reject `joined`."""
    if batch.num_rows < 2:
        return batch
    en, line = batch.column("en"), batch.column("line").to_numpy()
    low = np.asarray(pc.match_substring_regex(en, STARTS_LOW), bool)
    open_end = np.asarray(pc.match_substring_regex(en, ENDS_OPEN), bool)
    sound = np.asarray(pc.equal(batch.column("fault"), ""), bool)
    goes_on = np.zeros(batch.num_rows, bool)
    file = batch.column("file").to_numpy()
    near = (line[1:] > line[:-1]) & (line[1:] - line[:-1] <= 5) & (file[1:] == file[:-1])  # a cue of SRT takes 4 or 5
    goes_on[1:] = low[1:] & open_end[:-1] & sound[1:] & sound[:-1] & near
    if not goes_on.any():
        return batch
    heads = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(goes_on))))
    goes_on &= (np.arange(len(goes_on)) - heads) % MOST_LINES != 0
    starts = np.append(np.flatnonzero(~goes_on), len(goes_on)).astype(np.int64)
    columns = {name: batch.column(name) for name in RAW.names}
    used = pa.array(goes_on)
    for side in ("en", "zh"):
        lists = pa.LargeListArray.from_arrays(pa.array(starts), columns[side])
        whole = pc.binary_join(lists, pa.scalar(" ", TEXT))
        columns[side] = pc.if_else(used, columns[side], whole.take(pa.array(np.cumsum(~goes_on) - 1)))
    columns["fault"] = pc.if_else(used, "joined", columns["fault"]).cast(TEXT)
    return pa.RecordBatch.from_arrays([columns[name] for name in RAW.names], schema=RAW)
