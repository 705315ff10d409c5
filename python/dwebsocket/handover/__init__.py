"""
Open connections survive the end of their process: another one of the site goes on with them.

A process that ends (:mod:`~dwebsocket.handover.leaving`) connects to a younger one of the same
project on this machine (:mod:`~dwebsocket.handover.arriving`), by a Unix socket in a folder that
only their user can enter (:mod:`~dwebsocket.handover.meeting`). It *offers* each connection: what
the handler keeps, and the request. The other one answers that request by its own URLs, middleware
and code, and says yes or no. After a yes the connection stands still and is *given*: its descriptor
and all bytes that are on their way. The heir then *takes* it, and sends nothing before it has said
so. Until then the giver can take the connection back; after it, it lets go of it without a word.
"""

from __future__ import annotations
