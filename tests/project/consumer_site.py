"""The test project with consumers."""

from project import consumer_urls, urls

urlpatterns = [*consumer_urls.urlpatterns, *urls.urlpatterns]
