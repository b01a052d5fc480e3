"""Manifests in examples/ and docker/: what they call and probe is there."""

from __future__ import annotations

import json
import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from fenlei.cli.main import app
from fenlei.serving.life import NEVER_LOADED
from fenlei.serving.service import PING_SECONDS

EXAMPLES, DOCKER = (Path(__file__).parents[1] / name for name in ("examples", "docker"))


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def container(deployed: dict[str, Any]) -> dict[str, Any]:
    (one,) = deployed["spec"]["template"]["spec"]["containers"]
    return dict(one)


def taken(words: list[str]) -> dict[str, Any]:
    """The options that the command line understands; the parser's own error where it does not."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    return dict(command.make_context(words[0], words[1:]).params)


def entry_point(name: str) -> list[str]:
    """The words of an image's ENTRYPOINT, behind `fenlei`."""
    (line,) = [line for line in (DOCKER / name).read_text(encoding="utf-8").splitlines() if line.startswith("ENTRYPOINT ")]
    program, *words = json.loads(line.removeprefix("ENTRYPOINT "))
    assert program == "fenlei"
    return words


def test_the_service_is_started_and_probed_as_it_can_be() -> None:
    deployment, service, budget = documents("kubernetes_service.yaml")
    one = container(deployment)
    # Promises are the run's own: not every run could keep one that is asked for here.
    assert one["args"] == ["--drain", "60", "--served-model-name", "news"]
    options = taken([*entry_point("Dockerfile"), *one["args"]])
    (mount,) = [mount for mount in one["volumeMounts"] if mount["mountPath"] == str(options["run"])]
    assert mount["subPath"], "the next run goes beside it, and never over its files"
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


@pytest.mark.parametrize(("name", "device"), [("Dockerfile", "auto"), ("Dockerfile.cuda", "cuda")])
def test_an_image_answers_where_it_is_asked(name: str, device: str) -> None:
    options, text = taken(entry_point(name)), (DOCKER / name).read_text(encoding="utf-8")
    assert (options["host"], options["device"]) == ("0.0.0.0", device)
    asked = re.findall(r"^EXPOSE (\d+)$|http://127\.0\.0\.1:(\d+)/health'", text, re.MULTILINE)
    port = str(options["port"])
    assert asked == [(port, ""), ("", port)]
    (seconds,) = re.findall(r"/health', timeout=(\d+)\)", text)
    assert int(seconds) > PING_SECONDS


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_an_image_is_built_from_the_index_that_is_named(name: str) -> None:
    before = (DOCKER / name).read_text(encoding="utf-8").partition("RUN ")[0]
    assert "\nARG PIP_INDEX_URL\n" in before.partition("AS build\n")[2], "a --build-arg reaches pip only in a stage that names it"


def test_compose_runs_the_images_and_gives_them_time() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    files = [DOCKER / one["build"]["context"] / one["build"]["dockerfile"] for one in services.values()]
    assert [file.resolve() for file in files] == [(DOCKER / name).resolve() for name in ("Dockerfile", "Dockerfile.cuda")]
    one, options = services["fenlei"], taken(entry_point("Dockerfile"))
    assert int(one["stop_grace_period"].removesuffix("s")) > options["drain"]
    assert one["ports"][0].endswith(f":{options['port']}")
    assert one["volumes"][0].endswith(f":{options['run']}:ro")


@pytest.mark.parametrize("name", ["kubernetes_service.yaml", "kubernetes_search.yaml"])
def test_what_a_manifest_needs_is_told_at_its_head(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    head = "\n".join(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    needed = re.findall(r"(?:claimName|secretKeyRef: \{name): ([\w-]+)", re.sub("#.*", "", text))
    assert len(needed) == 2
    assert [one for one in needed if one not in head] == []
    assert "docker push REGISTRY/" in head


def unit_command(name: str) -> list[str]:
    text = (EXAMPLES / name).read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


@pytest.mark.parametrize(
    "words",
    [container(documents("kubernetes_search.yaml")[0])["args"], unit_command("fenlei-search@.service")[1:]],
    ids=["kubernetes", "systemd"],
)
def test_workers_of_a_search_share_study_and_folder(words: list[str]) -> None:
    options = taken(words)
    assert options["storage"].startswith("postgresql+psycopg://")
    assert options["out"].is_absolute()
    assert options["trials"] == 40


def test_the_unit_of_the_service_gives_it_time_and_starts_no_run_that_cannot_be_loaded() -> None:
    text = (EXAMPLES / "fenlei.service").read_text(encoding="utf-8")
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert seconds
    assert int(seconds[1]) > taken(unit_command("fenlei.service")[1:])["drain"]
    assert f"RestartPreventExitStatus=2 {NEVER_LOADED}\n" in text
    assert "RestartForceExitStatus=SIGHUP\n" in text  # which systemd takes for a clean end


def test_the_unit_of_the_service_is_not_started_for_ever() -> None:
    """systemd reads its limit in [Unit] alone, and never reaches one whose pauses are longer than the interval."""
    unit, _, service = (EXAMPLES / "fenlei.service").read_text(encoding="utf-8").partition("[Service]")
    limits = {name: int(number) for name, number in re.findall(r"^(StartLimit\w+)=(\d+)$", unit, re.MULTILINE)}
    (pause,) = re.findall(r"^RestartSec=(\d+)$", service, re.MULTILINE)
    assert limits["StartLimitBurst"] * int(pause) < limits["StartLimitIntervalSec"]


@pytest.mark.parametrize("name", ["fenlei.service", "fenlei-search@.service"])
def test_what_a_unit_needs_is_told_at_its_head(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    head, _, unit = text.partition("[Unit]")
    user, environment = re.findall(r"^(?:User|EnvironmentFile)=(.*)$", unit, re.MULTILINE)
    told = [f"useradd --system --create-home {user}\n", environment, f"cp examples/{name} /etc/systemd/system/", "-m venv /opt/fenlei"]
    assert [words for words in told if words not in head] == []
