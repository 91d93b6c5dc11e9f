"""A study of 45 networks: its page stays small and quick, and what the page leaves out lies in the folder."""

import json
import re
import time
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from robust.report import build, render
from robust.report.evidence import evidence_figures
from robust.report.limits import ROWS
from robust.report.svg import compact, path

MODELS = [(f"net.group-{g}.{s}", f"group-{g}", s) for g in range(15) for s in range(3)]
ATTACKS = [(f"{name}-{norm}", name, norm, eps) for norm, eps in (("linf", "8/255"), ("l2", "1/2"))
           for name in ("fgsm", "pgd", "square")]  # fmt: skip
EVALUATIONS = [("clean", "clean", None, None), *ATTACKS]
N = 60


def rows_of(rng):
    """Every network under every evaluation: random, but an attack breaks half."""
    tables = []
    labels = rng.integers(0, 10, N)
    for id, _, seed in MODELS:
        for label, _, norm, _ in EVALUATIONS:
            logits = rng.normal(size=(N, 10)).astype(np.float32)
            logits[np.arange(N), labels] += 2
            right = logits.argmax(1) == labels
            right &= rng.random(N) < (0.5 if norm else 1)
            frame = pd.DataFrame({"sample": np.arange(N), "label": labels, "prediction": logits.argmax(1)})
            frame = frame.assign(correct=right, logits=list(logits), forward=20, backward=20, queries=0)
            if norm:
                frame = frame.assign(success=~right, quantised=~right, distance=np.where(right, np.inf, 0.03))
            tables.append(ledger.table(frame.assign(model=id, seed=seed, evaluation=label)))
    return ledger.merge(tables)


def curves_of(id, rng):
    """Seven checks of two threats, as the diagnosis draws them."""
    found = []
    for threat, where in (("linf-8-255", "linf 8/255"), ("l2-1-2", "l2 1/2")):
        steps = list(range(40))
        course = {"x": steps, "y": rng.normal(size=40).cumsum().tolist()}
        limits = {"low": [0.4] * 4, "high": [0.6] * 4}
        lines = {
            "steps-loss": [{"label": name, **course} for name in ("cross-entropy", "margin")],
            **{kind: [{"label": "margin", "x": [1, 2, 3, 4], "y": rng.random(4).tolist(), **limits}]
               for kind in ("eps", "steps", "restarts")},
            **{kind: [{"label": f"{kind} {i}", "x": [i], "y": [rng.random()], "low": [0.1], "high": [0.9]}
                      for i in range(8)] for kind in ("rivals", "gradients", "function")},
        }  # fmt: skip
        found += [
            {"id": f"{id}-{threat}-{kind}", "model": id, "title": f"{kind} ({id}, {where})", "series": series}
            | {"x_label": "x", "y_label": "y"}
            for kind, series in lines.items()
        ]
    return found


