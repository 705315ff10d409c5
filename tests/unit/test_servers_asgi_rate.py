"""How fast a client may send under ASGI is counted in bytes."""

from __future__ import annotations

import pytest
from test_servers_asgi import Wire, in_loop, until

EURO = "€"


@pytest.mark.parametrize("message", [EURO * 300, (EURO * 300).encode(), "e" * 900])
def test_text_counts_as_the_bytes_that_it_came_in(message: str | bytes) -> None:
    """All of these have 900."""

    @in_loop
    async def test() -> None:
        wire = Wire(max_bytes_per_second=1000, rate_timeout=60)
        wire.put(message)
        await until(lambda: wire.connection.waiting()[0])
        assert wire.connection.traffic()[2] == 900
        wire.websocket.close()
        wire.disconnect()
        await wire.serving

    test()
