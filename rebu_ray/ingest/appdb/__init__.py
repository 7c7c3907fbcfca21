"""The application database: its rows, pulled as they change."""

from __future__ import annotations

from typing import Final

from rebu_ray.ingest.appdb.database import CHANNEL, Away, database_url
from rebu_ray.ingest.appdb.puller import Puller
from rebu_ray.ingest.appdb.table import Pace
from rebu_ray.records import TABLES

__all__ = ["TRIGGERS", "Away", "Pace", "Puller", "database_url"]

TRIGGERS: Final = f"""\
-- Wakes Rebu when a transaction that changed a table commits. Run it as the owner of the tables; Rebu never writes.
CREATE OR REPLACE FUNCTION rebu_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{CHANNEL}', '');
    RETURN NULL;
END
$$;
""" + "".join(
    f"CREATE OR REPLACE TRIGGER rebu_notify AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}\n"
    "    FOR EACH STATEMENT EXECUTE FUNCTION rebu_notify();\n"
    for table in TABLES
)
"""SQL for a PostgreSQL (14 or later) that should tell of changes rather than be asked."""
