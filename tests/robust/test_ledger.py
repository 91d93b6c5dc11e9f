import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robust import ledger


def part(samples, evaluation="pgd", model="m.o.0"):
    rows = pd.DataFrame({"sample": list(samples)})
    rows = rows.assign(model=model, seed=0, evaluation=evaluation, label=1, prediction=1, correct=True)
    rows["distance"] = np.inf
    rows["logits"] = [np.arange(3, dtype=np.float32) + s for s in samples]
    return ledger.table(rows)


@given(st.permutations(range(6)), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_merging_is_associative_and_blind_to_order(order, cut):
    parts = [part(range(i * 4, i * 4 + 4)) for i in order]
    whole = ledger.merge(parts)
    nested = ledger.merge([ledger.merge(parts[:cut]), ledger.merge(parts[cut:])])
    assert whole.equals(nested)
    assert whole["sample"].to_pylist() == list(range(24))


def test_same_rows_are_the_same_bytes(tmp_path):
    first = ledger.write(ledger.merge([part([2, 3]), part([0, 1])]), tmp_path / "a.parquet")
    second = ledger.write(ledger.merge([part([0, 1, 2, 3])]), tmp_path / "b.parquet")
    assert first == second
    assert ledger.read(tmp_path / "a.parquet").equals(ledger.merge([part(range(4))]))
    assert not list(tmp_path.glob("*.part"))


def test_a_doubled_row_is_an_error():
    with pytest.raises(ledger.LedgerError, match="two parts"):
        ledger.merge([part([1, 2]), part([2, 3])])


def test_unknown_columns_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ledger.LedgerError, match="no column"):
        ledger.table(pd.DataFrame({"sample": [1], "secnds": [0.1]}))
    (tmp_path / "x.parquet").write_bytes(b"not a ledger")
    with pytest.raises(ledger.LedgerError, match="not a readable ledger"):
        ledger.read(tmp_path / "x.parquet")


def test_infinite_distances_and_logits_survive(tmp_path):
    ledger.write(part([5]), tmp_path / "l.parquet")
    frame = ledger.read(tmp_path / "l.parquet").to_pandas()
    assert frame["distance"].tolist() == [np.inf]
    assert ledger.logits_of(frame).tolist() == [[5.0, 6.0, 7.0]]
    assert pa.types.is_list(ledger.SCHEMA.field("logits").type)
