"""Real agents are tortured for some minutes, always in the same way; `make torture` does it for as
long as one likes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.torture import report
from tests.torture.__main__ import options_of
from tests.torture.disk import lossy_disks_missing
from tests.torture.run import torture
from tests.torture.world import missing

RUNS = ((1, 1.7), (2, 1.7), (3, 1.7))

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.mark.long
@pytest.mark.parametrize(("seed", "minutes"), RUNS)
def test_nothing_promised_is_broken_whatever_strikes(seed: int, minutes: float) -> None:
    reason = lossy_disks_missing()
    assert reason is None, reason
    directory = Path(tempfile.mkdtemp(prefix=f"raft-torture-{seed}-"))
    verdict = torture(directory, options_of(seed), minutes)
    told = report.text(verdict)
    print(told)
    assert verdict.operations > 0
    assert not verdict.complaints, f"{told}\n{report.again(seed, minutes, directory)}"
    shutil.rmtree(directory)
