"""Projects keep connections by user, session or `str`, and send to them from elsewhere."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.raw_peer import RawPeer
from support.waiting import eventually

if TYPE_CHECKING:
    from wild_subject import Subject


def test_by_str(subject: Subject) -> None:
    """`str(websocket)` is a key: it differs between connections and stays after the end."""
    with subject.scenario():
        with subject.client("/by-str/") as one, subject.client("/by-str/") as two:
            keys = [client.recv(20) for client in (one, two)]
            assert keys[0] != keys[1]
            for client, key in ((one, keys[0]), (two, keys[1])):
                query = urllib.parse.urlencode({"to": key, "text": f"for {key}"})
                assert subject.get(f"/by-str/push/?{query}").status == 200
                assert client.recv(20) == f"for {key}"
        eventually(lambda: subject.get("/by-str/").json() == {"count": 0}, 60)
        query = urllib.parse.urlencode({"to": keys[0], "text": "late"})
        assert subject.get(f"/by-str/push/?{query}").status == 404


def test_closed_from_a_page(subject: Subject) -> None:
    """A page closes a connection by its key; the view's iteration ends and removes it."""
    with subject.scenario(), subject.client("/by-str/") as client:
        query = urllib.parse.urlencode({"to": client.recv(20), "close": "1"})
        assert subject.get(f"/by-str/push/?{query}").status == 200
        with pytest.raises(ConnectionClosed):
            client.recv(20)
        eventually(lambda: subject.get("/by-str/").json() == {"count": 0}, 60)


def test_tabs_of_a_user(subject: Subject) -> None:
    """A push from a page reaches each tab of a user; a tab that is closed is forgotten."""
    with subject.scenario():
        with subject.client("/tabs/ada/") as one:
            with subject.client("/tabs/ada/") as two, subject.client("/tabs/bob/") as other:
                assert [tab.recv(20) for tab in (one, two, other)] == ["ready"] * 3
                subject.get("/tabs/ada/push/?text=news")
                assert [tab.recv(20) for tab in (one, two)] == ["news"] * 2
                subject.get("/tabs/bob/push/?text=other")
                assert other.recv(20) == "other"
                two.send("from two")
                assert [tab.recv(20) for tab in (one, two)] == ["from two"] * 2
            eventually(lambda: subject.get("/tabs/ada/").json()["tabs"] == 1, 60)
            subject.get("/tabs/ada/push/?text=more")
            assert one.recv(20) == "more"
        eventually(lambda: not subject.get("/tabs/ada/").json()["known"], 60)


def test_thread_of_a_page_reports_progress(subject: Subject) -> None:
    """A thread that a page has started sends to all tabs; a tab that goes disturbs no other."""
    with subject.scenario(), subject.client("/tabs/ada/") as stays:
        with subject.client("/tabs/ada/") as goes:
            assert [tab.recv(20) for tab in (stays, goes)] == ["ready"] * 2
            subject.get("/tabs/ada/job/")
            assert goes.recv(20) == "20 %"
        expected = [f"{percent} %" for percent in (20, 40, 60, 80, 100)]
        assert [stays.recv(20) for _ in range(5)] == expected


def test_by_session(subject: Subject) -> None:
    """The connection has the session of the page, and is found by its key."""
    cookie = (subject.get("/by-session/").header("Set-Cookie") or "").split(";")[0]
    with subject.scenario():
        with subject.client("/by-session/", additional_headers={"Cookie": cookie}) as page:
            assert page.recv(20) == "ready"
            assert subject.get("/by-session/push/", Cookie=cookie).status == 200
            assert page.recv(20) == "for your session"
            assert subject.get("/by-session/push/").status == 404
        eventually(lambda: subject.get("/by-session/push/", Cookie=cookie).status == 404, 60)


def test_broadcast_removes_those_that_are_closed(subject: Subject) -> None:
    """A page sends to a list and removes the connections whose `is_closed()` is true."""
    with subject.scenario():
        with subject.client("/swept/") as stays, subject.client("/swept/") as goes:
            assert [client.recv(20) for client in (stays, goes)] == ["ready"] * 2
            subject.get("/broadcast/?text=both")
            assert [client.recv(20) for client in (stays, goes)] == ["both"] * 2
            goes.close()
            eventually(lambda: len(subject.running()) == 1, 60, "one view has ended")
            assert subject.get("/broadcast/?text=one").json() == {"count": 1}
            assert stays.recv(20) == "one"
        eventually(lambda: not subject.running(), 60, "both views have ended")
        assert subject.get("/broadcast/?text=none").json() == {"count": 0}


def test_two_are_paired(subject: Subject) -> None:
    """Messages of one reach the other; the one that stays gets a notice of the other's end."""
    with subject.scenario(), subject.client("/support-chat/") as customer:
        assert customer.recv(20) == "wait"
        with subject.client("/support-chat/") as agent:
            assert customer.recv(20) == "agent is here"
            customer.send("help")
            assert agent.recv(20) == "help"
            agent.send("sure")
            assert customer.recv(20) == "sure"
        assert customer.recv(20) == "partner left"


def test_callback_of_a_broker(subject: Subject) -> None:
    """A callback that a thread of a library calls sends to all that have subscribed."""
    with subject.scenario():
        with subject.client("/subscribe/news/") as page:
            with RawPeer.open(subject.server, "/subscribe/news/") as peer:
                assert (page.recv(20), peer.read_message()) == ("subscribed", b"subscribed")
                subject.get("/publish/news/?text=one")
                assert (page.recv(20), peer.read_message()) == ("one", b"one")
                peer.vanish()
            subject.get("/publish/news/?text=two")
            assert page.recv(20) == "two"
            eventually(lambda: subject.get("/subscribe/news/").json() == {"count": 1}, 60)
        eventually(lambda: subject.get("/subscribe/news/").json() == {"count": 0}, 60)
