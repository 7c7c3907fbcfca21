"""What is computed of rows: documents of rides, links of messages, forecasts."""

import rebu_ray.store as _store  # noqa: F401  # its way with pyarrow holds here too
