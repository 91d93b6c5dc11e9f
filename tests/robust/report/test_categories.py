"""Names of categories in figures and in the columns of a terminal: nothing covers another, nothing is cut unseen."""

import math
import re

import pytest

from robust.report.document import FigureRow, Series
from robust.report.figures import FONT, draw
from robust.report.terminal import fitted

TEXT = re.compile(r'<text x="([\d.]+)" y="[\d.]+"( transform="rotate\(-32[^"]*")?>([^<]+)</text>')


def placed(names, mark="bars"):
    """x and turned of every category's name, as drawn."""
    series = Series(label="mlp.standard", mark=mark, x=list(range(len(names))), y=[0.5] * len(names))
    figure = FigureRow(
        id="f", title="t", file="f.svg", csv="f.csv", group="g", y_label="y", x_ticks=names, series=[series]
    )
    return {text: (float(x), bool(turned)) for x, turned, text in TEXT.findall(draw(figure)) if text in names}


@pytest.mark.parametrize(
    ("names", "turned"),
    [
        (["clean", "fgsm", "pgd"], False),
        # one long name among short ones: the sum of the lengths fits, its place does not
        (["clean", "gaussian-noise", "fgsm", "pgd-small", "pgd"], True),
        (["a", "b", "c", "d", "gaussian-noise"], True),
    ],
)
def test_names_are_turned_where_neighbours_would_touch(names, turned):
    found = placed(names)
    assert set(found) == set(names)
    assert {is_turned for _, is_turned in found.values()} == {turned}


@pytest.mark.parametrize("mark", ["bars", "points"])
def test_the_first_turned_name_begins_within_the_figure(mark):
    names = ["zero gradients ce", "zero gradients dlr", "non-finite"]
    x, turned = placed(names, mark)["zero gradients ce"]
    assert turned
    assert x - len(names[0]) * (FONT - 1) * 0.5 * math.cos(math.radians(32)) > 0


def test_long_names_keep_both_ends_in_a_column():
    assert fitted("pgd", 15) == "pgd"
    assert fitted("worst-case linf 1/10", 19) != fitted("worst-case linf 1/1", 19)
    assert fitted("worst-case linf 1/10", 19).endswith("linf 1/10")
    assert fitted("gaussian-noise-2", 15) != fitted("gaussian-noise-3", 15)
    assert all(len(fitted("x" * 50, width)) == width for width in (1, 2, 15, 24))
