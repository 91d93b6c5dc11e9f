"""Claims, measurements, published numbers, absent figures and joined studies in the report."""

import json

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from robust.report import ReportError, build, render
from robust.report.figures import draw
from robust.report.founding import FIGURES, QUESTIONS
from robust.report.join import joined, render_joined
from robust.report.measured import grid_of
from robust.report.views import diagnostics, measured_table


@pytest.fixture(scope="module")
def report(inputs):
    return build(**inputs)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return render(report, tmp_path_factory.mktemp("founding")).read_text()


def test_claims_stand_near_the_top_with_reason_effect_and_numbers(page):
    assert page.index('id="summary"') < page.index('id="claims"') < page.index('id="accuracy"')
    section = page[page.index('id="claims"') : page.index('id="paper"')]
    assert "It gains 12 points under pgd." in section
    assert "+12.0\u202fpoints</b> (+8.0 to +16.0)" in section
    assert "~ partly 1" in section
    assert "The numbers behind it" in section


def test_measurements_are_means_over_seeds_thinned(report, page):
    rows = [row for row in report["measured"] if row["quantity"] == "margin"]
    assert {(row["group"], row["seed"]) for row in rows} == {
        (f"linear.{objective}", seed) for objective in ("standard", "regularised") for seed in range(3)
    }
    from robust.report.document import MeasuredRow

    table = measured_table([MeasuredRow.model_validate(row) for row in report["measured"]])
    assert table["groups"] == ["linear.standard", "linear.regularised"]
    epochs = [line["epoch"] for line in table["lines"] if line["quantity"] == "margin"]
    assert (len(epochs), epochs[0], epochs[-1]) == (8, 0, 19)
    assert table["left_out"] == 12
    cell = table["lines"][0]["cells"][0]
    assert (cell["mean"], cell["seeds"]) == (pytest.approx(0.1), 3)
    assert cell["low"] == pytest.approx(0.1 - 4.303 * 0.1 / np.sqrt(3), abs=1e-4)
    assert "12 further steps stand in the CSV" in page


def test_a_single_network_keeps_the_interval_of_its_diagnostic(inputs):
    alone = dict(inputs, measured=[inputs["measured"][20]])
    assert alone["measured"][0]["quantity"] == "bound"
    row = build(**alone)["measured"][0]
    assert (row["low"], row["high"], row["group"], row["seed"]) == (1.0, 3.0, "linear.standard", 0)


def test_figures_of_several_networks_are_panels_of_one_scale(report, page):
    curves = [figure for figure in report["figures"] if figure["group"] == "diagnostic-curves"]
    assert [figure["model"] for figure in curves] == [model["id"] for model in report["models"]]
    assert len({figure["id"] for figure in curves}) == 6
    assert {figure["kind"] for figure in curves} == {"curves-curve"}
    assert curves[0]["series"][0]["x"] == [0.0, 1.0]  # what is no number is not drawn
    assert page.count('class="panels multiples"') == 1
    assert len({tuple(figure["y_range"] or ()) for figure in curves}) == 1


def test_many_networks_are_drawn_once_a_group_and_linked_otherwise(report):
    from robust.report.document import Report

    document = Report.model_validate(report)
    drawn = [figure for figure in document.figures if figure.model]
    more = [f.model_copy(update={"id": f"{f.id}-{i}"}) for i in range(3) for f in drawn]
    many = document.model_copy(update={"figures": more})
    entry = next(e for e in diagnostics(many, {f.id: "<svg/>" for f in more}) if e["name"] == "curves")
    figure = entry["multiples"][0]
    assert {panel.model for panel in figure["panels"]} == {"linear.standard.0", "linear.regularised.0"}
    assert len(figure["panels"]) + len(figure["linked"]) == 18
    heavy = diagnostics(document, {f.id: "x" * 200_000 for f in drawn})
    assert sum(len(m["panels"]) for e in heavy for m in e["multiples"]) == 2  # the page stays small


def test_grids_of_images_are_pictures(report, page):
    picture = report["pictures"][0]
    assert (picture["width"], picture["height"]) == (17, 17)
    assert picture["image"].startswith("data:image/png;base64,")
    assert f'id="picture-{picture["id"]}"' in page
    grid = grid_of(np.zeros((5, 3, 4, 4), np.uint8), 2)
    assert grid.shape == (3, 14, 9)
    assert grid[0, 0, 4] == 255  # a line between
    with pytest.raises(ReportError, match="uint8"):
        grid_of(np.zeros((5, 3, 4, 4)))


