"""Being at work on something: a name under which to claim it, and what to say of what others do."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rlli_jax.errors import InputError
from rlli_jax.oracle.store import Store, Waiting

LEASE_SECONDS = 60.0  # renewed four times as often; what a dead process held comes back after it


@contextmanager
def worker(store: Store, seconds: float = LEASE_SECONDS) -> Iterator[str]:
    """A name under which to claim; its leases are renewed until the end, then ended."""
    owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    over = threading.Event()

    def renew() -> None:
        while not over.wait(seconds / 4):
            # A store that cannot be reached just now may be there again in time.
            with suppress(InputError):
                store.renew(owner, seconds)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        over.set()
        thread.join()
        with suppress(InputError):  # or it would hide why we stop; the leases run out anyway
            store.release(owner)


def waiting(held: Waiting, what: str, doing: str) -> str:
    """What is waited for, for people: ``what`` ("questions") another worker is ``doing``."""
    # A name is host, process and a number of no meaning.
    owners = ", ".join(" process ".join(owner.split()[:2]) for owner in held.owners)
    until = time.strftime("%H:%M:%S", time.localtime(held.until))
    return (
        f"waiting for {held.questions:,} {what} that another worker ({owners}) is {doing}; "
        f"they are taken over at {until} if it has died"
    )
