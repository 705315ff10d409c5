"""A backend of groups whose server tests cannot reach."""

from dwebsocket.groups import Backend as BaseBackend


class Backend(BaseBackend):
    """Every call that needs the server fails."""

    def publish(self, name, envelope):
        raise self.unavailable("a test has tried to reach production")

    async def apublish(self, name, envelope):
        self.publish(name, envelope)

    def subscribe(self, name):
        raise self.unavailable("a test has tried to reach production")

    async def asubscribe(self, name):
        self.subscribe(name)

    def count(self, name):
        raise self.unavailable("a test has tried to reach production")

    async def acount(self, name):
        return self.count(name)
