"""docs/examples.md and the projects in examples/: each is listed, and says how it is started."""

from __future__ import annotations

import pytest

from support.pages import ROOT, blocks, links

PROJECTS = sorted(path.parent.name for path in (ROOT / "examples").glob("*/manage.py"))


def test_page_lists_each_project() -> None:
    """By a link to its README, each with a picture of its own."""
    found = links("docs/examples.md")
    linked = [link for link in found if link.endswith("/README.md")]
    assert sorted(linked) == [f"../examples/{name}/README.md" for name in PROJECTS]
    assert len({link for link in found if link.endswith(".png")}) == len(PROJECTS)


@pytest.mark.parametrize("name", PROJECTS)
def test_first_block_starts_the_project(name: str) -> None:
    """Three or four commands: they install, make the database, and start the server."""
    first = blocks(f"examples/{name}/README.md")[0]
    commands = first.text.splitlines()
    assert first.language == "console"
    assert len(commands) in (3, 4)
    assert commands[0].startswith("pip install ")
    assert "dwebsocket2" in commands[0]
    assert "python manage.py migrate" in commands
    assert [each for each in commands if "runserver" in each or "uvicorn --ws" in each] != []
