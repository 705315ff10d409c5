"""The pages, and the consumers as views."""

from django.urls import path
from graph.schema import schema
from notes.consumers import NoteConsumer
from strawberry.channels import GraphQLWSConsumer

from apisite import pages
from dwebsocket import asgi_websocket

urlpatterns = [
    *pages.urlpatterns,
    path("ws/graphql/", asgi_websocket(GraphQLWSConsumer.as_asgi(schema=schema))),
    path("ws/notes/", asgi_websocket(NoteConsumer.as_asgi())),
]
