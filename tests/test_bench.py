"""The bench's own judgement: which goals a run has reached, and the pictures of it."""

from __future__ import annotations

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
        """Figures that the run has not measured are counted, not judged."""
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
