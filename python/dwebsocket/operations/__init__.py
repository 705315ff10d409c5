"""
The numbers to operate a site by: of this process, and of all processes of the site together.

Each process counts for itself. The others ask it over the default backend of groups: for the page
in Django's admin, the command ``websocket_stats``, and metrics.
"""

from __future__ import annotations

from dwebsocket.operations.scraping import metrics
from dwebsocket.operations.snapshot import Statistics
from dwebsocket.operations.survey import SiteStatistics, statistics
from dwebsocket.operations.survey import site_statistics as site_statistics

__all__ = ["SiteStatistics", "Statistics", "metrics", "statistics"]
