"""The files of a report: self-contained, safe against hostile names, the same bytes from the same data."""

import json
import os
import pickle
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from robust import ledger
from robust.report import build, render
from robust.report.figures import _apart
from robust.report.pdf import PdfError, pdf
from robust.report.tables import latex

HOSTILE = [
    "<script>alert(1)</script>",
    r"\input{/etc/passwd} $x^2$ 100% & #_~",
    "数字 ✂ \"quoted' name",
    "</style><img src=x onerror=y>",
]


def can_print():
    """Whether this machine has WeasyPrint and the system library that it needs."""
    try:
        return pdf("<p>x").startswith(b"%PDF")
    except PdfError as error:
        assert "pip install 'robust-flows[pdf]'" in str(error)  # noqa: PT017 - where it is missing, the remedy is named
        return False


class Page(HTMLParser):
    """What a browser would fetch or run, and where links lead."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory):
    target = tmp_path_factory.mktemp("report")
    assert render(build(**inputs), target) == target / "report.html"
    return target


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_the_page_asks_for_nothing(page, folder):
    fetched = [v for k, v in page.attributes if k in ("src", "srcset", "data", "action", "poster")]
    assert fetched
    assert all(v.startswith("data:image/png;base64,") for v in fetched)
    links = [v for k, v in page.attributes if k in ("href", "xlink:href")]
    assert all(v.startswith(("#", "data:,")) or (folder / v).is_file() for v in links), links
    assert not re.search(r"@import|url\((?!#)", (folder / "report.html").read_text())
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_links_lead_somewhere_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    targets = [v[1:] for k, v in page.attributes if k in ("href", "xlink:href") and v.startswith("#")]
    assert targets
    assert set(targets) <= set(page.ids)


def test_every_section_is_there_and_the_summary_first(page):
    sections = [i for i in page.ids if f"{i}-title" in page.ids]
    assert sections[:5] == ["summary", "claims", "paper", "threat", "accuracy"]
    assert set(sections) >= {
        "differences", "curves", "validity", "certificates", "calibration", "detection", "weakest", "examples",
        "claims", "cost", "training", "reproduce", "measured",
    }  # fmt: skip
    text = " ".join("".join(page.text).split())
    assert "The worst number: 64.3 % robust accuracy of linear.regularised at linf 1/16, a trusted upper bound." in text
    assert "noise of the same size beats it on 3 of 360 samples" in text


def test_calibration_stands_with_its_intervals_on_the_page_and_in_the_csv(page, folder):
    text = " ".join("".join(page.text).split())
    assert "2.0 % [1.2, 3.1]" in text
    assert "91.0 % [88.0, 94.0]" in text  # of the sets, whose size has no interval here
    rows = pd.read_csv(folder / "calibration.csv")
    assert rows["ece_high"].dropna().unique().tolist() == [0.031]
    assert rows["coverage_low"].dropna().tolist() == [0.88]


def test_every_figure_is_drawn_with_its_file_and_csv(page, folder):
    report = json.loads((folder / "report.json").read_text())
    for figure in report["figures"]:
        assert f"figure-{figure['id']}" in page.ids
        root = ET.fromstring((folder / figure["file"]).read_text())
        assert root.tag.endswith("svg")
        points = pd.read_csv(folder / figure["csv"])
        assert len(points) == sum(len(s["x"]) for s in figure["series"])
    assert len(report["figures"]) == sum(i.startswith("figure-") for i in page.ids)


def test_another_process_writes_the_same_bytes(folder, hostile, inputs, tmp_path):
    (tmp_path / "inputs.pickle").write_bytes(pickle.dumps(inputs))
    code = (
        "import json, pickle, sys; from pathlib import Path; from robust.report import build, render\n"
        "target = Path(sys.argv[1])\n"
        "inputs = pickle.loads((target / 'inputs.pickle').read_bytes())\n"
        "render(build(**inputs), target / 'whole')\n"
        "render(json.loads(Path(sys.argv[2]).read_text()), target / 'paper', pdf=sys.argv[3] == 'True')\n"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "-c", code, str(tmp_path), str(hostile / "report.json"), str(can_print())]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    for ours, theirs in ((folder, tmp_path / "whole"), (hostile, tmp_path / "paper")):
        assert sorted(f.name for f in ours.iterdir()) == sorted(f.name for f in theirs.iterdir())
        for path in ours.iterdir():
            assert (theirs / path.name).read_bytes() == path.read_bytes(), path.name
    assert (hostile / "report.pdf").exists() == can_print()


def test_the_same_ledger_builds_the_same_document(inputs):
    assert json.dumps(build(**inputs)) == json.dumps(build(**inputs))


def test_no_partial_file_stays_behind(folder):
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_cards_have_the_hubs_front_matter(folder):
    _, front, body = (folder / "card-linear-standard.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    results = matter["model-index"][0]["results"]
    assert matter["pipeline_tag"] == "image-classification"
    assert results[0]["task"]["type"] == "image-classification"
    assert results[0]["dataset"]["name"] == "digits"
    assert 0 <= results[0]["metrics"][0]["value"] <= 1
    assert "worst-case linf 1/8" in body


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A study whose every name attacks the page, the paper or the file system."""
    models = [{"id": f"{name}.{i}", "model": name, "objective": "../../x"} for i, name in enumerate(HOSTILE)]
    evaluations = [
        {"label": f"{HOSTILE[0]}-clean", "name": "clean"},
        {"label": HOSTILE[1], "name": HOSTILE[1], "norm": "linf", "eps": "8/255"},
        {"label": HOSTILE[2], "name": HOSTILE[2], "norm": "linf", "eps": "4/255"},
    ]
    tables = []
    for model in models:
        for entry in evaluations:
            right = np.arange(6) < (5 if "norm" not in entry else 2)
            frame = pd.DataFrame({"sample": np.arange(6), "label": np.arange(6) % 3, "prediction": 0, "correct": right})
            frame["logits"] = [[3.0, 0.0, 1.0]] * 6
            if "norm" in entry:
                frame = frame.assign(success=~right, distance=np.where(right, np.inf, 0.01), quantised=True)
            tables.append(ledger.table(frame.assign(model=model["id"], seed=0, evaluation=entry["label"])))
    study = {
        "name": HOSTILE[3],
        "title": HOSTILE[0],
        "dataset": {"name": HOSTILE[1], "classes": HOSTILE[:3]},
        "models": models,
        "evaluations": evaluations,
    }
    picture = np.zeros((3, 4, 4), np.uint8)
    example = {"evaluation": HOSTILE[1], "model": models[0]["id"], "sample": 0, "label": 1, "prediction_clean": 1}
    example |= {"prediction_adv": 2, "clean": picture, "adversarial": picture + 8}
    score = {"model": models[0]["id"], "score": HOSTILE[0], "set": HOSTILE[1], "inside": True, "values": [1.0]}
    named = {"model": models[0]["id"], "diagnostic": HOSTILE[0], "id": HOSTILE[3], "title": HOSTILE[3]}
    report = build(
        study,
        ledger.merge(tables),
        measured=[{**named, "quantity": HOSTILE[1], "of": HOSTILE[2], "value": 1.0}],
        figures=[{**named, "paper": HOSTILE[0], "series": [{"label": HOSTILE[0], "x": [0.0, 1.0], "y": [1.0, 2.0]}]}],
        pictures=[{**named, "caption": HOSTILE[0], "paper": HOSTILE[3], "images": picture[None], "columns": 1}],
        claims=[
            {"id": HOSTILE[0], "question": HOSTILE[3], "verdict": "fails", "reason": HOSTILE[0], "unit": HOSTILE[3]}
            | {"effect": 1.0, "rows": [{HOSTILE[0]: HOSTILE[3]}]}
        ],
        published=[dict.fromkeys(("table", "row", "column", "published", "source"), HOSTILE[0])],
        not_run=[{"figure": HOSTILE[0], "reason": HOSTILE[3]}],
        paper_figures=[HOSTILE[0]],
        examples=[example],
        scores=[score],
        commands=[f"robust run '{HOSTILE[0]}'"],
        evidence=[{"check": HOSTILE[0]}],
        volatile={HOSTILE[0]: {HOSTILE[3]: HOSTILE[0]}},
    )
    target = tmp_path_factory.mktemp("hostile") / "inner"
    render(report, target, pdf=can_print())
    return target


