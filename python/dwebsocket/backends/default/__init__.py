"""Import paths of the original package, kept for `WEBSOCKET_FACTORY_CLASS`."""
