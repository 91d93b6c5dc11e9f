"""What `robust evaluate` may be asked: defaults, threats from gates, attacks that a model's access allows."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from flows.evaluation import half_width, numbers
from flows.outcomes import InputError
from robust.foreign.loaded import ForeignError
from robust.foreign.request import Request, dataset_of
from robust.gates import GateError
from robust.registry import UnknownMethod


def asked(**more):
    return Request(model="mine:build", dataset="digits", **more)


def test_threats_come_from_options_gates_or_custom():
    assert asked().threats() == [("linf", Fraction(8, 255))]
    assert asked(norm="l2").threats() == [("l2", Fraction(1, 2))]
    assert asked(gates=("l2 1 >= 5%", "clean > 1%")).threats() == [("l2", Fraction(1))]
    both = asked(eps="4/255", gates=("linf 8/255 >= 5%",))
    assert both.threats() == [("linf", Fraction(4, 255)), ("linf", Fraction(8, 255))]
    assert list(both.evaluations("gradient")) == ["clean", "autoattack", "autoattack-2"]


@pytest.mark.parametrize(
    ("access", "attack"), [("gradient", "autoattack"), ("scores", "square"), ("labels", "hopskipjump")]
)
def test_the_strongest_attack_that_the_access_allows(access, attack):
    assert list(asked().evaluations(access)) == ["clean", attack]


def test_attacks_that_need_more_are_refused():
    with pytest.raises(ForeignError, match="needs gradient, this model gives scores alone; use square"):
        asked(attacks=("pgd",)).evaluations("scores")
    with pytest.raises(ForeignError, match="needs scores, this model gives labels alone; use hopskipjump"):
        asked(attacks=("square",)).evaluations("labels")
    assert list(asked(attacks=("random-noise",)).evaluations("labels")) == ["clean", "random-noise"]


def test_attacks_may_have_settings_and_low_precision():
    found = asked(attacks=("{name: pgd, steps: 7}",), search_dtype="bf16").evaluations("gradient")["low-precision"]
    assert found.attack.steps == 7
    with pytest.raises(ForeignError, match="write for example"):
        asked(attacks=("{name: [",)).check()


def test_data_by_name_or_folder(tmp_path):
    assert dataset_of("digits", "test", 50).test == 50
    assert dataset_of("digits", "select", 50).select == 50
    assert dataset_of(str(tmp_path), "test").path == str(tmp_path)
    with pytest.raises(UnknownMethod, match="no folder and no data set"):
        dataset_of("nodata", "test")
    with pytest.raises(UnknownMethod, match=r"did you mean mnist or"):
        dataset_of("mnst", "test")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"norm": "l7"}, ValidationError), ({"samples": 0}, ValidationError), ({"attacks": ("pdg",)}, UnknownMethod),
        ({"gates": ("linf >= 1",)}, GateError), ({"mean": (0.5,)}, ForeignError), ({"eps": "8/0"}, ValidationError),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused(more, error):
    with pytest.raises(error):
        checked(**more)


def checked(**more):
    request = asked(**more)
    request.check()
    request.threats()


def test_numbers_of_options():
    assert half_width("±1%") == half_width("1%") == half_width("0.01") == 0.01
    assert half_width(None) is None
    assert numbers("--mean", "0.5,1/4") == [0.5, 0.25]
    with pytest.raises(InputError, match="--until"):
        half_width("often")
    with pytest.raises(InputError, match="--mean"):
        numbers("--mean", "a,b")


def test_names_of_reports():
    assert asked().title == "evaluate-mine-build-digits"
    assert Request(model="a/b/ResNet18@w.pt", dataset="/data/My Images").title == "evaluate-resnet18-w-pt-my-images"
    assert asked(name="second-look").title == "second-look"
    with pytest.raises(ValidationError, match="name"):
        asked(name="../elsewhere")
