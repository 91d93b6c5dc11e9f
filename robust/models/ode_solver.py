"""The solution of an initial value problem as a layer: the integral curve that starts at the layer's input.

Fixed steps (Euler, RK4) run in a loop of our own, which gives torchdiffeq's values without its bookkeeping; adaptive
steps and the adjoint method are torchdiffeq's. Evaluations of the right-hand side are counted and capped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

Solver = Literal["euler", "rk4", "dopri5"]
FIXED = ("euler", "rk4")
Rate = Callable[[Any, Tensor], Tensor]
Stages = list[tuple[float, Tensor]]  # slopes of one step and their weights, which sum to its length


class SolverError(RuntimeError):
    """The solver cannot go on: too many evaluations, a step that underflows, or a state that is not finite."""


class IntegralCurve(nn.Module):
    """z(T) of dz/dt = f(t, z(t)), z(0) the input [N,C,H,W] (Chen et al. 2018, arXiv 1806.07366).

    Solver, steps and tolerances are plain attributes: a copy with others is the same network, solved differently. An
    adaptive solver chooses one step for the whole batch, so a sample's value then depends, within the tolerance, on
    the batch that it is in.

    Args:
        derivative: f, called as f(t, z) with t a number or a scalar tensor; a true attribute `nonnegative` says that no
            value of it is below 0.
        solver: euler, rk4 (the 3/8 rule, as in torchdiffeq) or dopri5.
        step_size: longest step of the fixed solvers; a stretch of time is divided evenly.
        final_time: T.
        rtol, atol: tolerances of dopri5.
        adjoint: gradients by integrating backwards in time, in constant memory, instead of through the steps.
        max_evaluations: how often f may be evaluated in one call.

    Attributes:
        evaluations: how often f was evaluated in the last call.
    """

    def __init__(
        self,
        derivative: nn.Module,
        solver: Solver = "euler",
        step_size: float = 0.1,
        final_time: float = 1.0,
        rtol: float = 1e-3,
        atol: float = 1e-3,
        adjoint: bool = False,
        max_evaluations: int = 1000,
    ) -> None:
        super().__init__()
        self.derivative = derivative
        self.solver, self.step_size, self.final_time = solver, step_size, final_time
        self.rtol, self.atol, self.adjoint = rtol, atol, adjoint
        self.max_evaluations, self.evaluations = max_evaluations, 0
        self.window: tuple[float, float] | None = None
        self.recorded: list[Tensor] = []

    @property
    def adaptive(self) -> bool:
        """Whether the steps depend on the images."""
        return self.solver not in FIXED

    def forward(self, start: Tensor) -> Tensor:
        """z(T), [N,C,H,W]; inside `recording`, in train mode, the window's integral of |f| is kept as well."""
        if self.window is None or not self.training:
            return self.states(start, (0.0, self.final_time))[-1]
        final, mass = self.with_mass(start, *self.window)
        self.recorded.append(mass)
        return final

    @contextmanager
    def recording(self, low: float, high: float) -> Iterator[list[Tensor]]:
        """Every train-mode pass inside also leaves the integral of |f| over [low, high], [N,C,H,W], in this list."""
        self.window, self.recorded = (low, high), []
        try:
            yield self.recorded
        finally:
            self.window, self.recorded = None, []

    def states(self, start: Tensor, times: Sequence[float]) -> list[Tensor]:
        """The curve at `times` (rising), whose first entry is where `start` belongs.

        Raises:
            SolverError: if f is evaluated more than `max_evaluations` times, or dopri5 fails.
        """
        self.evaluations = 0
        if self._own_loop:
            found = [start]
            for low, high in pairwise(times):
                found.append(self._advance(found[-1], low, high))
            return found
        return list(self._torchdiffeq(self._rate, start, times).unbind())

    def with_mass(self, start: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """z(T), and the integral of |f(t, z(t))| over [low, high], element by element; both [N,C,H,W].

        The curve is followed once, from 0 to the later of T and `high`: Euler costs that time / step evaluations.
        """
        self.evaluations = 0
        state, mass, final = start, torch.zeros_like(start), start
        for begin, end in pairwise(sorted({0.0, self.final_time, low, high})):
            if low <= begin < high:
                state, gained = self._weighed(state, begin, end)
                mass = mass + gained
            else:
                state = self._advance(state, begin, end)
            final = state if end == self.final_time else final
        return final, mass

    def times(self, end: float, most: int) -> list[float]:
        """Times from 0 to `end`, a multiple of T, with T among them: those of the solver's steps, thinned to `most`."""
        count = max(1, math.ceil(self.final_time / self.step_size - 1e-6)) if not self.adaptive else most // 2
        total = round(end / self.final_time) * count
        thin = math.ceil(total / most)
        while count % thin:  # so that T is among them
            thin += 1
        return [end * index / total for index in range(0, total + 1, thin)]

    @property
    def _own_loop(self) -> bool:
        return not (self.adaptive or self.adjoint)

    def _rate(self, time: float | Tensor, state: Tensor) -> Tensor:
        self.evaluations += 1
        if self.evaluations > self.max_evaluations:
            reached = float(torch.as_tensor(time).detach())
            raise SolverError(
                f"{self.solver} needs more than max_evaluations = {self.max_evaluations} evaluations of f (time "
                f"{reached:.3g} of {self.final_time:g} reached): raise it, take longer steps or looser rtol and atol, "
                "or choose a fixed-step solver"
            )
        slope: Tensor = self.derivative(time, state)
        return slope

    def _steps(self, state: Tensor, low: float, high: float) -> Iterator[tuple[Tensor, Stages]]:
        """Fixed steps from time `low` to `high`: after each, the state, and what it was made of."""
        count = max(1, math.ceil((high - low) / self.step_size - 1e-6))
        size = (high - low) / count
        for index in range(count):
            state, stages = _STEPS[self.solver](self._rate, low + index * size, size, state)
            yield state, stages

    def _advance(self, state: Tensor, low: float, high: float) -> Tensor:
        """The state at `high` on the curve through `state` at `low`."""
        if not self._own_loop:
            final: Tensor = self._torchdiffeq(self._rate, state, (low, high))[-1]
            return final
        for moved, _ in self._steps(state, low, high):
            state = moved
        return state

    def _weighed(self, state: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """The state at `high`, and the integral of |f| since `low`."""
        if getattr(self.derivative, "nonnegative", False):  # |f| is f, whose integral is the way travelled
            final = self._advance(state, low, high)
            return final, final - state
        mass = torch.zeros_like(state)
        if self._own_loop:
            for moved, stages in self._steps(state, low, high):
                state = moved
                for weight, slope in stages:
                    mass = torch.add(mass, slope.abs(), alpha=weight)
            return state, mass

        def joint(time: Tensor, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            slope = self._rate(time, pair[0])
            return slope, slope.abs()

        states, masses = self._torchdiffeq(joint, (state, mass), (low, high))
        return states[-1], masses[-1]

    def _torchdiffeq(self, rate: Callable[..., Any], start: Any, times: Sequence[float]) -> Any:
        from torchdiffeq import odeint, odeint_adjoint  # only where it is used: it costs a second to import

        like = start[0] if isinstance(start, tuple) else start
        settings: dict[str, Any] = {"rtol": self.rtol, "atol": self.atol, "method": self.solver}
        if not self.adaptive:
            settings["options"] = {"step_size": self.step_size}
        if self.adjoint:
            settings["adjoint_params"] = tuple(self.derivative.parameters())
        try:
            return (odeint_adjoint if self.adjoint else odeint)(
                rate, start, torch.tensor(times, dtype=like.dtype, device=like.device), **settings
            )
        except AssertionError as error:  # how torchdiffeq says that a step underflows or a state is not finite
            raise SolverError(
                f"{self.solver} failed after {self.evaluations} evaluations of f ({error}): f has become stiff or not "
                "finite; lower training.lr, loosen rtol and atol, or choose a fixed-step solver"
            ) from error


def _euler(rate: Rate, time: float, size: float, state: Tensor) -> tuple[Tensor, Stages]:
    slope = rate(time, state)
    return torch.add(state, slope, alpha=size), [(size, slope)]


def _rk4(rate: Rate, time: float, size: float, state: Tensor) -> tuple[Tensor, Stages]:
    """Kutta's 3/8 rule."""
    first = rate(time, state)
    second = rate(time + size / 3, torch.add(state, first, alpha=size / 3))
    third = rate(time + 2 * size / 3, state + size * (second - first / 3))
    fourth = rate(time + size, state + size * (first - second + third))
    stages = [(size / 8, first), (3 * size / 8, second), (3 * size / 8, third), (size / 8, fourth)]
    for weight, slope in stages:
        state = torch.add(state, slope, alpha=weight)
    return state, stages


_STEPS = {"euler": _euler, "rk4": _rk4}
