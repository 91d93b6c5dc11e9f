"""The report as readers get it: opened in Chromium, wide, on a phone, in the dark, and with names that attack it."""

import json

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from robust.report import build, render

RUNS = "<img src=x onerror='window.ran=1'>"
HOSTILE = [RUNS, "</style></svg><script>window.ran=2</script>", "\"' onmouseover='window.ran=3' x='"]

# texts whose contrast with what lies behind them is below arguments[0] (WCAG 2.2, success criterion 1.4.3)
FAINT = """
const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true}), known = new Map();
const rgba = css => known.get(css) ?? known.set(css, (() => {
  pen.clearRect(0, 0, 1, 1); pen.fillStyle = css; pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
})()).get(css);
const over = (top, bottom) => top.slice(0, 3).map((c, i) => c * top[3] + bottom[i] * (1 - top[3]));
const behind = node => {
  const own = rgba(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, node.parentElement ? behind(node.parentElement) : [255, 255, 255]);
};
const light = rgb => rgb.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const faint = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
  if (!text || !node.getClientRects().length || node.closest("script, style")) continue;
  const style = getComputedStyle(node), ink = rgba(node.closest("svg") ? style.fill : style.color);
  if (ink[3] === 0) continue;  // left blank on purpose
  const back = behind(node), [a, b] = [light(over(ink, back)), light(back.slice(0, 3))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < arguments[0]) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return [...new Set(faint)];
"""
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"
# what reaches beyond the window's right edge without a box around it that scrolls
WIDE = """
document.querySelectorAll("details").forEach(each => { each.open = true; });
return [...document.querySelectorAll("body *")].filter(each =>
  each.getBoundingClientRect().right > innerWidth + 0.5 && !each.closest(".scroll, pre, svg")
).map(each => each.outerHTML.slice(0, 80));
"""
# presses every heading twice; what each column's cells sort by then, rising and falling
SORTED = """
const key = cell => cell.dataset.v ?? cell.textContent.trim();
return [...document.querySelectorAll("th button")].map(button => {
  const head = button.closest("th"), rows = head.closest("table").tBodies[0].rows;
  return [0, 1].map(() => {
    button.click();
    return [head.getAttribute("aria-sort"), [...rows].map(row => key(row.cells[head.cellIndex]))];
  });
});
"""


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    return render(build(**inputs), tmp_path_factory.mktemp("seen"))


@pytest.fixture
def page(browser, report):
    browser.view(1200)
    browser.open(report)
    return browser


def test_it_says_nothing_and_asks_the_network_for_nothing(page, report):
    page.ask("document.querySelectorAll('details').forEach(each => { each.open = true; }); scrollTo(0, 1e9)")
    page.ask("document.querySelectorAll('th button').forEach(each => each.click())")
    assert page.requested() == [report.as_uri()]
    assert page.said() == []


def test_every_figure_and_image_is_drawn(page, report):
    figures = json.loads(report.with_name("report.json").read_text())["figures"]
    drawn = page.ask("""return Object.fromEntries([...document.querySelectorAll("figure svg")].map(svg => {
        const box = svg.getBoundingClientRect(), inked = svg.querySelector("path, line, rect, polyline");
        return [svg.closest("figure").id, inked ? [box.width, box.height] : [0, 0]]; }))""")
    assert set(drawn) == {f"figure-{figure['id']}" for figure in figures}
    assert all(width > 200 and height > 100 for width, height in drawn.values()), drawn
    images = page.ask("return [...document.images].map(each => [each.complete, each.naturalWidth, each.width])")
    assert len(images) >= 3 * 8
    assert all(loaded and min(widths) > 0 for loaded, *widths in images), images


def test_a_pressed_heading_sorts_its_table(page):
    heading = page.driver.find_element("xpath", "//section[@id='accuracy']//table//button[.='mean accuracy']")
    rows = (
        "return [...document.querySelector('#accuracy table').tBodies[0].rows].map(r => Number(r.cells[2].dataset.v))"
    )
    before = page.ask(rows)
    heading.click()
    assert page.ask(rows) == sorted(before) != before
    heading.send_keys("\n")  # by keyboard too
    assert page.ask(rows) == sorted(before, reverse=True)
    assert heading.find_element("xpath", "./..").get_attribute("aria-sort") == "descending"


