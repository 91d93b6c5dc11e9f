"""The ledger: one row per (model, seed, evaluation, sample). The primary artefact; every table is a query over it.

Columns are deterministic; seconds and memory live in the costs table beside it. Parts are written shard by shard and
merged by concatenation and one sort, so merging is associative and the order of shards cannot show.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

KEY = ["model", "seed", "evaluation", "sample"]

SCHEMA = pa.schema(
    [
        ("model", pa.string()),  # id of the trained network: model.objective.seed
        ("seed", pa.int64()),
        ("evaluation", pa.string()),  # label of the evaluation
        ("sample", pa.int64()),  # position in the published data
        ("label", pa.int64()),
        ("prediction", pa.int64()),  # on the judged image
        ("correct", pa.bool_()),  # right on the judged image, and no image in the ball is known to be wrong
        ("success", pa.bool_()),  # attacks: a misclassified image inside the threat model is known
        ("quantised", pa.bool_()),  # attacks: success survives rounding to 8 bits inside the ball
        ("distance", pa.float64()),  # attacks: 0 if misclassified already, inf if none was found
        ("forward", pa.int64()),
        ("backward", pa.int64()),
        ("queries", pa.int64()),  # forward passes of black-box attacks
        ("certificate", pa.string()),  # verified | falsified | unknown
        ("radius", pa.float64()),
        ("score", pa.float64()),  # detectors: higher = more in-distribution
        ("logits", pa.list_(pa.float32())),  # on the judged image
    ]
)

COSTS = pa.schema(
    [
        ("model", pa.string()),
        ("seed", pa.int64()),
        ("evaluation", pa.string()),
        ("shard", pa.int64()),
        ("samples", pa.int64()),
        ("seconds", pa.float64()),
        ("peak_bytes", pa.int64()),
    ]
)


class LedgerError(ValueError):
    """A part does not fit the schema, or two parts claim one row."""


def table(rows: pd.DataFrame) -> pa.Table:
    """Rows as a typed table; columns that a kind of evaluation does not fill become null.

    Raises:
        LedgerError: if a column is unknown or a value does not fit its type.
    """
    extra = set(rows.columns) - set(SCHEMA.names)
    if extra:
        raise LedgerError(f"the ledger has no column {', '.join(sorted(extra))}; it has {', '.join(SCHEMA.names)}")
    full = rows.reindex(columns=SCHEMA.names)
    try:
        return pa.table(
            {
                field.name: pa.array(full[field.name].tolist(), type=field.type, from_pandas=True)  # NaN: not filled
                for field in SCHEMA
            },
            schema=SCHEMA,
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LedgerError(f"a value does not fit the ledger's schema: {error}") from error


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows in key order; associative and commutative.

    Raises:
        LedgerError: if a key occurs twice.
    """
    parts = list(tables)
    if not parts:
        return SCHEMA.empty_table()
    whole = pa.concat_tables(parts).sort_by([(column, "ascending") for column in KEY])
    keys = whole.select(KEY).to_pandas()
    doubled = keys.duplicated()
    if doubled.any():
        first = keys[doubled].iloc[0].to_dict()
        raise LedgerError(f"two parts of the ledger hold the row {first}")
    return whole


def write(rows: pa.Table, path: Path) -> str:
    """Write parquet under a temporary name and move it; returns the sha256 of the file. Same rows, same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(descriptor)
    try:
        pq.write_table(rows, temporary, compression="zstd", write_statistics=False, row_group_size=100_000)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> pa.Table:
    """A ledger from disk.

    Raises:
        LedgerError: if the file is not a ledger.
    """
    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise LedgerError(f"{path} is not a readable ledger: {error}") from error
    if found.schema.names != SCHEMA.names:
        raise LedgerError(f"{path} has columns {found.schema.names}, a ledger has {SCHEMA.names}")
    return found.cast(SCHEMA)


def frame_of(rows: pa.Table, *columns: str) -> pd.DataFrame:
    """The key columns and some others, without the bulk of the logits."""
    return rows.select([*KEY, *columns]).to_pandas()


def logits_of(frame: pd.DataFrame) -> np.ndarray:
    """The logits column as an array [N,K] float32."""
    if len(frame) == 0:
        return np.zeros((0, 0), np.float32)
    return np.array(frame["logits"].tolist(), dtype=np.float32)
