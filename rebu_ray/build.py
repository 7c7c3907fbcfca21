"""Which Rebu a process runs: while one version takes the place of another, not all of them run the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from rebu_ray import __version__

PACKAGE: Final = Path(__file__).resolve().parent


def digest(package: Path) -> str:
    """Stands for the code of a package: 12 hex digits."""
    found = hashlib.blake2b(digest_size=6)
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


BUILD: Final = f"{__version__}+{digest(PACKAGE)}"
"""The version, and the code as it was when this process began."""
