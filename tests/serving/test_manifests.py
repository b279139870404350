"""The manifest for Kubernetes, by the schemas of several of its versions, and by what the program itself takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sqlalchemy import make_url
from typer.main import get_command

from recvae.cli.main import app
from recvae.serving import Settings
from recvae.serving.settings import PREFIX
from tests.test_image import ROOT

RESOURCES: dict[str, Any] = {
    resource["kind"]: resource for resource in yaml.safe_load_all((ROOT / "service" / "kubernetes.yaml").read_text())
}
SERVICE = RESOURCES["Deployment"]["spec"]["template"]
JOB = RESOURCES["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
PODS = {"service": SERVICE["spec"], "job": JOB["spec"]}


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("kind", RESOURCES)
def test_resources_are_as_the_schemas_have_them(kind: str, version: str) -> None:
    assert kubernetes_validate.validate(RESOURCES[kind], version, strict=True) == version


def test_the_validator_finds_a_mistake() -> None:
    wrong = {**RESOURCES["Service"], "spec": {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_pods_are_confined(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]  # noqa: S108
    claim = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert claim == RESOURCES["PersistentVolumeClaim"]["metadata"]["name"]
    assert mounts["/models"].get("readOnly", False) == (name == "service")
    user = f"USER {pod['securityContext']['runAsUser']}\n"
    file = {"service": "Dockerfile", "job": "fit.Dockerfile"}[name]
    assert user in (ROOT / "service" / file).read_text()


def test_the_password_of_the_database_is_in_no_url() -> None:
    """It may hold any character there, such as @ and %, which a URL would have escaped."""
    service = yaml.safe_load((ROOT / "service" / "compose.yaml").read_text())["services"]["recvae"]
    assert service["environment"]["PGPASSWORD"] == "${POSTGRES_PASSWORD:?}"
    assert "POSTGRES_PASSWORD" not in service["environment"]["RECVAE_STORE"]
    assert make_url(service["environment"]["RECVAE_STORE"]).password is None


def test_secrets_are_references() -> None:
    for pod in PODS.values():
        for variable in pod["containers"][0]["env"]:
            secret = variable["name"].endswith(("KEY", "PASSWORD"))
            assert set(variable) == {"name", "valueFrom" if secret else "value"}


def test_the_service_finds_its_pods_and_the_probes_their_routes() -> None:
    (container,) = PODS["service"]["containers"]
    assert RESOURCES["Service"]["spec"]["selector"] == SERVICE["metadata"]["labels"]
    assert RESOURCES["Deployment"]["spec"]["selector"]["matchLabels"] == SERVICE["metadata"]["labels"]
    assert RESOURCES["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert PODS["service"]["terminationGracePeriodSeconds"] > Settings(Path()).drain_seconds
    ours = [one["name"] for one in container["env"] if one["name"].startswith(PREFIX)]
    assert {name.removeprefix(PREFIX).lower() for name in ours} <= set(Settings.model_fields)


def test_the_documentation_builds_the_images_of_the_pods() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text().partition("\n## Kubernetes\n")[2]
    built = dict(re.findall(r"docker build --file service/(\S*Dockerfile) --tag (\S+) \.", text))
    images = {name: pod["containers"][0]["image"] for name, pod in PODS.items()}
    assert built == {"Dockerfile": images["service"], "fit.Dockerfile": images["job"]}


def parse_fit(arguments: list[str]) -> dict[str, Any]:
    """The options of a command line, as the program reads them."""
    name, *given = arguments
    params: dict[str, Any] = get_command(app).commands[name].make_context(name, given).params  # type: ignore[attr-defined]
    return params


def test_the_job_is_a_command() -> None:
    params = parse_fit(PODS["job"]["containers"][0]["args"])
    served = {one["name"]: one.get("value") for one in PODS["service"]["containers"][0]["env"]}
    assert params["from_store"] == served["RECVAE_STORE"]
    assert str(params["since"]) == str(params["out"]) == served["RECVAE_MODEL"]


def test_nightly_commands_of_the_documentation_are_commands() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    found = [shlex.split(command) for command in re.findall(r"recvae (fit --from-store .*)", text)]
    assert len(found) == 3  # by hand, for systemd and for cron
    assert all(parse_fit(command)["from_store"].endswith("@localhost/recvae") for command in found)
