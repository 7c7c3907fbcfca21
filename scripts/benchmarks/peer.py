"""The peer: the event service that a good engineer writes in a day with FastAPI, pydantic and redis.asyncio.

One ZADD an event, pipelined per request; reads by ZREVRANGE; Redis alone keeps the events. It takes the
same requests as Rebu's POST /v1/batch and GET /v1/users/{user_id}/events, so both are driven by the same load.

Tuned, it runs on uvloop and httptools with hiredis and without MULTI. Plain, it is what these three packages give by
themselves: asyncio, h11, redis-py's own parser and its default pipeline.

    peer.py --redis-url redis://127.0.0.1:6379/0 --port 8100 [--plain]
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast

import redis.asyncio
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, ConfigDict, Field
from redis._parsers import _AsyncRESP2Parser

PLAIN: Final = bool(os.environ.get("PEER_PLAIN"))


class Event(BaseModel):
    """A Segment message; what it does not name is kept."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    type: Literal["track", "identify", "page", "screen", "group", "alias"]
    message_id: str = Field(alias="messageId")
    user_id: str | None = Field(None, alias="userId")
    anonymous_id: str | None = Field(None, alias="anonymousId")
    event: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}


class Batch(BaseModel):
    batch: list[Event]
    sent_at: datetime | None = Field(None, alias="sentAt")


class Accepted(BaseModel):
    success: bool = True
    accepted: int


class History(BaseModel):
    items: list[Event]
    next: str | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    parser: dict[str, Any] = {"parser_class": _AsyncRESP2Parser, "protocol": 2} if PLAIN else {}
    app.state.redis = redis.asyncio.Redis.from_url(os.environ["PEER_REDIS_URL"], **parser)
    yield
    await app.state.redis.aclose()


app = FastAPI(title="Peer", lifespan=lifespan)
basic = HTTPBasic()


async def store(request: Request) -> redis.asyncio.Redis:
    connection: redis.asyncio.Redis = request.app.state.redis
    return connection


async def authorized(credentials: Annotated[HTTPBasicCredentials, Depends(basic)]) -> None:
    if not secrets.compare_digest(credentials.username.encode(), os.environ["PEER_KEY"].encode()):
        raise HTTPException(401, "unknown key")


@app.post("/v1/batch", dependencies=[Depends(authorized)])
async def write(batch: Batch, events: Annotated[redis.asyncio.Redis, Depends(store)]) -> Accepted:
    async with events.pipeline(transaction=PLAIN) as pipeline:
        for event in batch.batch:
            key = f"events:{event.user_id or event.anonymous_id}"
            pipeline.zadd(key, {event.model_dump_json(by_alias=True, exclude_none=True): event.timestamp.timestamp()})
        await pipeline.execute()
    return Accepted(accepted=len(batch.batch))


@app.get("/v1/users/{user_id}/events", dependencies=[Depends(authorized)])
async def history(
    user_id: str,
    events: Annotated[redis.asyncio.Redis, Depends(store)],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int, Query(ge=0)] = 0,
) -> History:
    rows = cast(list[bytes], await events.zrevrange(f"events:{user_id}", cursor, cursor + limit - 1))
    if not rows and not cursor:
        raise HTTPException(404, "unknown user")
    after = str(cursor + limit) if len(rows) == limit else None
    return History(items=[Event.model_validate_json(row) for row in rows], next=after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default=os.environ.get("PEER_KEY", "peer"), help="default: the variable PEER_KEY")
    parser.add_argument("--plain", action="store_true", default=PLAIN, help="without uvloop, httptools and hiredis")
    arguments = parser.parse_args()
    if arguments.plain and not PLAIN:
        os.environ["PEER_PLAIN"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    os.environ["PEER_REDIS_URL"], os.environ["PEER_KEY"] = arguments.redis_url, arguments.key
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        loop="asyncio" if PLAIN else "uvloop",
        http="h11" if PLAIN else "httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
