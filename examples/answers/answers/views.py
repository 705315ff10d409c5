"""The page, and its WebSocket: see docs/streaming.md."""

import asyncio
from contextlib import aclosing

from django.http import HttpResponse
from django.shortcuts import render

from answers.model import apieces
from dwebsocket import WebSocket, WebSocketRequest, accept_websocket


@accept_websocket
async def ask(request: WebSocketRequest) -> HttpResponse | None:
    """The page. Over its WebSocket it asks and cancels; each answer is a task beside the view."""
    if not request.is_websocket():
        return render(request, "answers/ask.html")
    websocket, answer = request.websocket, None
    while True:
        message = await websocket.areceive_json()
        if answer is not None:
            answer.cancel()
            await asyncio.wait([answer])
        match message:
            case {"ask": str(prompt), "id": int(number)}:
                answer = await websocket.astart(send_answer, websocket, number, prompt)


async def send_answer(websocket: WebSocket, number: int, prompt: str) -> None:
    """Sends an answer as it comes."""
    async with aclosing(apieces(prompt)) as source:
        async for text in source:
            await websocket.asend_json({"answer": number, "text": text})
    await websocket.asend_json({"answer": number, "done": True})
