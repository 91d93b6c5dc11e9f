"""One model string in, one loaded module out: which of the loaders reads it."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path

from torch import nn

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of, mode_notes
from robust.foreign.weights import unpickled

FORMS = (
    "module:function, NAME@weights.pt (torchvision or timm), model.safetensors with config.json, model.onnx, "
    "a TorchScript archive (.pt), a torch.export archive (.pt2), or models:/name@alias"
)
ARCHIVES = {".onnx": "onnx_file", ".safetensors": "safetensors_config", ".pt2": "exported"}
PICKLES = (".pt", ".pth", ".th", ".ts", ".bin", ".ckpt", ".jit", ".torchscript")


def load(source: Source) -> Loaded:
    """The model that a source names, in eval mode where it has one.

    Raises:
        ForeignError: if it cannot be loaded; the message names the file and the remedy.
    """
    name = loader_of(source)
    loaded: Loaded = (
        _pickled(source) if name == "pickled" else importlib.import_module(f"robust.foreign.{name}").load(source)
    )
    loaded.module.eval()
    return loaded


def loader_of(source: Source) -> str:
    """Which file of this folder reads the source.

    Raises:
        ForeignError: if it has none of the known forms.
    """
    text = source.text
    suffix = Path(text).suffix.lower()
    if "@" in text and not (source.folder / text).is_file():
        return "named_architecture"
    if suffix in ARCHIVES:
        return ARCHIVES[suffix]
    if suffix in PICKLES:
        return "torchscript" if _holds_code(source.path(text)) else "pickled"
    if ":" in text:
        return "python_factory"
    raise ForeignError(f"{text!r} is no model: expected {FORMS}")


def _pickled(source: Source) -> Loaded:
    """A whole module in a pickle: it runs code, so its file must be trusted."""
    path = source.path(source.text)
    found = unpickled(source, path)
    if not isinstance(found, nn.Module):
        raise ForeignError(
            f"{path} holds weights alone; say of which architecture of torchvision or timm, for example "
            f"resnet18@{source.text}; for a network of your own write a function that builds it and loads them, and "
            "give module:function"
        )
    form = f"a pickled {type(found).__name__}, {path.name}"
    return Loaded(found, form, digest_of(path), notes=mode_notes(found))


def _holds_code(path: Path) -> bool:
    """Whether an archive is TorchScript's: it carries its code as text."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names)
