"""The file that MLflow stores as a model ("models from code"): rebuilds a classifier from its settings and weights.

Nothing is pickled: `config.json` names the architecture with its hyperparameters and inputs, `weights.safetensors`
holds the module's state. Loading needs this package (pip requirement `robust-flows`) and executes only this file.
`predict` takes images [N,C,H,W] in [0,1] and returns logits [N,K].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel
from safetensors.torch import load_file

from robust.models.model import Inputs, Model
from robust.registry import create

BATCH = 256


class RobustModel(PythonModel):
    """A trained classifier behind MLflow's predict."""

    def load_context(self, context: Any) -> None:
        """Rebuild the classifier from the two files beside this one.

        Raises:
            RuntimeError: the weights do not belong to the architecture that the configuration names.
        """
        config = json.loads(Path(context.artifacts["config"]).read_text(encoding="utf-8"))
        model = create("model", config["model"])
        if not isinstance(model, Model):
            raise TypeError(f"{config['model']} is not a model")
        self.classifier = model.classifier(Inputs.model_validate(config["inputs"])).eval()
        self.shape = tuple(config["inputs"]["shape"])
        self.classifier.module.load_state_dict(load_file(context.artifacts["weights"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Logits [N,K] of images [N,C,H,W] in [0,1].

        Raises:
            ValueError: another shape, or values outside [0,1].
        """
        images = torch.as_tensor(model_input)
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"expected images [N,{','.join(map(str, self.shape))}], got {list(images.shape)}")
        if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError("images must lie in [0,1]; divide 8-bit images by 255")
        images = images.to(self.classifier.device, self.classifier.dtype)
        with torch.no_grad():
            logits = [self.classifier(batch) for batch in images.split(BATCH)]
        return torch.cat(logits).cpu().numpy()


mlflow.models.set_model(RobustModel())
