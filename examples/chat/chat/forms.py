"""What people fill in: the name of a room to open, and their own."""

from django import forms
from django.contrib.auth.models import User

from .models import Room, slug_of

MAX_NAME = 24


class RoomForm(forms.Form):
    """The name of a room to open."""

    name = forms.CharField(max_length=40)

    def clean_name(self) -> str:
        """Refuse a name of which no address can be made."""
        name: str = self.cleaned_data["name"]
        if not slug_of(name):
            raise forms.ValidationError("Please use some letters or digits.")
        return name

    def room(self) -> Room:
        """Return the room of that name, new or not."""
        name = self.cleaned_data["name"]
        room, _ = Room.objects.get_or_create(slug=slug_of(name), defaults={"name": name})
        return room


class NameForm(forms.Form):
    """What somebody wants to be called. There is no password: this is a demo."""

    name = forms.CharField(max_length=MAX_NAME)

    def clean_name(self) -> str:
        """Put the name on one line, without runs of blanks."""
        return " ".join(self.cleaned_data["name"].split())

    def user(self) -> User:
        """Return the user of that name, new or not."""
        user, _ = User.objects.get_or_create(username=self.cleaned_data["name"])
        return user
