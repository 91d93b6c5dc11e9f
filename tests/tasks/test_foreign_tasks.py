"""Foreign models as cached tasks: what is in the key, and that a model which changes is noticed."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from robust.foreign.loaded import ForeignError
from robust.foreign.request import Request
from tasks.evaluate import evaluate
from tasks.foreign import OtherModel, evaluate_works, examination_of, probe, probe_work, subject_of
from tasks.foreign_report import Findings, answer, ledger_of, report_of, write
from tasks.home import Home
from tasks.reported import code_of, read_report
from tasks.store import Store

MODULE = """\
import torch
from safetensors.torch import load_file
from torch import nn

def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net.load_state_dict(load_file({path!r}))
    return net

def labels(images):
    return build()(images).argmax(1)

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    from robust.datasets.digits import Digits

    images, labels, _ = Digits(select=40, calibrate=40).load("train").batch(slice(None))
    means = torch.stack([images[labels == k].mean(0).flatten() for k in range(10)])
    save_file({"1.weight": means, "1.bias": -means.pow(2).sum(1) / 2}, tmp_path / "net.safetensors")
    # modules and where they lie are remembered for a process: each test has one of its own
    (tmp_path / f"{tmp_path.name}.py").write_text(MODULE.format(path=str(tmp_path / "net.safetensors")))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop(tmp_path.name, None)


def asked(place, function="build", **more):
    given = {"dataset": "digits", "samples": 120, "attacks": ("fgsm",), "eps": "1/20", **more}
    return Request(model=f"{place.name}:{function}", folder=str(place), **given)


def test_from_the_model_to_the_answer_without_prefect(place, tmp_path):
    home = Home(tmp_path / "home").create()
    store = Store.of(home)
    subject = subject_of(asked(place, shard=50), home)
    examination = examination_of(probe.run(probe_work(subject)), store)
    assert examination.findings == []
    assert examination.accuracy > 0.8
    found = Findings(subject, examination, subject.request.evaluations(examination.access))
    for shard, label, work in evaluate_works(subject, examination, found.evaluations):
        found.judged[label, shard] = evaluate.run(work)
    rows = ledger_of(found, store)
    assert rows.num_rows == 240
    report = report_of(found, rows, "a command", {})
    result = answer(report, home.ledger / "x.parquet")
    frame = rows.to_pandas()
    assert result["robust_accuracy"] == frame[frame["evaluation"] == "fgsm"]["correct"].mean()
    assert result["verdict"] == "suspect"  # one step, and no validity checks
    assert json.dumps(report["settings"])


def reported(place, home, **more):
    """The findings of an evaluation without validity checks, its rows, and its report."""
    subject = subject_of(asked(place, samples=30, **more), home)
    examination = examination_of(probe.run(probe_work(subject)), Store.of(home))
    found = Findings(subject, examination, subject.request.evaluations(examination.access))
    for shard, label, work in evaluate_works(subject, examination, found.evaluations):
        found.judged[label, shard] = evaluate.run(work)
    rows = ledger_of(found, Store.of(home))
    return found, rows, report_of(found, rows, "a command", {})


def test_that_checks_were_left_out_comes_with_the_reason(place, tmp_path):
    home = Home(tmp_path / "home").create()
    for more, words in (
        ({"eps": "0"}, "at eps 0 no perturbation is allowed"),
        ({"attacks": ("{name: deepfool, eps: null}",)}, "these attacks have no eps"),
        ({"validity": 0}, "none were asked for"),
    ):
        _, _, report = reported(place, home, **more)
        (reason,) = [r for row in report["evaluations"] for r in row["reasons"] if "no validity checks" in r]
        assert words in reason


def test_mistakes_are_told_as_found_or_not_found_and_none_as_a_failed_check(place, tmp_path):
    _, _, report = reported(place, Home(tmp_path / "home").create(), mean=(0.9,), std=(0.05,))
    rows = {row["check"]: row for row in report["evidence"]}
    found = rows["mistake found: normalised twice"]
    assert found["passed"] is None
    assert "leave out --mean" in found["detail"]
    unmade = rows["mistakes looked for, not found"]
    assert "BGR" in unmade["detail"]
    assert "normalised twice" not in unmade["detail"]
    assert "360 images looked at, 216 of them chose nothing" in rows["inputs confirmed"]["detail"]


