"""The plots behind the verdict, as data: every figure in the format that the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from robust.diagnostics.budget import Budget
from robust.diagnostics.determinism import Function
from robust.diagnostics.gradients import Gradients
from robust.diagnostics.probe import Probe

Figure = dict[str, Any]

# only images that are right when clean are looked at, so these shares lie above the accuracies of the tables
SHARE = "share of clean-right images"
TOLD = "Of the images looked at, all right when clean, the share still right, with 95 % Wilson intervals."


def figures(
    model: str, probe: Probe, spent: Budget, slopes: Gradients, function: Function, wins: Mapping[str, Tensor]
) -> list[Figure]:
    """Line figures of one model and threat: `{id, title, x_label, y_label, caption, series: [{label, x, y, ...}]}`."""
    where = f"{model}, {probe.threat}"
    key = f"{model}-{probe.threat.norm}-{str(probe.threat).split()[-1].replace('/', '-')}"
    whole = {radius: mask for radius, mask in spent.whole_box.items() if probe.threat.norm == "linf"}
    bars = {"plain": spent.by_steps[40], "plain and margin, 3 starts": spent.reference}
    bars |= {name: spent.reference | mask for name, mask in wins.items()}
    shares = {
        "zero gradient, cross-entropy": slopes.zero_ce,
        "zero gradient, margin": slopes.zero_margin,
        "non-finite": slopes.unfinite,
    }
    differences = {"same twice": function.twice, "alone": function.company, "watched": function.watched,
                   "train mode": function.mode_logits, "rounding": function.tolerance}  # fmt: skip
    return [
        _figure(f"{key}-steps-loss", f"Loss along the attack ({where})", "step", "mean loss", [
            _line("cross-entropy", list(range(len(spent.rise_ce))), spent.rise_ce),
            _line("margin", list(range(len(spent.rise_margin))), spent.rise_margin)]),
        _shares(f"{key}-eps", f"Still right against eps ({where})", "eps",
                [_still_right("margin, 20 steps", spent.by_radius | whole)]),
        _shares(f"{key}-steps", f"Still right against steps ({where})", "steps",
                [_still_right("cross-entropy", spent.by_steps)]) | {"x_log": True},
        _shares(f"{key}-restarts", f"Still right against restarts ({where})", "starts",
                [_still_right("margin, 40 steps", dict(enumerate(spent.by_restarts, 1)))]),
        _shares(f"{key}-rivals", f"What other attacks leave ({where})", "attack", [
            _still_right(name, {float(place): mask}) for place, (name, mask) in enumerate(bars.items())],
            f"{TOLD} Each point adds one attack to the reference; honest networks show one level."),
        _figure(f"{key}-gradients", f"Unusable gradients ({where})", "kind", "share of images", [
            _line(name, [float(place)], [share]) for place, (name, share) in enumerate(shares.items())],
            y_range=[0.0, 1.0]),
        _figure(f"{key}-function", f"Is it one function? ({where})", "comparison", "difference of logits / spread", [
            _line(name, [float(place)], [min(value, 1e6)]) for place, (name, value) in enumerate(differences.items())]),
    ]  # fmt: skip


def _figure(identity: str, title: str, x_label: str, y_label: str, series: list[Figure], **further: Any) -> Figure:
    return {"id": identity, "title": title, "x_label": x_label, "y_label": y_label, "series": series, **further}


def _shares(identity: str, title: str, x_label: str, series: list[Figure], caption: str = TOLD) -> Figure:
    return _figure(identity, title, x_label, SHARE, series, caption=caption, y_range=[0.0, 1.0])


def _line(label: str, x: list[float] | list[int], y: list[float]) -> Figure:
    kept = [(float(a), float(b)) for a, b in zip(x, y) if torch.isfinite(torch.tensor(b))]
    return {"label": label, "x": [a for a, _ in kept], "y": [b for _, b in kept]}


def _still_right(label: str, broken: Mapping[Any, Tensor]) -> Figure:
    """The share that is still right, with its 95 % Wilson interval, at each budget."""
    x, y, low, high = [], [], [], []
    for place, mask in broken.items():
        right = int((~mask).sum())
        interval = stats.binomtest(right, len(mask)).proportion_ci(0.95, method="wilson")
        x.append(float(place))
        y.append(right / len(mask))
        low.append(float(interval.low))
        high.append(float(interval.high))
    return {"label": label, "x": x, "y": y, "low": low, "high": high}
