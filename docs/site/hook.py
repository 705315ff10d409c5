"""Additions to the pages for the site: see mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File
from mkdocs.structure.nav import Navigation, Section

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page
    from mkdocs.utils.templates import TemplateContext

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Draws the diagrams in the browser. `make site` installs it from npm.
MERMAID = ROOT / ".cache" / "site" / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"

#: Folders of translated pages: the section of the menu, the theme's language, and the pages'.
LANGUAGES = {"zh": ("简体中文", "zh", "zh-Hans")}

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")
# A line of Chinese that ends within a sentence: browsers would show a space there.
_BROKEN = re.compile(r"(?<=[\u3001-\u9fff\uff00-\uffef])\n *(?=[\u4e00-\u9fff\uff08\u201c])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds files from outside the folder of pages."""
    script = MERMAID.read_text() + (HERE / "mermaid.js").read_text()
    style = (HERE / "extra.css").read_text()
    files.append(File.generated(config, "assets/mermaid.min.js", content=script))
    files.append(File.generated(config, "assets/extra.css", content=style))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files that the site does not have become text with the path; lines are joined."""
    pages = Path(config.docs_dir)
    here = (pages / page.file.src_uri).parent

    def without_link(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if target.is_relative_to(pages):
            return link[0]
        path = target.relative_to(ROOT)
        return link[1] if f"`{path}`" in link[1] else f"{link[1]} (`{path}`)"

    if language_of(page) == "zh":
        markdown = _BROKEN.sub("", markdown)
    return _LINK.sub(without_link, markdown)


def on_page_context(
    context: TemplateContext, *, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    """Each language has a menu of its own, a first page, and the theme's words."""
    folder = language_of(page)
    sections = {each.title: each for each in nav.items if isinstance(each, Section)}
    own = {name: sections[title].children for name, (title, _, _) in LANGUAGES.items()}
    others = [LANGUAGES[name][0] for name in LANGUAGES]
    items = own.get(folder) or [each for each in nav.items if each.title not in others]
    menu = Navigation(items, nav.pages)
    menu.homepage = next((each for each in items if each.is_page), nav.homepage)
    config.theme["language"] = LANGUAGES[folder][1] if folder else "en"
    context["nav"] = menu
    return context


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Translated pages say so: browsers choose their fonts by that."""
    folder = language_of(page)
    if folder:
        _, theme, name = LANGUAGES[folder]
        return output.replace(f'<html lang="{theme}"', f'<html lang="{name}"', 1)
    return output


def language_of(page: Page) -> str:
    """Give the folder of a translated page, nothing for the others."""
    folder = page.file.src_uri.partition("/")[0]
    return folder if folder in LANGUAGES else ""
