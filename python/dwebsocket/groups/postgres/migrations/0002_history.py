"""The tables of the groups' history, on PostgreSQL, and the triggers that number messages."""

from __future__ import annotations

from django.db import migrations

from dwebsocket.groups.postgres.migrations._postgres import OnPostgres

# A message gets its number when its transaction commits. Until then it waits for nothing and holds
# nothing up, however long the transaction takes; from then on others that commit wait for it, as
# they do for `NOTIFY` anyway. So the order of numbers is that of commits, without gaps.
#
# Numbering comes in a second round of deferred triggers. Those of the first, such as Django's
# foreign keys, may wait for rows that another transaction has locked, and must not do so while that
# one waits for the lock here.
#
# Both tables are unlogged: they are emptied together, after a crash and on a new primary.
_CREATE = """
CREATE UNLOGGED TABLE IF NOT EXISTS dwebsocket_numbering (
    group_key uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    newest bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS dwebsocket_numbering_expires_at ON dwebsocket_numbering (expires_at);

CREATE UNLOGGED TABLE IF NOT EXISTS dwebsocket_history (
    publication uuid PRIMARY KEY,
    group_key uuid NOT NULL,
    -- Of a numbering that begins with this message; afterwards, of the one that it is in.
    epoch bigint NOT NULL,
    -- None until the transaction commits.
    number bigint,
    sent_at timestamp with time zone,
    expires_at timestamp with time zone,
    size bigint NOT NULL,
    seconds double precision NOT NULL,
    channel text NOT NULL,
    content text NOT NULL,
    -- Whether it is numbered in the next round: at once where the transaction has nothing else.
    is_due boolean NOT NULL
);
ALTER TABLE dwebsocket_history ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX IF NOT EXISTS dwebsocket_history_number
ON dwebsocket_history (group_key, epoch, number);
CREATE INDEX IF NOT EXISTS dwebsocket_history_expires_at ON dwebsocket_history (expires_at);

CREATE OR REPLACE FUNCTION dwebsocket_mark_due() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
BEGIN
    UPDATE dwebsocket_history SET is_due = true WHERE publication = NEW.publication;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION dwebsocket_number() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
DECLARE
    place dwebsocket_numbering;
    moment timestamp with time zone;
    announcement text;
BEGIN
    -- The bytes of "dwebsock".
    PERFORM pg_advisory_xact_lock(7239366399539241835);
    moment := clock_timestamp();
    -- A day after its last use a numbering may go. Changed once an hour, its index is let be.
    INSERT INTO dwebsocket_numbering AS numbering (group_key, epoch, newest, expires_at)
    VALUES (
        NEW.group_key, NEW.epoch, 1,
        date_trunc('hour', moment) + interval '25 hours' + make_interval(secs => NEW.seconds)
    )
    ON CONFLICT (group_key) DO UPDATE SET
        newest = numbering.newest + 1,
        expires_at = greatest(numbering.expires_at, excluded.expires_at)
    RETURNING * INTO place;
    UPDATE dwebsocket_history SET
        epoch = place.epoch, number = place.newest, sent_at = moment,
        expires_at = moment + make_interval(secs => NEW.seconds)
    WHERE publication = NEW.publication;
    announcement := lpad(to_hex(place.epoch), 16, '0') || '-' || place.newest || '.';
    IF length(NEW.content) < 7900 THEN
        announcement := 'h' || announcement || NEW.content;
    ELSE
        -- The content begins with the name, which takes no more than that.
        announcement := 'H' || announcement || left(NEW.content, 1072);
    END IF;
    PERFORM pg_notify(NEW.channel, announcement);
    IF place.newest % 16 = 0 THEN
        -- Of the oldest alone: the work stays the same, however many there are.
        DELETE FROM dwebsocket_history WHERE publication IN (
            SELECT publication FROM (
                SELECT publication, number, expires_at FROM dwebsocket_history
                WHERE group_key = place.group_key AND epoch = place.epoch
                ORDER BY number LIMIT 64
            ) AS oldest
            WHERE number <= place.newest - NEW.size OR expires_at < moment
        );
    END IF;
    RETURN NULL;
END
$body$;

DROP TRIGGER IF EXISTS dwebsocket_mark_due ON dwebsocket_history;
CREATE CONSTRAINT TRIGGER dwebsocket_mark_due AFTER INSERT ON dwebsocket_history
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NOT NEW.is_due)
EXECUTE FUNCTION dwebsocket_mark_due();
DROP TRIGGER IF EXISTS dwebsocket_number ON dwebsocket_history;
CREATE CONSTRAINT TRIGGER dwebsocket_number AFTER INSERT OR UPDATE OF is_due ON dwebsocket_history
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.is_due)
EXECUTE FUNCTION dwebsocket_number();
"""
_DROP = """
DROP TABLE IF EXISTS dwebsocket_history, dwebsocket_numbering;
DROP FUNCTION IF EXISTS dwebsocket_mark_due(), dwebsocket_number();
"""


class Migration(migrations.Migration):
    """Makes the tables."""

    dependencies = [("dwebsocket_postgres", "0001_messages")]  # noqa: RUF012
    operations = [OnPostgres(_CREATE, _DROP)]  # noqa: RUF012
