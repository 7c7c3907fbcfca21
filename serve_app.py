"""The application for `serve run serve_app:app` and `serve deploy`, on a Ray cluster that is already there.

It takes its settings from the environment where it is imported. Redis must be one that every node reaches
(REBU_REDIS_URL); journal and lake a shared folder or an object store (REBU_JOURNAL_URI, REBU_LAKE_URI). For the
throughput that Serve has behind HAProxy, every `ray start` needs in its environment what `rebu node environment`
prints.
"""

import msgspec

from rebu_ray.access.gateway import application
from rebu_ray.ingest.appdb.database import database_url
from rebu_ray.ingest.secret import with_secret
from rebu_ray.keys import load_keys
from rebu_ray.settings import SettingsError, load

settings = load()
if not settings.redis_url:
    raise SettingsError("set REBU_REDIS_URL to a Redis that every node reaches, or use `rebu up`, which brings one")

appdb_url = database_url(settings.appdb_url) if settings.appdb_url else ""
settings = msgspec.structs.replace(with_secret(settings), appdb_url=appdb_url)
app = application(settings, load_keys(settings.data_dir, settings.write_key, settings.read_key, settings.admin_key))