def test_every_column_sorts_by_its_values_with_unknown_ones_last(page):
    columns = page.ask(SORTED)
    assert len(columns) > 60
    for (rising, up), (falling, down) in columns:
        assert (rising, falling) == ("ascending", "descending")
        assert sorted(up) == sorted(down)
        for keys, step in ((up, 1), (down, -1)):
            known = [key for key in keys if key]
            assert keys == known + [""] * (len(keys) - len(known))
            if all(key.replace(".", "").replace("-", "").replace("e", "").isdigit() for key in known):
                values = [float(key) for key in known]
                assert values == sorted(values, reverse=step < 0)
    assert page.ask(
        "return [...document.querySelectorAll('td')].every(td => getComputedStyle(td).color !== 'rgba(0, 0, 0, 0)')"
    )


def test_links_lead_to_what_they_name(page):
    dead = page.ask("""return [...document.querySelectorAll("a[href^='#']")].map(each => each.hash.slice(1))
        .filter(id => !document.getElementById(decodeURIComponent(id)))""")
    assert dead == []
    page.driver.find_element("css selector", "nav a[href='#calibration']").click()
    assert 0 <= page.ask("return document.getElementById('calibration').getBoundingClientRect().top") < 100


def test_a_phone_needs_no_scrolling_sideways(page):
    page.view(390, 844)
    assert page.ask(WIDE) == []
    assert page.ask("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    table = page.ask(
        "const box = document.querySelector('#accuracy .scroll'); return [box.clientWidth, box.scrollWidth]"
    )
    assert table[0] <= 358 < table[1], "a wide table scrolls in its own box"


def test_on_a_phone_a_row_shows_what_it_is_about_and_its_accuracy_first(page):
    page.view(390, 844)
    seen = """
    document.querySelectorAll("details").forEach(each => { each.open = true; });
    return [...document.querySelectorAll("#accuracy .scroll")].map(box => {
      const cells = box.querySelector("tbody tr").cells, place = i => cells[i].getBoundingClientRect();
      const accuracy = place(2).right; box.scrollLeft = 1e9;
      return [accuracy, place(0).left, place(3).right, box.getBoundingClientRect().left]; });
    """
    found = page.ask(seen)
    assert len(found) == 2
    for accuracy, name, verdict, edge in found:
        assert accuracy <= 374, "the accuracy needs no scrolling"
        assert name == edge, "the name stays while the others move"
        assert verdict < edge + 100


def test_the_dark_page_is_dark_and_can_be_read(page):
    bright, ink = page.ask(BACKGROUND), page.ask("return getComputedStyle(document.querySelector('svg text')).fill")
    assert page.ask(FAINT, 4.5) == []
    page.view(1200, dark=True)
    assert (bright, page.ask(BACKGROUND)) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
    assert page.ask("return getComputedStyle(document.querySelector('svg text')).fill") != ink, "figures change too"
    assert page.ask(FAINT, 4.5) == []


def test_hostile_names_are_shown_and_run_nothing(browser, tmp_path):
    models = [{"id": f"{name}.{i}", "model": name, "objective": name} for i, name in enumerate(HOSTILE)]
    evaluations = [{"label": "clean", "name": "clean"}]
    evaluations += [{"label": name, "name": name, "norm": "linf", "eps": "1/255"} for name in HOSTILE]
    frame = pd.DataFrame({"sample": np.arange(6), "label": np.arange(6) % 3, "prediction": 0})
    frame = frame.assign(
        correct=frame.label == 0, logits=[[3.0, 0.0, 1.0]] * 6, success=frame.label > 0, distance=0.001
    )
    rows = [
        ledger.table(frame.assign(model=model["id"], seed=0, evaluation=entry["label"]))
        for model in models
        for entry in evaluations
    ]
    dataset = {"name": HOSTILE[1], "classes": HOSTILE}
    study = {"name": "x", "title": RUNS, "dataset": dataset, "models": models, "evaluations": evaluations}
    picture = np.zeros((3, 4, 4), np.uint8)
    example = {"evaluation": HOSTILE[1], "model": models[0]["id"], "sample": 0, "label": 1, "prediction_clean": 1}
    example |= {"prediction_adv": 2, "clean": picture, "adversarial": picture + 8}
    path = render(build(study, ledger.merge(rows), examples=[example]), tmp_path)
    browser.view(1200)
    browser.open(path)
    browser.ask("document.querySelectorAll('body *').forEach(each => each.dispatchEvent(new MouseEvent('mouseover')))")
    shown = browser.ask("return document.body.innerText")
    assert browser.driver.find_element("tag name", "h1").text == RUNS
    assert all(name in shown for name in HOSTILE)
    assert browser.ask("return window.ran") is None
    assert browser.requested() == [path.as_uri()]
    assert browser.said() == []
