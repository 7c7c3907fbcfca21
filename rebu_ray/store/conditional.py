"""Creating an object only where there is none yet: what a claim is made of, and what `pyarrow.fs` cannot ask for.

S3 and what speaks its protocol, Google's and Azure's stores refuse the second of two creations themselves. A store of
another kind (HDFS) is written to and read back after a moment: two claims within that moment may both succeed.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

_READ_BACK_SECONDS: Final = 2.0
_CONDITIONAL: Final = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss"}


def creator(uri: str, fs: pafs.FileSystem, root: str) -> Callable[[str], bool]:
    """What creates an empty object of a name below `root`: whether it did, or somebody was quicker.

    It raises OSError where the store cannot be asked.
    """
    if isinstance(fs, pafs.LocalFileSystem):
        return lambda name: _create_file(f"{root}/{name}")
    create = conditional(uri)
    if create is not None:
        return lambda name: create(name, b"")
    return lambda name: _written_first(fs, f"{root}/{name}")


def conditional(uri: str) -> Callable[[str, bytes], bool] | None:
    """What creates an object with its content below a URI, and answers whether it did; None where the store has no
    such thing. It raises OSError where the store cannot be asked.
    """
    return _conditional(uri) if urlsplit(uri).scheme in _CONDITIONAL else None


def _create_file(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _conditional(uri: str) -> Callable[[str, bytes], bool]:
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    made: list[Any] = []

    def create(name: str, data: bytes) -> bool:
        try:
            if not made:
                made.append(_object_store(uri))
            made[0].put(name, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        except (BaseError, ValueError) as error:
            raise OSError(f"{name} cannot be created ({str(error).strip().splitlines()[0]})") from error
        return True

    return create


def _object_store(uri: str) -> Any:
    """The store of a `pyarrow.fs` URI, with the settings that its query may hold for S3."""
    from obstore.store import S3Store, from_url

    parts = urlsplit(uri)
    scheme = _CONDITIONAL[parts.scheme]
    if scheme != "s3":
        return from_url(parts._replace(scheme=scheme, query="").geturl())
    asked = dict(parse_qsl(parts.query))
    config: dict[str, Any] = {}
    protocol = asked.get("scheme", "https")
    if endpoint := asked.get("endpoint_override"):
        config["endpoint"] = endpoint if "://" in endpoint else f"{protocol}://{endpoint}"
    if region := asked.get("region"):
        config["region"] = region
    if parts.username and parts.password:
        config |= {"access_key_id": unquote(parts.username), "secret_access_key": unquote(parts.password)}
    bucket = parts.netloc.rpartition("@")[2]
    return S3Store(
        bucket,
        prefix=parts.path.strip("/") or None,
        config=config,  # type: ignore[arg-type]
        client_options={"allow_http": protocol == "http"},
    )


def _written_first(fs: pafs.FileSystem, path: str) -> bool:
    if fs.get_file_info(path).type != pafs.FileType.NotFound:
        return False
    token = uuid.uuid4().bytes
    with fs.open_output_stream(path) as out:
        out.write(token)
    time.sleep(_READ_BACK_SECONDS)
    with fs.open_input_stream(path) as file:
        return bool(file.read() == token)
