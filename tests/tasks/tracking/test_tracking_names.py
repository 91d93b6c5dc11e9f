"""The names under which MLflow compares: charset, vocabulary, and what a report becomes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metric_names import metric_name, report_metrics
from tasks.tracked_run import parameters

ALLOWED = re.compile(r"^[A-Za-z0-9_./-]{1,250}$")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("adv", "linf", "pgd@8/255", "acc"), "adv/linf/pgd_8_255/acc"),
        (("adv", "l2", "pgd (eps=0.5)", "acc"), "adv/l2/pgd_eps_0.5/acc"),
        (("cal", "ece_15"), "cal/ece_15"),
        (("ood", "fashion-mnist", "auroc"), "ood/fashion-mnist/auroc"),
    ],
)
def test_a_number_s_slash_and_refused_letters_become_underscores(parts, name):
    assert metric_name(*parts) == name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=4))
def test_every_name_is_one_that_mlflow_takes(parts):
    try:
        name = metric_name(*parts)
    except ValueError:
        assert any(not re.search(r"[A-Za-z0-9-]", part) for part in parts)
    else:
        assert ALLOWED.match(name)


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="letter or a digit"):
        metric_name("adv", "==", "acc")


def test_a_report_s_rows_become_the_shared_vocabulary():
    cost = {"forward": 10, "backward": 5, "queries": 0}
    report = {
        "evaluations": [
            {"model": "m", "name": "clean", "label": "clean", "norm": None, "accuracy": 0.9, **cost},
            {"model": "m", "name": "pgd", "label": "pgd-8/255", "norm": "linf", "accuracy": 0.4, **cost},
            {"model": "m", "name": "gaussian-noise", "label": "gaussian-noise", "norm": None, "accuracy": 0.8, **cost},
            {"model": "other", "name": "clean", "label": "clean", "norm": None, "accuracy": 0.1, **cost},
        ],
        "calibration": [
            {"model": "m", "under": "clean", "calibrator": "none", "ece": 0.02, "nll": 0.3},
            {"model": "m", "under": "clean", "calibrator": "temperature", "ece": 0.01, "temperature": 1.5},
        ],
        "detection": [
            {"model": "m", "score": "max-softmax", "ood": "noise", "auroc": 0.99, "aupr": None, "fpr95": 0.1}
        ],
        "certificates": [{"model": "m", "name": "crown", "n": 10, "verified": 7}],
    }
    metrics = report_metrics(report, "m")
    assert metrics["clean/acc"] == 0.9
    assert metrics["adv/linf/pgd-8_255/acc"] == 0.4
    assert metrics["cor/gaussian-noise/acc"] == 0.8
    assert metrics["cor/mce"] == pytest.approx(0.2)
    assert metrics["cal/ece_15"] == 0.02
    assert metrics["cal/clean/temperature/ece_15"] == 0.01
    assert metrics["ood/noise/auroc"] == 0.99
    assert metrics["cert/crown/acc"] == 0.7
    assert metrics["cost/forward"] == 30
    assert all(ALLOWED.match(name) for name in metrics)


def test_parameters_are_flat_short_and_without_secrets():
    short, long = parameters({"seed": 3, "attack": {"eps": "8/255", "steps": 40}, "api_key": "abc", "big": "x" * 900})
    assert short["seed"] == "3"
    assert short["attack.eps"] == "8/255"
    assert short["api_key"] == "***"
    assert len(short["big"]) <= 500
    assert long == {"params/big.json": "x" * 900}
