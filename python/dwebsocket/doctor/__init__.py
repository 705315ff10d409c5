"""
The knowledge of ``manage.py websocket_doctor``: what can be wrong around WebSockets, and the fix.

:mod:`local` looks at the settings and at the servers that run on this machine, :mod:`live` asks a
running site, :mod:`proxy` writes the configuration of the proxy in front. Each gives
:class:`Finding` objects; nothing here changes anything.
"""

from __future__ import annotations

from dwebsocket.doctor.finding import Finding, Level

__all__ = ["Finding", "Level"]
