"""Check that every locked requirement has a wheel on every documented platform, so that nobody ends up compiling.

Run by `make wheels`: uv resolves the lock for each platform from the registry's metadata; nothing is downloaded.
"""

import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-pc-windows-msvc")
PYTHONS = ("3.11", "3.12", "3.13")


def complaint(platform: str, python: str) -> str:
    """Return what uv says against the lock on a platform; empty when everything has a wheel."""
    options = ["--no-deps", "--only-binary", ":all:", "--python-platform", platform, "--python-version", python, "-q"]
    result = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, str(LOCK)], check=False, capture_output=True, text=True
    )
    return "" if result.returncode == 0 else result.stderr.strip()


def main() -> int:
    """Check all platforms; return the exit code."""
    failed = 0
    for platform, python in itertools.product(PLATFORMS, PYTHONS):
        problem = complaint(platform, python)
        failed += bool(problem)
        sys.stdout.write(f"{platform:24} Python {python}  {problem or 'wheels for everything'}\n")
    sys.stdout.write(f"{len(PLATFORMS) * len(PYTHONS) - failed} platforms complete, {failed} not\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
