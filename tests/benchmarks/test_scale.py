"""The scale benchmark at a small size: every shard comes from the cache, and the figures are there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "scale.py"


def measured(*arguments: str, timeout: float) -> list[list[float]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [[float(number) for number in line.split()] for line in done.stdout.splitlines()[1:]]


def test_sixty_cached_shards_are_played_without_computing_one():
    ((shards, seconds, _, _, _, peak_mb, imports_mb),) = measured("--shards", "60", timeout=400)
    assert shards == 60
    assert seconds > 0
    assert imports_mb < peak_mb < 1500


@pytest.mark.soak
def test_the_cost_grows_with_the_shards_and_no_faster():
    few, many = measured("--shards", "500", "2000", timeout=3600)
    assert many[2] <= 1.5 * few[2], "ms a shard must not grow with the number of shards"
    assert many[5] < 1500


def test_a_study_of_any_size_has_that_many_shards():
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    for shards in (40, 600):
        text = scale.study_of(shards)
        samples = int(text.partition("test: ")[2].partition("}")[0])
        assert text.count("gaussian-noise") * samples == shards
