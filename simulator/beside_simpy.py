"""The same M/M/c queue by simpy and by offload-sim: requests a second, and the mean time in the system.

Both are measured by the CPU time that they take, so that what else the machine does counts for neither. Of real time
offload-sim takes less, since its replicas run on all cores.

    cargo xtask bench-sim
"""

import json
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import simpy

WORKERS = 8
RATE = 560.0  # requests a second
SERVICE = 0.01  # seconds, the mean
ROUNDS = 5
SIMPY_REQUESTS = 50_000
OUR_REQUESTS = 5_000_000

SCENARIO = """
duration = "{seconds}s"
replicas = 1
warm_up = "0s"
[program.p]
time = {{ exponential = "{service}us" }}
[gateway.g]
workers = {workers}
slots = 1
slice = "1h"
slot_share = 1.0
account_share = 1.0
[device.d]
arrival = {{ poisson = "{rate}/s" }}
"""


def by_simpy(requests):
    """Seconds of CPU time, and the mean time in the system."""
    environment = simpy.Environment()
    workers = simpy.Resource(environment, WORKERS)
    generator = random.Random(1)
    times = []

    def request():
        made = environment.now
        with workers.request() as turn:
            yield turn
            yield environment.timeout(generator.expovariate(1 / SERVICE))
        times.append(environment.now - made)

    def devices():
        for _ in range(requests):
            yield environment.timeout(generator.expovariate(RATE))
            environment.process(request())

    environment.process(devices())
    started = time.process_time()
    environment.run()
    return time.process_time() - started, sum(times) / len(times)


def children():
    """CPU time of all programs that were run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def by_offload_sim(program, requests):
    """Seconds of CPU time, start included, and the mean time in the system."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "mmc.toml")
        seconds = round(requests / RATE)
        path.write_text(
            SCENARIO.format(seconds=seconds, service=round(SERVICE * 1e6), workers=WORKERS, rate=RATE)
        )
        started = children()
        output = subprocess.run([program, "run", path, "--json"], check=True, capture_output=True)
        took = children() - started
    return took, json.loads(output.stdout)["devices"][0]["latency_s"]["mean"]["mean"]


def main():
    """Takes turns, so that what else the machine does slows down both alike."""
    program = sys.argv[1]
    ratios = []
    for _ in range(ROUNDS):
        simpy_took, simpy_mean = by_simpy(SIMPY_REQUESTS)
        our_took, our_mean = by_offload_sim(program, OUR_REQUESTS)
        simpy_rate, our_rate = SIMPY_REQUESTS / simpy_took, OUR_REQUESTS / our_took
        ratios.append(our_rate / simpy_rate)
        print(
            f"simpy {simpy_rate:.0f} requests a second of CPU time (mean {simpy_mean * 1e3:.2f} ms), "
            f"offload-sim {our_rate:.0f} (mean {our_mean * 1e3:.2f} ms): {ratios[-1]:.0f} times as fast"
        )
    print(f"median of {ROUNDS} rounds: {statistics.median(ratios):.0f} times as fast on one core")


if __name__ == "__main__":
    main()
