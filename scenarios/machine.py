"""What this machine has: memory and processors."""

from __future__ import annotations

import os

try:
    import resource
except ImportError:  # there is none on Windows
    resource = None

MOST_TASKS = 10_000  # of a stream: each is drawn, and scored after each other one
LARGEST_SEED = 2**63 - 1
MOST = 10**9  # of steps, rows, draws: more than anybody waits for


def free_memory() -> int:
    """Bytes that a program may still take: what is free or can be freed, within the limits that are set for it."""
    return min(_available(), *_limits())


def _available() -> int:
    try:
        with open("/proc/meminfo") as file:
            known = dict(line.split(":", 1) for line in file)
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**62  # unknown: nothing is refused


def _limits() -> list[int]:
    """What is left under the limits of this process and of its group, where there are any."""
    left = [2**62]
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            left.append(max(0, limit - used()))
    for most, taken in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(most) as limit_file, open(taken) as used_file:
                left.append(max(0, int(limit_file.read()) - int(used_file.read())))
        except (OSError, ValueError):
            continue
    return left


def used() -> int:
    """Bytes of address space that this process has."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def most_threads() -> int:
    """Threads beyond which more make nothing faster, and some systems fail."""
    return 4 * processors()
