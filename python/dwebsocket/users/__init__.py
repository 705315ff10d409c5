"""The users of connections: authentication, the register of their connections, and sign-outs."""
