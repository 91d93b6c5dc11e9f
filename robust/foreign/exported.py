"""A `torch.export` archive (.pt2), as `torch.export.save` writes it."""

from __future__ import annotations

import copy
import io
import json
import threading
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of
from robust.foreign.weights import refused

LOADING = threading.Lock()  # torch.export.load refuses to run twice at once in a process


class Exported(nn.Module):
    """An exported program as a module: its mode was fixed when it was exported, and asking for one raises.

    Where the number of images was fixed too (`torch.export.export` without `dynamic_shapes` does that), images go
    through in pieces of that many, the last one filled up with copies of its last image.
    """

    def __init__(self, program: nn.Module, batch: int | None = None) -> None:
        super().__init__()
        self.program = program
        self.batch = batch

    def forward(self, images: Tensor) -> Tensor:
        """What the program returns."""
        if self.batch is None or len(images) == self.batch:
            found: Tensor = self.program(images)
            return found
        return torch.cat([self._piece(piece) for piece in images.split(self.batch)])

    def _piece(self, images: Tensor) -> Tensor:
        missing = (self.batch or len(images)) - len(images)
        found: Tensor = self.program(torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]))
        return found[: len(images)]

    def __deepcopy__(self, memo: dict[int, Any]) -> Exported:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of how it copies a graph
            twin = Exported(copy.deepcopy(self.program, memo), self.batch)
        twin.training = self.training
        return twin

    def train(self, mode: bool = True) -> Exported:
        """Sets only this module's own flag."""
        self.training = mode
        return self


def load(source: Source) -> Loaded:
    """The archive's program; pickles in it that would run code are refused unless the file is trusted.

    Raises:
        ForeignError: if the archive is damaged, or would run code.
    """
    path = source.path(source.text)
    if not zipfile.is_zipfile(path):
        raise ForeignError(f"{path} is not a torch.export archive; copy it again, or export it again")
    if not source.trusts(path):
        _check(path)
    try:
        with LOADING:
            program = torch.export.load(str(path))
        module = Exported(program.module(), _fixed_batch(program))
    except (RuntimeError, ValueError, KeyError) as error:
        raise ForeignError(f"{path} is not a readable torch.export archive ({error}); export it again") from error
    return Loaded(module, f"a torch.export archive, {path.name}", digest_of(path))


def _fixed_batch(program: torch.export.ExportedProgram) -> int | None:
    """How many images the program takes at once, if that was fixed; None where any number will do."""
    first = next(iter(program.graph_signature.user_inputs), None)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name == first]
    size = shapes[0][0] if shapes and len(shapes[0]) else None
    return size if isinstance(size, int) else None


def _check(path: Path) -> None:
    """Refuse an archive in which any member that torch unpickles holds more than tensors.

    `torch.export.load` reads sample inputs, and tensors marked `use_pickle`, by unpickling, and falls back to running
    code. Plain numbers and JSON are safe; every other member must be readable with `weights_only=True`.
    """
    with zipfile.ZipFile(path) as archive:
        safe = _plain_members(archive)
        for name in archive.namelist():
            content = archive.read(name)
            if name in safe or not content:
                continue
            try:
                torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
                raise refused(path, error) from error


def _plain_members(archive: zipfile.ZipFile) -> set[str]:
    """Members that are read as JSON, as version marks, or as the raw numbers of a tensor."""
    marks = ("archive_format", "archive_version", "byteorder", "version", "serialization_id")
    names = archive.namelist()
    found = {name for name in names if name.endswith(".json") or name.rpartition("/")[2] in marks}
    for name in names:
        if name.endswith(("_weights_config.json", "_constants_config.json")):
            folder = name.rpartition("/")[0]
            entries = json.loads(archive.read(name)).get("config", {}).values()
            found |= {
                f"{folder}/{entry['path_name']}"
                for entry in entries
                if entry.get("use_pickle") is False and entry.get("tensor_meta")
            }
    return found
