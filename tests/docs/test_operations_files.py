"""docs/operations/: what Prometheus and Grafana are given fits what the site exports."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily, Metric

from dwebsocket.operations import prometheus
from support.pages import ROOT, text_of

FOLDER = ROOT / "docs/operations"
PAGE = text_of("docs/operations/alerts.md")
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
}
# What can be written behind the name of a metric, beside its own labels.
OF_PROMETHEUS = {"le", "job", "instance"}


def exported() -> dict[str, set[str]]:
    """Give the names of all samples, as they are scraped, with their labels."""
    found = {"dwebsocket_processes": {"state"}}
    for kind, name, _, labels in prometheus._METRICS:
        suffix = "_total" if kind is CounterMetricFamily else ""
        found[f"dwebsocket_{name}{suffix}"] = {"process", *labels}
    for _, name, _, _ in prometheus._DURATIONS:
        found[f"dwebsocket_{name}_bucket"] = {"process", "le"}
    return found


def test_the_names_are_those_that_are_scraped() -> None:
    """As the exporter gives them for a site without processes."""
    site: Any = {"processes": [], "missing": 0, "total": {}}
    families: list[Metric] = list(prometheus.families(site))
    names = {re.sub(r"_(total|bucket)$", "", name) for name in exported()}
    assert {family.name for family in families} == names


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_expression(where: str) -> None:
    """It asks for metrics, labels, causes and events that there are."""
    text = EXPRESSIONS[where]
    names = set(re.findall(r"\bdwebsocket_\w+", text))
    assert names, "it asks for nothing of ours"
    known = exported()
    assert names <= known.keys()
    labels = {each for part in re.findall(r"by \(([^)]*)\)", text) for each in part.split(", ")}
    labels |= set(re.findall(r"[{,]\s*(\w+)=~?\"", text))
    assert labels <= set().union(*(known[name] for name in names)) | OF_PROMETHEUS
    assert text.count("(") == text.count(")")
    # Rates of counters only, and counters never without one.
    for name in names:
        is_summed = name.endswith("_total") or name == "dwebsocket_handler_seconds_bucket"
        rated = re.search(rf"(rate|increase)\({name}", text)
        assert bool(rated) == is_summed, name


def test_values_of_labels() -> None:
    """Causes, sides and events of the rules are words of the package."""
    text = "".join(EXPRESSIONS.values())
    values = {
        each
        for label in ("cause", "by", "event", "state")
        for found in re.findall(rf"\b{label}=~?\"([^\"]+)\"", text)
        for each in found.split("|")
    }
    assert len(values) >= 8
    sources = [path.read_text() for path in (ROOT / "python/dwebsocket").rglob("*.py")]
    assert [each for each in values if not any(f'"{each}"' in code for code in sources)] == []


def test_each_alert_is_explained() -> None:
    """With what to do; and no other one."""
    explained = re.findall(r"^\| `(WebSocket\w+)` \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")


def test_scrape() -> None:
    """It is as the page about operations says, and reads the rules that lie beside it."""
    made = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert [(FOLDER / name).is_file() for name in made["rule_files"]] == [True]
    (job,) = made["scrape_configs"]
    assert job["authorization"].keys() == {"credentials_file"}
    (targets,) = (each["targets"] for each in job["static_configs"])
    assert len(targets) == 1
    # A process that hangs takes two of these.
    assert int(made["global"]["scrape_timeout"].removesuffix("s")) > 2


def test_dashboard() -> None:
    """Panels with data lie beside each other, and every one asks the chosen data source."""
    places = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource"]


# Grafana's own types of a dashboard, and of the options of each kind of panel. An enum of theirs
# takes its members alone; in JSON the text of a member stands.
TYPES = """\
import type {{ Dashboard }} from "@grafana/schema";
import type {{ Options as Stat }} from "{folder}/stat/panelcfg/x/types.gen";
import type {{ Options as Series }} from "{folder}/timeseries/panelcfg/x/types.gen";
type Text<T> = T extends string ? `${{T}}`
    : T extends object ? {{ [K in keyof T]: Text<T[K]> }} : T;
