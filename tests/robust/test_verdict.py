"""The checks that need the ledger alone, on ledgers whose truth is known."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from robust.attacks.attack import FixedBudget
from robust.corruptions import Clean
from robust.diagnostics.verdict import Check, decide, ledger_checks
from robust.summary import summarise


class Idle(FixedBudget):
    """Runs nowhere: these tests read ledgers."""

    def perturb(self, classifier, images, labels, rng):
        return images


class Iterated(Idle):
    """A many-step attack."""

    name: ClassVar[str] = "iterated"
    family: ClassVar[str] = "gradient"


class Single(Idle):
    """A one-step attack."""

    name: ClassVar[str] = "single"
    family: ClassVar[str] = "single-step"


class Queries(Idle):
    """A black-box attack."""

    name: ClassVar[str] = "queries"
    family: ClassVar[str] = "black-box"


def ledger(**accuracies):
    rng = np.random.default_rng(0)
    order = rng.permutation(400)
    frames = [
        pd.DataFrame(
            {
                "model": "m.o.0", "evaluation": label, "sample": range(400), "correct": order < 400 * accuracy,
                "forward": 1, "backward": 1, "queries": 0,
            }
        )
        for label, accuracy in accuracies.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def verdict_of(label, frame, methods):
    table = summarise(frame, methods)
    row = table[table["evaluation"] == label].iloc[0]
    return row["verdict"], " ".join(row["reasons"])


def test_an_iterated_attack_that_nothing_contradicts_is_trusted():
    methods = {"clean": Clean(), "pgd": Iterated(eps="1/10"), "fgsm": Single(eps="1/10"), "square": Queries(eps="1/10")}
    frame = ledger(clean=0.95, pgd=0.4, fgsm=0.6, square=0.5)
    assert verdict_of("pgd", frame, methods) == ("trusted", "")
    assert verdict_of("fgsm", frame, methods)[0] == "trusted"


def test_a_single_step_alone_is_suspect():
    verdict, reasons = verdict_of("fgsm", ledger(fgsm=0.6), {"fgsm": Single(eps="1/10")})
    assert verdict == "suspect"
    assert "one step" in reasons


@pytest.mark.parametrize(("weaker", "kind"), [("square", Queries), ("fgsm", Single)])
def test_a_weaker_attack_that_wins_makes_the_number_suspect(weaker, kind):
    methods = {"pgd": Iterated(eps="1/10"), weaker: kind(eps="1/10")}
    verdict, reasons = verdict_of("pgd", ledger(**{"pgd": 0.6, weaker: 0.5}), methods)
    assert verdict == "suspect"
    assert weaker in reasons
    assert "10.0 points" in reasons


def test_accuracy_that_rises_with_eps_is_suspect():
    methods = {"small": Iterated(eps="1/10"), "large": Iterated(eps="2/10")}
    assert verdict_of("large", ledger(small=0.4, large=0.5), methods)[0] == "suspect"
    assert verdict_of("large", ledger(small=0.5, large=0.4), methods)[0] == "trusted"


def test_differences_within_chance_do_not_alarm():
    methods = {"pgd": Iterated(eps="1/10"), "square": Queries(eps="1/10")}
    assert verdict_of("pgd", ledger(pgd=0.505, square=0.5), methods)[0] == "trusted"


def test_the_worst_failed_check_decides_and_reasons_are_said_once():
    checks = [
        Check("m", "e", "a", False, 1.0, 0.0, "reason one"),
        Check("m", "e", "b", False, 1.0, 0.0, "reason one"),
        Check("m", "e", "c", False, 1.0, 0.0, "reason two", "broken"),
        Check("m", "e", "d", True, 0.0, 0.0, "never said"),
    ]
    assert decide(checks) == ("broken", ["reason one", "reason two"])
    assert decide(checks[3:]) == ("trusted", [])
    assert decide([]) == ("trusted", [])


def test_comparisons_use_shared_samples_only():
    frame = ledger(pgd=0.6, square=0.5)
    frame = frame[(frame["evaluation"] == "pgd") | (frame["sample"] < 3)]
    methods = {"pgd": Iterated(eps="1/10"), "square": Queries(eps="1/10")}
    assert all(check.passed for check in ledger_checks(frame, methods))
