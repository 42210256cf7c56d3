"""What the benchmark asks the machine: memory of a process, space on disk, what it runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

READ_BYTES = 1 << 20
BUSY_SHARE = 0.4  # of the processors


def anonymous_bytes() -> int:
    """Memory of this process that no file backs (RssAnon): what it really costs. Linux only."""
    return _status_bytes("RssAnon:")


def resident_bytes() -> int:
    """The same with the pages of files that are mapped (VmRSS)."""
    return _status_bytes("VmRSS:")


def _status_bytes(field: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def disk_bytes(directory: str) -> tuple[int, int]:
    """Apparent and allocated bytes of everything below a directory (a hard link counts once)."""
    apparent = allocated = 0
    seen: set[tuple[int, int]] = set()
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a background compaction removed it meanwhile
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                apparent += status.st_size
                allocated += status.st_blocks * 512
    return apparent, allocated


def read_through(paths: list[str], *, cold: bool) -> int:
    """Read files from begin to end, 1 MiB a time; `cold` drops them from the page cache before.
    Returns the number of bytes."""
    total = 0
    buffer = bytearray(READ_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            if cold and hasattr(os, "posix_fadvise"):
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while count := file.readinto(buffer):
                total += count
    return total


def files_below(directory: str) -> list[str]:
    """All files below a directory, sorted."""
    return sorted(str(path) for path in Path(directory).rglob("*") if path.is_file())


def sync_below(directory: str) -> None:
    """Sync every file below a directory, so that nobody else's next sync has to."""
    for path in files_below(directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_system(path: str) -> str:
    """The type of the file system a path is on, e.g. ext4; "?" where it cannot be told."""
    best, kind = "", "?"
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return kind
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        _, mount, type_, *_ = line.split()
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, type_
    return kind


def load_average() -> str:
    """How many processes wanted to run, over 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def is_busy() -> bool:
    """Whether something else keeps the processors busy: no figure is worth much then."""
    return os.getloadavg()[0] > BUSY_SHARE * (os.cpu_count() or 1)


def machine() -> str:
    """Processor, cores, kernel, Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {kernel}, "
        f"Python {platform.python_version()}"
    )
