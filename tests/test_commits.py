"""`.ci/commits` holds the history to one form."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "commits"
BODY = "\n\nIt was not before."
IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


class Repository:
    """A repository in which the script is older than what follows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        self.commit(
            "Something from before the rule may have any length and any form, and is left alone"
        )
        (folder / ".ci").mkdir()
        shutil.copy(SCRIPT, folder / ".ci")
        self.git("add", ".ci")
        self.commit(f"ci: the form of commits is checked{BODY}")

    def git(self, *words: str) -> None:
        """Run git."""
        subprocess.run(["git", *words], cwd=self.folder, env={**os.environ, **IDENTITY}, check=True)

    def commit(self, message: str) -> None:
        """Add a commit."""
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def complaints(self) -> list[str]:
        """Run the script: the lines that it prints, none if it is content."""
        script = self.folder / ".ci" / "commits"
        done = subprocess.run([script], capture_output=True, text=True, check=False)
        assert done.returncode == bool(done.stdout), done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository of two commits."""
    return Repository(tmp_path)


@pytest.mark.parametrize(
    "message",
    [
        f"engine: answer pings before the view reads{BODY}",
        f".ci/run: print one table{BODY}",
        f"docs, tests: name /var/run/dwebsocket.sock{BODY}",
        f"{'a: ' + 'x' * 68}{BODY}",
    ],
)
def test_right_form_is_taken(repository: Repository, message: str) -> None:
    """Older commits are not looked at."""
    repository.commit(message)
    assert repository.complaints() == []


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (f"{'a: ' + 'x' * 69}{BODY}", "its subject has 72 characters; below 72"),
        (f"Engine answers pings{BODY}", "its subject is not 'area: what it does'"),
        (f"engine: answers pings.{BODY}", "its subject is not 'area: what it does'"),
        ("engine: answers pings", "a blank line and a body that says why do not follow"),
        ("engine: answers\npings", "a blank line and a body that says why do not follow"),
        ("ci: run it\n\nSeen in /work/main.", "it names a folder of a machine"),
        ("ci: take over\n\nFrom /tmp/hB into main.", "it names a folder of a machine"),
    ],
)
def test_other_forms_are_named(repository: Repository, message: str, complaint: str) -> None:
    """With the commit and what is wrong with it."""
    # git itself would join the lines of a subject that no blank line ends.
    (repository.folder / "message").write_text(message)
    repository.git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", "message")
    assert any(complaint in line for line in repository.complaints())


def test_merges_are_named(repository: Repository) -> None:
    """Parallel work is rebased."""
    repository.git("checkout", "-q", "-b", "side")
    repository.commit(f"engine: answer pings{BODY}")
    repository.git("checkout", "-q", "main")
    repository.commit(f"docs: say so{BODY}")
    repository.git("merge", "-q", "--no-ff", "-m", f"engine: merge pings{BODY}", "side")
    (complaint,) = repository.complaints()
    assert complaint.endswith("engine: merge pings: is a merge; rebase in place of that")


def test_commits_before_the_last_tag_are_not_looked_at(repository: Repository) -> None:
    """They have been released."""
    repository.commit("Wrong")
    repository.git("tag", "v1")
    repository.commit(f"docs: say so{BODY}")
    assert repository.complaints() == []
