"""report.json: pinned keys, numbers that agree with the ledger, and studies that have little in them."""

import copy
import json
import time

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from robust.report import ReportError, build, worth_showing
from robust.report.distributions import calibration_error
from robust.statistics import wilson

PINNED = {
    "models": "id model objective seed sha256",
    "evaluations": "model name label norm eps n correct accuracy low high verdict reasons forward backward queries",
    "calibration": "model under calibrator ece mce brier nll temperature",
    "detection": "model score ood auroc aupr fpr95",
    "certificates": "model name norm eps n verified falsified unknown",
    "claims": "id question verdict effect low high attack seeds section",
    "figures": "id file csv",
}


@pytest.fixture(scope="module")
def report(inputs):
    return build(**inputs)


def test_every_pinned_key_is_there(report):
    assert (report["schema"], report["study"], report["size"]) == (1, "digits-linear", "smoke")
    assert report["dataset"] | {"name": "digits", "digest": "d" * 64} == report["dataset"]
    for table, keys in PINNED.items():
        assert report[table], table
        assert set(keys.split()) <= set(report[table][0]), table
    json.dumps(report, allow_nan=False)


def test_accuracies_are_queries_over_the_ledger(report, inputs):
    frame = inputs["rows"].to_pandas()
    for row in report["evaluations"]:
        cell = frame[(frame["model"] == row["model"]) & (frame["evaluation"] == row["label"])]
        assert (row["n"], row["correct"]) == (len(cell), int(cell["correct"].sum()))
        low, high = wilson(row["correct"], row["n"])
        assert (row["low"], row["high"]) == (float(low), float(high))
        assert row["backward"] == cell["backward"].sum()


def test_worst_case_is_an_and_over_rows(report, inputs):
    frame = inputs["rows"].to_pandas()
    row = next(r for r in report["worst_case"] if r["label"] == "worst-case linf 1/8")
    assert row["members"] == ["fgsm-1-8", "pgd-1-8"]
    cells = frame[(frame["model"] == row["model"]) & frame["evaluation"].isin(row["members"])]
    assert row["correct"] == int(cells.groupby("sample")["correct"].all().sum())
    assert row["correct"] <= cells[cells["evaluation"] == "pgd-1-8"]["correct"].sum()


def test_verdicts_are_shown_as_given_and_doubt_spreads_to_the_worst_case(report):
    verdicts = {(r["model"], r["label"]): r for r in (*report["evaluations"], *report["worst_case"])}
    assert verdicts["linear.standard.0", "fgsm-1-8"]["verdict"] == "suspect"
    assert verdicts["linear.standard.0", "worst-case linf 1/8"]["verdict"] == "suspect"
    assert verdicts["linear.standard.0", "worst-case linf 1/8"]["reasons"][0].startswith("fgsm-1-8: noise")
    assert verdicts["linear.standard.1", "worst-case linf 1/8"]["verdict"] == "trusted"
    assert verdicts["linear.standard.0", "clean"]["verdict"] == "trusted"


def worst(inputs, verdicts, strengths):
    study = copy.deepcopy(inputs["study"])
    for row in study["evaluations"]:
        row["strength"] = strengths.get(row["label"])
    found = build(study, inputs["rows"], verdicts=verdicts)["worst_case"]
    return next(r for r in found if (r["model"], r["label"]) == ("linear.standard.0", "worst-case linf 1/8"))


def test_a_trusted_gradient_attack_that_leaves_no_more_settles_the_doubt_about_a_weaker_one(inputs):
    def given(fgsm, pgd):
        names = {"fgsm-1-8": fgsm, "pgd-1-8": pgd}
        return [
            {"model": "linear.standard.0", "evaluation": label, "verdict": verdict, "reasons": ["weak"]}
            for label, verdict in names.items()
        ]

    steps = {"fgsm-1-8": "single step", "pgd-1-8": "gradient"}
    assert worst(inputs, given("suspect", "trusted"), steps)["verdict"] == "trusted"
    assert worst(inputs, given("broken", "trusted"), steps)["verdict"] == "trusted"
    # the weaker attack's word settles nothing, nor that of one without a gradient, nor that of nobody known
    assert worst(inputs, given("trusted", "suspect"), steps)["reasons"] == ["pgd-1-8: weak"]
    assert worst(inputs, given("trusted", "broken"), {**steps, "fgsm-1-8": "gradient"})["verdict"] == "broken"
    assert worst(inputs, given("suspect", "trusted"), {**steps, "pgd-1-8": "no gradient"})["verdict"] == "suspect"
    assert worst(inputs, given("suspect", "trusted"), {})["verdict"] == "suspect"


