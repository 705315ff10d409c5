"""The code on a page of docs/, as files of a project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"


def files_of(page: str) -> dict[str, str]:
    """Give the blocks of a page that begin with the name of a file."""
    text = (DOCS / page).read_text()
    return dict(
        re.findall(r"```(?:python|html)\n(?:# |<!-- )([\w/.]+)(?: -->)?\n(.*?)```", text, re.S)
    )


def snippet_of(page: str, part: str) -> str:
    """Give the block of Python that names no file and contains a text."""
    text = (DOCS / page).read_text()
    blocks = re.findall(r"```python\n(?!# )(.*?)```", text, re.S)
    (found,) = [each for each in blocks if part in each]
    return str(found)


def templates(folder: Path) -> list[dict[str, Any]]:
    """Give TEMPLATES for the templates in a folder."""
    return [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [str(folder)],
            "OPTIONS": {
                "libraries": {"dwebsocket": "dwebsocket.templatetags.dwebsocket"},
                "context_processors": ["django.template.context_processors.request"],
            },
        }
    ]
