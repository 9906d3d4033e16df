"""What a run of the demo consists of; written to its folder, so that every process of it reads the same."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.streams.catalogue.plan import Declarations

FILE = "demo.json"
STREAM_FILE = "interactions.npz"
TABLE = "embedding"
FACTORS = 15
TRAINER = "demo-trainer"
MODEL = "movies"
RATE = 500.0
BATCH = 20


def replay_rate(interactions: int, seconds: float) -> float:
    """Interactions a second: a long run replays more slowly, so that the stream lasts until shortly before its end."""
    return min(RATE, 1.05 * interactions / seconds)


def batch_size(interactions: int) -> int:
    """Interactions a training step: fewer for a short stream, which is to make some steps, too."""
    return max(1, min(BATCH, interactions // 50))


class DemoPlan(BaseModel):
    """One run.

    Attributes:
        folder: where everything of the run lies.
        bootstrap: the broker.
        model: name of the model.
        stores: region -> host:port of its store.
        monitor_port: where the monitor serves its pages.
        rate: interactions replayed a second.
        batch: interactions a training step.
        refresh_s: seconds between refreshes of the stale copy that live rows are compared with.
        seconds: how long the trainer trains.
        poison_at_s: when the trainer goes bad, seconds from its start; None for never.
    """

    model_config = ConfigDict(frozen=True)

    folder: Path
    bootstrap: str
    model: str
    stores: dict[str, str]
    monitor_port: int
    rate: float
    seconds: float
    batch: int = BATCH
    refresh_s: float = 20.0
    poison_at_s: float | None = None

    def write(self) -> None:
        """Write it to its folder."""
        replace_text(self.folder / FILE, self.model_dump_json(indent=2))

    @staticmethod
    def read(folder: Path) -> "DemoPlan":
        """The plan of the run in ``folder``.

        Raises:
            ConfigurationError: there is none.
        """
        try:
            return DemoPlan.model_validate_json((folder / FILE).read_text())
        except OSError as error:
            raise ConfigurationError(
                f"{folder / FILE} cannot be read: {error.strerror}",
                hint="`ekko demo-part setup --data FOLDER` makes it",
            ) from error

    def declaration(self) -> ModelDeclaration:
        """The model: one table whose rows are a linear weight and the factors of a feature."""
        table = TableDeclaration(TABLE, 1 + FACTORS, initializer="uniform", scale=0.05, seed=7)
        return ModelDeclaration(self.model, shards=4, tables=(table,))

    def declarations(self) -> Declarations:
        """Everything the catalogue must hold."""
        return Declarations(tuple(RegionDeclaration(region) for region in self.stores), (self.declaration(),))


def replace_text(path: Path, text: str) -> None:
    """Write a file so that readers see the old text or the new, never a part."""
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(text)
    partial.replace(path)