def examples_of(id, label, rng):
    images = rng.integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)  # noise: nothing makes it smaller
    facts = {"evaluation": label, "model": id, "label": 1, "prediction_clean": 1, "prediction_adv": 2}
    return [{**facts, "sample": i, "clean": image, "adversarial": image[:, ::-1]} for i, image in enumerate(images)]


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    ids = [id for id, *_ in MODELS]
    columns = ("label", "name", "norm", "eps")
    of = {"diagnostic": "margins", "id": "margins", "title": "Margins", "x_label": "x", "y_label": "y"}
    grid = {"diagnostic": "margins", "id": "grid", "title": "Images", "columns": 4}
    study = {
        "name": "wide",
        "dataset": {"name": "noise", "digest": "d" * 64},
        "models": [{"id": id, "model": "net", "objective": o, "seed": s, "sha256": "0" * 64} for id, o, s in MODELS],
        "evaluations": [dict(zip(columns, entry)) for entry in EVALUATIONS],
    }
    return build(
        study,
        rows_of(rng),
        curves=[curve for id in ids for curve in curves_of(id, rng)],
        evidence=[{"model": id, "evaluation": label, "check": f"check {i}", "value": 0.1 * i, "passed": i > 0}
                  for id in ids for label, *_ in ATTACKS for i in range(20)],
        examples=[e for id in ids for label, *_ in ATTACKS for e in examples_of(id, label, rng)],
        figures=[{**of, "model": id, "series": [{"label": str(i), "x": list(range(60)), "y": rng.random(60).tolist()}
                                               for i in range(4)]} for id in ids],
        pictures=[{**grid, "model": id, "images": rng.integers(0, 256, (16, 3, 32, 32)).astype(np.uint8)}
                  for id in ids[:16]],
        history=[{"model": id, "epoch": e, "loss": float(rng.random()) + 0.1, "accuracy": float(rng.random())}
                 for id in ids for e in range(60)],
        calibration=[{"model": id, "under": u, "calibrator": c, "ece": 0.1, "nll": 0.2}
                     for id in ids for u in ("clean", "pgd-linf") for c in ("none", "temperature", "vector", "beta")],
        detection=[{"model": id, "score": s, "ood": o, "auroc": 0.9, "aupr": 0.9, "fpr95": 0.2}
                   for id in ids for s in ("energy", "knn", "vim", "gen") for o in ("near", "far", "letters")],
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn(wide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    data = json.loads(json.dumps(wide))
    started = time.process_time()  # other processes of a busy machine do not count
    render(data, folder)
    return folder, time.process_time() - started


def test_the_page_of_45_networks_is_small_and_quick(drawn):
    folder, seconds = drawn
    assert (folder / "report.html").stat().st_size < 3_000_000
    assert seconds < 15


def test_what_the_page_leaves_out_is_linked_and_there(drawn, wide):
    folder, _ = drawn
    text = (folder / "report.html").read_text()
    links = set(re.findall(r'href="([^"#:]+)"', text))
    assert {link for link in links if not (folder / link).is_file()} == set()
    for figure in wide["figures"]:
        assert f'id="figure-{figure["id"]}"' in text
        assert {figure["csv"], figure["file"]} <= links
    assert "Not drawn on this page" in text
    sheets = {path.name for path in folder.glob("examples-*.png")}
    assert sheets <= links
    examples = pd.read_csv(folder / "examples.csv")
    assert len(examples) == len(wide["examples"])
    assert len(sheets) == len(examples.groupby(["model", "evaluation"]))
    assert len(examples) + wide["examples_left_out"] == 45 * 6 * 4
    assert {path.name for path in folder.glob("picture-*.png")} == {f"picture-{p['id']}.png" for p in wide["pictures"]}
    assert all(f'id="picture-{p["id"]}"' in text for p in wide["pictures"])


def test_figures_of_the_report_before_go_and_nothing_else(tmp_path):
    study = {"name": "none", "models": [{"id": "m", "model": "m"}], "evaluations": []}
    curve = {"title": "t", "x_label": "x", "y_label": "y", "series": [{"label": "s", "x": [0, 1], "y": [0, 1]}]}
    first, second = (build(study, ledger.SCHEMA.empty_table(), curves=[{**curve, "id": id}]) for id in ("one", "two"))
    first["figures"][0]["csv"] = "../kept.csv"
    (tmp_path / "kept.csv").write_text("not ours")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(first))
    (tmp_path / "report" / "evidence-one.svg").write_text("old")
    (tmp_path / "report" / "notes.csv").write_text("mine")
    render(second, tmp_path / "report")
    left = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"evidence-two.svg", "evidence-two.csv", "notes.csv"} <= left
    assert "evidence-one.svg" not in left
    assert (tmp_path / "kept.csv").read_text() == "not ours"


def test_every_group_keeps_an_example(wide):
    first = {f"net.group-{g}.0" for g in range(15)}
    assert {example["model"] for example in wide["examples"]} <= first
    assert len({example["model"] for example in wide["examples"]}) >= 3


def test_long_tables_are_counted_and_cut_aloud(drawn, wide):
    folder, _ = drawn
    text = " ".join((folder / "report.html").read_text().split())
    checks = pd.read_csv(folder / "evidence.csv")
    assert len(checks) == len(wide["evidence"]) == 45 * 6 * 20
    assert "5 400 checks" in text
    assert "270 failed, the first 250 follow" in text
    assert f"Shown: {ROWS} of 360 rows" in text  # calibration
    assert len(pd.read_csv(folder / "calibration.csv")) == 360


