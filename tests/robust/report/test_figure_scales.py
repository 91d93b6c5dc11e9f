"""Scales of drawn figures: shares stay within [0,1], and the numbers at the axes do too."""

import re

import pytest

from robust.report.document import FigureRow, Series
from robust.report.figures import draw


def numbers(svg):
    """The numbers at the axes, which are texts of their own."""
    texts = re.findall(r"<text[^>]*>(?:<[^>]*>)*([^<]+)<", svg)
    return [float(text.replace("−", "-")) for text in texts if re.fullmatch(r"−?[\d.]+", text)]


@pytest.mark.parametrize("y", [[0.0, 1.0], [0.96, 1.0], [1.0, 1.0], [0.0, 0.02]])
@pytest.mark.parametrize("label", ["select accuracy", "share of images"])
def test_no_number_lies_outside_what_a_share_can_be(y, label):
    series = Series(label="a", x=[0.97, 1.0], y=y, low=[max(0.0, v - 0.01) for v in y], high=y)
    figure = FigureRow(
        id="f",
        file="f.svg",
        csv="f.csv",
        group="g",
        title="t",
        x_label="clean accuracy",
        y_label=label,
        series=[series],
    )
    found = numbers(draw(figure))
    assert len(found) >= 4
    assert all(0 <= value <= 1 for value in found), found


def test_other_scales_keep_their_room():
    figure = FigureRow(
        id="f", file="f.svg", csv="f.csv", group="g", title="t", x_label="epoch", y_label="loss",
        series=[Series(label="a", x=[0.0, 10.0], y=[-5.0, 3.0])],
    )  # fmt: skip
    assert min(numbers(draw(figure))) < 0
    percentages = figure.model_copy(
        update={"y_label": "accuracy (%)", "series": [Series(label="a", x=[0.0, 10.0], y=[20.0, 90.0])]}
    )
    assert max(numbers(draw(percentages))) >= 80
