"""The bench's own judgement: which goals a run has reached, and the pictures of it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bench's modules be imported, which are a program and no package."""
    monkeypatch.syspath_prepend(str(BENCH))


def figure(subject: str, work: str = "echo 32 B text x50", **figures: Any) -> dict[str, Any]:
    """Make one measurement."""
    circumstances = {"failed": "", "limited_by_load": False, "disturbed": False}
    return {"subject": subject, "work": work, **circumstances, **figures}


def line(figures: list[dict[str, Any]], *words: str) -> str:
    """Give the one line of the table that has all these words."""
    import goals

    (found,) = [row for row in goals.markdown(figures).splitlines() if all(w in row for w in words)]
    return found


@pytest.mark.usefixtures("bench")
class TestGoals:
    """Ratios of medians within one run."""

    @pytest.mark.parametrize(("ours", "verdict"), [(250, "| yes |"), (249, "| no |")])
    def test_more_is_better(self, ours: int, verdict: str) -> None:
        """Two and a half times is enough, and less is not."""
        mine = [figure("dwebsocket2", messages_per_s=rate) for rate in (1, ours, 10_000)]
        row = line([*mine, figure("original", messages_per_s=100)], "messages/s", "≥ 2.5x")
        assert row.endswith(verdict)

    def test_less_is_better(self) -> None:
        """A latency of half is twice as good."""
        mine = figure("dwebsocket2", p99_us=500)
        row = line([mine, figure("original", p99_us=1000)], "p99", "≥ 1x")
        assert "2x (500 : 1,000)" in row
        assert row.endswith("| yes |")

    def test_load_generator_was_the_limit(self) -> None:
        """Then what a message costs is compared."""
        mine = figure("dwebsocket2", messages_per_s=1, server_cpu_us=2)
        theirs = figure("original", messages_per_s=1, server_cpu_us=6)
        row = line([{**mine, "limited_by_load": True}, theirs], "messages/s", "≥ 2.5x")
        assert "3x `CPU` (2 : 6)" in row

    def test_server_that_lost_messages(self) -> None:
        """It has no figure, whatever it says."""
        mine = figure("dwebsocket2", messages_per_s=10**6)
        lost = figure("original", messages_per_s=1, failed="3 lost")
        row = line([mine, lost], "messages/s", "≥ 2.5x")
        assert "original failed" in row
        assert row.endswith("| no |")

    def test_not_measured(self) -> None:
        """Figures that the run has not measured are counted, not validated."""
        import goals

        table = goals.markdown([])
        assert f"{len(goals.GOALS)} further goals" in table
        assert "| yes |" not in table


@pytest.mark.usefixtures("bench")
def test_charts(tmp_path: Path) -> None:
    """Every picture is well-formed and names its subjects; figures not measured have none."""
    import charts

    run = {
        "date": "2026-11-20",
        "commit": "0123456789ab",
        "repetitions": 3,
        "machine": {"processor": "of some kind"},
        "subjects": {"dwebsocket2": "this", "original": "the other"},
        "figures": [
            figure(name, messages_per_s=rate, server_cpu_us=5, p50_us=1, p99_us=2)
            for name, rate in (("dwebsocket2", 3), ("original", 1))
        ],
    }
    drawn = charts.write(run, tmp_path)
    assert drawn
    for path in drawn:
        text = "".join(ET.parse(path).getroot().itertext())
        assert "dwebsocket2" in text
        assert "original" in text


@pytest.mark.usefixtures("bench")
def test_charts_in_the_docs_are_of_the_newest_records(tmp_path: Path) -> None:
    """Drawing every record again, the newest last, gives the same pictures."""
    import charts
    import storm

    for record in sorted((BENCH / "record").glob("*.json")):
        run = json.loads(record.read_text())
        # Other programs than run.py have figures of another form, without subjects.
        if "subjects" in run:
            charts.write(run, tmp_path)
        elif "back" in run:
            (tmp_path / "storm.svg").write_text(storm.chart(run["back"], run["clients"]))
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in charts.FOLDER.iterdir()}


@pytest.mark.usefixtures("bench")
def test_machine_has_no_more_cores_than_there_are() -> None:
    """A row that is read late also contains the time until the next row begins."""
    import storm

    # Two cores are busy for 40 s; each second row is read 0.9 s late.
    rows = [{"s": at + 1.0, "cores": 3.8 if at % 2 else 0.2} for at in range(40)]
    means = storm.mean_cores(rows)
    assert len(means) == len(rows)
    assert max(means) < 2.1
    assert min(means) > 1.7
    assert storm.mean_cores(rows[:1]) == [pytest.approx(0.1)]