def test_the_checks_of_all_networks_share_a_figure(wide):
    own = [figure for figure in wide["figures"] if figure["group"] == "evidence"]
    assert len(own) == 2 * 8  # seven kinds of each threat, of which the loss has two courses
    steps = next(figure for figure in own if figure["id"] == "evidence-linf-8-255-steps")
    assert [series["label"] for series in steps["series"]] == [id for id, *_ in MODELS]
    assert sum(series["direct"] for series in steps["series"]) == 15
    rivals = next(figure for figure in own if figure["id"] == "evidence-linf-8-255-rivals")
    assert rivals["x_ticks"] == [f"rivals {i}" for i in range(8)]
    assert all(np.array_equal(np.round(series["x"]), np.arange(8)) for series in rivals["series"])


def test_the_figure_of_categories_names_them_in_its_csv(drawn):
    points = pd.read_csv(drawn[0] / "evidence-linf-8-255-rivals.csv")
    assert len(points) == 45 * 8
    assert set(points["category"]) == {f"rivals {i}" for i in range(8)}


def test_transfers_from_different_networks_are_one_category():
    def curve(model, other):
        series = [{"label": name, "x": [x], "y": [0.5]} for x, name in enumerate(("plain", f"transfer from {other}"))]
        return {"id": f"{model}-rivals", "model": model, "title": f"Rivals ({model}, linf 1)", "series": series}

    (figure,) = evidence_figures([curve("a.0", "b.0"), curve("b.0", "a.0")], {"a": ["a.0"], "b": ["b.0"]})
    assert figure.x_ticks == ["plain", "transfer"]
    assert figure.title == "Rivals (linf 1)"
    assert evidence_figures([curve("a.0", "c.9")], {"a": ["a.0"]})[0].x_ticks == ["plain", "transfer from c.9"]


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("M 1.04 2 \nL 3.02 2 \nL 3.02 7.5 \nz", "M1 2h2v5.5z"),
        ("M 0 0 L 1 1 L 1.01 1.02 L 3 2 L 1 -1", "M0 0l1 1 2 1-2-3"),
        ("M 0 0 C 1 2 3.06 4 5 6", "M0 0 C1 2 3.1 4 5 6"),
        ("M 5 5 L 5 5", "M5 5h0"),
    ],
)
def test_paths_lose_what_no_screen_shows(given, short):
    assert path(given) == short


def test_steps_of_a_path_add_up():
    rng = np.random.default_rng(1)
    points = rng.random((500, 2)).cumsum(0)
    short = path("M " + "\nL ".join(f"{x:.6f} {y:.6f}" for x, y in points))
    end = np.array([float(v) for v in re.match(r"M([\d.]+) ([\d.]+)", short).groups()])
    letter = ""
    for command, numbers in re.findall(
        r"([lhv ]|(?=-))((?:-?[\d.]+)(?: ?-?[\d.]+)?)", short[len(short.split("l")[0]) :]
    ):
        letter = command.strip() or letter
        step = [float(v) for v in re.findall(r"-?[\d.]+", numbers)]
        end += {"h": lambda s: (s[0], 0), "v": lambda s: (0, s[0])}.get(letter, lambda s: s)(step)
    assert end == pytest.approx(points[-1], abs=0.051)


def test_a_compact_drawing_keeps_its_clips_and_marks():
    svg = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
    viewBox="0 0 9 9"><metadata>x</metadata><g id="a"><path d="M 0 0 L 9 9" style="fill: none"/>
    <g><use xlink:href="#m" x="1.234" y="2" style="fill: #123456"/><use xlink:href="#m" x="2" y="3"
    style="fill: #123456"/></g></g><defs><path id="m" d="M 0 0 L 1 0 z"/></defs><text> a &lt; b </text></svg>"""
    small = compact(svg, "name", "#eeeeee")
    root = ET.fromstring(small)
    (mark,) = [e for e in root.iter() if e.tag.endswith("}path")]
    uses = [e for e in root.iter() if e.tag.endswith("}use")]
    assert [e.get("href") for e in uses] == [f"#{mark.get('id')}"] * 2
    assert [e.get("x") for e in uses] == ["1.2", "2"]
    assert small.count("#123456") == 1
    assert "a &lt; b" in small
    assert compact(svg, "other", "#eeeeee").count(mark.get("id")) == 0  # no two figures of a page share an id
