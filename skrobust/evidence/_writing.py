"""Evidence written: each file appears whole, or not at all."""

import contextlib
import hashlib
import io
import json
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np

from skrobust._validation import expected
from skrobust._version import __version__
from skrobust.evidence._checker import FORMAT, VERSION

__all__ = ["Writer", "claim_bytes", "packed"]

_MANIFEST, _NETWORK = "manifest.json", "network.npz"


def packed(arrays, *, compress):
    """Return arrays as the bytes of an npz file: the same bytes for the same arrays."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(
                part, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, part.getvalue(), compress_type=method, compresslevel=4)
    return stream.getvalue()


def claim_bytes(**entries):
    """Return the claim of a point as the array of bytes that its file has."""
    return np.frombuffer(json.dumps(entries).encode(), dtype=np.uint8)


class Writer:
    """Writes a folder of evidence about one network.

    Parameters
    ----------
    folder : str or path-like
        Made where it is not there yet.
    network : dict of str to ndarray
        From `network_arrays`.

    Attributes
    ----------
    digest : str
        SHA-256 of ``network.npz``, in hexadecimal digits; each claim names it.

    Raises
    ------
    ValueError
        If the folder holds evidence about another network, or other files.
    OSError
        If it cannot be written to.
    """

    def __init__(self, folder, network):
        self.folder = Path(folder)
        data = packed(network, compress=False)
        self.digest = hashlib.sha256(data).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        there = self.folder / _NETWORK
        if there.exists():
            if there.read_bytes() != data:
                raise ValueError(
                    expected(
                        "evidence",
                        str(folder),
                        "a folder that is new, or has evidence about the same network: "
                        "network.npz is of another one",
                    )
                )
        else:
            self._write(_NETWORK, data)

    def add(self, arrays):
        """Write the file of one point; return its name, which follows from what it claims.

        Parameters
        ----------
        arrays : dict of str to ndarray

        Returns
        -------
        str
        """
        name = f"point-{_digest(arrays)}.npz"
        self._write(name, packed(arrays, compress=True))
        return name

    def finish(self, about, names):
        """Write the manifest.

        Parameters
        ----------
        about : dict
            Text for readers: what the property is, what has no evidence.
        names : list of str
            Of the files of all points.
        """
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "library": f"skrobust {__version__}",
            "network": self.digest,
            **about,
            "points": sorted(set(names)),
        }
        self._write(_MANIFEST, json.dumps(manifest, indent=1).encode())

    def _write(self, name, data):
        """Write a file under another name, and rename it when all of it is on the disk."""
        temporary = self.folder / f".writing-{secrets.token_hex(8)}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _digest(arrays):
    """Return what tells claims apart: all but the proof itself."""
    total = hashlib.sha256()
    for name in ("claim", "center", "epsilon", "lower", "upper", "A", "b", "clause", "point"):
        if name in arrays:
            total.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()[:24]
