"""The commands of `"dwebsocket"` in `INSTALLED_APPS`."""
