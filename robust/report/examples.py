"""Adversarial examples as pictures: small PNGs with the perturbation magnified, and which ones are worth keeping.

The PNGs stand in report.json as data URIs, so that the page is rebuilt without a model or the data.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from robust.report.accuracy import collect
from robust.report.cells import Cells, Plan, ReportError, size
from robust.report.document import ExampleRow
from robust.report.samples import sample_rows

LARGEST = 96  # pixels of the longer side
BUDGET = 1_400_000  # characters of pictures in one report, which must stay under 3 MB


def worth_showing(study: Mapping[str, Any], rows: pa.Table, count: int = 8) -> list[dict[str, Any]]:
    """Which attacked images to keep for the report: half the most fragile samples, half the most robust.

    For each model and each attack with a size, as `{model, evaluation, sample}`; samples that the model gets wrong
    without attack are no examples.
    """
    cells = Cells(rows)
    plan = Plan(study, cells)
    fragile, sturdy = (
        [int((row.model_extra or {})["sample"]) for row in found] for found in sample_rows(collect(cells, plan, ()))
    )
    wanted = list(dict.fromkeys([*fragile[: count - count // 2], *sturdy[: count // 2]]))
    return [
        {"model": model["id"], "evaluation": entry["label"], "sample": sample}
        for model in plan.models
        for entry in plan.attacks
        if entry["eps"] and (model["id"], entry["label"]) in cells
        for sample in wanted
    ]


def example_rows(examples: Iterable[Mapping[str, Any]], plan: Plan) -> tuple[list[ExampleRow], int]:
    """Examples with their pictures until the budget of bytes is spent, and how many were left.

    Those of each group's first network come first, each lot in the order given, so that no group goes without.
    """
    first = {models[0] for models in plan.groups.values()}
    ranked = sorted(examples, key=lambda example: str(example["model"]) not in first)
    kept: list[ExampleRow] = []
    spent = 0
    for example in ranked:
        row = _row(example, plan)
        spent += len(row.clean) + len(row.perturbation) + len(row.adversarial)
        if spent > BUDGET:
            break
        kept.append(row)
    return kept, len(ranked) - len(kept)


def _row(example: Mapping[str, Any], plan: Plan) -> ExampleRow:
    clean, adversarial = (_image(example, key) for key in ("clean", "adversarial"))
    if clean.shape != adversarial.shape:
        raise ReportError(f"examples: clean {clean.shape} and adversarial {adversarial.shape} differ in shape")
    delta = adversarial.astype(np.int64) - clean.astype(np.int64)
    times = magnification(delta, plan.by_label.get(str(example["evaluation"]), {}))
    grey = np.clip(np.rint(128 + delta * times), 0, 255).astype(np.uint8)
    return ExampleRow(
        evaluation=str(example["evaluation"]),
        model=str(example["model"]),
        sample=int(example["sample"]),
        label=int(example["label"]),
        prediction_clean=int(example["prediction_clean"]),
        prediction_adv=int(example["prediction_adv"]),
        clean=png(clean),
        perturbation=png(grey),
        adversarial=png(adversarial),
        magnified=times,
    )


def magnification(delta: npt.NDArray[np.int64], entry: Mapping[str, Any]) -> float:
    """How many times a perturbation is enlarged: so that the threat's largest linf step just fills the grey scale.

    The same for all examples of a linf evaluation, so that they can be compared; by the image itself for l2 and l1.
    """
    if entry.get("norm") == "linf" and entry.get("eps"):
        largest = size(entry["eps"]) * 255
    else:
        largest = float(np.abs(delta).max(initial=0))
    return max(1.0, float(np.floor(127 / largest))) if largest > 0 else 1.0


def png(image: npt.NDArray[np.uint8], largest: int = LARGEST) -> str:
    """An image [C,H,W] with 1 or 3 channels (others are averaged) as a PNG data URI, at most `largest` pixels long."""
    pixels = image if len(image) in (1, 3) else image.mean(0, keepdims=True).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if max(picture.size) > largest:
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _image(example: Mapping[str, Any], key: str) -> npt.NDArray[np.uint8]:
    image = np.asarray(example[key])
    if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
        raise ReportError(f"examples: {key} must be uint8 [C,H,W], got {image.dtype} {image.shape}")
    return image
