"""Check that every locked requirement has a wheel on every documented platform, so that nobody ends up compiling.

Run by `make wheels`: uv resolves the lock for each platform from the registry's metadata; nothing is downloaded.
"""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-pc-windows-msvc")
PYTHONS = ("3.11", "3.12", "3.13")
AT_ONCE = 6


def complaint(platform: str, python: str) -> str:
    """Return what uv says against the lock on a platform; empty when everything has a wheel."""
    # uv would otherwise go and fetch an interpreter of the version that it only has to reason about.
    options = ["--no-deps", "--only-binary", ":all:", "-q", "--python", sys.executable, "--no-python-downloads"]
    options += ["--python-platform", platform, "--python-version", python]
    result = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, str(LOCK)], check=False, capture_output=True, text=True
    )
    return "" if result.returncode == 0 else result.stderr.strip()


def main() -> int:
    """Check all platforms; return the exit code."""
    targets = list(itertools.product(PLATFORMS, PYTHONS))
    with ThreadPoolExecutor(AT_ONCE) as pool:  # uv waits for the network nearly all the time
        problems = list(pool.map(lambda target: complaint(*target), targets))
    for (platform, python), problem in zip(targets, problems, strict=True):
        sys.stdout.write(f"{platform:24} Python {python}  {problem or 'wheels for everything'}\n")
    failed = sum(map(bool, problems))
    sys.stdout.write(f"{len(targets) - failed} of {len(targets)} targets complete\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