def frame(text: str) -> bytes:
    """Make a frame as a server sends it."""
    payload = text.encode()
    size = (
        bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    )
    return b"\x81" + size + payload


def event(text: str) -> bytes:
    """Make a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: message\n{lines}\n".encode()


@pytest.mark.usefixtures("bench")
class TestClients:
    """What the clients of `recovery.py` find in the bytes that came."""

    @pytest.mark.parametrize(
        ("head", "made"),
        [
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", frame),
            (b"HTTP/1.1 200 OK\r\n\r\n:  \n\nevent: open\ndata: {}\n\n", event),
            (b"", frame),
            (b"", event),
        ],
    )
    def test_messages(self, head: bytes, made: Any) -> None:
        """In frames and in events, behind the head of a response and without one."""
        import many_clients

        texts = ["", "short", "of\nlines", "long" * 100, "ä"]
        assert many_clients.messages(head + b"".join(map(made, texts))) == texts

    def test_refusal(self) -> None:
        """Is no connection."""
        import many_clients
        from machine import BenchError

        with pytest.raises(BenchError, match="503"):
            many_clients.messages(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")

    @pytest.mark.parametrize("offsets", [[1, 3], [1, 1], [2, 1]])
    def test_gap(self, offsets: list[int]) -> None:
        """Numbered messages come in order, none missing and none twice."""
        import many_clients
        from machine import BenchError

        def texts(offsets: list[int]) -> list[str]:
            made = [{"position": f"0a-{offset}", "data": f"{offset}"} for offset in offsets]
            return [json.dumps(one) for one in [*made, {"recovered": True, "position": "0a-9"}]]

        assert many_clients.numbered(texts([4, 5])) == ["4", "5"]
        assert many_clients.numbered(texts([])) == []
        with pytest.raises(BenchError, match="gap"):
            many_clients.numbered(texts(offsets))

    def test_fleet(self) -> None:
        """Clients wait for what is looked for, also when it comes in two pieces."""
        import many_clients

        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = "{}:{}".format(*listener.getsockname())

            def serve() -> None:
                peers = [listener.accept()[0] for _ in range(3)]
                for peer in peers:
                    assert peer.recv(4096).startswith(b"GET /x HTTP/1.1\r\n")
                    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r")
                for peer in peers:
                    peer.sendall(b"\n" + frame("hello"))
                for peer in peers:
                    peer.recv(1)
                    peer.close()

            thread = threading.Thread(target=serve)
            thread.start()
            with many_clients.Fleet(address) as fleet:
                fleet.open("/x", 3)
                fleet.read_until(b"hello")
                assert [many_clients.messages(came) for came in fleet.take()] == [["hello"]] * 3
            thread.join()


@pytest.mark.usefixtures("bench")
class TestRecovery:
    """The judgement of `recovery.py`."""

    @pytest.mark.parametrize(("ours", "holds"), [([3.0, 1.1, 1.2], True), ([3.0, 1.2, 1.3], False)])
    def test_ratio(self, ours: list[float], *, holds: bool) -> None:
        """That of medians; the range is that of the turns."""
        import recovery

        row = recovery.ratio("µs", ours, [1.0, 1.0, 1.0], "a thing", 1.2)
        assert row.holds is holds
        assert "turns 1.10 to 3.00" in row.figure or not holds

    def test_told(self) -> None:
        """Joins are told one by one or in lists, and everybody is told the same."""
        import recovery
        from machine import BenchError

        one = frame(json.dumps({"joined": {"key": "a"}}))
        several = frame(json.dumps({"joined": [{"key": "b"}, {"key": "c"}]}))
        assert recovery._told([one + several] * 2, 3) == (2, len(one + several))
        with pytest.raises(BenchError, match="3 joins of 2"):
            recovery._told([one + several], 2)
        with pytest.raises(BenchError, match="different"):
            recovery._told([one, several], 2)

    def test_cpu_of_processes(self) -> None:
        """Is that of their clocks."""
        import machine

        before, own = machine.cpu_s([os.getpid()]), time.process_time()
        while time.process_time() < own + 0.02:
            pass
        assert machine.cpu_s([os.getpid()]) - before >= 0.02
