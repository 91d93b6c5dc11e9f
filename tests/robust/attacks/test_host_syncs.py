"""How often an attack makes the processor wait for a GPU, counted without one: operations whose result Python reads."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from robust.attacks.apgd_ce import APGDCE
from robust.attacks.apgd_t import APGDT
from robust.attacks.attack import Attack
from robust.attacks.fab_t import FABT
from robust.attacks.pgd import PGD
from robust.attacks.square import Square
from robust.classifier import Classifier, Metered
from robust.randomness import Randomness

READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal", "aten::masked_select")


class Waits(TorchDispatchMode):
    """Counts reads of values, and indexing by masks, which has to count them first."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition(".")[0]
        masks = args[1] if name in ("aten::index", "aten::index_put", "aten::index_put_") else []
        self.count += name in READS or any(i is not None and i.dtype == torch.bool for i in masks)
        return function(*args, **(kwargs or {}))


def waits(attack: Attack, classifier: Classifier, images: Tensor, labels: Tensor) -> int:
    run = attack.minimise if hasattr(attack, "minimise") else attack.perturb
    rng = Randomness.of(0, range(len(labels)), attack.name)
    with classifier.frozen(), Waits() as counted:
        run(Metered(classifier, len(labels)), images, labels, rng)
    return counted.count


@pytest.mark.parametrize(
    ("method", "field", "limit"),
    [
        (PGD, "steps", 1),
        (APGDCE, "steps", 1),
        (APGDT, "steps", 9),  # one for each target
        (Square, "queries", 1),
        (FABT, "steps", 9 * 5),  # the projection's Newton steps, each of which asks whether any row goes on
    ],
)
def test_a_step_waits_for_the_device_once(method, field, limit):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 10))
    classifier = Classifier(module, num_classes=10)
    images = torch.rand(3, 3, 16, 16)
    labels = classifier(images).argmax(1)
    # so small a radius that nobody falls: every step is paid
    short, long = (method.model_validate({"norm": "linf", "eps": "1/100000", field: n}) for n in (20, 40))
    extra = waits(long, classifier, images, labels) - waits(short, classifier, images, labels)
    assert 0 < extra <= 20 * limit
