"""The page in Django's admin: what a request may ask for."""

from __future__ import annotations

import gettext
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.db import connection

from dwebsocket.operations.admin_page import tables

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("0", 1),
        ("-3", 1),
        ("", 1),
        ("²", 1),
        ("99999", 10_000),
        pytest.param("9" * 5000, 10_000, id="many digits"),
        pytest.param("0" * 5000, 1, id="many zeros"),
    ],
)
def test_the_admins_page_takes_any_number(text: str, number: int) -> None:
    """Senseless ones are those of the first page, or of the farthest."""
    assert tables.page_number(text) == number


def test_no_user_is_looked_up_by_a_nul_character() -> None:
    """PostgreSQL would raise."""

    def ask(*_: object) -> None:
        raise AssertionError("the database is asked")

    with connection.execute_wrapper(ask):
        assert tables.users_named("an\0na") == []


def test_a_device_with_a_long_number_is_no_user(anna: User) -> None:
    """SQLite has no integer of so many digits, and its driver refuses the question."""
    key = str(anna.pk)
    assert tables._names({key, "9" * 20, "-" + "9" * 20, "sensor"}) == {key: "anna"}


LOCALE = Path(tables.__file__).parents[2] / "locale"
# Some texts stand in two languages alike.
ALIKE = {"Ping"}


class TestTranslations:
    """The texts of the page in other languages."""

    def entries(self) -> dict[str, str]:
        """Give the texts of the source of the Chinese catalogue, by the English ones."""
        source = (LOCALE / "zh_Hans/LC_MESSAGES/django.po").read_text(encoding="utf-8")
        found = re.findall(
            r'^msgid "(.+)"\n(?:msgid_plural ".+"\n)?msgstr(?:\[0\])? "(.*)"$', source, re.MULTILINE
        )
        return dict(found)

    def test_the_page_has_each_text(self) -> None:
        """What the template and the code mark is in the catalogue, and nothing else."""
        package = LOCALE.parent
        page = package / "templates/admin/dwebsocket/websockets.html"
        texts = set(re.findall(r'\{% translate "(.+?)" %\}', page.read_text()))
        blocks = re.findall(
            r"\{% blocktranslate.*?%\}(.*?)\{% (?:plural|endblocktranslate) %\}", page.read_text()
        )
        texts |= {re.sub(r"\{\{ (\w+) \}\}", r"%(\1)s", block) for block in blocks}
        for path in (
            *package.glob("operations/admin_page/*.py"),
            package / "models.py",
            package / "apps.py",
        ):
            texts |= set(re.findall(r'\b_\(\s*"(.+?)"\s*\)', path.read_text()))
        assert texts == self.entries().keys()

    def test_chinese_is_whole(self) -> None:
        """Each text is there, with the same places for values, and compiled."""
        for text, own in self.entries().items():
            assert re.search(r"[\u4e00-\u9fff]", own) or text in ALIKE
            places = r"%\(\w+\)[sd]|\{\}|<[^>]+>"
            assert re.findall(places, own) == re.findall(places, text)
        with (LOCALE / "zh_Hans/LC_MESSAGES/django.mo").open("rb") as compiled:
            catalogue = gettext.GNUTranslations(compiled)
        shown = {text: catalogue.gettext(text) for text in self.entries()}
        for one, many in ((" process ", " processes "), (" WebSocket", " WebSockets")):
            (text,) = (each for each in shown if each.startswith("%(") and one in each)
            shown[text] = catalogue.ngettext(text, text.replace(one, many), 2)
        assert shown == self.entries()

    def test_the_script_asks_for_texts_that_it_gets(self) -> None:
        """By the English ones."""
        script = (LOCALE.parent / "static/dwebsocket/admin/websockets.js").read_text()
        asked = set(re.findall(r'told\("(.+?)"', script))
        asked |= set(re.findall(r'title: "(.+?)"', script))
        asked |= set(re.findall(r'\["\w+", "(.+?)"\]', script))
        assert asked == tables._chart_texts().keys()
