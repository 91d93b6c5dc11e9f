"""`robust plan` says what missing evaluations cost at most, before anything is trained."""

import json


def test_missing_evaluations_show_their_worst_case_passes(robust):
    steps = {step["step"]: step for step in json.loads(robust.run("plan", "tiny.yaml", "--json")[0])}
    assert all(set(step) == {"step", "key", "hit", "because", "forward", "backward"} for step in steps.values())
    counted = {
        name.rpartition("/")[2]: (step["forward"], step["backward"])
        for name, step in steps.items()
        if name.startswith("evaluate mlp.standard.0/")
    }
    # 90 samples; an attack's own passes and the evaluation's three looks
    assert counted == {
        "clean": (90, 0),
        "gaussian-noise": (90, 0),
        "fgsm": (90 * (1 + 3), 90),
        "pgd": (90 * (6 + 3), 90 * 5),
    }
    assert steps["prepare digits"]["forward"] is None


def test_the_table_sums_them_within_80_columns(robust):
    lines = robust.run("plan", "tiny.yaml")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "missing evaluations: at most 2,700 forward and 1,080 backward passes"
