"""The packages of the service's image: those that serving needs, without torch and pandas."""

from collections.abc import Set
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
EXTRAS, LEFT_OUT = {"service", "ann", "baselines", "cloud"}, {"torch", "pandas"}


def needed(package: str, extras: Set[str]) -> set[str]:
    """Names of the packages that a package needs, and what those need."""
    names = set()
    for line in metadata.requires(package) or []:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras or {""})
        if applies and name not in LEFT_OUT:
            names |= {name} | needed(name, wanted.extras)
    return names


def pinned(file: Path) -> dict[str, str]:
    lines = [line.split("==") for line in file.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in lines}


def test_its_requirements_are_what_serving_needs_as_the_constraints_pin_it() -> None:
    required, constraints = pinned(ROOT / "service" / "requirements.txt"), pinned(ROOT / "constraints.txt")
    assert set(required) == needed("recvae", EXTRAS)
    assert required == {name: constraints[name] for name in required}


def test_the_dockerfile_installs_them_alone() -> None:
    text = (ROOT / "service" / "Dockerfile").read_text()
    installed = [line for line in text.splitlines() if "pip install" in line]
    assert len(installed) == 2
    assert all("--no-deps" in line for line in installed)