def test_hostile_names_are_text_in_html(hostile):
    page = Page((hostile / "report.html").read_text())
    assert page.tags.count("script") == 1
    assert "alert(1)" in "".join(page.text)
    assert not [k for k, _ in page.attributes if k.startswith("on")]


def test_hostile_names_are_text_in_latex_svg_and_file_names(hostile):
    tex = (hostile / "evaluations.tex").read_text()
    assert r"\input{" not in tex
    assert r"\textbackslash input\{" in tex
    assert r"\$x" in tex
    assert {path.parent for path in hostile.rglob("*")} == {hostile}
    for path in hostile.glob("*.svg"):
        assert not [e for e in ET.fromstring(path.read_text()).iter() if e.tag.endswith("script")]
    card = next(hostile.glob("card-script*.md")).read_text()
    prose = [line for line in card.split("---\n", 2)[2].splitlines() if not line.startswith("    ")]
    assert "<script>" not in "".join(prose)


def test_latex_shows_intervals_in_brackets_where_they_are_known():
    text = latex([{"ece": 0.02, "ece_low": 0.01, "ece_high": 0.03}, {"ece": 0.5, "ece_low": None, "ece_high": None}])
    assert "0.0200 [0.0100, 0.0300]" in text
    assert "ece low" not in text
    assert "[–" not in text


def test_latex_shows_unknown_values_as_dashes():
    text = latex([{"a_b": 1.0, "c": None}, {"a_b": 0.5, "c": "x"}])
    assert "a b & c" in text
    assert "1.0000 & –" in text


def test_an_almost_empty_report_is_still_a_page(tmp_path):
    study = {"name": "none", "models": [{"id": "m", "model": "m"}], "evaluations": []}
    page = Page(render(build(study, ledger.SCHEMA.empty_table()), tmp_path).read_text())
    assert [i for i in page.ids if f"{i}-title" in page.ids] == ["summary", "reproduce"]


def test_labels_keep_their_distance_and_order():
    placed = _apart([0.5, 0.5, 0.99, 1.0, 0.51], gap=0.1)
    assert placed[0] < placed[1] < placed[4] < placed[2] < placed[3]
    assert np.diff(sorted(placed)).min() >= 0.1 - 1e-9
    assert max(placed) <= 1