def test_no_number_without_checks_is_trusted(inputs):
    bare = build(inputs["study"], inputs["rows"])
    attacks = [r for r in bare["evaluations"] if r["norm"]] + bare["worst_case"]
    assert {r["verdict"] for r in attacks} == {"suspect"}
    assert "no validity checks" in attacks[0]["reasons"][0]
    verdict = {
        "model": "linear.standard.0",
        "evaluation": "worst-case",
        "norm": "linf",
        "eps": "1/8",
        "verdict": "broken",
    }
    found = build(inputs["study"], inputs["rows"], verdicts=[verdict])["worst_case"]
    assert [r["verdict"] for r in found if r["model"] == "linear.standard.0"] == ["suspect", "broken", "suspect"]
    with pytest.raises(ReportError, match="one of trusted, suspect, broken"):
        build(inputs["study"], inputs["rows"], verdicts=[verdict | {"verdict": "fine"}])


def test_differences_compare_groups_on_all_seeds(report):
    row = next(r for r in report["differences"] if r["label"] == "clean")
    means = {g["group"]: g["mean"] for g in report["groups"] if g["label"] == "clean"}
    assert row["effect"] == pytest.approx(means["linear.standard"] - means["linear.regularised"])
    assert row["larger_than"] == "both"
    assert row["sentence"].endswith("is larger than both the variation over samples and over seeds.")
    assert row["p"] <= row["p_holm"] <= 1


def test_curves_start_at_clean_accuracy_and_fall(report):
    for figure in (f for f in report["figures"] if f["group"] == "curves"):
        for series in figure["series"]:
            assert series["x"][0] == 0
            assert (np.diff(series["y"]) <= 1e-12).all()
    linf = next(f for f in report["figures"] if f["id"] == "curve-linf")
    by_label = {(g["group"], g["label"]): g["mean"] for g in report["groups"]}
    for series in linf["series"]:
        assert series["y"][0] == pytest.approx(by_label[series["label"], "clean"])
        assert series["y"][2] == pytest.approx(by_label[series["label"], "worst-case linf 1/8"])


def test_median_distance_belongs_to_smallest_distance_attacks(report):
    rows = {r["label"]: r for r in report["evaluations"] if r["model"] == "linear.standard.0"}
    assert 0 < rows["deepfool"]["median_distance"] < 2
    assert rows["pgd-1-8"]["median_distance"] is None


def test_reliability_bins_hold_every_image(report):
    figure = next(f for f in report["figures"] if f["id"] == "reliability-clean-linear-standard-0")
    assert sum(figure["series"][0]["count"]) == 360
    assert figure["series"][1]["label"] == "temperature 1.60"


def test_calibration_error_closed_form():
    # confidence 3/4 in one bin, half of it right: |0.5 - 0.75|
    logits = np.tile(np.log([[3.0, 1.0]]), (10, 1))
    assert calibration_error(logits, np.array([0, 1] * 5)) == pytest.approx(0.25)


def test_fragile_samples_fall_first(report, inputs):
    fragile, sturdy = report["fragile"], report["sturdy"]
    assert fragile[0]["broken"] / fragile[0]["of"] > sturdy[0]["broken"] / sturdy[0]["of"]
    wanted = worth_showing(inputs["study"], inputs["rows"], 4)
    assert {w["sample"] for w in wanted} == {r["sample"] for r in (*fragile[:2], *sturdy[:2])}
    assert {w["evaluation"] for w in wanted} == {r["label"] for r in inputs["study"]["evaluations"] if r["eps"]}


def test_seconds_stand_under_volatile_alone(report, inputs):
    assert report["volatile"]["host"] == "a-host"
    assert report["volatile"]["seconds"][0]["seconds"] == 0.25
    elsewhere = build(**inputs | {"volatile": {"host": "b"}, "costs": None})
    assert {k: v for k, v in elsewhere.items() if k != "volatile"} == {
        k: v for k, v in report.items() if k != "volatile"
    }


