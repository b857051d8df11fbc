"""The same M/M/c queue by simpy and by offload-sim: requests a second, and the times in the system, which agree.

Both make as many requests, and tell the mean and the percentiles of the times in the system. Both are measured without
their start: simpy from the first event on, offload-sim less what it takes for hardly any request. What is compared is
CPU time on one core, so that what else the machine does counts for neither. simpy has one core. offload-sim runs
replicas on all cores: what it makes by these is told beside it, as if the machine did nothing else.

    cargo xtask bench-sim
"""

import json
import os
import pathlib
import platform
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
REQUESTS = 1_000_000
PARTS = [0.5, 0.9, 0.99]
NAMES = ["mean", "p50", "p90", "p99"]

SCENARIO = """
duration = "{seconds}s"
replicas = {replicas}
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


def by_simpy():
    """Seconds of CPU time, and mean and percentiles of the time in the system, in seconds."""
    environment = simpy.Environment()
    workers = simpy.Resource(environment, capacity=WORKERS)
    generator = random.Random(1)
    times = []

    def request():
        made = environment.now
        with workers.request() as turn:
            yield turn
            yield environment.timeout(generator.expovariate(1 / SERVICE))
        times.append(environment.now - made)

    def devices():
        for _ in range(REQUESTS):
            yield environment.timeout(generator.expovariate(RATE))
            environment.process(request())

    environment.process(devices())
    started = time.process_time()
    environment.run()
    took = time.process_time() - started
    times.sort()
    percentiles = [times[int(part * len(times))] for part in PARTS]
    return took, [sum(times) / len(times), *percentiles]


def children():
    """CPU time of all programs that were run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Ours:
    """offload-sim, and what it takes to start."""

    def __init__(self, program):
        self.program = program
        self.start = min(self.run(RATE, 1)[0] for _ in range(ROUNDS))

    def run(self, requests, replicas):
        """Seconds of CPU time, start included, and what was told of the devices."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "mmc.toml")
            scenario = SCENARIO.format(
                seconds=round(requests / RATE),
                replicas=replicas,
                service=round(SERVICE * 1e6),
                workers=WORKERS,
                rate=RATE,
            )
            path.write_text(scenario)
            before = children()
            output = subprocess.run([self.program, "run", path, "--json"], check=True, capture_output=True)
            took = children() - before
        return took, json.loads(output.stdout)["devices"][0]

    def on_one_core(self):
        """Requests a second, and mean and percentiles of the time in the system, in seconds."""
        took, devices = self.run(REQUESTS, 1)
        latency = devices["latency_s"]
        return REQUESTS / (took - self.start), [latency[name]["mean"] for name in NAMES]

    def on_all_cores(self):
        """Requests a second of as many replicas."""
        cores = os.cpu_count()
        took, _ = self.run(REQUESTS, cores)
        return cores * REQUESTS / ((took - self.start) / cores)


def main():
    """Takes turns, so that what else the machine does slows down both alike."""
    ours = Ours(sys.argv[1])
    print(f"{platform.python_implementation()} {platform.python_version()}, simpy {simpy.__version__}")
    by_core, by_machine = [], []
    for _ in range(ROUNDS):
        simpy_took, simpy_times = by_simpy()
        our_rate, our_times = ours.on_one_core()
        simpy_rate, all_cores = REQUESTS / simpy_took, ours.on_all_cores()
        by_core.append(our_rate / simpy_rate)
        by_machine.append(all_cores / simpy_rate)
        print(f"simpy {simpy_rate:,.0f} requests a second, offload-sim {our_rate:,.0f}: {by_core[-1]:.0f} times")
        for name, theirs, our in zip(NAMES, simpy_times, our_times):
            print(f"    {name} {theirs * 1e3:.2f} ms and {our * 1e3:.2f} ms in the system")
        print(f"    on {os.cpu_count()} cores offload-sim {all_cores:,.0f}: {by_machine[-1]:.0f} times")
    print(f"median of {ROUNDS} rounds: {statistics.median(by_core):.0f} times as fast on one core,", end=" ")
    print(f"{statistics.median(by_machine):.0f} times on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
