"""The command line, also typed wrongly."""

import json

import pytest


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "none.yaml"), 2, "none.yaml"),
        (("run", "tiny.yaml", "--size", "huge"), 2, "huge"),
        (("run", "tiny.yaml", "--set", "nonsense"), 2, "path=value"),
        (("run", "tiny.yaml", "--set", "dataset.name=nodata"), 2, "nodata"),
        (("run", "tiny.yaml", "--seeds", "a,b"), 2, "whole numbers"),
        (("run", "tiny.yaml", "--runner", "magic"), 2, "threads, processes or dask"),
        (("run", "tiny.yaml", "--set", "dataset.name=mnist", "--set", "dataset.test=10"), 2, "mnist"),
        (("show", "attack", "pdg"), 2, "did you mean"),
        (("list", "nonsense"), 2, "kinds are"),
        (("report", "nothing"), 2, "no report"),
        (("frobnicate",), 2, "frobnicate"),
        (("run", "tinny.yaml"), 2, "did you mean tiny.yaml?"),
        (("plan", "tinny.yaml"), 2, "did you mean tiny.yaml?"),
        (("plan", "tiny.yaml", "--set", "evaluations.pgd.step=3"), 2, "did you mean steps"),
        (("plan", "tiny.yaml", "--set", "evaluation.pgd.steps=3"), 2, "did you mean evaluations"),
        (("list", "attacks"), 2, "did you mean attack?"),
        (("show", "attack"), 2, "robust show attack NAME"),
        (("show", "pdg"), 2, "did you mean pgd"),
        (("show", "gaussian-noise"), 2, "robust show corruption gaussian-noise"),
    ],
)
def test_wrong_input_gets_one_clear_message_and_exit_code_2(robust, arguments, code, words):
    _, err = robust.run(*arguments, code=code, ROBUST_DATA=str(robust.folder / "nodata"))
    assert words in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 4


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("robust ev", "evaluate"), ("robust show att", "attack"), ("robust show attack apgd", "apgd-ce"),
     ("robust run x --size sm", "smoke"), ("robust evaluate m --attack squ", "square")],
)  # fmt: skip
def test_the_shell_completes_commands_kinds_names_and_options(robust, typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_ROBUST_COMPLETE": "complete_bash"}
    assert offered in robust.run(**words)[0].split()


def test_list_and_show_describe_the_methods(robust):
    rows = json.loads(robust.run("list", "--json")[0])
    assert {"kind", "name", "family", "source", "fields"} <= set(rows[0])
    assert {"pgd", "fgsm", "clean", "mlp", "standard", "digits"} <= {row["name"] for row in rows}
    table = robust.run("list", "attack")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "Projected gradient descent" in table
    assert "…" not in table
    shown = robust.run("show", "attack", "pgd")[0]
    assert robust.run("show", "pgd")[0] == shown
    assert "eps" not in shown or "threat" in shown
    assert "steps" in shown
    assert "passes" in shown


def test_the_version_and_the_help_are_answers_not_errors(robust):
    assert robust.run("--version")[0].startswith("robust-flows ")
    _, err = robust.run(code=2)
    assert err.startswith("Usage: robust")
    assert "error" not in err


def test_doctor_says_what_is_there(robust):
    found = json.loads(robust.run("doctor", "--json")[0])
    checks = {finding["check"]: finding["state"] for finding in found}
    assert checks["python"] == "fine"
    assert checks["home"] == "fine"
    assert "digits" in next(f["detail"] for f in found if f["check"] == "data")