def test_the_order_of_rows_does_not_show(report, inputs):
    shuffled = inputs["rows"].take(np.random.default_rng(0).permutation(inputs["rows"].num_rows))
    assert build(**inputs | {"rows": shuffled}) == report


def rows_of(frame, **columns):
    return ledger.table(pd.DataFrame(frame).assign(**columns))


def one_sample(**columns):
    frame = {"sample": [0], "label": [0], "prediction": [0], "correct": [True], "logits": [[1.0]], "forward": 1}
    return rows_of(frame, model="m", seed=0, evaluation="clean", **columns)


STUDY = {
    "name": "tiny",
    "models": [{"id": "m", "model": "m"}],
    "evaluations": [{"label": "clean", "name": "clean"}],
}


def test_one_model_one_sample_one_class_no_attack():
    found = build(STUDY, one_sample())
    assert found["evaluations"][0]["accuracy"] == 1
    assert found["worst_case"] == found["differences"] == found["classes"] == []
    assert found["summary"][0]["text"] == "m gets 100.0 % right on clean images."


def test_an_empty_ledger_is_a_report_of_nothing():
    found = build(STUDY, ledger.SCHEMA.empty_table())
    assert found["evaluations"] == found["summary"] == found["figures"] == []


def test_detector_rows_are_no_accuracies():
    scores = rows_of({"sample": [0], "label": [0], "score": [0.5]}, model="m", seed=0, evaluation="energy.digits")
    found = build(STUDY, ledger.merge([one_sample(), scores]))
    assert [r["label"] for r in found["evaluations"]] == ["clean"]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (STUDY | {"models": [{"id": "x", "model": "x"}]}, "judges 'm', which study.models does not name"),
        (STUDY | {"evaluations": []}, "holds 'clean', which study.evaluations does not name"),
        (STUDY | {"models": STUDY["models"] * 2}, "study.models: 'm' stands twice"),
        (STUDY | {"models": [{"id": "m"}]}, r"study.models\[0\] lacks model"),
        ({"name": "x", "models": STUDY["models"]}, "study.evaluations is missing"),
        (STUDY | {"evaluations": [{"label": "clean", "name": "c", "norm": "linf", "eps": "8/"}]}, "'clean': eps"),
    ],
)
def test_what_does_not_fit_is_named(study, message):
    with pytest.raises(ReportError, match=message):
        build(study, one_sample())


def test_examples_must_be_8_bit_images(inputs):
    bad = inputs["examples"][0] | {"clean": np.zeros((8, 8))}
    with pytest.raises(ReportError, match="clean must be uint8"):
        build(**inputs | {"examples": [bad]})


def test_ten_models_of_ten_thousand_samples(tmp_path):
    from robust.report import render

    rng = np.random.default_rng(0)
    n, models = 10_000, [{"id": f"net.{m}.0", "model": "net", "objective": str(m)} for m in range(10)]
    threats = [("clean", None, None), ("pgd", "linf", "8/255"), ("apgd", "linf", "8/255"), ("deepfool", "l2", None)]
    labels, tables = rng.integers(0, 10, n), []
    for model in models:
        for label, norm, _ in threats:
            logits = rng.normal(0, 1, (n, 10)).astype(np.float32)
            logits[np.arange(n), labels] += 2
            right = logits.argmax(1) == labels
            frame = pd.DataFrame(
                {"sample": np.arange(n), "label": labels, "prediction": logits.argmax(1), "correct": right}
            )
            frame["logits"] = list(logits)
            if norm:
                frame = frame.assign(success=~right, distance=np.where(right, np.inf, rng.random(n)), backward=40)
            tables.append(ledger.table(frame.assign(model=model["id"], seed=0, evaluation=label, forward=41)))
    study = {
        "name": "large",
        "models": models,
        "evaluations": [{"label": e, "name": e, "norm": norm, "eps": eps} for e, norm, eps in threats],
    }
    rows = ledger.merge(tables)
    start = time.process_time()  # of this process: other work on the machine is not ours
    page = render(build(study, rows), tmp_path)
    seconds = time.process_time() - start
    assert page.stat().st_size < 3_000_000
    assert seconds < 15, f"{seconds:.1f} s"
