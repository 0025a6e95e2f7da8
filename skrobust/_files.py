"""Files from strangers, read up to a size; those that gzip has packed are unpacked on the way."""

import gzip
import zlib
from pathlib import Path

__all__ = ["read_limited"]

_PART = 2**20  # bytes


def read_limited(path, most_bytes):
    """Return the bytes of a file, unpacked where its name ends in ``.gz``.

    Parameters
    ----------
    path : str or path-like
    most_bytes : int
        Of the file, and of what it unpacks to. No more than that is unpacked.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If it is larger, or is packed and broken.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            # In parts, since a file is asked for room for all that it may have.
            parts, left = [], most_bytes + 1
            while part := file.read(min(left, _PART)):
                parts.append(part)
                left -= len(part)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"Got {path}, which gzip cannot unpack: {error}.") from error
    if left == 0:
        raise ValueError(f"Got {path}, but expected a file of at most {most_bytes} bytes.")
    return b"".join(parts)
