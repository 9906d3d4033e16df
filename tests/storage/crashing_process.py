"""Applies the crash stream to a store, flushing all the time, until it is killed. Prints when flushes begin and end."""

import sys
from pathlib import Path

from ekko.storage.store import Store
from tests.storage.crash_stream import MEMORY_BYTES, MODEL, position_of, run, state_at


def main(folder: Path) -> None:
    store = Store.open(folder, MODEL, [0], region_incarnation=1, memory_bytes=MEMORY_BYTES)
    position = position_of(store.state)
    say(f"open {position}")
    while True:
        run(store, position)
        position += 1
        if store.poll_flush():
            say("idle")
            if position % 3 == 0:
                store.begin_flush(state_at(store.state, position))
                say("flushing")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
