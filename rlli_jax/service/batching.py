"""Group commit: what arrives while the disk is busy is decided and written together next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from rlli_jax.service.decisions import Decisions, Rated, Rating
from rlli_jax.service.selecting import LARGEST, Refused, Selector, Wish

MOST_WAITING = 10_000
GATHER = 0.001  # seconds


class Batches:
    """Answers :meth:`select` and :meth:`rate` once what they say is on the disk.

    One batch is under way at a time: decisions are drawn on the event loop, which takes a fraction
    of a millisecond, and a thread waits for the disk.
    """

    def __init__(self, selector: Selector, decisions: Decisions) -> None:
        self.selector = selector
        """In force from the next batch on; replace it at any time."""
        self._decisions = decisions
        self._waiting: list[tuple[Wish | Rating, asyncio.Future[Any]]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "decisions")

    @property
    def waiting(self) -> int:
        """How many wait for the next batch."""
        return len(self._waiting)

    async def select(self, wish: Wish) -> dict[str, Any]:
        """The row of a decision. Raises Refused where it cannot be made or kept."""
        row: dict[str, Any] = await self._submit(wish)
        return row

    async def rate(self, rating: Rating) -> Rated:
        """What became of a rating. Raises Refused where it cannot be kept."""
        rated: Rated = await self._submit(rating)
        return rated

    def _submit(self, item: Wish | Rating) -> asyncio.Future[Any]:
        if len(self._waiting) >= MOST_WAITING:
            raise Refused(503, f"{MOST_WAITING:,} requests wait already; try again later.")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return future

    async def run(self) -> None:
        """Work until cancelled."""
        crowded = False
        while True:
            await self._arrived.wait()
            if crowded:
                # Those who were just answered may ask again: to share one wait for the disk with
                # them costs all less than to wait twice.
                await asyncio.sleep(GATHER)
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            if not self._waiting:
                self._arrived.clear()
            crowded = len(batch) > 1
            # Who does not wait any more gets no decision.
            batch = [(item, future) for item, future in batch if not future.done()]
            try:
                await self._carry_out(batch)
            except asyncio.CancelledError:
                _fail(batch, Refused(503, "the service is stopping."))
                raise
            except SQLAlchemyError as error:
                reason = str(getattr(error, "orig", None) or error).splitlines()[0]
                _fail(batch, Refused(503, f"the log cannot be written ({reason})."))
            except Exception as error:  # one batch must not end the service
                _fail(batch, error)

    async def _carry_out(self, batch: Sequence[tuple[Wish | Rating, asyncio.Future[Any]]]) -> None:
        wishes = [(x, future) for x, future in batch if isinstance(x, Wish)]
        ratings = [(x, future) for x, future in batch if isinstance(x, Rating)]
        rows = self.selector.decide([wish for wish, _ in wishes]) if wishes else []
        loop = asyncio.get_running_loop()
        rated = await loop.run_in_executor(
            self._thread, self._decisions.write, rows, [rating for rating, _ in ratings]
        )
        for (_, future), result in zip([*wishes, *ratings], [*rows, *rated], strict=True):
            if not future.done():
                future.set_result(result)

    def close(self) -> None:
        """Wait for the disk and end the thread."""
        self._thread.shutdown()


def _fail(batch: Sequence[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
