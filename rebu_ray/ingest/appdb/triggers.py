"""How a PostgreSQL tells of changes."""

from __future__ import annotations

from typing import Final

from rebu_ray.records import TABLES

CHANNEL: Final = "rebu"
"""What PostgreSQL is listened to for."""
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
