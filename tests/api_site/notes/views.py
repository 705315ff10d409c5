"""The page of a note."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note


@csrf_exempt
def note(request, pk):
    """Show a note; POST writes it anew, DELETE deletes it."""
    found = get_object_or_404(Note, pk=pk)
    if request.method == "POST":
        found.text = request.body.decode()
        found.save()
    elif request.method == "DELETE":
        found.delete()
    return HttpResponse(found.text)