def test_published_numbers_stand_beside_ours_under_both_protocols(report, inputs):
    first, second, third = report["published"]
    assert first["ours"] == pytest.approx(mean(inputs["rows"], "fgsm-1-8"))
    assert first["strong"] == pytest.approx(mean(inputs["rows"], "fgsm-1-8", "pgd-1-8"))
    assert first["strong"] <= first["ours"]
    assert first["low"] < first["ours"] < first["high"]
    assert (first["seeds"], first["verdict"], first["strong_evaluation"]) == (3, "suspect", "fgsm-1-8 and pgd-1-8")
    assert 0.1 < second["ours"] < 2
    assert second["strong"] is None
    assert (third["ours"], third["reason"]) == (None, "not run")


def mean(rows, *labels):
    """Accuracy of linear.standard over seeds: right under all labels."""
    frame = rows.select(["model", "evaluation", "sample", "correct"]).to_pandas()
    frame = frame[frame["model"].str.startswith("linear.standard") & frame["evaluation"].isin(labels)]
    return frame.groupby(["model", "sample"])["correct"].all().groupby("model").mean().mean()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"row": "a", "column": "b"}, "lacks table"),
        ({"table": "t", "row": "a", "column": "b", "group": "g", "quantity": {"nom": "x"}}, "quantity"),
    ],
)
def test_a_wrong_published_row_is_named(inputs, row, message):
    with pytest.raises(ReportError, match=message):
        build(**{**inputs, "published": [row]})


def test_a_published_number_without_ours_says_why(inputs):
    row = {"table": "t", "row": "a", "column": "b", "published": 1.0, "group": "linear.standard", "evaluation": "cw"}
    assert (
        "linear.standard was not judged under cw" in build(**{**inputs, "published": [row]})["published"][0]["reason"]
    )


def test_published_figures_have_links_or_a_reason(report, page):
    found = {row["id"]: row for row in report["paper_figures"]}
    assert list(found) == ["O-1", "O-3", "O-4", "J-1", "T-1", "T-3"]
    assert found["O-1"]["figures"] == ["bars-accuracy"]
    assert found["O-1"]["reason"] == "O-1 SVHN: its data are absent"  # drawn in part
    assert len(found["O-3"]["figures"]) == 6
    assert (found["O-4"]["figures"], found["O-4"]["reason"]) == ([], "O-4: no ODE")
    assert found["J-1"]["pictures"] == [report["pictures"][0]["id"]]
    assert {"curve-linf", "curve-l2"} <= set(found["T-1"]["figures"])
    assert found["T-3"]["section"] == "paper"
    assert '<span class="tag" title="the published figure that this draws again">O-3</span>' in page
    assert "its data are absent" in page


def test_figures_and_questions_are_complete():
    assert list(FIGURES) == [f"{k}-{i}" for k, n in (("J", 7), ("M", 4), ("O", 5), ("T", 4)) for i in range(1, n + 1)]
    assert list(QUESTIONS) == [f"Q{i}" for i in range(1, 26)]


def test_bars_show_the_seeds(report):
    bars = next(figure for figure in report["figures"] if figure["id"] == "bars-accuracy")
    assert bars["x_ticks"][:2] == ["clean", "gaussian-noise"]
    assert "deepfool" not in bars["x_ticks"]  # its accuracy says nothing
    marks = [series["mark"] for series in bars["series"]]
    assert marks == ["bars", "points", "bars", "points"]
    assert len(bars["series"][1]["x"]) == 3 * len(bars["x_ticks"])


def test_rules_bars_and_clouds_are_drawn(report):
    from robust.report.document import FigureRow

    series = [
        {"label": "cloud", "mark": "points", "x": list(range(5000)), "y": list(range(5000))},
        {"label": "T", "mark": "rule", "x": [7.0], "y": [0.0]},
        {"label": "wide", "mark": "bars", "x": [0.0, 100.0], "y": [1.0, 2.0], "low": [0.5, 1.0], "high": [1.5, 3.0]},
    ]
    named = {"id": "f", "file": "f.svg", "csv": "f.csv", "group": "g", "title": "t"}
    svg = draw(FigureRow.model_validate({**named, "series": series}))
    assert ">T<" in svg
    assert len(svg) < 150_000  # five thousand points would not fit the page


