"""The founding methods' training steps against their floor: the forward and backward passes that a step contains.

Each row of the table is one method: a function that returns `Timed`, listed in METHODS. The floor runs the same number
of passes of the same network by hand, with nothing around them; the ratio is what the method adds. Run it as
`python benchmarks/founding_speed.py [threads]`; about a minute on one core. A ratio of at most 1.1 is the target.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust.models.ode_solver import IntegralCurve, Solver
from robust.objectives.objective import Objective

TARGET = 1.1
ROUNDS = 9


@dataclass(frozen=True)
class Timed:
    """Seconds of one training step (or pass), those of its floor, and what both consist of."""

    what: str
    seconds: float
    floor: float
    passes: str


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    print(f"{'method':<34} {'ms':>9} {'floor ms':>9} {'ratio':>6}  passes")
    for method in METHODS:
        for row in method():
            ratio = row.seconds / row.floor
            print(
                f"{row.what:<34} {1e3 * row.seconds:9.2f} {1e3 * row.floor:9.2f} {ratio:6.3f}  {row.passes}"
                f"{'' if ratio <= TARGET else '  ABOVE THE TARGET'}",
                flush=True,
            )


def paired(method: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float]:
    """Median processor seconds of both, in turn: what other programs take of the machine's time does not count."""
    taken: dict[Callable[[], object], list[float]] = {method: [], floor: []}
    for index in range(ROUNDS + 1):  # the first round warms up
        for run in (method, floor) if index % 2 else (floor, method):
            start = time.process_time()
            run()
            taken[run].append(time.process_time() - start)
    return statistics.median(taken[method][1:]), statistics.median(taken[floor][1:])


def jem_step() -> list[Timed]:
    """JEM: 20 Langevin steps, each a forward pass and a gradient in x; then three passes with gradients in the weights.

    The step is the training loop's own: batch, chains, loss, gradient and Adam; the floor holds the passes alone.
    """
    from robust.batches import Batches
    from robust.datasets.adapt import adapt
    from robust.datasets.digits import Digits
    from robust.models.energy_cnn import EnergyCNN
    from robust.models.model import Inputs
    from robust.objectives.jem import JEM
    from robust.objectives.objective import Training
    from robust.optimisation import make_optimizer

    inputs = Inputs(shape=(1, 28, 28), num_classes=10, mean=(0.1307,), std=(0.3081,))
    objective = JEM(training=Training(batch_size=64, lr=1e-4), buffer=1000)
    train_set = adapt(Digits().load("train"), inputs.shape)
    classifier = EnergyCNN().classifier(inputs)
    batches = Batches(train_set, 64, 1, 0, "none", classifier.device, classifier.dtype)
    optimizer = make_optimizer(classifier, objective.training)
    images = batches.batch(0).images
    state = objective.start(classifier, images, 0)
    objective.before_training(state, train_set)

    def step() -> None:
        classifier.train()
        loss = objective.loss(classifier, batches.batch(0), state)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()

    def floor() -> None:
        for parameter in classifier.parameters():
            parameter.requires_grad_(False)
        for _ in range(objective.steps):
            leaf = images.detach().requires_grad_(True)
            torch.autograd.grad(classifier(leaf).logsumexp(1).sum(), leaf)
        for parameter in classifier.parameters():
            parameter.requires_grad_(True)
        # all forward passes, then all backward ones, as training has to
        torch.stack([classifier(images).logsumexp(1).mean() for _ in range(3)]).sum().backward()

    seconds, least = paired(step, floor)
    return [Timed("jem, energy-cnn, 64 images", seconds, least, "20 forward and input gradients, 3 training passes")]


def tisode() -> list[Timed]:
    """TisODE on MNIST at cpu size: Euler, 20 evaluations of f; with the steady-state loss 40."""
    from torch.nn import functional as F

    from robust.models.model import Inputs
    from robust.models.tisode import TisODENet
    from robust.objectives.objective import Batch
    from robust.objectives.standard import Standard
    from robust.objectives.tisode import TisODE
    from robust.randomness import Randomness

    torch.manual_seed(0)
    inputs = Inputs(shape=(1, 28, 28), num_classes=10, mean=(0.1307,), std=(0.3081,))
    classifier = TisODENet(channels=16, pool=4).classifier(inputs).train()
    network = classifier.module
    images, labels = torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    batch = Batch(images, labels, torch.arange(64), Randomness.of(0, range(64)), progress=0.0, step=0, epoch=9)
    with torch.no_grad():
        state = network.extractor(images)

    def passes(evaluations: int) -> None:
        """Extractor, so many evaluations of f, head: all forward passes, then all backward ones, as training has to."""
        network.zero_grad(set_to_none=True)
        features = network.extractor(images)
        slopes = [network.mapping.derivative(0.0, state.detach().requires_grad_()) for _ in range(evaluations)]
        F.cross_entropy(network.head(state.detach().requires_grad_()), labels).backward()
        while slopes:
            slope = slopes.pop()
            slope.backward(torch.ones_like(slope))
        features.backward(torch.ones_like(features))

    def step(objective: Objective) -> None:
        network.zero_grad(set_to_none=True)
        objective.loss(classifier, batch, {}).total.backward()

    def timed(what: str, objective: Objective, evaluations: int) -> Timed:
        seconds, floor = paired(lambda: step(objective), lambda: passes(evaluations))
        return Timed(what, seconds, floor, f"{evaluations} evaluations of f, forward and backward")

    rows = [timed("tisode step, Euler 20", Standard(), 20)]
    rows.append(timed("tisode step with L_ss to t = 2", TisODE(base=Standard()), 40))
    return rows + [against_torchdiffeq(network.mapping, state, solver) for solver in ("euler", "rk4", "dopri5")]


def against_torchdiffeq(curve: IntegralCurve, state: Tensor, solver: Solver) -> Timed:
    """The ODE block beside plain torchdiffeq with the same solver: forward and backward."""
    from torchdiffeq import odeint

    curve.solver = solver
    settings = (
        {"rtol": curve.rtol, "atol": curve.atol} if curve.adaptive else {"options": {"step_size": curve.step_size}}
    )
    times = torch.tensor([0.0, curve.final_time])

    def through(solve: Callable[[Tensor], Tensor]) -> None:
        leaf = state.detach().requires_grad_()
        final = solve(leaf)
        final.backward(torch.ones_like(final))

    def plain(leaf: Tensor) -> Tensor:
        return odeint(curve.derivative, leaf, times, method=solver, **settings)[-1]

    seconds, floor = paired(lambda: through(curve), lambda: through(plain))
    return Timed(f"ODE block, {solver}", seconds, floor, f"{curve.evaluations} evaluations; floor: plain torchdiffeq")


METHODS: tuple[Callable[[], list[Timed]], ...] = (
    tisode,
    jem_step,
)  # one function a method

if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
