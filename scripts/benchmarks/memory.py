"""How much memory a process has had."""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes(pid: int | None = None) -> int:
    """Most memory that a process ever had. What `getrusage` says begins with that of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid or 'self'}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
