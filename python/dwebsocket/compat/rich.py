"""rich, where it is installed: bars that show how far something is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    # Shows how far each bar is, by their names.
    Update = Callable[[Mapping[str, float]], None]


@contextmanager
def bars(totals: Mapping[str, float]) -> Iterator[Update | None]:
    """Shows a bar for each name on the standard error; yields None where the package is missing."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield None
        return
    with Progress(console=Console(stderr=True)) as progress:
        tasks = {name: progress.add_task(name, total=total) for name, total in totals.items()}

        def update(completed: Mapping[str, float]) -> None:
            for name, value in completed.items():
                progress.update(tasks[name], completed=value)

        yield update
