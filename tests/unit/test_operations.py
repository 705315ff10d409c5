"""`dwebsocket.statistics()`: what one process counts, and how the parts of a site are added."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import middleware
from django.contrib.auth.models import AnonymousUser
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import RequestFactory
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from visit import handshake

import dwebsocket
from dwebsocket import conf, groups, require_websocket, statistics
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import process
from dwebsocket.operations import listing, prometheus, series, snapshot, survey
from dwebsocket.operations.scraping import metrics
from dwebsocket.telemetry import tally
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visit import Visit

TOKEN = "a token for tests"


@pytest.fixture(autouse=True)
def _own_groups(override: Callable[..., None]) -> Iterator[None]:
    """Groups of this process alone; and no counts of other tests."""
    tally._forget_parents_tally()
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    with backends.replaced(process.Backend):
        yield


@require_websocket(text_type=str)
def echo(request: Any, number: int = 0) -> None:
    for message in request.websocket:
        request.websocket.send(message)


VIEW = f"{__name__}.echo"


def opened(visit: Callable[..., Visit], path: str = "/", **environ: str) -> Visit:
    """Open a WebSocket whose view echoes, and has echoed once."""
    made = visit(echo, environ=handshake(path, **environ)).serve()
    made.client.send("hi")
    assert made.client.frame().data == b"hi"
    return made


def test_open_ones_are_counted_until_their_view_is_over(visit: Callable[..., Visit]) -> None:
    """By view, transport, and the part that drives them; then by close code and side."""
    before = statistics()
    made = opened(visit)
    now = statistics()
    assert now["open"] == {
        "total": 1,
        "signed_in": 0,
        "views": {VIEW: 1},
        "transports": {"websocket": 1},
        "driven_by": {"engine": 1},
    }
    assert now["opened"] == {VIEW: 1}
    assert now["closed"] == {}
    assert now["messages"]["in"] - before["messages"]["in"] == 1
    assert now["messages"]["out"] - before["messages"]["out"] == 1
    # A frame of the client has a mask; what we send begins with the 101.
    assert now["bytes"]["in"] - before["bytes"]["in"] == 8
    assert now["bytes"]["out"] - before["bytes"]["out"] > len(made.head)
    made.client.close(4321)
    eventually(lambda: statistics()["closed"] == {"4321": {"peer": 1}})
    assert statistics()["open"]["total"] == 0
    assert statistics()["messages"] == now["messages"]


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"HTTP_ORIGIN": "https://evil.example"}, {"403": {"origin": 1}}),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, {"426": {"version": 1}}),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, {"400": {"malformed": 1}}),
        ({"HTTP_X_LONG": "x" * 50_000}, {"431": {"handshake_size": 1}}),
    ],
)
def test_refusals_are_counted_by_status_and_cause(
    visit: Callable[..., Visit], changes: dict[str, str], counted: dict[str, Any]
) -> None:
    """The cause is one word of a short list, whatever the client sends."""
    visit(echo, environ=handshake(**changes))
    assert statistics()["refused"] == counted


def test_close_codes_of_clients_cannot_add_keys_without_end(visit: Callable[..., Visit]) -> None:
    """Further ones are counted as code 0."""
    for code in range(4000, 4000 + tally._MOST_CODES):
        tally._closed[code] = {"peer": 1}
    opened(visit).client.close(4999)
    eventually(lambda: statistics()["closed"].get("0") == {"peer": 1})


def test_statistics_of_processes_are_added() -> None:
    """Each key is in the sum, also one that a single process has."""
    one, other = snapshot.total([]), snapshot.total([])
    one["opened"] = {"chat": 2}
    other["opened"] = {"chat": 3, "feed": 1}
    one["messages"] = {"in": 1, "out": 2}
    found = snapshot.total([one, other])
    assert found["opened"] == {"chat": 5, "feed": 1}
    assert found["messages"] == {"in": 1, "out": 2}
    assert found["open"]["total"] == 0


def test_a_site_of_one_process_answers_for_itself(visit: Callable[..., Visit]) -> None:
    """Without other processes nothing is sent."""
    opened(visit)
    site = dwebsocket.statistics("site")
    assert site["total"]["open"]["views"] == {VIEW: 1}
    assert (len(site["processes"]), site["missing"]) == (1, 0)
    assert json.loads(json.dumps(site)) == site


def test_what_is_no_sum_is_in_no_total() -> None:
    """The lag, and what processes of one machine share."""
    own = statistics()["groups"]["default"]
    assert {"lag", "history"} < own.keys()
    added = snapshot.total([statistics(), statistics()])["groups"]["default"]
    assert own.keys() - added.keys() == {"lag", "history"}


def test_the_former_names_are_parts_of_it() -> None:
    """Code that uses them goes on."""
    assert dwebsocket.group_statistics() == statistics()["groups"]
    assert groups.group_statistics is dwebsocket.group_statistics
    assert dwebsocket.site_statistics().keys() == statistics("site").keys()
    counts = {name: sum(codes.values()) for name, codes in dwebsocket.event_counts().items()}
    assert statistics()["events"].keys() == {name for name, count in counts.items() if count}


def test_statistics_of_nothing_else() -> None:
    """The argument is named."""
    with pytest.raises(ValueError, match=r"of is .*, not 'sites'"):
        statistics("sites")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({}, ["/1/", "/2/", "/3/"]),
        ({"sort": "-age"}, ["/3/", "/2/", "/1/"]),
        ({"text": "FIREFOX"}, ["/2/"]),
        ({"text": "/3"}, ["/3/"]),
        ({"address": "192.0.2.1"}, ["/1/"]),
        ({"view": "another"}, []),
        ({"transport": "sse"}, []),
        ({"first": 1}, ["/1/"]),
    ],
)
def test_rows_are_searched_sorted_and_cut(
    visit: Callable[..., Visit], query: dict[str, Any], paths: list[str]
) -> None:
    """Any process gives its own rows; those of several are sorted again."""
    opened(visit, "/1/", REMOTE_ADDR="192.0.2.1")
    opened(visit, "/2/", HTTP_USER_AGENT="Mozilla Firefox/130")
    opened(visit, "/3/")
    asked = listing.Query(**query)
    page = listing.rows(asked)
    assert [row["path"] for row in page["rows"]] == paths
    assert listing.merged([page, page], asked)["count"] == 2 * page["count"]


def test_rows_are_found_by_the_key_of_their_user(visit: Callable[..., Visit]) -> None:
    """In either case: the name of a device is not among those of users that are looked up."""
    opened(visit)
    ((websocket, *_),) = tally.open_websockets()
    websocket._visitor_names = ("Sensor-A1", "")
    for text in ("Sensor-A1", "sensor-a1"):
        assert listing.rows(listing.Query(text=text))["count"] == 1
    assert listing.rows(listing.Query(text="Sensor-A"))["count"] == 0


def test_one_is_closed_by_the_id_that_its_row_has(visit: Callable[..., Visit]) -> None:
    """Another id closes none."""
    made = opened(visit)
    key = listing.rows(listing.Query())["rows"][0]["id"]
    assert listing.close("another", 1008, "no") == 0
    assert listing.close(key, 1008, "closed by an administrator") == 1
    assert made.client.frame().data[:2] == b"\x03\xf0"


def test_samples_count_what_happened_within_their_slot(visit: Callable[..., Visit]) -> None:
    """Slots are the same in all processes, so samples are added."""
    own = series.Series()
    assert own.take(7) is False
    opened(visit)
    assert own.take(8) is True
    assert own.since(8) == [[8, 1, 1, 0, 0, 1, 1, 8, own.since(8)[0][8], 0]]
    assert [sample[:3] for sample in series.total([own.since(0), own.since(8)])] == [
        [7, 0, 0],
        [8, 2, 2],
    ]


def test_a_sample_is_taken_at_the_end_of_each_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never two for one slot, and none is waited for when the clock was set back."""
    now = 100.5
    monkeypatch.setattr(series.time, "time", lambda: now)
    assert series.next_end(0) == (50, pytest.approx(1.4))
    assert series.next_end(50) == (51, pytest.approx(3.4))
    assert series.next_end(80) == (50, pytest.approx(1.4))


