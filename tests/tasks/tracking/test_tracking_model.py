"""A logged model comes back in a fresh process, with pickle barred, and says the same."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robust.models.model import Inputs
from robust.registry import create
from tasks.tracking import Tracker

INPUTS = Inputs(shape=(1, 8, 8), num_classes=10, mean=(0.3,), std=(0.35,))


@pytest.fixture
def logged(home):
    model = create("model", {"name": "mlp", "hidden": [16]})
    torch.manual_seed(0)
    classifier = model.classifier(INPUTS).eval()
    weights = home / "weights.safetensors"
    save_file(classifier.module.state_dict(), weights)
    tracker = Tracker(home)
    child = tracker.flow_run("study", "flow-1").child("mlp-s0")
    arguments = {"settings": model.settings(), "inputs": INPUTS.model_dump(mode="json"), "weights": weights}
    child.log_model(**arguments, name="mlp-s0", register="robust-digits-mlp")
    child.log_model(**arguments, name="mlp-s0", register="robust-digits-mlp")
    child.log_metrics({"clean/acc": 0.9})
    return tracker, child, classifier


def test_the_round_trip_in_a_fresh_process_with_pickle_barred(home, logged, tmp_path):
    tracker, _, classifier = logged
    tracker.set_alias("robust-digits-mlp", "champion", "1")
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "images.npy", images.numpy())
    script = textwrap.dedent("""
        import sys
        import mlflow
        import numpy as np
        model = mlflow.pyfunc.load_model("models:/robust-digits-mlp@champion")
        images = np.load(sys.argv[1])
        np.save(sys.argv[2], model.predict(images))
        for wrong in (images * 255, images[:, :, :4]):
            try:
                model.predict(wrong)
            except Exception as error:
                print(type(error).__name__, str(error).splitlines()[0])
            else:
                raise SystemExit("wrong images were taken")
    """)
    barred = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracker.uri}
    command = [sys.executable, "-c", script, str(tmp_path / "images.npy"), str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True, env={**os.environ, **barred}, cwd=tmp_path)
    with torch.no_grad():
        expected = classifier(images).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-6, atol=1e-6)


def test_a_model_is_logged_once_without_pickle_and_its_metrics_are_linked(home, logged):
    tracker, child, _ = logged
    assert tracker.versions("robust-digits-mlp") == {"1": child.run_id}
    assert tracker.version_of("robust-digits-mlp", "champion") is None, "an alias moves by explicit call alone"
    files = {path.name for path in (home / "mlartifacts").rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pt", ".pth"))]
    assert {"weights.safetensors", "config.json", "pyfunc_model.py", "MLmodel", "requirements.txt"} <= files
    config = json.loads(next((home / "mlartifacts").rglob("config.json")).read_text())
    assert config["model"] == {"name": "mlp", "hidden": [16]}
    client = tracker._delivery.client()
    experiment = client.get_experiment_by_name("study").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert (model.status, [(m.key, m.value) for m in model.metrics]) == ("READY", [("clean/acc", 0.9)])


def test_a_cache_hit_points_to_the_model_of_its_source(home, logged):
    tracker, child, _ = logged
    replay = tracker.flow_run("study", "flow-2").replay("mlp-s0", source_run_id=child.run_id)
    client = tracker._delivery.client()
    source, hit = client.get_run(child.run_id), client.get_run(replay.run_id)
    assert hit.outputs.model_outputs[0].model_id == source.data.tags["robust.model_id"]


def test_a_hit_that_knows_only_its_work_finds_the_run_that_did_it(home):
    tracker = Tracker(home)
    first = tracker.flow_run("study", "flow-1").child("mlp-s0", tags={"robust.cache": "miss", "robust.work": "train-1"})
    tags = {"robust.cache": "hit", "robust.work": "train-1", "robust.key": "mine to set"}
    hit = tracker.flow_run("another-study", "flow-2").child("mlp-s0", tags=tags)
    found = tracker._delivery.client().get_run(hit.run_id).data.tags
    assert found["robust.source_run_id"] == first.run_id
    assert found["robust.key"] == "mlp-s0", "the tags by which runs are found cannot be replaced"
