"""Who the users of connections are, and what happens when they sign out."""
