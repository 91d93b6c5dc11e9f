"""Manifests: Kubernetes' by the published schemas of 1.31, the compose file and the Containerfile by their structure.

Nothing here is run: there is no cluster and no container runtime. For compose files no schema could be had offline, so
a small model of what ours uses stands in for it.
"""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

import tasks.services

HERE = Path(__file__).parents[2] / "deployments"
MANIFESTS = {
    f"{path.stem}/{manifest['kind']}/{i}": manifest
    for path in sorted((HERE / "kubernetes").glob("*.yaml"))
    if path.stem != "kustomization"  # Kustomize's own kind, in no cluster's schema
    for i, manifest in enumerate(yaml.safe_load_all(path.read_text()))
}
PINNED = re.compile(r"[a-z0-9.]+\.[a-z]+/[a-z0-9/-]+:[\w.-]+")


def pods() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, manifest in MANIFESTS.items():
        template = manifest.get("spec", {}).get("template")
        if template:
            found.append((name, template["spec"]))
    return found


def test_every_role_of_the_team_set_up_is_there():
    kinds = {(name.partition("/")[0], manifest["kind"]) for name, manifest in MANIFESTS.items()}
    assert kinds >= {
        ("postgres", "StatefulSet"), ("prefect", "Deployment"), ("mlflow", "Deployment"), ("worker", "Deployment"),
        ("study-job", "Job"), ("postgres", "Service"), ("prefect", "Service"), ("mlflow", "Service"),
    }  # fmt: skip
    listed = yaml.safe_load((HERE / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in (HERE / "kubernetes").glob("*.yaml")}
    assert set(listed) == files - {"kustomization.yaml", "secret.example.yaml", "study-job.yaml"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_published_schema_accepts_it_and_knows_every_field(name):
    assert kubernetes_validate.validate(MANIFESTS[name], "1.31", strict=True) == "1.31"


def test_the_schema_would_refuse_a_misspelt_field():
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


@pytest.mark.parametrize(("name", "pod"), pods(), ids=[name for name, _ in pods()])
def test_pods_run_without_rights_within_limits_and_pinned(name, pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    volumes = {volume["name"] for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in MANIFESTS[name]["spec"].get("volumeClaimTemplates", [])}
    for container in pod["containers"]:
        assert PINNED.fullmatch(container["image"]), container["image"]
        assert not container["image"].endswith(":latest")
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "memory" in container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes | claims


def test_what_the_pods_refer_to_exists():
    secret, settings = MANIFESTS["secret.example/Secret/0"], MANIFESTS["settings/ConfigMap/0"]
    known = {"secretKeyRef": secret["stringData"], "configMapKeyRef": settings["data"]}
    for name, pod in pods():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                for kind, reference in variable.get("valueFrom", {}).items():
                    assert reference["name"] == "robust"
                    assert reference["key"] in known[kind], f"{name}: {variable['name']}"
                assert "value" not in variable or "PASSWORD" not in variable["name"]
    services = {m["metadata"]["name"] for m in MANIFESTS.values() if m["kind"] == "Service"}
    addresses = {settings["data"][key] for key in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
    assert {re.split("[/:]+", address)[1] for address in addresses} <= services


def test_the_example_secret_holds_none():
    assert "change-me" in str(MANIFESTS["secret.example/Secret/0"]["stringData"])
    for value in MANIFESTS["secret.example/Secret/0"]["stringData"].values():
        assert "change-me" in value


class Service(BaseModel):
    """A service of the compose file, as far as ours uses the format."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(pattern=PINNED.pattern)
    restart: str = Field(pattern="^unless-stopped$")
    entrypoint: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    depends_on: dict[str, dict[str, str]] = {}
    ports: list[str] = []
    volumes: list[str] = []
    configs: list[dict[str, str]] = []
    healthcheck: dict[str, Any] | None = None
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[str] = []
    security_opt: list[str] = []


def test_the_compose_file_is_whole():
    compose = yaml.safe_load((HERE / "compose.yaml").read_text())
    services = {name: Service.model_validate(data) for name, data in compose["services"].items()}
    assert set(services) == {"postgres", "store", "prefect", "mlflow", "worker"}
    for name, service in services.items():
        assert {other for other in service.depends_on} <= set(services), name
        assert all(services[other].healthcheck for other in service.depends_on), (
            "waited for, so it must tell its health"
        )
        assert all(port.startswith("127.0.0.1:") for port in service.ports), "what is public is somebody's decision"
        assert {config["source"] for config in service.configs} <= set(compose["configs"])
        for volume in service.volumes:
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or source.startswith("./")
        for variable, value in service.environment.items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", variable):
                assert value.startswith("${"), f"{name}: {variable} must come from outside"


def test_the_containerfile_copies_what_exists_and_runs_as_a_user():
    lines = (HERE / "Containerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert all((HERE.parent / source).exists() for sources in copied for source in sources)
    assert "USER 1000" in lines
    assert not any(line.startswith("ADD") for line in lines)


@pytest.mark.parametrize("file", ["compose.yaml", "Containerfile", "kubernetes/namespace.yaml"])
def test_it_says_that_it_is_not_run_here(file):
    assert "not" in re.search(r"#.*?\b(not|Not)\b.*?run", (HERE / file).read_text(), re.DOTALL).group().lower()


def test_roles_are_started_as_robust_serve_starts_them(tmp_path):
    from tasks.home import Home

    home = Home.at(tmp_path)
    worker = tasks.services.worker_process("http://x", "robust").command[2:]
    assert worker[1:-2] == tuple(dict(pods())["worker/Deployment/0"]["containers"][0]["command"])[1:]
    assert tasks.services.prefect_server(home, 4200).command[3:5] == ("server", "start")
