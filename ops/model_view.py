"""What `ekko model list` and `ekko region list` show."""

import io
import json
from contextlib import closing
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster

_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Overview:
    """What the catalogue holds now, by name."""

    models: tuple[ModelDeclaration, ...]
    regions: tuple[RegionDeclaration, ...]

    def text(self) -> str:
        """A table of models, and the regions."""
        grid = Table("model", "incarnation", "shards", "groups", "table", "dim", "fraction bits", "initializer")
        for model in self.models:
            own = (model.name, str(model.incarnation), str(model.shards), str(model.shard_groups))
            for number, table in enumerate(model.tables):
                grid.add_row(*(own if number == 0 else [""] * len(own)), *_table(table))
            if not model.tables:
                grid.add_row(*own, "-")
        return (
            _print(grid if self.models else "no models: declare one with `ekko model apply FILE`") + self.regions_text()
        )

    def regions_text(self) -> str:
        """A table of regions."""
        grid = Table("region", "incarnation", "cluster", "made from")
        for region in self.regions:
            grid.add_row(region.name, str(region.incarnation), region.bootstrap or "central", region.donor or "-")
        return _print(grid if self.regions else "no regions: declare one with `ekko model apply FILE`")

    def json_lines(self) -> str:
        """One object a line."""
        objects = [asdict(model) for model in self.models] + [asdict(region) for region in self.regions]
        return "".join(json.dumps(each) + "\n" for each in objects)


def read(cluster: Cluster) -> Overview:
    """Read the catalogue; raises TopicMissing where nothing was ever declared."""
    with closing(Catalogue(cluster)) as catalogue:
        catalogue.refresh()
        models = tuple(model for _, model in sorted(catalogue.models.items()))
        return Overview(models, tuple(region for _, region in sorted(catalogue.regions.items())))


def _table(table: TableDeclaration) -> tuple[str, ...]:
    initializer = f"uniform ±{table.scale:g}, seed {table.seed}" if table.initializer == "uniform" else "zeros"
    return table.name, str(table.dim), str(table.fraction_bits), initializer


def _print(what: Table | str) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=_WIDTH).print(what)
    return buffer.getvalue()
