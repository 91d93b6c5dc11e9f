"""What an entry of a study may say beyond its method: networks it is for, suites, merged recipes, a shift before."""

import pytest

from robust.study_file import loads
from robust.yamltree import StudyError

HEAD = """\
name: s
dataset: {name: digits}
models: [{name: mlp}, {name: mlp, label: wide, hidden: [64]}]
objectives:
  - {name: standard, training: &recipe {epochs: 3, lr: 0.01}}
  - {name: pgd-at, eps: 1/10, training: {<<: *recipe, epochs: 5}, on: {networks: ["wide.*"]}}
defences: [{name: input-quantisation, label: coarse, on: {networks: ["*.standard"]}}]
"""


def study(tail="evaluations: [clean]\n"):
    return loads(HEAD + tail)


def test_objectives_train_and_defences_cover_the_networks_they_name():
    assert [network.id for network in study().judged()] == [
        "mlp.standard.0", "mlp.standard+coarse.0", "wide.standard.0", "wide.standard+coarse.0", "wide.pgd-at.0",
    ]  # fmt: skip
    assert [network.id for network in study().networks()] == ["mlp.standard.0", "wide.standard.0", "wide.pgd-at.0"]
    defended = list(study().judged())[1]
    assert (defended.group, defended.base) == ("mlp.standard+coarse", "mlp.standard.0")


def test_a_merged_recipe_keeps_what_it_does_not_override():
    training = study().objectives[1].method.training
    assert (training.epochs, training.lr) == (5, 0.01)


def test_an_evaluation_is_for_the_networks_and_samples_it_names():
    entry = study('evaluations: [{name: fgsm, eps: 1/10, on: {networks: ["*+coarse"], samples: 7}}]').evaluations[0]
    assert [entry.on.covers(group) for group in ("mlp.standard+coarse", "mlp.standard")] == [True, False]
    assert entry.on.samples == 7
    assert entry.settings()["on"] == {"networks": ["*+coarse"], "samples": 7}


def test_a_suite_stands_for_its_corruptions():
    found = study("evaluations: [clean, {suite: common, severities: [1, 5], on: {samples: 9}}]").evaluations
    assert len(found) == 1 + 2 * 19
    assert found[1].label == "gaussian-noise-1"
    assert {entry.on.samples for entry in found[1:]} == {9}


def test_a_corruption_may_come_before_an_attack():
    text = "evaluations: [{name: fgsm, eps: 1/10, after: {name: fog, severity: 2}}]"
    entry = study(text).evaluations[0]
    assert entry.after.severity == 2
    assert entry.settings()["after"]["name"] == "fog"


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ('evaluations: [{name: fgsm, eps: 1/10, on: {networks: ["nobody.*"]}}]', "fits none of mlp.standard"),
        ("evaluations: [{name: fgsm, eps: 1/10, on: {sample: 3}}]", "no field 'sample'"),
        ("evaluations: [clean]\ndetectors: [{name: energy, on: {samples: 3}}]", "has no meaning here"),
        ("evaluations: [{suite: rare}]", "no suite of corruptions is called 'rare'"),
        ("evaluations: [{suite: common, severity: 3}]", "a suite has no field 'severity'"),
        ("evaluations: [{suite: common, severities: [9]}]", "run from 1 to 5"),
        ("evaluations: [{name: fgsm, eps: 1/10, after: pgd}]", "no corruption is called 'pgd'"),
        ("evaluations: [clean]\nclaims: [{name: untested}]", "question"),
    ],
)
def test_what_an_entry_cannot_mean_is_named(tail, message):
    with pytest.raises(StudyError, match=message):
        study(tail)


def test_a_merge_that_is_no_mapping_is_refused():
    with pytest.raises(StudyError, match="<< takes a mapping"):
        loads(HEAD.replace("{<<: *recipe, epochs: 5}", "{<<: 3}") + "evaluations: [clean]\n")
