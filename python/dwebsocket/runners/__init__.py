"""Where views run: :mod:`thread` gives them a thread, :mod:`view` is their life on it."""
