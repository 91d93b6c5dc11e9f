"""No attack costs more than it declares: every registered attack against the meters, at radii small and large."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robust.attacks.attack import Attack, Context, SmallestDistance
from robust.classifier import Classifier, Metered
from robust.randomness import Randomness
from robust.registry import create, entries, find

# small values of whatever budget fields an attack has
BUDGET = {
    "steps": 5, "queries": 20, "restarts": 2, "searches": 3, "directions": 3, "tries": 4, "halvings": 3,
    "angles": 3, "shifts": 3, "eot": 2, "draws": 3, "size": 3, "epochs": 1,
}  # fmt: skip
INNER = {"name": "pgd", "steps": 3, "restarts": 2}
FREE = {"random-noise", "transfer", "universal"}  # no pass of the attacked classifier
NAMES = [entry.name for entry in entries("attack")]


class Declared(nn.Module):
    """A net with every gradient view that a wrapper may ask for: itself."""

    random = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def gradient_views(self) -> dict[str, nn.Module]:
        return {"bpda": self.net, "through": self.net, "substitute": self.net}


def tables(name: str) -> list[Attack]:
    """The attack in every norm, at a radius that breaks nothing and at one that breaks some."""
    fields = find("attack", name).model_fields
    found = []
    for norm in find("attack", name).norms:
        for eps in ("1/1000", "1/4"):
            settings = {"name": name} | {key: value for key, value in BUDGET.items() if key in fields}
            threat = {"norm": norm, "eps": eps}
            settings |= {"attack": INNER | threat} if "attack" in fields else threat
            found.append(create("attack", settings))
    return found


def measured(attack: Attack) -> tuple[int, int]:
    """The dearest sample's forward and backward passes."""
    classifier = Classifier(Declared(), num_classes=5)
    images = torch.rand(6, 1, 8, 8)
    labels = classifier(images).argmax(1)
    other = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), num_classes=5)
    meter, rng = Metered(classifier, 6), Randomness.of(0, range(6), attack.name)
    with classifier.frozen():
        ready = attack.bind(classifier, Context({"surrogate": other}, images, labels))
        run = ready.minimise if isinstance(ready, SmallestDistance) else ready.perturb
        run(meter, images, labels, rng)
    return int(meter.forwards.max()), int(meter.backwards.max())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "autoattack"])
def test_the_meter_never_exceeds_what_is_declared(name):
    for attack in tables(name):
        forward, backward = measured(attack)
        most_forward, most_backward = attack.passes(5)
        assert forward <= most_forward, attack.threat
        assert backward <= most_backward, attack.threat
        assert (most_forward, most_backward) != (0, 0) or name in FREE


def test_autoattack_costs_the_sum_of_its_members():
    attack = create("attack", {"name": "autoattack", "version": "rand", "eps": "1/1000"})
    forward, backward = measured(attack)
    most_forward, most_backward = attack.passes(5)
    assert backward <= most_backward == 2 * 20 * 101
    assert forward <= most_forward == most_backward + 2


def test_standing_samples_cost_exactly_the_bound():
    attack = create("attack", {"name": "pgd", "eps": "1/10000", "steps": 7, "restarts": 3})
    assert measured(attack) == attack.passes(5) == (24, 21)
