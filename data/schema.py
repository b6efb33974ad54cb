"""Schemas of rows: what a source yields (RAW), and what a corpus holds (CORPUS)."""

import numpy as np
import pyarrow as pa

TEXT = pa.large_string()

RAW = pa.schema(
    [
        ("en", TEXT),
        ("zh", TEXT),
        ("image", TEXT),  # image id of a caption, "" elsewhere
        ("file", pa.int32()),  # index into the source's list of files
        ("line", pa.int64()),  # 1-based line (or record) of that file
        ("sub", pa.int32()),  # 0, or the 1-based part when one line gives several pairs
        ("fault", TEXT),  # "" or the reader's reject reason
    ]
)

CORPUS = pa.schema([(name, pa.string()) for name in ("en", "zh", "domain", "source", "license", "id", "image")])


def raw_batch(
    en: pa.Array,
    zh: pa.Array,
    file: int,
    line: np.ndarray | pa.Array,
    image: pa.Array | None = None,
    sub: np.ndarray | pa.Array | None = None,
    fault: pa.Array | None = None,
) -> pa.RecordBatch:
    """One batch of raw pairs of one file; absent columns take their neutral value."""
    rows = len(en)
    empty = pa.Array.from_buffers(TEXT, rows, [None, pa.py_buffer(np.zeros(rows + 1, np.int64)), pa.py_buffer(b"")])
    return pa.record_batch(
        [
            en.cast(TEXT),
            zh.cast(TEXT),
            empty if image is None else image.cast(TEXT),
            pa.array(np.full(rows, file, np.int32)),
            pa.array(line, pa.int64()),
            pa.array(np.zeros(rows, np.int32) if sub is None else sub, pa.int32()),
            empty if fault is None else fault.cast(TEXT),
        ],
        schema=RAW,
    )
