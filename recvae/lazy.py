"""Names that are imported when they are first used, so that importing a package stays quick."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from recvae.errors import MissingDependencyError


def lazy_names(package: str, homes: Mapping[str, str | tuple[str, str]], extra: str = "") -> Callable[[str], Any]:
    """Make the `__getattr__` of a module whose public names are defined in other modules.

    Parameters
    ----------
    package : str
        The module's own name, for error messages.
    homes : mapping
        For each public name the module that defines it, or (module, name) where it has another name there.
    extra : str, optional
        The extra of recvae that brings what these modules import; a missing import then names it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module, attribute = (home, name) if isinstance(home, str) else home
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if not extra or (error.name or "").startswith("recvae"):
                raise
            raise MissingDependencyError(
                f"{package} needs {error.name}; install recvae with the extra '{extra}'"
            ) from None

    return get
