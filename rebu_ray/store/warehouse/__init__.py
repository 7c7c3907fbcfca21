"""The warehouse: a star schema in one DuckDB file, made from the lake and published whole.

A load works on a copy of the published file, in one transaction, and takes the published one's place when it is
durable. So readers are never blocked and never see half a load, and whoever is killed leaves nothing behind but copies
and links that the next load throws away.

    fact_ride          a row a ride: what its document says
    fact_message       a row a customer's message, with the ride it is linked to
    fact_event_daily   records of histories by day, kind, source and name
    dim_user           a row for each version of a user, dim_driver of a driver: [valid_from, valid_to)
    dim_date           days, dim_zone cells of a hundredth of a degree
    meta.*             how far each partition has been read, and what a load needs to know of earlier ones

All times are UTC.
"""
