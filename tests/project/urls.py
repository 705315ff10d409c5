"""URLs of the test project: the view's name with hyphens."""

from django.urls import include, path

from dwebsocket import accept_websocket
from project import (
    account_views,
    async_views,
    beside_views,
    handlers,
    own_middleware,
    ping_views,
    time_to_end,
    views,
)

time_to_end.allow()

_by_name = [
    views.stubborn,
    views.status, views.plain, views.echo, views.echo_str, views.echo_exact,
    views.echo_with_context, views.echo_uncompressed,
    views.echo_slowly_started, views.whole, views.returns_at_once, views.says_one_thing,
    views.raises, views.raises_after_message, views.denied, views.missing, views.closes_first,
    views.closes_and_goes_on, views.closes_on_demand, views.never_read,
    views.never_read_but_ping, views.sits, views.waits, views.push, views.slow,
    views.session_write, views.orm, views.subprotocol, views.at_most_1000, views.impatient,
    views.lively,
    views.undecorated, views.sleeps, views.drain, views.drains_itself,
    views.own_pid, views.decides, views.asks_database, views.keeps_database, views.pours,
]  # fmt: skip

_async = [
    async_views.async_echo, async_views.async_json, async_views.async_orm,
    async_views.async_impatient, async_views.async_tasks, async_views.async_raises,
    async_views.async_decides,
]  # fmt: skip

_beside = [beside_views.closes, beside_views.aclosing, beside_views.starts]

urlpatterns = [
    *[path(f"{view.__name__}/", view) for view in _beside],
    *[path(f"{view.__name__.replace('_', '-')}/", view) for view in _async],
    path("async-reports/<str:name>/", async_views.async_reports),
    path("seen/<str:name>/", async_views.seen_by),
    *[path(f"{view.__name__.replace('_', '-')}/", view) for view in _by_name],
    path("addresses/", include("project.address_views")),
    path("handlers/echo/<str:name>/", handlers.Echo.as_view()),
    path("handlers/async-echo/<str:name>/", handlers.AsyncEcho.as_view()),
    path("handlers/mixed-echo/<str:name>/", handlers.MixedEcho.as_view()),
    path("handlers/door/<str:name>/", handlers.Door.as_view()),
    path("handlers/async-door/<str:name>/", handlers.AsyncDoor.as_view()),
    path("handlers/seen/<str:name>/", handlers.seen_by),
    path("handlers/ends/", include("project.handler_ends")),
    path("pings/", ping_views.pings),
    path("async-pings/", ping_views.async_pings),
    path("own/echo/", own_middleware.echo),
    path("own/async-echo/", own_middleware.async_echo),
    path("own/decorated/", own_middleware.decorated),
    path("own/raises/", own_middleware.raises),
    path("own/large/", own_middleware.large),
    path("own/alarm/", own_middleware.alarm),
    *[path(f"account/{view.__name__}/", view) for view in account_views.ALL],
    path("census/", views.census),
    path("log-out/", views.log_out),
    path("log-in/<str:name>/", views.log_in),
    path("reports-the-end/<str:name>/", views.reports_the_end),
    path("ending/<str:name>/", views.ending),
    path("request-facts/<int:number>/", views.request_facts),
    path("groups/", include("project.group_views")),
    path("green/", include("project.green_views")),
    path("database/", include("project.database_views")),
    path("fallback/", include("project.fallback_views")),
    path("live-rooms/", include("project.live_rooms")),
    path("places/", include("project.place_views")),
    path("by-method-decorator/", views.ByMethodDecorator.as_view()),
    path("around-as-view/", accept_websocket(views.AroundAsView.as_view())),
    *[path(f"under/{name}/", view) for name, view in views.UNDER.items()],
    *[path(f"over/{name}/", view) for name, view in views.OVER.items()],
]
