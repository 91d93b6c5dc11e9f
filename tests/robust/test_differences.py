"""Differences of documents and ledgers: found, located, and causes told before consequences."""

import math

import pandas as pd
import pytest

from robust import ledger
from robust.differences import changes, first_difference, is_cause, ledger_difference


def rows(**columns):
    base = {"model": "m", "seed": 0, "evaluation": "pgd", "sample": [0, 1, 2], "label": 1, "correct": True,
            "distance": [0.1, math.inf, math.nan], "logits": [[0.0, 1.0]] * 3}  # fmt: skip
    return ledger.table(pd.DataFrame({**base, **columns}))


def test_a_change_is_named_by_its_path_and_entries_by_their_label():
    before = {"evaluations": [{"label": "pgd", "steps": 20}, {"label": "fgsm", "eps": "8/255"}], "batch": 1}
    after = {"evaluations": [{"label": "fgsm", "eps": "8/255"}, {"label": "pgd", "steps": 40}], "batch": 1}
    assert [str(change) for change in changes(before, after)] == ["evaluations.pgd.steps: 20 -> 40"]


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ({"a": 1}, {"a": 1.0}, "a"),  # 1 and 1.0 are other bytes
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, "a"),
        ({"a": [[1], [2]]}, {"a": [[1]]}, "a[1]"),
        ({}, {"a": None}, "a"),
        ({"a": True}, {"a": 1}, "a"),
    ],
)
def test_each_kind_of_difference_is_found_once(before, after, path):
    assert [change.path for change in changes(before, after)] == [path]
    assert list(changes(before, before)) == []


def test_nan_equals_nan():
    assert list(changes({"a": math.nan}, {"a": math.nan})) == []


def test_causes_come_before_consequences_and_volatile_never():
    before = {"evaluations": [1], "environment": {"torch": "2.8"}, "volatile": {"date": 1}}
    after = {"evaluations": [2], "environment": {"torch": "2.9"}, "volatile": {"date": 2}}
    found = first_difference(before, after)
    assert str(found) == "environment.torch: 2.8 -> 2.9"
    assert is_cause(found)
    found = first_difference(before, {**before, "evaluations": [2], "volatile": {}})
    assert found.path == "evaluations"
    assert not is_cause(found)
    assert first_difference(before, {**before, "volatile": {}}) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (rows(distance=[0.1, math.inf, 0.5]), "ledger: m/pgd/sample 2: distance: null -> 0.5"),
        (rows(logits=[[0.0, 1.0], [0.0, 2.0], [0.0, 1.0]]), "ledger: m/pgd/sample 1: logits"),
        (rows(sample=[0, 1, 3]), "ledger: row: m/pgd/sample 2 -> m/pgd/sample 3"),
        (rows().slice(0, 2), "ledger: rows: 3 -> 2"),
    ],
)
def test_a_ledger_s_first_difference_names_row_and_column(other, told):
    assert str(ledger_difference(rows(), other)).startswith(told)


def test_the_order_of_rows_is_no_difference():
    assert ledger_difference(rows(), rows().take([2, 0, 1])) is None
