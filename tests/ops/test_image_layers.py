"""The image's layer that fetches Kafka is made of few files, so that changes elsewhere do not fetch it again."""

import subprocess
import sys
from pathlib import Path

from tests.ops.dockerfile import instructions

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import ekko.ops.broker.prepare
print(*(m.__file__ for name, m in sys.modules.items() if name.startswith("ekko.")), sep="\\n")
"""


def test_preparing_kafka_needs_only_what_that_layer_holds() -> None:
    words = [rest.split() for keyword, rest in instructions((ROOT / "Dockerfile").read_text()) if keyword == "COPY"]
    held = [ROOT / source for *sources, target in words if target.startswith("broker/") for source in sources]
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) > 5
    outside = [path for path in loaded if not any(Path(path).is_relative_to(place) for place in held)]
    assert outside == []
