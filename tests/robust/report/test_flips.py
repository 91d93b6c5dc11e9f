"""Flip probabilities of perturbation sequences, from the ledger's predictions to the report."""

import json

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from robust.report import build, render
from robust.shift import flip_probability

SEQUENCES = {"tilt": 5, "gaussian-noise": 4, "rotate": 3}
N = 50


def label(sequence, frame):
    return f"{sequence}-1-frame-{frame}"


def predictions(rng, steady):
    """Classes [N,T] of each sequence; the steadier, the fewer frames differ from the first."""
    found = {}
    for sequence, count in SEQUENCES.items():
        table = np.repeat(rng.integers(0, 3, (N, 1)), count, axis=1)
        moved = rng.random(table.shape) > steady
        moved[:, 0] = False
        found[sequence] = (table + moved) % 3
    return found


def study(seeds, leave=()):
    rng = np.random.default_rng(0)
    models = [{"id": f"net.{o}.{s}", "model": "net", "objective": o, "seed": s}
              for o in ("shaky", "steady") for s in range(seeds)]  # fmt: skip
    evaluations = [
        {"label": label(sequence, frame), "name": "sequence-frame", "severity": 1, "sequence": sequence, "frame": frame}
        for sequence, count in SEQUENCES.items()
        for frame in range(count)
    ]
    tables, truth = [], {}
    for model in models:
        truth[model["id"]] = predictions(rng, 0.9 if model["objective"] == "steady" else 0.6)
        for sequence, table in truth[model["id"]].items():
            for frame, classes in enumerate(table.T):
                if label(sequence, frame) in leave:
                    continue
                rows = pd.DataFrame(
                    {"sample": np.arange(N), "label": 0, "prediction": classes, "correct": classes == 0}
                )
                facts = {"model": model["id"], "seed": model["seed"], "evaluation": label(sequence, frame)}
                tables.append(ledger.table(rows.assign(**facts)))
    return {"name": "flips", "models": models, "evaluations": evaluations}, ledger.merge(tables), truth


@pytest.mark.parametrize("seeds", [1, 3])
def test_flips_are_those_of_the_predictions(seeds):
    described, rows, truth = study(seeds)
    found = {(row["group"], row["sequence"]): row for row in build(described, rows)["flips"]}
    assert len(found) == 2 * 4
    for group in ("net.shaky", "net.steady"):
        each = []
        for sequence, count in SEQUENCES.items():
            noise = sequence == "gaussian-noise"
            mean = np.mean([flip_probability(truth[f"{group}.{s}"][sequence], noise) for s in range(seeds)])
            row = found[group, sequence]
            assert row["probability"] == pytest.approx(mean)
            assert row["low"] < row["probability"] < row["high"]
            assert (row["frames"], row["n"], row["seeds"]) == (count, N, seeds)
            assert row["base"] == "net.shaky"
            assert row["rate"] == pytest.approx(mean / found["net.shaky", sequence]["probability"])
            each.append(row)
        whole = found[group, "mean of all"]
        assert whole["probability"] == pytest.approx(np.mean([row["probability"] for row in each]))
        assert whole["rate"] == pytest.approx(np.mean([row["rate"] for row in each]))
    assert found["net.steady", "mean of all"]["rate"] < 0.6
    assert found["net.shaky", "mean of all"]["rate"] == pytest.approx(1)


def test_another_base_may_be_declared():
    described, rows, _ = study(1)
    found = build({**described, "base": "net.steady"}, rows)["flips"]
    assert {row["base"] for row in found} == {"net.steady"}
    assert next(r for r in found if (r["group"], r["sequence"]) == ("net.shaky", "mean of all"))["rate"] > 1.5


def test_a_sequence_counts_up_to_its_first_gap():
    described, rows, truth = study(1, leave={label("tilt", 3), label("rotate", 1)})
    found = {(row["group"], row["sequence"]): row for row in build(described, rows)["flips"]}
    assert ("net.steady", "rotate") not in found
    assert found["net.steady", "tilt"]["frames"] == 3
    short = truth["net.steady.0"]["tilt"][:, :3]
    assert found["net.steady", "tilt"]["probability"] == pytest.approx(flip_probability(short))


def test_a_base_that_never_flips_gives_no_rate():
    described, rows, _ = study(1)
    frame = rows.to_pandas()
    frame.loc[frame["model"] == "net.shaky.0", "prediction"] = 1
    found = build(described, ledger.table(frame))["flips"]
    assert {row["rate"] for row in found} == {None}
    assert next(r for r in found if r["group"] == "net.shaky")["probability"] == 0


def test_the_page_tells_flips_and_not_frames(tmp_path):
    described, rows, _ = study(3)
    page = render(build(described, rows), tmp_path).read_text()
    assert 'id="flips"' in page
    assert "Flips along sequences" in page
    assert "that over the flip probability of net.shaky" in page
    assert label("tilt", 2) not in page
    assert len(pd.read_csv(tmp_path / "flips.csv")) == 8
    frames = {row["label"] for row in json.loads((tmp_path / "report.json").read_text())["evaluations"]}
    assert label("tilt", 2) in frames


def test_a_study_describes_the_frames_of_a_suite():
    from robust.corruptions.suites import suite
    from robust.registry import create
    from tasks.assemble import _evaluation

    entries = suite("imagenet-p")
    assert len(entries) == 310

    class Entry:
        label, after = entries[40]["label"], None
        method = create("corruption", {k: v for k, v in entries[40].items() if k != "label"})

    found = _evaluation(Entry)
    assert {key: found[key] for key in ("name", "sequence", "frame", "severity")} == {
        key: entries[40][key] for key in ("name", "sequence", "frame", "severity")
    }
