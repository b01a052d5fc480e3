"""Manifests in examples/: what they call and probe is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from fenlei.cli.main import app
from fenlei.serving.service import PING_SECONDS

EXAMPLES = Path(__file__).parents[1] / "examples"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def container(deployed: dict[str, Any]) -> dict[str, Any]:
    (one,) = deployed["spec"]["template"]["spec"]["containers"]
    return dict(one)


def taken(words: list[str]) -> dict[str, Any]:
    """The options that the command line understands; the parser's own error where it does not."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    return dict(command.make_context(words[0], words[1:]).params)


def test_the_service_is_started_and_probed_as_it_can_be(tmp_path: Path) -> None:
    deployment, service, budget = documents("kubernetes_service.yaml")
    one = container(deployment)
    entry = ["serve", str(tmp_path), "--host", "0.0.0.0", "--port", "8000"]  # docker/Dockerfile's
    options = taken([*entry, *one["args"]])
    (port,) = one["ports"]
    assert options["port"] == port["containerPort"]
    grace, pause = (
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        int(one["lifecycle"]["preStop"]["exec"]["command"][1]),
    )
    assert grace > options["drain"] + pause
    probes = {name: one[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}
    assert one["livenessProbe"]["timeoutSeconds"] > PING_SECONDS
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (
        service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"] == labels
    )
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def unit_command() -> list[str]:
    text = (EXAMPLES / "fenlei-search@.service").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


@pytest.mark.parametrize(
    "words", [container(documents("kubernetes_search.yaml")[0])["args"], unit_command()[1:]], ids=["kubernetes", "systemd"]
)
def test_workers_of_a_search_share_study_and_folder(words: list[str]) -> None:
    options = taken(words)
    assert options["storage"].startswith("postgresql+psycopg://")
    assert options["out"].is_absolute()
    assert options["trials"] == 40
