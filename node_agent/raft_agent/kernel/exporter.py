"""The thread that keeps exported maps, so that nothing else in the agent waits for the kernel."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

from raft_agent.kernel.export_jobs import Job, Listener, Stop, together
from raft_agent.kernel.export_keeper import Keeper
from raft_agent.kernel.export_layout import Status
from raft_agent.kernel.export_place import PinDirectory

# Between two steps of a look for somebody else's writes the event loop gets the interpreter.
_PAUSE_S = 0.001


class Exporter:
    """Keeps maps in `directory`."""

    def __init__(self, directory: Path, listener: Listener) -> None:
        self._keeper = Keeper(PinDirectory(directory), listener, time.monotonic)
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._next: Job | None = None
        self._thread = threading.Thread(target=self._run, name="raft-exports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, job: Job) -> None:
        """From the event loop."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread once it has done what it was given; the maps stay. Blocks."""
        if self._thread.is_alive():
            self._jobs.put(Stop())
            self._thread.join()

    # --- what any thread may look at

    @property
    def status(self) -> Status:
        return self._keeper.status

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by map ("" for all of them)."""
        return self._keeper.problems

    @property
    def done(self) -> int:
        """How many entries and changes were taken in since the start."""
        return self._keeper.done

    # --- the thread

    def _run(self) -> None:
        keeper = self._keeper
        keeper.begin()
        while True:
            job = self._take()
            if isinstance(job, Stop):
                keeper.close()
                return
            keeper.do(job)

    def _take(self) -> Job | None:
        """The next job, or several as one; None when it is time to mend."""
        job, self._next = self._next, None
        if job is None:
            try:
                job = self._jobs.get(timeout=self._keeper.patience_s(_PAUSE_S))
            except queue.Empty:
                return None
        job, self._next = together(job, self._take_waiting)
        return job

    def _take_waiting(self) -> Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None
