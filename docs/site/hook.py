"""Additions to the pages for the site: see mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Draws the diagrams in the browser. `make site` installs it from npm.
MERMAID = ROOT / ".cache" / "site" / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds files from outside the folder of pages."""
    script = MERMAID.read_text() + (HERE / "mermaid.js").read_text()
    style = (HERE / "extra.css").read_text()
    files.append(File.generated(config, "assets/mermaid.min.js", content=script))
    files.append(File.generated(config, "assets/extra.css", content=style))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files that the site does not have become text with the path."""
    pages = Path(config.docs_dir)
    here = (pages / page.file.src_uri).parent

    def without_link(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if target.is_relative_to(pages):
            return link[0]
        path = target.relative_to(ROOT)
        return link[1] if f"`{path}`" in link[1] else f"{link[1]} (`{path}`)"

    return _LINK.sub(without_link, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Pages in Chinese say so: browsers choose their fonts by that."""
    if page.file.src_uri.startswith("zh/"):
        return output.replace('<html lang="en"', '<html lang="zh-Hans"', 1)
    return output
