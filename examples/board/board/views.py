"""A board on which all draw. A stroke is one binary message: a colour, and 16-bit coordinates."""

from django.http import HttpResponse
from django.shortcuts import render

from dwebsocket import WebSocketRequest, accept_websocket, group

#: A byte of colour, a byte of nothing, and from one to 2,000 points of four bytes.
LARGEST = 2 + 4 * 2000


@accept_websocket(text_type=str, max_message_size=LARGEST)
def board(request: WebSocketRequest, name: str) -> HttpResponse | None:
    """The page, and its strokes."""
    if not request.is_websocket():
        return render(request, "board/board.html", {"name": name})
    strokes = group(f"board-{name}")
    # From the beginning: what was drawn comes first, then what is drawn, without a gap.
    request.websocket.join(strokes, since="", partial=True)
    for stroke in request.websocket:
        if isinstance(stroke, bytes) and len(stroke) >= 6 and len(stroke) % 4 == 2:
            # To its sender, too: its page clears the canvas when it comes back after a break.
            strokes.send(stroke)
    return None
