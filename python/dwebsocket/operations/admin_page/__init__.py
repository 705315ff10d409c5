"""The page about WebSockets in Django's admin; registered by :mod:`dwebsocket.admin`."""
