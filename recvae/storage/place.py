"""`Place`: an address in an object store, and every call on it, with what the store says explained in one line."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.errors import ArtifactError, DownloadError, MissingDependencyError, RecvaeError, first_line, redact_url
from recvae.storage.cache import cache_dir
from recvae.storage.manifest import is_file_name

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

PART_BYTES = 32 << 20
_BUCKET = re.compile(r"[\w.$-]+")
_STATUS = re.compile(r"status code: (\d{3})")


@dataclass(frozen=True)
class Place:
    """An address: the store of its bucket, and the name in it. Every call explains what the store says."""

    address: str
    store: "ObjectStore"
    name: str

    @classmethod
    def parse(cls, address: str) -> "Place":
        """Parse an address; `DownloadError` if it is none, or holds credentials."""
        scheme, _, rest = address.partition("://")
        bucket, _, name = rest.partition("/")
        name = name.strip("/")
        if "@" in bucket or "?" in address:
            raise DownloadError(
                f"{redact_url(address).partition('?')[0]} holds credentials; they belong in the environment"
            )
        if not _BUCKET.fullmatch(bucket) or not all(map(is_file_name, name.split("/"))):
            raise DownloadError(f"{redact_url(address)} is no address of an object; expected such as s3://bucket/name")
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ModuleNotFoundError:
            raise MissingDependencyError(f"{address} needs obstore; install recvae[cloud]") from None
        retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
        try:
            store = from_url(f"{scheme.lower()}://{bucket}", client_options={"allow_http": True}, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise DownloadError(f"{address} cannot be opened: {first_line(error)}") from None
        return cls(address, store, name)

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    def cache(self, what: str) -> Path:
        """Name the folder of the cache for copies of this kind."""
        return cache_dir() / "objects" / digest_values(self.address.rstrip("/")) / what

    def head(self, path: str) -> "ObjectMeta | None":
        """Describe an object; None if there is none."""
        import obstore

        with self._explain(), contextlib.suppress(FileNotFoundError):
            return obstore.head(self.store, path)
        return None

    def read(self, path: str) -> bytes | None:
        """Read an object; None if there is none."""
        import obstore

        with self._explain(), contextlib.suppress(FileNotFoundError):
            return bytes(obstore.get(self.store, path).bytes())
        return None

    def list_objects(self) -> list["ObjectMeta"]:
        """List the objects below the name, in the order of their paths."""
        import obstore

        with self._explain():
            found = [entry for entries in obstore.list(self.store, f"{self.name}/") for entry in entries]
        inside = [entry for entry in found if entry["path"].startswith(f"{self.name}/")]  # and no mark of a folder
        return sorted(inside, key=lambda entry: entry["path"])

    def download(self, found: "ObjectMeta", target: Path) -> None:
        """Copy an object to a file in parts, each of which is tried again where it fails."""
        import obstore

        with target.open("wb") as stream:
            for start in range(0, found["size"], PART_BYTES):
                options: Any = {"range": (start, min(start + PART_BYTES, found["size"]))}
                if found["e_tag"]:  # all parts are of one version
                    options["if_match"] = found["e_tag"]
                with self._explain():
                    part = obstore.get(self.store, found["path"], options=options).bytes()
                stream.write(part)

    def put(self, path: str, content: bytes | Path) -> None:
        """Write an object, in one step."""
        import obstore

        with self._explain("written", ArtifactError):
            obstore.put(self.store, path, content)

    def delete(self, paths: list[str]) -> None:
        """Delete objects."""
        import obstore

        if paths:
            with self._explain("written", ArtifactError):
                obstore.delete(self.store, paths)

    @contextmanager
    def _explain(self, done: str = "read", kind: type[RecvaeError] = DownloadError) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise kind(f"{self.address} cannot be {done}: {_find_reason(error)}") from None


def _find_reason(error: Exception) -> str:
    text, name = str(error), type(error).__name__
    status = _STATUS.search(text)
    if "169.254." in text:  # where a machine of the cloud asks for its role
        return "no credentials were found; expected them in the environment, such as AWS_ACCESS_KEY_ID"
    if name in ("PermissionDeniedError", "UnauthenticatedError") or (status and status[1] in ("401", "403")):
        return "permission denied, with the credentials of the environment"
    if isinstance(error, FileNotFoundError) or (status and status[1] == "404"):
        return "there is no such bucket or object"
    if name == "PreconditionError":
        return "it was replaced while it was read"
    return re.sub(r"\?\S*", "", first_line(error))  # a query may be signed


def digest_values(*values: object) -> str:
    """Compute a short digest of some values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
