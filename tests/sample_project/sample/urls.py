"""Addresses of the sample project."""

from django.urls import path

from chat import handlers, views

urlpatterns = [
    path("", views.page),
    path("echo/", views.echo),
    path("aecho/", views.aecho),
    path("rooms/<slug:room>/", views.room),
    path("arooms/<slug:room>/", views.aroom),
    path("teams/<slug:team>/", views.team),
    path("ateams/<slug:team>/", views.ateam),
    path("add-note/", views.add_note),
    path("board/", views.board),
    path("aboard/", views.aboard),
    path("me/", views.me),
    path("räume/<str:term>/", views.me),
    path("visits/", views.visits),
    path("language/", views.language),
    path("notes/", views.notes),
    path("anotes/", views.anotes),
    path("import/", views.import_notes),
    path("fail/", views.fail),
    path("afail/", views.afail),
    path("fail-late/", views.fail_late),
    path("members/", views.members),
    path("secret/", views.secret),
    path("patient/", views.patient),
    path("apatient/", views.apatient),
    path("stuck/", views.stuck),
    path("astuck/", views.astuck),
    path("leaves/", views.leaves),
    path("clubs/<slug:club>/", handlers.Club.as_view()),
    path("aclubs/<slug:club>/", handlers.AsyncClub.as_view()),
    path("mixed-clubs/<slug:club>/", handlers.MixedClub.as_view()),
    path("handled-notes/", handlers.Notes.as_view()),
    path("handled-anotes/", handlers.AsyncNotes.as_view()),
    path("handled-fail-late/", handlers.FailsLate.as_view()),
    path("handled-stuck/", handlers.Stuck.as_view()),
    path("handled-astuck/", handlers.AsyncStuck.as_view()),
    path("handled-page/", handlers.Page.as_view()),
]
