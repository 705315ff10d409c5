"""Blocks that are no programs: settings of other systems, and what goes over the wire."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dwebsocket.operations import prometheus
from support.pages import ROOT, block
from support.proxy import NGINX

if TYPE_CHECKING:
    from collections.abc import Callable

STATIC = ROOT / "python/dwebsocket/static/dwebsocket"


def test_systemd() -> None:
    """Two limits of a service."""
    parser = configparser.ConfigParser()
    parser.read_string(block("docs/deployment.md", "[Service]", "ini"))
    assert dict(parser["Service"]) == {"limitnofile": "41000", "tasksmax": "41000"}


def test_sysctl() -> None:
    """Names of the system, with numbers."""
    code = block("docs/deployment.md", "net.core.somaxconn", "")
    lines = [line for line in code.splitlines() if not line.startswith("#")]
    assert len(lines) == 4
    for line in lines:
        name, value = line.split(" = ")
        assert re.fullmatch(r"\d+( \d+)?", value)
        path = Path("/proc/sys", *name.split("."))
        # Those of the network are missing in some containers.
        assert path.exists() or not path.parent.exists(), name


def test_scraping() -> None:
    """A job that Prometheus would take, with the token where our view looks for it."""
    made = yaml.safe_load(block("docs/operations.md", "scrape_configs", "yaml"))
    (job,) = made["scrape_configs"]
    assert job["authorization"] == {"credentials": "the token"}
    assert job["static_configs"][0]["targets"] == ["www.example.com"]
    assert job.keys() == {"job_name", "authorization", "static_configs"}


def test_queries(serve: Callable[..., Any]) -> None:
    """Ask for metrics and labels that there are."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(prometheus.SiteCollector())
    shown = generate_latest(registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(shown)}
    code = block("docs/operations.md", "histogram_quantile", "")
    names = set(re.findall(r"dwebsocket_\w+", code))
    assert len(names) == 6
    for name in names:
        base = re.sub(r"_(total|bucket)$", "", name)
        assert base in families or name in families, name
    source = (ROOT / "python/dwebsocket/operations/prometheus.py").read_text()
    labels = {label for part in re.findall(r"by \(([\w, ]+)\)", code) for label in part.split(", ")}
    labels |= set(re.findall(r"\{(\w+)=", code))
    assert [label for label in labels - {"le"} if f'"{label}"' not in source] == []


@pytest.mark.parametrize(
    ("page", "part"),
    [
        ("recovery", '"recovered"'),
        ("presence", '"joined"'),
        ("fallback", '"events"'),
        ("fallback", '"messages"'),
    ],
)
def test_json(page: str, part: str) -> None:
    """Each is an object, whose keys `dwebsocket.js` knows."""
    made = json.loads(block(f"docs/{page}.md", part, "json"))
    script = (STATIC / "dwebsocket.js").read_text()
    assert [key for key in made if not re.search(rf"\b{key}\b", script)] == []


@pytest.mark.needs("node")
def test_fallback_in_a_page(tmp_path: Path) -> None:
    """The script asks for a socket with the fallback."""
    code = block("docs/fallback.md", "import { connect }", "js")
    # Its imports say how it was called.
    stand_in = "export const connect = (...given) => console.log(JSON.stringify(given));"
    (tmp_path / "dwebsocket.mjs").write_text(stand_in)
    script = tmp_path / "page.mjs"
    script.write_text(code.replace("/static/dwebsocket/dwebsocket.js", "./dwebsocket.mjs"))
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=60)
    assert (json.loads(done.stdout), done.stderr) == (["/ws/chat/42/", {"fallback": True}], "")


@pytest.mark.needs("nginx")
def test_nginx_for_uwsgi(tmp_path: Path) -> None:
    """nginx takes the location. (One like it is run by the tests of uWSGI.)"""
    parameters = Path("/etc/nginx/uwsgi_params")
    shutil.copy(parameters, tmp_path)
    location = block("docs/servers/uwsgi.md", "uwsgi_pass", "nginx")
    snippet = f"server {{ listen unix:{tmp_path}/socket; {location} }}"
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, snippet=snippet))
    done = subprocess.run(
        [shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx", "-t", "-c", config],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
