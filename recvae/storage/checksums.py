"""Checksums of files."""

import hashlib
from pathlib import Path


def digest_file(file: Path, algorithm: str = "sha256") -> str:
    """Compute the hexadecimal digest of a file's content.

    Parameters
    ----------
    algorithm : str
        A name that `hashlib` knows. Checksums guard against damage here, so that MD5 will do where a publisher gives
        nothing better.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
