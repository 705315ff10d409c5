"""The test project's URLs, with those for `dwebsocket.js`."""

from django.urls import include, path

from project.urls import urlpatterns as others

urlpatterns = [*others, path("client/", include("project.client_views"))]
