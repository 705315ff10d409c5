"""No address: the unit tests set ROOT_URLCONF where they need one."""

urlpatterns: list = []
