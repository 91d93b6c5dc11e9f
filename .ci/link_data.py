#!/usr/bin/env python3
"""Make a ROBUST_DATA folder out of a folder of shared data, by links where the files can be used as they lie.

    python .ci/link_data.py SHARED DEST

Links each data set's folder, unpacks tiny-imagenet-10.zip, and runs SHARED/unpack_cifar10.py DEST, which writes
the published binary version of CIFAR-10. What is already there is left alone, so a second run is quick. What
SHARED does not hold is named and left out: tests that need it are deselected.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LINKED = (
    "MNIST",
    "FashionMNIST",
    "KMNIST",
    "EMNIST",
    "USPS",
    "notMNIST",
    "omniglot",
    "cifar10h",
    "cifar10n",
    "cifar-10-batches-py",
    "cifar-100-python",
    "svhn",
    "nets",
    "imagenet_samples",
)


def link(source: Path, target: Path) -> None:
    """A symbolic link; an older link that points elsewhere is replaced, a real folder is left alone."""
    if target.is_symlink():
        if target.resolve() == source:
            return
        target.unlink()
    if not target.exists():
        target.symlink_to(source, target_is_directory=True)


def unpack(archive: Path, dest: Path) -> None:
    """The archive's one folder, named as the archive, moved into place when it is whole."""
    name = archive.stem
    if (dest / name).is_dir():
        return
    with tempfile.TemporaryDirectory(dir=dest) as part:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(part)
        os.replace(Path(part) / name, dest / name)


def main() -> None:
    """Make the folder and print where it is."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    shared, dest = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    if not shared.is_dir():
        sys.exit(f"{shared} is not a folder")
    dest.mkdir(parents=True, exist_ok=True)
    absent = [name for name in LINKED if not (shared / name).is_dir()]
    for name in LINKED:
        if name not in absent:
            link(shared / name, dest / name)
    if (shared / "tiny-imagenet-10.zip").is_file():
        unpack(shared / "tiny-imagenet-10.zip", dest)
    if (shared / "unpack_cifar10.py").is_file():
        subprocess.run(
            [sys.executable, str(shared / "unpack_cifar10.py"), str(dest)], check=True, stdout=subprocess.DEVNULL
        )
    if absent:
        sys.stdout.write(f"not in {shared}: {', '.join(absent)}\n")
    sys.stdout.write(f"{dest}\n")


if __name__ == "__main__":
    main()
