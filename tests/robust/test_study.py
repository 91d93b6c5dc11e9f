import json
from pathlib import Path

import pytest

from robust.study import Study
from robust.study_file import load, loads, schema
from robust.yamltree import MAX_BYTES, StudyError

STUDY = """\
name: small
dataset: {name: digits, test: 100}
models: [mlp]
objectives:
  - {name: standard}
  - {name: pgd-at, eps: 1/10}
evaluations:
  - clean
  - {name: pgd, eps: 8/255}
sizes:
  smoke:
    dataset: {test: 10}
    evaluations: {pgd: {steps: 3}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_is_read_with_defaults_spelled_out(tmp_path):
    study = load(write(tmp_path, STUDY))
    assert [network for network, *_ in study.networks()] == ["mlp.standard.0", "mlp.pgd-at.0"]
    assert study.evaluations[1].method.threat.model_dump(mode="json")["eps"] == "8/255"
    settings = study.settings()
    assert settings["evaluations"][1]["name"] == "pgd"
    assert json.loads(json.dumps(settings)) == settings
    assert Study.model_validate(settings) == study


def test_sizes_are_presets_of_one_file(tmp_path):
    path = write(tmp_path, STUDY)
    smoke = load(path, "smoke")
    assert (smoke.dataset.test, smoke.evaluations[1].method.steps) == (10, 3)
    assert smoke.title == "small-smoke"
    assert load(path, "full").dataset.test == 100


def test_values_are_set_from_the_command_line_by_label(tmp_path):
    changes = ["dataset.train=300", "evaluations.pgd.steps=7", "models.0.label=m"]
    changes.append("objectives.pgd-at.training.epochs=2")
    study = load(write(tmp_path, STUDY), changes=changes, seeds=[3, 4])
    assert study.dataset.train == 300
    assert study.evaluations[1].method.steps == 7
    assert study.objectives[1].method.training.epochs == 2
    assert next(n for n, *_ in study.networks()) == "m.standard.3"


TWO_OF_ONE_NAME = STUDY.replace(
    "{name: pgd, eps: 8/255}", "{name: pgd, label: small, eps: 1/255}\n  - {name: pgd, eps: 8/255}"
)


def test_an_entry_is_set_by_the_label_that_the_tables_show(tmp_path):
    study = load(write(tmp_path, TWO_OF_ONE_NAME), changes=["evaluations.pgd.steps=7", "evaluations.small.steps=3"])
    assert {entry.label: entry.method.steps for entry in study.evaluations if entry.label != "clean"} == {
        "small": 3,
        "pgd": 7,
    }
    preset = load(write(tmp_path, TWO_OF_ONE_NAME), "smoke")
    assert [getattr(entry.method, "steps", None) for entry in preset.evaluations][2] == 3


def test_an_entry_that_cannot_be_told_by_its_name_is_asked_for_by_its_labels(tmp_path):
    both = TWO_OF_ONE_NAME.replace("{name: pgd, eps: 8/255}", "{name: pgd, label: large, eps: 8/255}")
    with pytest.raises(StudyError, match=r"several entries are called 'pgd'.*small, large"):
        load(write(tmp_path, both), changes=["evaluations.pgd.steps=7"])
    with pytest.raises(StudyError, match=r"pgd: .*several.*small, large"):
        load(write(tmp_path, both), "smoke")
    only = STUDY.replace("{name: pgd, eps: 8/255}", "{name: pgd, label: small, eps: 1/255}")
    assert load(write(tmp_path, only), changes=["evaluations.pgd.steps=7"]).evaluations[1].method.steps == 7


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("models: [mlp]", "model: [mlp]", 3, "model", "no field"),
        ("models: [mlp]", "models: [mpl]", 3, "models.0", "did you mean mlp"),
        ("{name: pgd, eps: 8/255}", "{name: pgd, eps: 8}", 9, "evaluations.1", "larger than the box"),
        ("{name: pgd, eps: 8/255}", "{name: pgd, eps: x/255}", 9, "evaluations.1", "not a number or a fraction"),
        ("{name: pgd, eps: 8/255}", "{name: pgd, eps: 8/255, stepps: 4}", 9, "evaluations.1.stepps", "no field"),
        ("{name: pgd, eps: 8/255}", "{name: pgd, eps: 8/255, steps: -1}", 9, "evaluations.1.steps", "greater than"),
        ("{name: pgd, eps: 8/255}", "{name: pgd, norm: l7, eps: 8/255}", 9, "evaluations.1", "linf"),
        ("{name: pgd, eps: 8/255}", "{name: pgd}", 9, "evaluations.1", "needs a radius"),
        ("models: [mlp]", "models: [mlp]\nseeds: [9007199254740992]", 4, "seeds.0", "9007199254740991"),
        ("models: [mlp]", "models: [mlp]\nseeds: []", 4, "seeds", "at least 1"),
        ("models: [mlp]", "models: [mlp, mlp]", 3, "", "stands twice"),
        ("models: [mlp]", "models: []", 3, "models", "at least 1"),
        ("name: small", "name: ../small", 1, "name", "pattern"),
        ("{name: digits, test: 100}", "{name: digits, test: 0}", 2, "dataset.test", "greater than"),
        ("name: small\n", "", 1, "name", "missing"),
        ("  smoke:", "  tiny:", 10, "sizes", "no size"),
        ("models: [mlp]", "models: [mlp]\nood: [digits]", 1, "", "no detectors"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(tmp_path, old, new, line, field, words):
    path = write(tmp_path, STUDY.replace(old, new, 1))
    with pytest.raises(StudyError) as caught:
        load(path)
    message = next(m for m in caught.value.messages if words in m)
    assert message.startswith(f"{path}:{line}: ") or not field
    assert field in message


def test_everything_wrong_is_said_at_once(tmp_path):
    text = STUDY.replace("[mlp]", "[mpl]").replace("8/255", "9").replace("test: 100", "test: x")
    with pytest.raises(StudyError) as caught:
        load(write(tmp_path, text))
    assert len(caught.value.messages) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [" + ", ".join([f"*{chr(97 + i)}"] * 9) + "]\n" for i in range(8)
        ), "too many values"),
        ("name: !!python/object/apply:os.system [echo]\n", "not allowed"),
        ("name: x\nname: y\n", "twice"),
        ("- a\n- b\n", "mapping"),
        ("name: [\n", "not valid YAML"),
        ("", "mapping"),
        ("[" * 3000, "nested too deeply"),
        ("name: " + "x" * (MAX_BYTES + 1), "larger than"),
    ],
    ids=["bomb", "code", "doubled", "list", "broken", "empty", "deep", "huge"],
)  # fmt: skip
def test_hostile_or_broken_yaml_is_refused_in_words(tmp_path, text, words):
    with pytest.raises(StudyError, match=words):
        load(write(tmp_path, text))


def test_missing_files_and_bad_assignments_are_named(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    path = write(tmp_path, STUDY)
    for change, words in (("dataset", "path=value"), ("evaluations.nothing.steps=1", "there is no 'nothing'")):
        with pytest.raises(StudyError, match=words):
            load(path, changes=[change])


def test_class_counts_that_a_loss_cannot_serve_are_refused():
    text = STUDY.replace("{name: pgd, eps: 8/255}", "{name: apgd-t, eps: 8/255}").split("sizes:")[0]
    assert loads(text)  # ten classes serve the targeted loss


def test_the_json_schema_offers_every_method():
    found = schema()
    names = {option["properties"]["name"]["const"] for option in found["$defs"]["EvaluationEntry"]["oneOf"]}
    assert {"clean", "gaussian-noise", "pgd", "fgsm"} <= names
    assert "eps" not in found["properties"]
