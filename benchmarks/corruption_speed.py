"""The common corruptions beside the public per-image implementation: images a second, at equal severity.

Run it as `python benchmarks/corruption_speed.py [side...]`, sides in pixels (default: 32 and 224), with
`imagenet_samples` under ROBUST_DATA and `imagecorruptions`, `scikit-image` and `opencv-python-headless` installed. Both
sides get the same photographs and the constants of ImageNet-C, each in the form it works on: ours one float batch
[N,3,side,side], theirs 8-bit images one by one. At 32 px a batch is a shard of 500, as evaluations hand it over, and
one of 40, where every operation of torch is felt; at 224 px it is 50. CPU time of one thread, median of three
interleaved rounds. Equal severity is measured too: the mean absolute difference to the clean image of both, in 8-bit
levels. Goals: geometric mean of the ratios at least 10, none below 1.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from corruption_peer import peer_image, peer_names
from corruption_sheet import photographs
from torch import Tensor
from torch.nn import functional as F

from robust.randomness import Randomness
from robust.registry import create

SEVERITY, ROUNDS = 3, 3
BATCHES = [(32, 500), (32, 40), (224, 50)]  # side in pixels, images
RESULT = Path(__file__).parent / "results" / "corruption_speed.json"


def ours(name: str, images: Tensor) -> Tensor:
    """[N,3,H,W] in [0,1], in and out, as one batch."""
    corruption = create("corruption", {"name": name, "severity": SEVERITY, "table": "imagenet"})
    return corruption.apply(images, Randomness.of(0, range(len(images)), name))


def theirs(name: str, images: list[np.ndarray]) -> list[np.ndarray]:
    """8-bit [H,W,3] in and out, image by image."""
    return [peer_image(name, SEVERITY, image) for image in images]


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(name: str, images: Tensor) -> dict[str, float]:
    """Images a second of both, their ratio, and how far both go from the clean image (in 8-bit levels)."""
    bytes_ = list((images.permute(0, 2, 3, 1) * 255).round().byte().numpy())
    few = bytes_[:4] if name == "glass-blur" else bytes_[:40]  # the peer takes up to a second an image
    away = {
        "ours": float((ours(name, images)[:40] - images[:40]).abs().mean()) * 255,
        "theirs": float(np.abs(np.stack(theirs(name, few)).astype(float) - few).mean()),
    }
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        spent["ours"].append(seconds(lambda: ours(name, images)) / len(images))
        spent["theirs"].append(seconds(lambda: theirs(name, few)) / len(few))
    rate = {side: 1 / statistics.median(times) for side, times in spent.items()}
    return {
        "ours": round(rate["ours"], 1),
        "theirs": round(rate["theirs"], 1),
        "ratio": round(rate["ours"] / rate["theirs"], 2),
        "distance_ours": round(away["ours"], 2),
        "distance_theirs": round(away["theirs"], 2),
    }


def at_size(side: int, count: int, names: tuple[str, ...]) -> dict[str, object]:
    """The table of one image size, for batches of `count`."""
    images = F.interpolate(photographs(10), size=side, mode="area").repeat(-(-count // 10), 1, 1, 1)[:count]
    found = {}
    for name in names:
        found[name] = compare(name, images)
        print(
            f"{side:4} x {count:<4} {name:20}" + "  ".join(f"{key} {value:9.2f}" for key, value in found[name].items())
        )
    ratios = [row["ratio"] for row in found.values()]
    summary = {"geometric_mean": round(statistics.geometric_mean(ratios), 2), "lowest": min(ratios)}
    print(f"{side:4} x {count:<4} geometric mean {summary['geometric_mean']}, lowest {summary['lowest']}")
    return {"side": side, "images": len(images), **summary, "corruptions": found}


def main(batches: list[tuple[int, int]], names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    setting = {"peer": "imagecorruptions 1.1.2", "severity": SEVERITY, "threads": 1}
    result = {**setting, "sizes": [at_size(*batch, names) for batch in batches]}
    unfinished = RESULT.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(unfinished, RESULT)


if __name__ == "__main__":
    wanted = [int(side) for side in sys.argv[1:]]
    main([batch for batch in BATCHES if batch[0] in wanted or not wanted], peer_names())
