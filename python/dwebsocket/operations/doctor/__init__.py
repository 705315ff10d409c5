"""
The checks of ``manage.py websocket_doctor``: problems around WebSockets, and their fixes.

:mod:`local` checks the settings and the servers that run on this machine, :mod:`live` sends
handshakes to a running site, :mod:`proxy` writes the configuration of the proxy in front.
:mod:`local` and :mod:`live` give :class:`Finding` objects; nothing here changes anything.
:mod:`site_report` is the answer of the site to :mod:`live`.
"""

from __future__ import annotations

from dwebsocket.operations.doctor.finding import Finding, Level

__all__ = ["Finding", "Level"]