def scraped(**headers: str) -> Any:
    """Ask for the metrics."""
    return metrics(RequestFactory().get("/metrics", **headers))


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN])
def test_metrics_need_the_token(override: Callable[..., None], given: str) -> None:
    """Anything else gets 403, and so does everything while there is no token."""
    assert scraped(HTTP_AUTHORIZATION=given).status_code == 403
    override(WEBSOCKET_METRICS_TOKEN=TOKEN)
    assert scraped(HTTP_AUTHORIZATION=given).status_code == 403
    assert scraped(HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status_code == 200


@pytest.mark.skipif(not hasattr(middleware, "LoginRequiredMiddleware"), reason="since Django 5.1")
def test_metrics_are_for_a_scraper_that_has_not_logged_in() -> None:
    """The token lets it in, also where a middleware sends strangers to the page for logins."""
    request: Any = RequestFactory().get("/metrics")
    request.user = AnonymousUser()
    asked = middleware.LoginRequiredMiddleware(HttpResponse)
    assert asked.process_view(request, metrics, (), {}) is None
    assert metrics(request).status_code == 403


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_metrics_are_what_prometheus_reads(
    visit: Callable[..., Visit], override: Callable[..., None], accept: str
) -> None:
    """In its text format, or in OpenMetrics where the scraper asks for that."""
    override(WEBSOCKET_METRICS_TOKEN=TOKEN)
    opened(visit)
    visit(echo, environ=handshake(HTTP_ORIGIN="https://evil.example"))
    answer = scraped(HTTP_AUTHORIZATION=f"Bearer {TOKEN}", HTTP_ACCEPT=accept)
    parse: Any = text_string_to_metric_families
    if accept:
        assert answer["Content-Type"].startswith("application/openmetrics-text")
        parse = openmetrics.text_string_to_metric_families
    samples = {
        (sample.name, *(value for key, value in sample.labels.items() if key != "process")): (
            sample.value
        )
        for family in parse(answer.content.decode())
        for sample in family.samples
    }
    assert samples["dwebsocket_open", VIEW] == 1
    assert samples["dwebsocket_opened_total", VIEW] == 1
    assert {value for key, value in samples.items() if key[0] == "dwebsocket_refused_total"} == {1}
    assert samples["dwebsocket_processes", "missing"] == 0
    assert samples["dwebsocket_group_dropped_total", "default", "latest"] == 0


def test_processes_of_one_name_are_one_to_prometheus(visit: Callable[..., Visit]) -> None:
    """As two containers with their host's network are: of equal samples it takes one."""
    opened(visit)
    site = statistics("site")
    site["processes"] *= 2
    samples = [
        (sample.name, tuple(sample.labels.items()), sample.value)
        for family in prometheus.families(site)
        for sample in family.samples
    ]
    assert len({each[:2] for each in samples}) == len(samples)
    found = {(name, dict(labels).get("view")): value for name, labels, value in samples}
    assert found["dwebsocket_open", VIEW] == found["dwebsocket_opened_total", VIEW] == 2
    assert ("dwebsocket_processes", (("state", "answered"),), 2) in samples


def test_every_counter_of_groups_is_a_metric() -> None:
    """Names of the statistics are those of the metrics."""
    names = {name for _, name, *_ in prometheus._METRICS}
    own = statistics()["groups"]["default"]
    assert {f"group_{name}" for name in own} - names == {
        "group_history",
        "group_lag",
        "group_regained",
    }


def command(*options: str) -> str:
    """Run `manage.py websocket_stats`."""
    out = io.StringIO()
    call_command("websocket_stats", *options, stdout=out)
    return out.getvalue()


@pytest.fixture
def _installed(override: Callable[..., None]) -> None:
    """The command is found where the app is installed."""
    from django.conf import settings

    override(INSTALLED_APPS=[*settings.INSTALLED_APPS, "dwebsocket"])


@pytest.fixture
def _others(_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command asks, as if there were other processes."""
    monkeypatch.setattr(survey, "asks_others", lambda: True)


@pytest.mark.usefixtures("_others")
def test_the_command_prints_a_table_or_json(visit: Callable[..., Visit]) -> None:
    """The JSON is what `statistics("site")` gives."""
    opened(visit)
    lines = [line.split() for line in command().splitlines()]
    assert ["1", "process"] in lines
    assert ["open", "1"] in lines
    assert [VIEW, "1"] in lines
    found = json.loads(command("--json"))
    assert found["total"]["open"]["views"] == {VIEW: 1}
    assert found.keys() == dwebsocket.statistics("site").keys()


@pytest.mark.usefixtures("_others")
def test_the_command_says_why_no_process_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to look at."""
    monkeypatch.setattr(survey, "ask", lambda *args, **options: ([], 0))
    with pytest.raises(CommandError, match="INSTALLED_APPS"):
        command()


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("options", [[], ["--json"], ["--watch"]])
def test_the_command_fails_with_groups_of_one_process(options: list[str]) -> None:
    """It would have asked its own process only; a page of that process has the numbers."""
    with pytest.raises(CommandError, match=r"process backend.* Use dwebsocket\.groups\.local, "):
        command(*options)
    assert len(dwebsocket.statistics("site")["processes"]) == 1


@pytest.mark.usefixtures("_others")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--watch", value) for value in ("0", "-1", "nan", "inf")),
        *(("--timeout", value) for value in ("-1", "nan", "inf")),
    ],
)
def test_numbers_that_make_no_sense_are_refused(option: str, value: str) -> None:
    """By the name of the option."""
    with pytest.raises(CommandError, match=f"{option} must be .*, not {value}"):
        command(f"{option}={value}")