def second_study(inputs):
    """The same ledger as another study, with a claim of its own and another data set."""
    claim = {"id": "Q18-again", "question": "Does it help again?", "verdict": "holds", "effect": 1.0}
    further = {"id": "tulip-order", "question": "Do they stand in order?", "verdict": "fails", "effect": 0.1}
    study = {**inputs["study"], "name": "other", "dataset": {"name": "usps"}}
    return build(study, inputs["rows"], verdicts=inputs["verdicts"], claims=[claim, further])


def test_joined_studies_answer_the_questions_in_order(report, inputs, tmp_path):
    document = joined([report, second_study(inputs)], "founding", "The founding methods")
    assert [row["id"] for row in document["questions"]] == list(QUESTIONS)
    answers = {row["id"]: row for row in document["questions"]}
    assert [(c["id"], c["study"]) for c in answers["Q18"]["claims"]] == [
        ("Q18", "digits-linear"),
        ("Q18-again", "other"),
    ]
    assert answers["Q18"]["verdict"] == "partly"  # one holds, one partly
    assert answers["Q1"]["verdict"] == "untested"
    assert answers["Q21"]["answer"].startswith(
        "Of 24 other questions: 1 borne out in part (Q18); 23 untested here (Q1,"
    )
    assert [row["id"] for row in document["further"]] == ["tulip-order"]
    assert [row["link"] for row in document["studies"]] == ["../digits-linear/report.html", "../other/report.html"]
    path = render_joined(document, tmp_path)
    text = path.read_text()
    assert 'href="../other/report.html"' in text
    assert "Do they stand in order?" in text
    assert json.loads((tmp_path / "report.json").read_text()) == document
    again = render_joined(json.loads((tmp_path / "report.json").read_text()), tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


def test_joined_matrices_and_frontiers_are_by_data_set(report, inputs):
    document = joined([report, second_study(inputs)])
    assert [matrix["dataset"] for matrix in document["matrices"]] == ["digits", "usps"]
    row = document["matrices"][0]["rows"][0]
    accuracy = {(g["group"], g["label"]): g["mean"] for g in report["groups"]}
    assert row["cells"]["pgd-1-8"] == accuracy["linear.standard", "pgd-1-8"]
    assert [figure["title"] for figure in document["figures"]] == ["digits, linf 1/16", "usps, linf 1/16"]
    base, other = document["groups"][:2]
    assert (base["baseline"], other["baseline"]) == ("", "linear.standard")
    assert other["gained"] == pytest.approx(other["robust"] - base["robust"])


def test_the_cost_of_a_point_is_in_passes():
    models = [{"id": f"m.{o}.0", "model": "m", "objective": o, "seed": 0} for o in ("a", "b")]
    evaluations = [{"label": "clean", "name": "clean"}, {"label": "pgd", "name": "pgd", "norm": "linf", "eps": "1/8"}]
    tables = []
    for i, model in enumerate(models):
        for entry in evaluations:
            right = np.arange(20) < (20 if entry["name"] == "clean" else 5 + 5 * i)
            frame = pd.DataFrame({"sample": np.arange(20), "label": 0, "prediction": 0, "correct": right})
            frame = frame.assign(forward=1 + 20 * i, backward=0, success=~right, distance=0.1)
            tables.append(ledger.table(frame.assign(model=model["id"], seed=0, evaluation=entry["label"])))
    study = {"name": "s", "dataset": {"name": "d"}, "models": models, "evaluations": evaluations}
    document = joined([build(study, ledger.merge(tables))])
    assert document["groups"][1]["passes"] == 21
    assert document["groups"][1]["passes_a_point"] == pytest.approx(20 / 25)
    assert document["questions"] == []  # nobody asked


def test_chosen_and_last_weights_stand_side_by_side(report, tmp_path):
    rows = [
        {"model": m["id"], "evaluation": "clean", "best_epoch": 7, "best": 0.9, "last": 0.8} for m in report["models"]
    ]
    text = render({**report, "checkpoints": rows}, tmp_path).read_text()
    assert "Chosen and last weights" in text
    assert "+10.0" in text