def test_a_comparison_finds_the_code_behind_an_evaluated_model(place, tmp_path):
    home = Home(tmp_path / "home").create()
    found, rows, report = reported(place, home)
    path = write(found, report, rows).with_name("report.json")
    code = code_of(read_report(path))
    assert "robust.attacks.fgsm" in code
    assert place.name in code


def test_the_key_follows_weights_code_and_settings_but_not_the_place(place, tmp_path):
    home = Home(tmp_path / "home").create()
    subject = subject_of(asked(place), home)
    key = probe_work(subject).key
    assert probe_work(subject_of(asked(place), home)).key == key
    assert probe_work(subject_of(asked(place, mean=(0.1,), std=(0.5,)), home)).key != key
    source = (place / f"{place.name}.py").read_text()
    (place / f"{place.name}.py").write_text(source.replace("nn.Flatten()", "nn.Flatten(), nn.Identity()", 1))
    assert probe_work(subject_of(asked(place), home)).key != key
    (place / f"{place.name}.py").write_text(source)
    assert probe_work(subject_of(asked(place), home)).key == key


def test_a_model_that_is_another_each_time_is_refused(place, tmp_path):
    home = Home(tmp_path / "home").create()
    subject = subject_of(asked(place, "drawn", probe=False), home)
    examination = examination_of(probe.run(probe_work(subject)), Store.of(home))
    _, _, work = next(evaluate_works(subject, examination, subject.request.evaluations("gradient")))
    with pytest.raises(OtherModel, match="another model each time"):
        evaluate.run(work)


def test_a_factory_of_a_network_with_batch_statistics_has_an_identity(place, tmp_path):
    (place / "normalised_for_tests.py").write_text(
        "import torch\nfrom torch import nn\ndef build(momentum=0.1):\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))\n"
    )
    request = asked(place).model_copy(update={"model": "normalised_for_tests:build"})
    with torch.random.fork_rng():
        first, second = (subject_of(request, Home(tmp_path / "home").create()) for _ in range(2))
    assert first.identity == second.identity
    sys.modules.pop("normalised_for_tests")


def test_what_a_network_expects_is_found_out_on_many_images_however_few_are_attacked(place, tmp_path):
    home = Home(tmp_path / "home").create()
    store = Store.of(home)
    few, all_of_them = (subject_of(asked(place, samples=samples), home) for samples in (5, None))
    assert len(few.data) == 5
    assert probe_work(few).parts() == probe_work(all_of_them).parts()
    found = examination_of(probe.run(probe_work(few)), store)
    assert found.n > 200
    assert found.findings == []


def test_labels_alone_get_a_query_attack_and_no_trust(place, tmp_path):
    home = Home(tmp_path / "home").create()
    store = Store.of(home)
    attack = ("{name: hopskipjump, steps: 1, first_queries: 4}",)
    subject = subject_of(asked(place, "labels", samples=60, attacks=attack, norm="l2", eps="1"), home)
    examination = examination_of(probe.run(probe_work(subject)), store)
    assert examination.access == "labels"
    with pytest.raises(ForeignError, match="use hopskipjump"):
        asked(place).evaluations("labels")
    found = Findings(subject, examination, subject.request.evaluations("labels"))
    for shard, label, work in evaluate_works(subject, examination, found.evaluations):
        found.judged[label, shard] = evaluate.run(work)
    result = answer(report_of(found, ledger_of(found, store), "a command", {}), home.ledger / "x.parquet")
    assert result["robust_accuracy"] < result["clean_accuracy"]
    assert result["queries"] > 0
    assert result["backward"] == 0
    assert result["verdict"] == "suspect"
    assert "gives labels alone" in result["reasons"][0]
