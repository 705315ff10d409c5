"""docs/deployment/: the files that people copy are valid, and their numbers fit together."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from dwebsocket import conf
from support.commands import check
from support.pages import ROOT, block, run, text_of

FOLDER = ROOT / "docs/deployment"
CONTAINERS, ROUTERS, SYSTEMD = (
    f"docs/deployment/{name}.md" for name in ("containers", "routers", "systemd")
)
PINGS_S = conf.SETTINGS["PING_INTERVAL"].default
# A view has a second to finish when its WebSocket was closed, and the window keeps off the limit.
AFTER_DRAIN_S = 1.5


def text(name: str) -> str:
    """Give a file's content."""
    return (FOLDER / name).read_text(encoding="utf-8")


def gunicorn_of(command: list[str]) -> dict[str, Any]:
    """Give gunicorn's settings in a command, all of whose options it knows."""
    assert Path(command[0]).name == "gunicorn"
    check([shlex.join(["gunicorn", *command[1:]])])
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind")
    # As gunicorn without these options.
    for name, default in (
        ("workers", 1),
        ("threads", 1),
        ("graceful-timeout", 30),
        ("timeout", 30),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    return vars(parser.parse_known_args(command[1:])[0])


def dockerfile() -> dict[str, list[str]]:
    """Give the instructions of the Dockerfile, by name."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.startswith("#")]
    found: dict[str, list[str]] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    return found


@cache
def server() -> dict[str, Any]:
    """Give the settings of gunicorn in the container."""
    return gunicorn_of(json.loads(dockerfile()["CMD"][0]))


def service() -> RawConfigParser:
    """Give the unit of the service."""
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text("mysite.service"))
    return parser


def kubernetes() -> dict[str, Any]:
    """Give the objects of Kubernetes, by kind."""
    objects = list(yaml.safe_load_all(text("kubernetes.yaml")))
    return {each["kind"]: each for each in objects}


def pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the specification of the pod, and that of its container."""
    spec = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def seconds(value: str) -> float:
    """Give the number of a time such as `35s`."""
    return float(value.removesuffix("s"))


def assert_fits(drain: float, gunicorn: dict[str, Any], grace: float, before: float = 0) -> None:
    """The window lies within what gunicorn waits, and that within what is left until the kill."""
    window = min(gunicorn["graceful_timeout"], gunicorn["timeout"] / 2) - AFTER_DRAIN_S
    assert 0 < drain <= window
    assert before + gunicorn["graceful_timeout"] < grace


class TestContainers:
    """Dockerfile, compose and nginx."""

    def test_gunicorn_is_process_1(self) -> None:
        """Started without a shell, by another user than root, with a signal that it knows."""
        made = dockerfile()
        assert made.keys() <= {
            *("FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "CMD", "STOPSIGNAL")
        }
        assert made["USER"] != ["root"]
        assert made["STOPSIGNAL"] == ["SIGTERM"]
        assert made["EXPOSE"] == [server()["bind"].rpartition(":")[2]]

    def test_compose(self) -> None:
        """Services name each other and files that are there; the end has the time that it needs."""
        made = yaml.safe_load(text("compose.yaml"))
        assert made.keys() == {"services"}
        services = made["services"]
        for each in services.values():
            assert each.keys() <= {
                *("build", "image", "environment", "stop_grace_period", "ulimits", "ports"),
                *("healthcheck", "depends_on", "restart", "volumes"),
            }
            for other, how in each.get("depends_on", {}).items():
                assert how == {"condition": "service_healthy"}
                assert "healthcheck" in services[other]
            for volume in each.get("volumes", ()):
                assert (FOLDER / volume.split(":")[0]).is_file()
        web = services["web"]
        assert (FOLDER / web["build"] / "Dockerfile").is_file()
        assert web["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
        compile(web["healthcheck"]["test"][3], "healthcheck", "exec")
        drain = float(web["environment"]["WEBSOCKET_DRAIN"])
        assert_fits(drain, server(), seconds(web["stop_grace_period"]))
        assert f"web:{dockerfile()['EXPOSE'][0]};" in text("nginx.conf")

    def test_descriptors_of_nginx(self) -> None:
        """Two for each WebSocket, and no more than compose gives it."""
        code = text("nginx.conf")
        most, files = (
            int(re.search(rf"{name} (\d+);", code)[1])  # type: ignore[index]
            for name in ("worker_connections", "worker_rlimit_nofile")
        )
        assert files >= 2 * most
        compose = yaml.safe_load(text("compose.yaml"))
        assert compose["services"]["nginx"]["ulimits"]["nofile"]["hard"] >= files
        assert all(float(each) > 2 * PINGS_S for each in re.findall(r"_timeout (\d+)s;", code))

    @pytest.mark.needs("nginx")
    def test_nginx(self, tmp_path: Path) -> None:
        """It takes the file."""
        config = tmp_path / "nginx.conf"
        config.write_text(text("nginx.conf").replace("listen 80;", f"listen unix:{tmp_path}/s;"))
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
        (tmp_path / "logs").mkdir()
        done = subprocess.run(
            [program, "-t", "-p", tmp_path, "-c", config, "-g", f"pid {tmp_path}/pid;"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def test_project(self) -> None:
        """Its settings are accepted, and the address of the probes answers."""
        made = run(CONTAINERS, "healthz")
        groups = conf.read("GROUPS", made["WEBSOCKET_GROUPS"])
        assert groups["default"].backend.endswith("redis")
        assert conf.read("DRAIN", made["WEBSOCKET_DRAIN"]) == 0
        (pattern,) = made["urlpatterns"]
        assert pattern.resolve("healthz").func(None).status_code == 200


class TestKubernetes:
    """kubernetes.yaml and prometheus-adapter.yaml."""

    # What the API server knows for each kind: apiVersion, and the fields of `spec` that are here.
    KNOWN: ClassVar = {
        "Deployment": ("apps/v1", {"selector", "strategy", "minReadySeconds", "template"}),
        "Service": ("v1", {"selector", "ports"}),
        "Ingress": ("networking.k8s.io/v1", {"ingressClassName", "rules"}),
        "PodDisruptionBudget": ("policy/v1", {"maxUnavailable", "selector"}),
        "HorizontalPodAutoscaler": (
            "autoscaling/v2",
            {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"},
        ),
    }

    def test_objects(self) -> None:
        """They are of versions that are served, and refer to each other by the right names."""
        made = kubernetes()
        assert made.keys() == self.KNOWN.keys()
        for kind, (version, fields) in self.KNOWN.items():
            assert made[kind]["apiVersion"] == version
            assert made[kind]["spec"].keys() <= fields
            assert made[kind]["metadata"]["name"] == "site"
        deployment = made["Deployment"]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == labels
        assert made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
        assert made["Service"]["spec"]["selector"] == labels
        _, container = pod()
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"] for port in made["Service"]["spec"]["ports"]} <= ports.keys()
        assert [str(port) for port in ports.values()] == dockerfile()["EXPOSE"]
        (rule,) = made["Ingress"]["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": "site", "port": {"name": "http"}}
        target = made["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "site"}
        # The autoscaler says how many there are.
        assert "replicas" not in deployment

    def test_schemas(self) -> None:
        """Each object is one that the API server would take."""
        validator = pytest.importorskip("kubernetes_validate")
        newest = validator.latest_version()
        for each in kubernetes().values():
            validator.validate(each, newest, strict=True)

    def test_end_of_a_pod(self) -> None:
        """preStop, the window and gunicorn's end fit into the grace period."""
        spec, container = pod()
        (program, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        environment = {each["name"]: each["value"] for each in container["env"]}
        drain = float(environment["WEBSOCKET_DRAIN"])
        grace = spec["terminationGracePeriodSeconds"]
        assert_fits(drain, server(), grace, before=float(pause))
        # Proxies learn of it by then, and the page has the same numbers.
        assert float(pause) >= container["readinessProbe"]["periodSeconds"]
        told = re.findall(r"^\| (\d+) \| ", text_of(CONTAINERS), re.MULTILINE)
        ends = [0, int(pause), int(pause) + drain, int(pause) + server()["graceful_timeout"], grace]
        assert [int(each) for each in told] == ends

    def test_probes(self) -> None:
        """Each asks an address that the page has; none ends a pod that is busy."""
        _, container = pod()
        assert "livenessProbe" not in container
        for name in ("startupProbe", "readinessProbe"):
            assert container[name]["httpGet"] == {"path": "/healthz", "port": "http"}

    def test_silence(self) -> None:
        """The Ingress cuts no connection between two pings."""
        notes = kubernetes()["Ingress"]["metadata"]["annotations"]
        assert len(notes) == 2
        assert all(float(value) > 2 * PINGS_S for value in notes.values())

    def test_scaling_by_open_websockets(self) -> None:
        """By the number that the adapter gives, below the limit of the workers of one pod."""
        spec = kubernetes()["HorizontalPodAutoscaler"]["spec"]
        external = next(each["external"] for each in spec["metrics"] if each["type"] == "External")
        (rule,) = yaml.safe_load(text("prometheus-adapter.yaml"))["rules"]["external"]
        assert external["metric"]["name"] == rule["name"]["as"]
        assert rule["seriesQuery"] == "dwebsocket_open"
        assert rule["metricsQuery"] == "sum(dwebsocket_open)"
        most = conf.SETTINGS["MAX_CONNECTIONS"].default * server()["workers"]
        assert 0 < int(external["target"]["averageValue"]) < most
        assert spec["minReplicas"] >= 2


class TestSystemd:
    """The two units."""

    def test_numbers(self) -> None:
        """gunicorn ends before systemd kills it, and has a descriptor for each WebSocket."""
        made = service()["Service"]
        gunicorn = gunicorn_of(shlex.split(made["ExecStart"]))
        assert_fits(10, gunicorn, float(made["TimeoutStopSec"]))
        assert int(made["LimitNOFILE"]) > conf.SETTINGS["MAX_CONNECTIONS"].default

    def test_groups(self) -> None:
        """Meet in the folder that systemd makes."""
        made = run(SYSTEMD, "WEBSOCKET_GROUPS")["WEBSOCKET_GROUPS"]
        groups = conf.read("GROUPS", made)
        assert groups["default"].backend.endswith("local")
        unit = service()["Service"]
        assert made["default"]["RUNTIME_DIR"] == f"/run/{unit['RuntimeDirectory']}"
        assert unit["RuntimeDirectoryMode"] == "0700"

    def test_commands(self) -> None:
        """They name the units that are here."""
        lines = block(SYSTEMD, "daemon-reload", "").splitlines()
        assert [line.split()[0] for line in lines] == ["systemctl"] * 3
        named = {word for line in lines for word in line.split() if word.startswith("mysite.")}
        assert named == {"mysite.socket", "mysite.service"}

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
    def test_systemd_takes_them(self, tmp_path: Path) -> None:
        """With a program that exists in the place of the site's gunicorn."""
        for name in ("mysite.socket", "mysite.service"):
            code = text(name).replace("/srv/mysite/venv/bin/gunicorn", "/bin/true")
            (tmp_path / name).write_text(code)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, "mysite" in done.stderr) == (0, False), done.stderr


class TestRouters:
    """fly.toml, Procfile and the page's commands."""

    def test_silence(self) -> None:
        """The ping comes before the shortest of the limits, and each row names its source."""
        table = text_of(ROUTERS).partition("## Idle timeouts")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| ([^\s|][^|]+) \| ([^|]+) \|", table, re.MULTILINE)
        assert [maker for maker, _ in rows if "](https://" not in maker] == []
        named = [limit for _, limit in rows if not limit.startswith("none is named")]
        found = [re.match(r"(\d+) (s|minutes)\b", limit) for limit in named]
        limits = [int(each[1]) * (1 if each[2] == "s" else 60) for each in found if each]
        assert len(limits) == len(named) >= 5
        assert min(limits) > PINGS_S

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
    def test_fly(self) -> None:
        """SIGTERM, and time for it."""
        import tomllib

        made = tomllib.loads(text("fly.toml"))
        assert made["kill_signal"] == "SIGTERM"
        assert_fits(float(made["env"]["WEBSOCKET_DRAIN"]), server(), made["kill_timeout"])
        web = made["http_service"]
        assert [str(web["internal_port"])] == dockerfile()["EXPOSE"]
        assert web["concurrency"]["type"] == "connections"
        most = conf.SETTINGS["MAX_CONNECTIONS"].default * server()["workers"]
        assert web["concurrency"]["soft_limit"] < web["concurrency"]["hard_limit"] < most
        assert [check["path"] for check in web["checks"]] == ["/healthz"]

    def test_heroku(self) -> None:
        """Everything is over when a dyno is killed, after 30 s."""
        name, _, command = text("Procfile").strip().partition(": ")
        assert name == "web"
        assert_fits(10, gunicorn_of(shlex.split(command)), 30)

    def test_aws(self) -> None:
        """Attributes with numbers, above the interval of the pings."""
        lines = block(ROUTERS, "elbv2", "").splitlines()
        for line in lines:
            words = shlex.split(line)
            assert words[:2] == ["aws", "elbv2"]
            _, value = re.fullmatch(r"Key=([\w.]+),Value=(\d+)", words[-1]).groups()  # type: ignore[union-attr]
            assert int(value) > PINGS_S
        assert len(lines) == 2


def test_each_file_is_on_a_page() -> None:
    """And has a test here."""
    pages = "".join(path.read_text() for path in FOLDER.glob("*.md"))
    names = [path.name for path in FOLDER.iterdir() if path.suffix != ".md"]
    assert [name for name in names if f"]({name})" not in pages] == []
    assert [name for name in names if f'"{name}"' not in Path(__file__).read_text()] == []
