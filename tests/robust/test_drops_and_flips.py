"""Drops and flips: chance is told from change, on the same samples and on new ones."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from robust import ledger
from robust.drops import drops, newcombe
from robust.pairing import Judged, NotComparable, flips, left_out
from robust.report.comparison import compare, comparison_page, comparison_table
from robust.statistics import mcnemar_midp

EVALUATIONS = (("clean", "clean", None, None), ("pgd", "pgd", "linf", "1/10"), ("fgsm", "fgsm", "linf", "1/10"))


def judged(right, digest="d", models=("m",), name="digits", first_sample=0, title="study", label=3):
    """A report and ledger of `right`: {evaluation label: [N] bools}, the same for every model."""
    evaluations = [
        {"model": model, "label": label, "name": name, "norm": norm, "eps": eps}
        for model in models
        for label, name, norm, eps in EVALUATIONS
        if label in right
    ]
    report = {
        "study": title, "size": "cpu", "title": title, "evaluations": evaluations, "settings": {"batch": 250},
        "environment": {}, "dataset": {"name": name, "digest": digest, "samples": 100},
        "models": [{"id": model, "model": model, "objective": "", "sha256": "0" * 64} for model in models],
    }  # fmt: skip
    parts = [
        pd.DataFrame(
            {"model": model, "seed": 0, "evaluation": evaluation, "label": label, "correct": list(values),
             "sample": np.arange(len(values)) + first_sample}
        )
        for model in models
        for evaluation, values in right.items()
    ]  # fmt: skip
    return Judged.of(report, ledger.table(pd.concat(parts)))


def bits(n, right):
    return np.arange(n) < right


def test_no_change_is_no_drop():
    base = bits(400, 240)
    (found,) = drops(judged({"clean": base}), judged({"clean": base}), "m")
    assert found.p == 1
    assert not found.raised


def test_false_alarms_are_no_more_than_asked_for():
    generator = np.random.default_rng(0)
    chance = generator.choice([0, 0.5, 1], size=200, p=[0.4, 0.1, 0.5])  # most samples are decided, some are not
    alarms = [
        drop.raised
        for _ in range(100)
        for drop in drops(
            judged({"clean": generator.random(200) < chance}),
            judged({"clean": generator.random(200) < chance}),
            "m",
            alpha=0.05,
        )
    ]
    assert np.mean(alarms) <= 0.05


def test_a_paired_drop_is_raised_where_two_intervals_would_overlap():
    before, now = bits(200, 120), bits(200, 108)  # 60 % -> 54 %: Wilson's intervals overlap by far
    (found,) = drops(judged({"clean": before}), judged({"clean": now}), "m")
    assert found.paired
    assert (found.lost, found.won) == (12, 0)
    assert found.p == pytest.approx(float(mcnemar_midp(12, 0)))
    assert found.fall.estimate == pytest.approx(0.06)
    assert found.raised
    (rise,) = drops(judged({"clean": now}), judged({"clean": before}), "m")
    assert not rise.raised


def test_the_worst_case_over_attacks_is_watched_too_and_all_are_corrected_together():
    even = np.arange(100) % 2 == 0
    before = judged({"pgd": np.ones(100, bool), "fgsm": np.ones(100, bool)})
    now = judged({"pgd": ~even | bits(100, 80), "fgsm": np.ones(100, bool)})
    found = {drop.label: drop for drop in drops(before, now, "m")}
    assert set(found) == {"pgd", "fgsm", "worst-case linf 1/10"}
    assert found["worst-case linf 1/10"].accuracy == (1.0, found["pgd"].accuracy[1])
    assert found["pgd"].p_holm == pytest.approx(min(1, 3 * found["pgd"].p))


def test_new_data_are_compared_without_pairs():
    before = judged({"clean": bits(200, 150)})
    (far,) = drops(before, judged({"clean": bits(300, 120)}, digest="new", first_sample=1000), "m")
    assert not far.paired
    assert far.raised
    assert far.p == pytest.approx(stats.fisher_exact([[150, 50], [120, 180]]).pvalue)
    (near,) = drops(before, judged({"clean": bits(300, 220)}, digest="new"), "m")
    assert not near.raised


def test_newcombe_s_interval_is_the_published_one():
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10
    found = newcombe((56, 70), (48, 80))
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_flips_name_the_samples_and_correct_for_all_rows():
    first = judged({"clean": bits(50, 40), "pgd": bits(50, 20)})
    second = judged({"clean": bits(50, 40), "pgd": bits(50, 10)})
    found = {entry.label: entry for entry in flips(first, second)}
    assert found["pgd"].lost == tuple(range(10, 20))
    assert found["pgd"].won == ()
    assert found["pgd"].larger_than_chance
    assert found["clean"].p_holm == 1
    assert found["pgd"].gap.effect == pytest.approx(-0.2)


def test_other_models_are_paired_each_with_each_and_missing_evaluations_told():
    first = judged({"clean": bits(50, 40), "pgd": bits(50, 20)}, models=("a", "b"))
    second = judged({"clean": bits(60, 40)}, models=("c",))
    assert [(entry.first, entry.second, entry.n) for entry in flips(first, second)] == [("a", "c", 50), ("b", "c", 50)]
    assert left_out(first, second) == ["pgd"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (judged({"clean": bits(5, 3)}, name="mnist"), "other data"),
        (judged({"clean": bits(5, 3)}, label=4), "different versions"),
        (judged({"fgsm": bits(5, 3)}), "share no evaluation"),
        (judged({"clean": bits(5, 3)}, first_sample=90), "share no evaluation"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, words):
    with pytest.raises(NotComparable, match=words):
        flips(judged({"clean": bits(5, 3)}), second)


def test_the_page_escapes_names_and_the_table_fits_80_columns():
    first = judged({"clean": bits(50, 40), "pgd": bits(50, 30)}, title="<script>alert(1)</script>", models=("a" * 60,))
    second = judged({"clean": bits(50, 30), "pgd": bits(50, 0)}, models=("b" * 60,))
    first.report["settings"]["x" * 80] = "y" * 80
    document = compare(first, second, ({}, {"robust.threat": "1"}))
    assert document["code"] == [{"path": "modules", "first": "not recorded", "second": "recorded"}]
    assert "fell by 20.0 points" in document["sentences"][0]
    assert "<script>alert" not in comparison_page(document)
    table = comparison_table(document)
    assert max(map(len, table.splitlines())) <= 80
    assert "not recorded -> recorded\n  a report away from its home records no code" in table
    assert "records no code" in comparison_page(document)
    unknown = comparison_table(compare(first, second, ({}, {})))
    assert "not recorded -> not recorded" in unknown
