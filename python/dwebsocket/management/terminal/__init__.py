"""
Programs for the terminal that are clients of a WebSocket: their parts, without Django's commands.

``conversation.py`` is what ``manage.py websocket_client`` does with a connection; ``lines.py``
reads what is typed, ``writing.py`` gives what comes as text, ``recording.py`` keeps it in a file,
``sign_in.py`` makes a session for a user. ``load.py`` is the work of ``manage.py websocket_load``.
"""