def watched(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[str, str]:
    """Watch a site whose backend is away for a while; give what is printed, and the errors."""
    site = dwebsocket.statistics("site")
    answers = iter([site, GroupUnavailable("Redis is away"), site, KeyboardInterrupt])

    def ask(timeout: float) -> Any:
        answer: Any = next(answers)
        if answer is site:
            return site
        raise answer

    monkeypatch.setattr(survey, "site_statistics", ask)
    out, err = io.StringIO(), io.StringIO()
    call_command("websocket_stats", "--watch", "0.01", *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("_others")
def test_watching_goes_on_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a line; the next table has the rates since the last one."""
    out, err = watched(monkeypatch)
    assert err == "The processes cannot be asked: Redis is away\n"
    lines = out.splitlines()
    assert lines.count("1 process") == 2
    assert lines.count("A second") == 1


@pytest.mark.usefixtures("_others")
def test_watching_prints_a_line_of_json_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is no part of them."""
    out, err = watched(monkeypatch, "--json")
    assert err == "The processes cannot be asked: Redis is away\n"
    assert [len(json.loads(line)["processes"]) for line in out.splitlines()] == [1, 1]


def test_a_process_answers_others_only_where_that_is_on(override: Callable[..., None]) -> None:
    """By default where the app is installed; here it is not."""
    assert conf.get("OPERATIONS") is None
    assert survey.is_on() is False
    override(WEBSOCKET_OPERATIONS=True)
    assert survey.is_on() is True


def test_wrong_settings_of_groups_close_no_websocket(
    visit: Callable[..., Visit], override: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one of a process begins its samples, of which one is about groups."""
    override(WEBSOCKET_OPERATIONS=True, WEBSOCKET_GROUPS=["default"])
    monkeypatch.setattr(survey, "_listener", survey._Listener())
    opened(visit).client.close()
    assert statistics()["groups"] == {}


def test_samples_are_taken_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next event starts the thread that the error has ended."""
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    monkeypatch.setattr(survey, "is_on", lambda: True)
    monkeypatch.setattr(survey, "_subscribe", lambda *, is_first: 1 / 0)
    listener = survey._Listener()
    for _ in range(2):
        listener.on_event()
        assert ended.wait(60)
        ended.clear()
        eventually(lambda: not listener._is_running)
