"""`robust serve` as its users see it: Prefect's page of a study's run, and MLflow's comparison of its networks."""

import json

import pytest
from served import served

STUDY = """\
name: seen
dataset: {name: digits, train: 200, select: 50, calibrate: 50, test: 40}
models: [{name: mlp, hidden: [16]}]
objectives:
  - {name: standard, training: {epochs: 1, lr: 0.01}}
  - {name: pgd-at, norm: linf, eps: 1/10, steps: 1, warmup: 0, training: {epochs: 1, lr: 0.01}}
evaluations: [clean, {name: fgsm, norm: linf, eps: 1/10}]
validity: 16
report: {examples: 0}
shard: 40
"""


@pytest.mark.slow
def test_a_run_and_its_networks_are_seen_on_the_servers_pages(browser, tmp_path):
    (tmp_path / "seen.yaml").write_text(STUDY)
    browser.view(1280, 2400)
    with served(tmp_path / "home") as services:
        services.robust("run", tmp_path / "seen.yaml", "--quiet")
        rows = json.loads((tmp_path / "home" / "reports" / "seen" / "report.json").read_text())["evaluations"]
        a_run_with_its_artifact(browser, services, rows)
        networks_side_by_side(browser, services, rows)


def a_run_with_its_artifact(browser, services, rows):
    browser.open(services.flow_run())
    for text in ("Completed", "study", "train mlp.standard.0", "evaluate mlp.pgd-at.0/test/fgsm/0"):
        browser.wait_for(text)
    browser.seen("Artifacts").click()
    browser.wait_for("report-seen")
    browser.seen("report-seen").click()
    browser.wait_for("verdict")
    assert all(address.startswith(services.prefect) for address in browser.requested())
    shown = browser.text()
    assert "reports/seen/report.html" in shown
    for row in rows:
        assert row["model"] in shown
        assert f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" in shown


def networks_side_by_side(browser, services, rows):
    networks = [run["info"]["run_name"] for run in services.children()]
    assert networks == ["mlp.pgd-at.0", "mlp.standard.0"]
    browser.open(services.comparison())
    for text in (*networks, "adv/linf/fgsm/acc", "clean/acc"):
        browser.wait_for(text)
    assert all(address.startswith((services.prefect, services.mlflow)) for address in browser.requested())
    cells = browser.text().split("\nMetrics\nShow diff only\n")[1].split("\nArtifacts\n")[0].splitlines()
    names, values = cells[: len(cells) // 3], cells[len(cells) // 3 :]  # a column of names, then pairs of values
    shown = dict(zip(names, zip(values[::2], values[1::2])))
    for label, name in (("clean", "clean/acc"), ("fgsm", "adv/linf/fgsm/acc")):
        reported = {row["model"]: row["accuracy"] for row in rows if row["label"] == label}
        assert [float(value) for value in shown[name]] == pytest.approx([reported[n] for n in networks], abs=6e-4)
