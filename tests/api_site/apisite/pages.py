"""The pages of the site, without WebSockets."""

from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from graph.schema import schema
from notes import views
from strawberry.django.views import AsyncGraphQLView

urlpatterns = [
    path("graphql/", csrf_exempt(AsyncGraphQLView.as_view(schema=schema))),
    path("notes/<int:pk>/", views.note),
]
