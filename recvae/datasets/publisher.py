"""Download of a data set into the user's cache, from its publisher or from its second source."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from recvae.datasets import wheel
from recvae.datasets.fetch import download, is_offline
from recvae.datasets.formats import FILES, locate
from recvae.datasets.recipes import Recipe
from recvae.datasets.unzip import unzip
from recvae.errors import DataError, DownloadError

_KEPT_FILES = {*(name for names in FILES.values() for name in names), "README", "README.txt", "README.html"}


def obtain(recipe: Recipe, target: Path, show_progress: bool, tried: list[str]) -> str | None:
    """Download the data set into the new folder `target`; append to `tried` why each source failed.

    Returns
    -------
    str, optional
        The source that the data came from; None if every source failed.
    """
    sources: list[tuple[str, Callable[[], None]]] = []
    if recipe.downloads:
        address = recipe.downloads[0].url
        sources.append((address, lambda: _from_publisher(recipe, target, show_progress)))
    if recipe.wheel:
        requirement = f"the wheel of {recipe.wheel.requirement}"
        sources.append((requirement, lambda: _from_wheel(recipe, target)))
    for name, fill in sources:
        if is_offline():
            tried.append(f"{name}: not tried, $RECVAE_OFFLINE is set")
            continue
        try:
            fill()
        except (DownloadError, DataError) as error:
            tried.append(str(error))
        except OSError as error:
            tried.append(f"{name}: cannot be stored in {target.parent} ({error.strerror or error})")
        else:
            return name
        if target.is_dir() and locate(target):  # another process was faster
            return name
    return None


def _from_publisher(recipe: Recipe, target: Path, show_progress: bool) -> None:
    # A fixed name, so that the next call finds a download that broke off, and resumes it.
    staging = target.with_name(f"{target.name}.download")
    staging.mkdir(parents=True, exist_ok=True)
    files = Path(tempfile.mkdtemp(prefix="files.", dir=staging))  # of this process only
    try:
        for source in recipe.downloads:
            fetched = staging / source.filename
            download(source.url, fetched, source.checksum, show_progress=show_progress)
            if fetched.suffix != ".zip":
                shutil.copyfile(fetched, files / source.filename)
                continue
            try:
                unzip(fetched, files / "unzipped", only=_KEPT_FILES)
            except DataError:
                fetched.unlink()
                raise
        whole = unzipped if (unzipped := files / "unzipped").is_dir() else files
        whole.chmod(0o755)
        _place(whole, target)
        for source in recipe.downloads:
            (staging / source.filename).unlink(missing_ok=True)
    finally:
        shutil.rmtree(files, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: a download to resume, or another process at work
            staging.rmdir()


def _from_wheel(recipe: Recipe, target: Path) -> None:
    if recipe.wheel is None:
        raise DownloadError(f"{recipe.name} is in no wheel")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        wheel.extract(recipe.wheel, staging, wheel.pip_download)
        staging.chmod(0o755)
        _place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place(files: Path, target: Path) -> None:
    """Rename `files` to `target`, unless another process has put the data set there already."""
    if locate(files) is None:
        raise DataError(f"the download of {target.name} holds none of the files of a data set")
    try:
        files.rename(target)
    except OSError:
        if not target.is_dir() or locate(target) is None:
            raise
