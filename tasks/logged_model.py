"""Logged models: a trained classifier as an MLflow model from code, with safetensors and a signature.

The steps are MLflow's own `log_model`, taken one by one through the client because that function works on the
thread's active run, which we never have. Requirements are given: inferring them imports the model and costs seconds.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robust.method import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUIRED = ("robust-flows", "mlflow", "torch", "safetensors", "numpy")


def log_model(client: MlflowClient, run_id: str, data: Mapping[str, Any]) -> str:
    """Log one model under a run and return its id, once its status is READY.

    Args:
        client: connected client.
        run_id: the run that trained it.
        data: `name`; `settings` (a model's `settings()`); `inputs` (an `Inputs` as JSON); `paths` (one file:
            safetensors of the module's state); `digest` of the weights.
    """
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(
        experiment, name=data["name"], source_run_id=run_id, tags={"robust.sha256": data["digest"]}, model_type="pyfunc"
    )
    status: Literal["READY", "FAILED"] = "FAILED"
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder) / "model", data, run_id=run_id, model_id=model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        status = "READY"
    finally:
        client.finalize_logged_model(model.model_id, status)
    model_id: str = model.model_id
    return model_id


def save_model(path: Path, data: Mapping[str, Any], *, run_id: str | None = None, model_id: str | None = None) -> None:
    """Write the model as a folder that `mlflow.pyfunc.load_model` reads with pickle barred."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow misses an example and a type hint, on import too; the signature says what they would
        warnings.filterwarnings("ignore", message=".*(input example|type hint)", category=UserWarning)
        import mlflow.pyfunc
        from mlflow.models import Model

        config = Path(folder) / "config.json"
        config.write_text(canonical_json({"model": data["settings"], "inputs": data["inputs"]}), encoding="utf-8")
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"weights": data["paths"][0], "config": str(config)},
            signature=signature(data["inputs"]),
            pip_requirements=requirements(),
        )


def signature(inputs: Mapping[str, Any]) -> Any:
    """Images [N,C,H,W] in, logits [N,K] out, both float32."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.float32), (-1, *inputs["shape"]), "images")
    logits = TensorSpec(np.dtype(np.float32), (-1, inputs["num_classes"]))
    return ModelSignature(Schema([TensorSpec(images.type, images.shape)]), Schema([logits]))


def requirements() -> list[str]:
    """Exact versions of what loading needs, without local labels (`2.13.0+cpu` is 2.13.0 to an index)."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIRED]
