"""Claims judged on hand-made frames whose verdict is known: no network, no training."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from robust.claims import Cost, MeasuredRatio, Untested
from robust.claims.claim import Evidence
from robust.claims.correlation import spearman
from robust.claims.evidence import references
from robust.registry import create, entries

EMPTY = pd.DataFrame()
N = 200


def outcomes(group, seed, label, right=None, distance=None, forward=1, backward=0, attack=True, first=0):
    """Rows of one network under one evaluation; `right` is how many of N samples, in order, are right."""
    frame = pd.DataFrame({"sample": np.arange(first, first + N)})
    correct = np.arange(N) < (right if right is not None else N)
    frame = frame.assign(model=f"{group}.{seed}", group=group, seed=seed, evaluation=label, correct=correct)
    frame = frame.assign(success=~correct if attack else None, distance=distance, forward=forward, backward=backward)
    return frame.assign(queries=0)


def trusted(ledger):
    cells = ledger[["model", "evaluation"]].drop_duplicates().itertuples(index=False)
    return {tuple(cell): ("trusted", []) for cell in cells}


def evidence(*parts, verdicts=None, **frames):
    ledger = pd.concat(parts, ignore_index=True) if parts else EMPTY
    given = trusted(ledger) if verdicts is None and len(ledger) else verdicts or {}
    empty = dict.fromkeys(("measured", "history", "calibration", "detection", "costs", "resampled"), EMPTY)
    return Evidence(ledger=ledger, verdicts=given, attacks={"pgd": "PGD, linf 0.3"}, **{**empty, **frames})


def arms(label, **right):
    """Three seeds of each group, right on so many samples, one more or less by seed."""
    return [
        outcomes(group.replace("_", "."), seed, label, n + seed - 1) for group, n in right.items() for seed in range(3)
    ]


def clean(label="clean", **right):
    return [
        outcomes(group.replace("_", "."), seed, label, n, attack=False)
        for group, n in right.items()
        for seed in range(3)
    ]


def claim(name, **settings):
    return create("claim", {"name": name, "question": "Is it so?", **settings})


def test_accuracy_gap_holds_beyond_both_variations_and_says_so():
    found = claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*arms("pgd", a_x=150, b_x=100)))
    assert found.verdict == "holds"
    assert found.effect == pytest.approx(25.0)
    assert 15 < found.low < 25 < found.high < 35
    assert (found.unit, found.seeds, found.attack, found.cost) == ("points", 3, "PGD, linf 0.3", 1.0)
    assert found.reason.startswith("a.x has 75.0 % right and b.x 50.0 % on 200 samples, +25.0 points (over samples ")
    assert found.rows[0]["points"] == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({}, "holds"),
        ({"at_least": 0.2}, "partly"),
        ({"at_least": 0.3}, "fails"),
        ({"better": "b.x", "than": "a.x"}, "fails"),
    ],
)
def test_accuracy_gap_is_weighed_against_its_bound(settings, verdict):
    given = {"better": "a.x", "than": "b.x", "under": "pgd", **settings}
    assert claim("accuracy-gap", **given).judge(evidence(*arms("pgd", a_x=150, b_x=100))).verdict == verdict


def test_accuracy_gap_of_one_seed_holds_only_partly():
    parts = [outcomes("a.x", 0, "pgd", 150), outcomes("b.x", 0, "pgd", 100)]
    found = claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*parts))
    assert found.verdict == "partly"
    assert "over seeds unknown, one seed" in found.reason


def test_accuracy_gap_that_seeds_explain_holds_only_partly():
    parts = [outcomes("a.x", s, "pgd", n) for s, n in enumerate((190, 100, 160))]
    parts += [outcomes("b.x", s, "pgd", n) for s, n in enumerate((90, 130, 110))]
    assert claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*parts)).verdict == "partly"


def test_accuracy_gap_under_several_evaluations_is_an_and_over_rows():
    reverse = outcomes("a.x", 0, "square", 150).assign(correct=np.arange(N) >= 50)
    parts = [outcomes("a.x", 0, "pgd", 150), reverse, outcomes("b.x", 0, "pgd", 100), outcomes("b.x", 0, "square", 200)]
    found = claim("accuracy-gap", better="a.x", than="b.x", under=["pgd", "square"]).judge(evidence(*parts))
    assert found.rows[0]["first_accuracy"] == pytest.approx(0.5)  # right on 50 to 149 alone
    assert found.effect == pytest.approx(0.0)


def test_accuracy_gap_compares_the_samples_that_both_were_judged_on():
    parts = [outcomes("a.x", 0, "pgd", 200), outcomes("b.x", 0, "pgd", 200, first=150)]
    assert claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*parts)).rows[0]["n"] == 50
    apart = [outcomes("a.x", 0, "pgd", 200), outcomes("b.x", 0, "pgd", 200, first=500)]
    found = claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*apart))
    assert found.verdict == "untested"
    assert "different samples" in found.reason


def test_each_of_several_groups_must_hold():
    given = evidence(*arms("pgd", a_x=150, b_x=100, c_x=99))
    both = claim("accuracy-gap", better=["a.x", "c.x"], than="b.x", under="pgd").judge(given)
    assert both.verdict == "partly"
    assert both.effect == pytest.approx(-0.5)  # the weakest pair speaks
    assert len(both.rows) == 2


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        ({"clean_at_least": 0.97}, "b.x is 95.0 % clean, and no verdict is given below 97.0 %"),
        ({"clean_within": 0.01}, "a.x is 99.0 % clean and b.x 95.0 %: more than 1 points apart"),
        ({"clean_at_least": 0.9, "clean_of": "c.x"}, "c.x is 50.0 % clean"),
    ],
)
def test_no_verdict_unless_all_compared_networks_are_accurate_and_alike(gate, why):
    given = evidence(*arms("pgd", a_x=150, b_x=100), *clean(a_x=198, b_x=190, c_x=100))
    found = claim("accuracy-gap", better="a.x", than="b.x", under="pgd", **gate).judge(given)
    assert found.verdict == "untested"
    assert why in found.reason
    passing = claim("accuracy-gap", better="a.x", than="b.x", under="pgd", clean_at_least=0.95, clean_within=0.04)
    assert passing.judge(given).verdict == "holds"


def test_a_doubtful_attack_turns_holds_into_partly_and_is_named():
    parts = arms("pgd", a_x=150, b_x=100)
    verdicts = trusted(pd.concat(parts)) | {("a.x.1", "pgd"): ("broken", ["zero gradients on 40 % of the images"])}
    found = claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*parts, verdicts=verdicts))
    assert found.verdict == "partly"
    assert "pgd is broken for a.x.1 (zero gradients on 40 % of the images)" in found.reason
    unchecked = claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(evidence(*parts, verdicts={}))
    assert unchecked.verdict == "partly"
    assert "no validity checks were run" in unchecked.reason
    noise = [part.assign(success=None) for part in parts]  # a corruption needs no check
    assert claim("accuracy-gap", better="a.x", than="b.x", under="pgd").judge(
        evidence(*noise, verdicts={})
    ).verdict == ("holds")


def test_the_doubt_about_a_weaker_attack_is_settled_by_a_trusted_one_in_the_same_ball():
    def judged(better=("fgsm", 170), balls="fgsm pgd", iterated=("pgd",), given="trusted"):
        parts = [*arms("pgd", a_x=150, b_x=100), *arms(better[0], a_x=better[1], b_x=better[1])]
        verdicts = trusted(pd.concat(parts))
        verdicts |= {(model, label): ("suspect", ["a single step"]) for model, label in verdicts if label == "fgsm"}
        verdicts |= {(model, label): (given, ["?"]) for model, label in verdicts if label == "pgd"}
        known = evidence(*parts, verdicts=verdicts)
        known = replace(known, balls=dict.fromkeys(balls.split(), "linf 0.3"), iterated=iterated)
        return claim("accuracy-gap", better="a.x", than="b.x", under=["pgd", "fgsm"]).judge(known).verdict

    assert judged() == "holds"
    assert judged(better=("fgsm", 149)) == "partly"  # it breaks what the trusted one leaves, for some networks
    assert judged(balls="fgsm") == "partly"  # another threat model says nothing about this one
    assert judged(iterated=()) == "partly"
    assert judged(given="suspect") == "partly"


@pytest.mark.parametrize("kind", [entry.name for entry in entries("claim") if entry.name != "untested"])
def test_what_the_study_lacks_is_untested_and_named(kind):
    settings = {
        "accuracy-gap": {"better": "a.x", "than": "b.x", "under": "pgd"},
        "distance-ratio": {"group": "a.x", "over": "b.x", "under": "ddn"},
        "order": {"groups": ["a.x", "b.x"], "under": "pgd"},
        "measured": {"groups": "a.x", "quantity": "margin", "at_least": 0},
        "measured-ratio": {"group": "a.x", "over": "b.x", "quantity": "margin"},
        "monotone": {"groups": "a.x", "quantity": "margin"},
        "attack-gap": {"groups": "a.x", "weak": "fgsm", "strong": "pgd"},
        "calibration-gap": {"groups": "a.x", "at_most": 0.1},
        "detection": {"groups": "a.x", "score": "energy", "ood": "noise", "at_least": 0.9},
        "correlation": {"groups": "a.x", "x": "margin", "y": "distance", "at_least": 0},
        "cost": {"group": "a.x", "than": "b.x", "under": "pgd", "at_most": 1},
        "generalisation": {"trained": "a.x", "baseline": "b.x", "seen": "fgsm", "unseen": "pgd"},
        "assumptions": {"groups": "a.x", "quantities": ["homogeneous"]},
    }[kind]
    for given in (evidence(), evidence(*arms("other", c_x=5))):
        found = claim(kind, **settings).judge(given)
        assert found.verdict == "untested"
        assert found.reason.startswith("Not tested: ")
        assert found.effect is None


def test_untested_gives_its_reason():
    found = Untested(question="Is ODE suited to time series?", reason="Out of scope.").judge(evidence())
    assert (found.verdict, found.reason) == ("untested", "Out of scope.")


def nearest(group, seed, distance):
    distance = np.asarray(distance, float)
    frame = outcomes(group, seed, "ddn", 0, distance=distance)
    return frame.assign(success=np.isfinite(distance), correct=np.isinf(distance))


def test_distance_ratio_is_that_of_the_medians():
    base = np.linspace(0.5, 1.5, N)
    parts = [nearest(g, s, k * base * (1 + 0.01 * s)) for g, k in (("a.x", 1.5), ("b.x", 1.0)) for s in range(3)]
    found = claim("distance-ratio", group="a.x", over="b.x", under="ddn", at_least=1.3).judge(evidence(*parts))
    assert found.verdict == "holds"
    assert found.effect == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5)  # pairs are kept: each sample's ratio is the same
    assert (
        claim("distance-ratio", group="a.x", over="b.x", under="ddn", at_least=1.6).judge(evidence(*parts)).verdict
        == "fails"
    )
    same = claim("distance-ratio", group="a.x", over="a.x", under="ddn").judge(evidence(*parts))
    assert same.verdict == "fails"  # 1 is not more than 1


def test_distance_ratio_takes_zeros_and_infinities():
    base = np.linspace(0.5, 1.5, N)
    some = np.where(np.arange(N) < 60, 0.0, np.where(np.arange(N) >= 140, np.inf, base))
    parts = [nearest("a.x", s, 2 * some) for s in range(2)] + [nearest("b.x", s, some) for s in range(2)]
    found = claim("distance-ratio", group="a.x", over="b.x", under="ddn").judge(evidence(*parts))
    assert found.effect == pytest.approx(2.0)
    assert found.rows[0]["not_broken"] == pytest.approx(0.3)
    none = [nearest("a.x", 0, np.full(N, np.inf)), nearest("b.x", 0, base)]
    found = claim("distance-ratio", group="a.x", over="b.x", under="ddn").judge(evidence(*none))
    assert found.verdict == "untested"
    assert "breaks less than half" in found.reason
    wrong = [nearest("a.x", 0, base), nearest("b.x", 0, np.zeros(N))]
    found = claim("distance-ratio", group="a.x", over="b.x", under="ddn").judge(evidence(*wrong))
    assert "median distance is 0" in found.reason


def test_order_in_accuracy():
    given = evidence(*arms("pgd", a_x=60, b_x=100, c_x=150, d_x=151))
    found = claim("order", groups=["a.x", "b.x", "c.x"], under="pgd").judge(given)
    assert found.verdict == "holds"
    assert found.effect == pytest.approx(20.0)
    assert claim("order", groups=["a.x", "c.x", "d.x"], under="pgd").judge(given).verdict == "partly"  # a tie above
    assert claim("order", groups=["b.x", "a.x", "c.x"], under="pgd").judge(given).verdict == "fails"
    tie = claim("order", groups=["c.x", "d.x"], under="pgd").judge(given)
    assert tie.verdict == "fails"
    assert "d.x over c.x: a tie" in tie.reason


def test_order_in_distance_counts_the_unbroken_as_farthest():
    base = np.linspace(0.5, 1.5, N)
    parts = [nearest("a.x", s, base + s / 100) for s in range(3)]
    parts += [nearest("b.x", s, np.where(np.arange(N) < 80, np.inf, 1.4 * base + s / 100)) for s in range(3)]
    given = evidence(*parts)
    assert claim("order", groups=["a.x", "b.x"], under="ddn", by="distance").judge(given).verdict == "holds"
    back = claim("order", groups=["b.x", "a.x"], under="ddn", by="distance").judge(given)
    assert back.verdict == "fails"
    assert "reversed" in back.reason
    assert math.isfinite(back.effect)


def measured(group, quantity, values, seeds=None, **columns):
    seeds = list(range(len(values))) if seeds is None else seeds
    rows = [
        {"model": f"{group}.{s}", "group": group, "seed": s, "diagnostic": "probe", "quantity": quantity, "value": v}
        for s, v in zip(seeds, values)
    ]
    return pd.DataFrame(rows).assign(**columns)


def with_measured(*parts, **frames):
    return evidence(measured=pd.concat(parts, ignore_index=True), **frames)


@pytest.mark.parametrize(
    ("values", "verdict"), [((1.0, 1.1, 1.2), "holds"), ((0.1, 1.0, 2.0), "partly"), ((0.3, 0.2, 0.1), "fails")]
)
def test_measured_quantity_against_a_bound(values, verdict):
    found = claim("measured", groups="a.x", quantity="margin", at_least=0.5, unit="px").judge(
        with_measured(measured("a.x", "margin", values))
    )
    assert found.verdict == verdict
    assert found.effect == pytest.approx(np.mean(values))
    assert found.unit == "px"


def test_measured_takes_facts_accuracies_and_columns_of_the_history():
    count = with_measured(measured("a.x", "parameters", [142410.0]))
    exact = {"groups": "a.x", "quantity": "parameters", "at_least": 142410, "at_most": 142410}
    assert claim("measured", fixed=True, **exact).judge(count).verdict == "holds"
    assert claim("measured", **exact).judge(count).verdict == "partly"  # one seed sets no interval
    given = evidence(*clean(a_x=196))
    accuracy = {"name": "accuracy", "under": "clean"}
    found = claim("measured", groups="a.x", quantity=accuracy, at_least=0.95).judge(given)
    assert (found.verdict, found.effect) == ("holds", pytest.approx(0.98))
    epochs = [{"model": f"a.x.{s}", "group": "a.x", "seed": s, "epoch": e, "log10_loss": -40.0 * e - s}
              for s in range(3) for e in range(4)]  # fmt: skip
    found = claim("measured", groups="a.x", quantity="log10_loss", at_most=-100).judge(
        evidence(history=pd.DataFrame(epochs))
    )
    assert (found.verdict, found.effect) == ("holds", pytest.approx(-121.0))


def test_measured_says_which_value_must_be_named():
    parts = [measured("a.x", "accuracy", [v], of=of) for of, v in (("euler", 0.9), ("dopri5", 0.5))]
    found = claim("measured", groups="a.x", quantity="accuracy", at_least=0).judge(with_measured(*parts))
    assert found.verdict == "untested"
    assert "of is one of dopri5 and euler" in found.reason
    named = claim("measured", groups="a.x", quantity={"name": "accuracy", "of": "euler"}, at_least=0, fixed=True)
    assert named.judge(with_measured(*parts)).effect == 0.9


def course(group, seed, values, quantity="margin"):
    rows = {"model": f"{group}.{seed}", "group": group, "seed": seed, "epoch": np.arange(len(values)), quantity: values}
    return pd.DataFrame(rows)


def test_measured_ratio_compares_equal_epochs_of_equal_seeds():
    fast = [course("a.x", s, [1.0, 2.0, 6.0 + s, 60.0]) for s in range(3)]
    slow = [course("b.x", s, [1.0, 1.0, 1.0 + s / 10]) for s in range(3)]  # stopped an epoch earlier
    given = evidence(history=pd.concat([*fast, *slow], ignore_index=True))
    found = claim("measured-ratio", group="a.x", over="b.x", quantity="margin", at_least=5).judge(given)
    assert found.effect == pytest.approx((6 * 7 / 1.1 * 8 / 1.2) ** (1 / 3))
    assert found.verdict == "holds"
    assert "at epoch 2" in found.reason
    assert [row["seed"] for row in found.rows] == [0, 1, 2]
    assert (
        claim("measured-ratio", group="a.x", over="b.x", quantity="margin", at_least=7).judge(given).verdict == "fails"
    )
    early = MeasuredRatio(question="?", group="a.x", over="b.x", quantity={"name": "margin", "epoch": 1}, at_least=1.5)
    assert early.judge(given).effect == pytest.approx(2.0)
    negative = evidence(history=pd.concat([course("a.x", 0, [1.0]), course("b.x", 0, [-1.0])]))
    assert "positive" in claim("measured-ratio", group="a.x", over="b.x", quantity="margin").judge(negative).reason


def test_monotone_names_the_epochs_that_break_it():
    margin = [9.0, 1.0, 2.0, 1.9, 3.0]
    loss = [9.0, 5.0, 0.5, 0.1, 0.01]
    history = course("a.x", 0, margin).assign(loss_sum=loss)
    given = evidence(history=history)
    settings = {"groups": "a.x", "quantity": "margin", "once": "loss_sum", "below": math.log(2)}
    found = claim("monotone", **settings).judge(given)
    assert found.verdict == "partly"
    assert found.effect == pytest.approx(0.05)
    assert "(a.x.0 at 3)" in found.reason
    assert claim("monotone", tolerance=0.06, **settings).judge(given).verdict == "holds"
    assert claim("monotone", groups="a.x", quantity="margin").judge(given).verdict == "fails"  # ends below its start
    assert claim("monotone", groups="a.x", quantity="loss_sum", direction="falling").judge(given).verdict == "holds"
    never = claim("monotone", **{**settings, "below": 1e-9}).judge(given)
    assert never.verdict == "untested"


def test_attack_gap_is_what_the_weak_attack_overstates():
    parts = [outcomes("a.x", s, label, n + s) for label, n in (("fgsm", 150), ("pgd", 90)) for s in range(3)]
    found = claim("attack-gap", groups="a.x", weak="fgsm", strong="pgd", at_least=0.2).judge(evidence(*parts))
    assert (found.verdict, found.effect) == ("holds", pytest.approx(30.0))
    assert (
        claim("attack-gap", groups="a.x", weak="fgsm", strong="pgd", at_least=0.35).judge(evidence(*parts)).verdict
        == "fails"
    )


def errors(group, values, calibrator="none"):
    rows = [
        {"model": f"{group}.{s}", "group": group, "seed": s, "under": "clean", "ece": v} for s, v in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(calibrator=calibrator)


def test_calibration_gap_against_a_group_its_temperature_and_a_bound():
    tables = [errors("a.x", [0.02, 0.021, 0.019]), errors("b.x", [0.1, 0.11, 0.09]),
              errors("b.x", [0.01, 0.011, 0.009], "temperature")]  # fmt: skip
    given = evidence(calibration=pd.concat(tables))
    found = claim("calibration-gap", groups="a.x", than="b.x").judge(given)
    assert (found.verdict, found.effect) == ("holds", pytest.approx(0.08))
    scaled = claim("calibration-gap", groups="a.x", than="b.x", than_calibrator="temperature").judge(given)
    assert (scaled.verdict, scaled.effect) == ("fails", pytest.approx(-0.01))
    assert claim("calibration-gap", groups="a.x", at_most=0.05).judge(given).verdict == "holds"
    assert claim("calibration-gap", groups="a.x", at_most=0.0205).judge(given).verdict == "partly"
    assert claim("calibration-gap", groups=["a.x", "b.x"], at_most=0.05).judge(given).verdict == "partly"
    with pytest.raises(ValidationError, match="either 'than'"):
        claim("calibration-gap", groups="a.x")


def resampled(group, *errors_of_seeds, samples="a", noise=0.01):
    """500 draws a network around its error; the noise of the samples is the same for all, as of a shared bootstrap."""
    shared = noise * np.random.default_rng(0).normal(size=500)
    rows = [
        {"model": f"{group}.{seed}", "group": group, "seed": seed, "draws": error + shared * (1 + seed / 10)}
        for seed, error in enumerate(errors_of_seeds)
    ]
    return pd.DataFrame(rows).assign(under="clean", calibrator="none", metric="ece", samples=samples)


def gap_of_nets(first, second, second_samples="a", **settings):
    given = evidence(
        calibration=pd.concat([errors("a.x", first), errors("b.x", second)]),
        resampled=pd.concat([resampled("a.x", *first), resampled("b.x", *second, samples=second_samples)]),
    )
    return claim("calibration-gap", groups="a.x", **({"than": "b.x"} | settings)).judge(given)


def test_calibration_gap_of_one_seed_has_an_interval_over_the_samples_that_both_nets_share():
    found = gap_of_nets([0.02], [0.021])  # paired, the draws differ by 0.001 exactly; unpaired by 0.014 +- 0.028
    assert (found.verdict, found.seeds) == ("partly", 1)  # nothing is known of other seeds
    assert (found.low, found.effect, found.high) == pytest.approx((0.001, 0.001, 0.001))
    assert "over samples 0.001 to 0.001, over seeds unknown, one seed" in found.reason
    assert found.rows[0]["seeds_low"] is None
    assert gap_of_nets([0.02], [0.02]).verdict == "fails"
    assert gap_of_nets([0.021], [0.02]).verdict == "fails"
    apart = gap_of_nets([0.02], [0.05], second_samples="b")
    assert (apart.verdict, apart.low) == ("partly", None)


def test_calibration_gap_is_partly_where_its_interval_over_samples_holds_the_bound():
    given = evidence(
        calibration=pd.concat([errors("a.x", [0.02]), errors("b.x", [0.03])]),
        resampled=pd.concat([resampled("a.x", 0.02), resampled("b.x", 0.03, noise=-0.01)]),
    )
    found = claim("calibration-gap", groups="a.x", than="b.x").judge(given)
    assert found.verdict == "partly"
    assert found.effect == pytest.approx(0.01)
    assert found.low < 0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.02, rel=0.1)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([0.02, 0.021, 0.019], [0.1, 0.11, 0.09], "holds"),  # beyond samples and seeds
        ([0.02, 0.09, 0.05], [0.06, 0.11, 0.09], "partly"),  # beyond samples alone
        ([0.02, 0.021, 0.019], [0.01, 0.011, 0.009], "fails"),
    ],
)
def test_calibration_gap_of_several_seeds_must_exceed_both_variations(first, second, verdict):
    found = gap_of_nets(first, second)
    assert found.verdict == verdict
    assert found.low == pytest.approx(found.effect)  # all of the noise is shared
    assert found.rows[0]["seeds_low"] < found.low


def test_calibration_bound_must_be_kept_over_samples_and_over_seeds():
    errors = [0.02, 0.021, 0.019]
    assert gap_of_nets(errors, errors, than=None, at_most=0.05).verdict == "holds"
    assert gap_of_nets(errors, errors, than=None, at_most=0.03).verdict == "partly"  # not over samples
    assert gap_of_nets([0.02], [0.02], than=None, at_most=0.05).verdict == "partly"  # nothing is known of other seeds
    assert gap_of_nets(errors, errors, than=None, at_most=0.01).verdict == "fails"


def test_detection_by_bound_by_group_and_by_score():
    rows = [
        {
            "model": f"{g}.{s}",
            "group": g,
            "seed": s,
            "score": score,
            "ood": "noise",
            "auroc": v + s / 100,
            "fpr95": 1 - v,
        }
        for g, score, v in (("a.x", "mass", 0.95), ("a.x", "max", 0.6), ("b.x", "mass", 0.5))
        for s in range(3)
    ]
    given = evidence(detection=pd.DataFrame(rows))
    assert claim("detection", groups="a.x", score="mass", ood="noise", at_least=0.9).judge(given).verdict == "holds"
    assert claim("detection", groups="b.x", score="mass", ood="noise", at_least=0.9).judge(given).verdict == "fails"
    better = claim("detection", groups="a.x", score="mass", ood="noise", than="b.x").judge(given)
    assert (better.verdict, better.effect) == ("holds", pytest.approx(0.45))
    score = claim("detection", groups="a.x", score="max", ood="noise", than_score="mass", metric="fpr95").judge(given)
    assert (score.verdict, score.effect) == ("fails", pytest.approx(-0.35))  # smaller is better


def test_correlation_over_snapshots_and_arms():
    parts = [measured("a.x", "margin", [1.0, 2.0], epoch=e).assign(value=[e + 1, 2 * e + 1.5]) for e in range(4)]
    parts += [p.assign(quantity="distance", value=p["value"] ** 2) for p in parts]
    given = with_measured(*parts)
    found = claim("correlation", groups="a.x", x="margin", y="distance", at_least=0.5).judge(given)
    assert (found.verdict, found.effect) == ("holds", pytest.approx(1.0))
    assert "8 points of 2 trainings" in found.reason
    assert claim("correlation", groups="a.x", x="margin", y="distance", at_most=0).judge(given).verdict == "fails"
    few = claim("correlation", groups="a.x", x="margin", y="distance", at_least=0)
    assert few.judge(with_measured(*parts[:1], *parts[4:5])).verdict == "untested"


def test_correlation_meets_ledger_and_measurement_of_each_network():
    parts = [
        outcomes(f"{g}.x", s, "pgd", 20 * i + 10) for i, (g, s) in enumerate([("a", 0), ("a", 1), ("b", 0), ("b", 1)])
    ]
    rows = [
        measured(f"{g}.x", "margin", [v], seeds=[s]) for g, s, v in (("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("b", 1, 4))
    ]
    given = evidence(*parts, measured=pd.concat([r.assign(epoch=7) for r in rows]))
    settings = {"groups": ["a.x", "b.x"], "x": "margin", "y": {"name": "accuracy", "under": "pgd"}, "at_least": 0.5}
    assert claim("correlation", **settings).judge(given).effect == pytest.approx(1.0)


def test_spearmans_interval_covers():
    rng = np.random.default_rng(0)
    true = 6 / math.pi * math.asin(0.25)  # of a normal pair with correlation 1/2
    hits = 0
    for _ in range(200):
        x = rng.normal(size=40)
        found = spearman(x, 0.5 * x + math.sqrt(0.75) * rng.normal(size=40))
        hits += found.low <= true <= found.high
    assert 0.9 < hits / 200 <= 1.0


def test_cost_is_passes_for_each_point_gained():
    parts = arms("pgd", a_x=150, b_x=100)
    parts += [outcomes("a.x", s, "clean", 198, forward=11, backward=10, attack=False) for s in range(3)]
    parts += [outcomes("b.x", s, "clean", 198, forward=1, attack=False) for s in range(3)]
    found = claim("cost", group="a.x", than="b.x", under="pgd", at_most=1).judge(evidence(*parts))
    assert (found.verdict, found.effect) == ("holds", pytest.approx(20 / 25))
    assert found.low < found.effect < found.high
    assert (
        Cost(question="?", group="a.x", than="b.x", under="pgd", at_most=0.5).judge(evidence(*parts)).verdict == "fails"
    )
    back = claim("cost", group="b.x", than="a.x", under="pgd", at_most=1).judge(evidence(*parts))
    assert (back.verdict, back.effect) == ("fails", None)
    assert "nothing was gained" in back.reason


def test_generalisation_is_about_the_unseen_attacks():
    parts = arms("fgsm", a_fgsm=190, a_x=20) + arms("pgd", a_fgsm=21, a_x=20) + arms("noise", a_fgsm=150, a_x=50)
    settings = {"trained": "a.fgsm", "baseline": "a.x", "seen": "fgsm"}
    given = evidence(*parts)
    both = claim("generalisation", unseen=["pgd", "noise"], at_least=0.05, **settings).judge(given)
    assert (both.verdict, both.effect) == ("partly", pytest.approx(0.5))
    assert [(row["under"], row["seen"]) for row in both.rows] == [("fgsm", True), ("pgd", False), ("noise", False)]
    assert claim("generalisation", unseen="noise", **settings).judge(given).verdict == "holds"
    assert claim("generalisation", unseen="pgd", at_least=0.05, **settings).judge(given).verdict == "fails"


def test_assumptions_are_a_table_of_yes_and_no():
    parts = [measured("a.x", name, [v, v]) for name, v in (("homogeneous", 1.0), ("separable", 1.0), ("smooth", 0.0))]
    given = with_measured(*parts)
    all_three = claim("assumptions", groups="a.x", quantities=["homogeneous", "separable", "smooth"]).judge(given)
    assert (all_three.verdict, all_three.effect) == ("partly", pytest.approx(2 / 3))
    assert "not met: smooth (a.x)" in all_three.reason
    assert claim("assumptions", groups="a.x", quantities=["homogeneous", "separable"]).judge(given).verdict == "holds"
    assert claim("assumptions", groups="a.x", quantities=["smooth"]).judge(given).verdict == "fails"
    unknown = claim("assumptions", groups="a.x", quantities=["homogeneous", "biasless"]).judge(given)
    assert unknown.verdict == "partly"
    assert [row["met"] for row in unknown.rows] == [True, None]


def test_a_claim_tells_which_groups_and_evaluations_it_names():
    given = claim("cost", group="a.x", than="b.x", under=["pgd", "square"], at_most=1,
                  passes={"name": "passes", "under": "noise"})  # fmt: skip
    groups, evaluations = references(given)
    assert set(groups) == {"a.x", "b.x"}
    assert set(evaluations) == {"clean", "pgd", "square", "noise"}


def test_judging_twice_gives_the_same_judgement():
    given = evidence(*arms("pgd", a_x=150, b_x=100))
    again = claim("accuracy-gap", better="a.x", than="b.x", under="pgd")
    assert again.judge(given) == again.judge(given)
