"""What is kept, and where: journal, lake, index and warehouse."""

import sys
from types import ModuleType

import pyarrow as pa


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("nothing here needs it", name=name)


def _leave_pandas_out() -> None:
    """Have pyarrow's first look for pandas find none: it looks with the first list that becomes an array, and loads it.

    That would take 0.2 s and 40 MB of each process of a platform and of every command. Who wants a frame later
    (`to_pandas`) still gets it.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


_leave_pandas_out()
