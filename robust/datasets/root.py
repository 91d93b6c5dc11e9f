"""Where data sets lie: one folder, named by the environment variable ROBUST_DATA, by default ./data."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The data folder; it need not exist."""
    return Path(os.environ.get("ROBUST_DATA") or "data")
