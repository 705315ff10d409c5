"""Notes by WebSocket: the actions of an API, and every change as it happens."""

from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import (
    CreateModelMixin,
    DeleteModelMixin,
    ListModelMixin,
    PatchModelMixin,
)
from djangochannelsrestframework.observer import model_observer
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from djangochannelsrestframework.permissions import BasePermission
from rest_framework.serializers import ModelSerializer

from notes.models import Note


class NoteSerializer(ModelSerializer):
    """A note as clients see it."""

    class Meta:
        model = Note
        fields = ("id", "text")


class OthersMayNotDelete(BasePermission):
    """Only those who have signed in delete notes."""

    async def has_permission(self, scope, consumer, action, **kwargs):
        return action != "delete" or scope["user"].is_authenticated


class NoteConsumer(
    ListModelMixin,
    CreateModelMixin,
    PatchModelMixin,
    DeleteModelMixin,
    ObserverModelInstanceMixin,
    GenericAsyncAPIConsumer,
):
    """The notes."""

    queryset = Note.objects.order_by("id")
    serializer_class = NoteSerializer
    permission_classes = (OthersMayNotDelete,)

    @model_observer(Note, serializer_class=NoteSerializer)
    async def note_activity(self, message, action=None, subscribing_request_ids=(), **kwargs):
        for request_id in subscribing_request_ids:
            await self.reply(data=message, action=action, request_id=request_id)

    @action()
    async def subscribe_to_notes(self, request_id, **kwargs):
        await self.note_activity.subscribe(request_id=request_id)
        return None, 201
