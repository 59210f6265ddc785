"""Calls on simulated devices in random worlds, each answer compared: ``make chaos-runs``.

CHAOS_RUNS=1000000 CHAOS_SEED=1 python -m tests.chaos.runs --json runs.json
python -m tests.chaos.runs --world 4711     # one world again, by the number in a complaint
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import multiprocessing
import os
import platform
import random
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from parnet_deploy.machine.cores import usable_cores
from tests.chaos.callers import Caller
from tests.chaos.tally import Tally
from tests.chaos.worlds import World, make_world

CHUNK = 40
"""Worlds in one task of a process."""
_HANG_S = 300
_SEEDS = 1 << 40


def run_world(world: World) -> Tally:
    """All calls of a world, then close; what is left behind is a complaint too."""
    runtime = world.open()
    devices = runtime._now.loaded.devices.values()
    ends = threading.Event()
    callers = [Caller(world, runtime, index, ends) for index in range(world.threads)]
    tally = Tally()
    tally.worlds[world.kind] += 1
    workers = [threading.Thread(target=caller.work) for caller in callers[1:]]
    if world.kind == "closes":
        workers.append(threading.Thread(target=lambda: ends.wait() and runtime.close()))
    for worker in workers:
        worker.start()
    callers[0].work()
    for worker in workers:
        worker.join()
    runtime.close()
    for caller in callers:
        caller.close()
        tally.add(caller.tally)
    left = {device.ordinal: device.used_bytes for device in devices if device.used_bytes}
    if left:
        tally.complain(wrong=False, text=f"world {world.seed}: bytes of devices not freed: {left}")
    return tally


def run_chunk(seed: int, chunk: int) -> Tally:
    """The worlds of one chunk. A process that hangs says where, and ends."""
    faulthandler.dump_traceback_later(_HANG_S, exit=True)
    logging.getLogger("parnet_deploy").setLevel(logging.ERROR)  # each lost device is a warning
    tally = Tally()
    for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        tally.add(run_world(make_world(random.Random(f"{seed}/{index}").randrange(_SEEDS))))
    faulthandler.cancel_dump_traceback_later()
    return tally


def run_all(seed: int, runs: int, processes: int) -> Tally:
    """Chunks in several processes until so many calls are judged, or something does not hold."""
    tally, chunk = Tally(), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = set()
        while waiting or (tally.total < runs and tally.holds):
            while len(waiting) < processes + 1 and tally.total < runs and tally.holds:
                waiting.add(pool.submit(run_chunk, seed, chunk))
                chunk += 1
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                tally.add(future.result())
    return tally


def main() -> int:
    """Print the report; 3 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="Write the report there too.")
    parser.add_argument("--world", type=int, help="Only this world.")
    options = parser.parse_args()
    if options.world is not None:
        world = make_world(options.world)
        print(world, file=sys.stderr)
        tally = run_world(world)
        print(json.dumps(tally.to_json(), indent=1))
        return 0 if tally.holds else 3
    runs = int(os.environ.get("CHAOS_RUNS", "1000000"))
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    processes = usable_cores()
    print(f"seed {seed}: {runs} runs in {processes} processes", file=sys.stderr)
    start = time.perf_counter()
    tally = run_all(seed, runs, processes)
    report = _report(tally, seed, processes, time.perf_counter() - start)
    print(json.dumps(report, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if tally.holds else 3


def _report(tally: Tally, seed: int, processes: int, seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "processes": processes,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        **tally.to_json(),
    }


if __name__ == "__main__":
    sys.exit(main())
