//! A connection as a member of groups.

use super::{Connection, outbox::outcome::Sent};
use crate::{
    engine::groups::{Handed, Member, Memberships, Parcel, WhenFull},
    protocol::{
        close::{self, CloseFrame},
        deflate::Deflater,
    },
};

impl Member for Connection {
    fn is_foreign(&self) -> bool {
        Self::is_foreign(self)
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn deflater(&self) -> Option<&Deflater> {
        self.deflater.as_deref()
    }

    fn take(&self, parcel: &Parcel, when_full: WhenFull) -> Handed {
        if self.is_foreign() {
            return Handed::default();
        }
        let interrupted = match &self.deflater {
            Some(deflater) if parcel.is_compressed() => deflater.interrupt(),
            _ => None,
        };
        let (handed, sent) = if parcel.is_compressed() && interrupted.is_none() {
            // Its view compresses a message just now, which may refer to earlier ones only.
            (self.outbox).take_frames(&parcel.plain(), when_full)
        } else {
            self.outbox.take_frames(parcel, when_full)
        };
        drop(interrupted);
        self.count_sent(handed.delivered);
        if handed.is_closed {
            if let Ok(frame) = CloseFrame::new(Some(close::TRY_AGAIN_LATER), "too slow") {
                Self::close(self, &frame);
            }
        } else if matches!(sent, Sent::Queued | Sent::Closed) {
            self.wake.notify_one();
        }
        handed
    }

    fn close(&self, frame: &CloseFrame) {
        Self::close(self, frame);
    }
}