const dashboard: Dashboard = {dashboard};
"""


@pytest.mark.needs("grafana-schema")
@pytest.mark.parametrize("is_broken", [False, True], ids=["as it is", "with mistakes"])
def test_dashboard_is_of_the_types_of_grafana(tmp_path: Any, *, is_broken: bool) -> None:
    """All that stands in it is known to Grafana, and nothing is missing."""
    modules = ROOT / "tests/clients/node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    folder = "./node_modules/@grafana/schema/dist/types/raw/composable"
    text = json.dumps(DASHBOARD)
    if is_broken:
        text = text.replace('"title"', '"titel"', 1).replace('"multi"', '"many"')
    lines = [TYPES.format(folder=folder, dashboard=text)]
    for panel in json.loads(text)["panels"]:
        options = {"stat": "Stat", "timeseries": "Series"}[panel["type"]]
        name = f"panel_{panel['id']}: Text<Partial<{options}>>"
        lines.append(f"const {name} = {json.dumps(panel['options'])};")
    lines.append("export default dashboard;")
    (tmp_path / "dashboard.ts").write_text("\n".join(lines))
    options = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler"
    done = subprocess.run(
        [str(modules / ".bin/tsc"), *options.split(), "dashboard.ts"],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    if not is_broken:
        assert (done.stdout, done.returncode) == ("", 0)
        return
    assert done.returncode != 0
    for mistake in ("titel", '"many"'):
        assert mistake in done.stdout


# For each alert series with which it fires after half an hour, in the notation of promtool.
CLOSED = "dwebsocket_closed_total{code='1000',by='peer'} 0+10x60"
FIRING = {
    "WebSocketMetricsMissing": [],
    "WebSocketProcessHangs": ["dwebsocket_processes{state='missing'} 1x60"],
    "WebSocketsVanished": ["dwebsocket_open{view='v'} 1000x20 10x40"],
    "WebSocketsNearLimit": ["dwebsocket_open{process='a:1'} 9000x60"],
    "WebSocketsRefusedForLimit": ["dwebsocket_refused_total{cause='max_connections'} 0+1x60"],
    "WebSocketHandshakesRefused": [
        "dwebsocket_refused_total{cause='origin'} 0+60x60",
        "dwebsocket_opened_total{view='v'} 0+60x60",
    ],
    "WebSocketViewsFail": ["dwebsocket_closed_total{code='1011',by='local'} 0+5x60", CLOSED],
    "WebSocketClientsVanish": ["dwebsocket_closed_total{code='1006',by='lost'} 0+60x60", CLOSED],
    "WebSocketClientsTooSlow": ["dwebsocket_closed_total{code='1013',by='local'} 0+5x60", CLOSED],
    "WebSocketGroupsDown": ["dwebsocket_group_failed_total{backend='default'} 0+1x60"],
    "WebSocketGroupsLost": ["dwebsocket_group_lost_total{backend='default'} 0x20 1x40"],
    "WebSocketGroupsApart": ["dwebsocket_group_apart_total{backend='default'} 0+1x60"],
    "WebSocketGroupsDrop": [
        "dwebsocket_group_dropped_total{backend='default',reason='latest'} 0+5x60",
        "dwebsocket_group_delivered_total{backend='default'} 0+100x60",
    ],
    "WebSocketPartsFail": ["dwebsocket_events_total{event='websocket.broke'} 0+1x60"],
    "WebSocketBuffersFull": ["dwebsocket_buffered_bytes{process='a:1'} 300000000x60"],
    "WebSocketPingsSlow": [
        "dwebsocket_ping_seconds_bucket{le='2.5'} 1x60",
        "dwebsocket_ping_seconds_bucket{le='5.0'} 9x60",
        "dwebsocket_ping_seconds_bucket{le='+Inf'} 9x60",
    ],
    "WebSocketHandlersSlow": [
        "dwebsocket_handler_seconds_bucket{le='1.0'} 0+1x60",
        "dwebsocket_handler_seconds_bucket{le='2.5'} 0+9x60",
        "dwebsocket_handler_seconds_bucket{le='+Inf'} 0+9x60",
    ],
}


@pytest.mark.needs("promtool")
def test_each_alert_fires(tmp_path: Any) -> None:
    """By Prometheus' own tool, which parses the expressions, too."""
    assert FIRING.keys() == {rule["alert"] for rule in RULES}
    tests = []
    alive = "dwebsocket_processes{state='answered'} 1x60"
    for name, lines in FIRING.items():
        given = [line.rsplit("} ", 1) for line in (lines if not lines else [*lines, alive])]
        asked = f"count(ALERTS{{alertname='{name}',alertstate='firing'}})"
        quiet = "count(ALERTS{alertstate='firing'})"
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": f"{key}}}", "values": value} for key, value in given],
                "promql_expr_test": [
                    {"expr": f"{query} > bool 0", "eval_time": "31m", "exp_samples": [{"value": 1}]}
                    for query in (asked, quiet)
                ],
            }
        )
    # Nothing fires on a site that is well.
    well = [alive, CLOSED, "dwebsocket_open{process='a:1'} 500x60"]
    pairs = [line.rsplit("} ", 1) for line in well]
    tests.append(
        {
            "interval": "1m",
            "input_series": [{"series": f"{key}}}", "values": value} for key, value in pairs],
            "promql_expr_test": [
                {"expr": "count(ALERTS)", "eval_time": "31m", "exp_samples": []},
            ],
        }
    )
    path = tmp_path / "tests.yml"
    rules = str(FOLDER / "alerts.yml")
    path.write_text(json.dumps({"rule_files": [rules], "tests": tests}))
    for command in (
        ["test", "rules", path],
        ["check", "config", "--syntax-only", FOLDER / "prometheus.yml"],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("promtool")
def test_each_query_of_the_dashboard_is_parsed(tmp_path: Any) -> None:
    """By Prometheus' own tool, with an interval in the place of Grafana's variable."""
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__\w+", "5m", target["expr"])}
        for number, target in enumerate(
            target for panel in DASHBOARD["panels"] for target in panel["targets"]
        )
    ]
    assert len(rules) > 10
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
