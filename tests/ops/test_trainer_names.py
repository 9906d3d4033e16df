"""Commands that name a trainer refuse names that no trainer can have, before they connect anywhere."""

from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

from ekko.ops.commands import retract, trainer
from ekko.schemas.errors import ConfigurationError


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 201])
@pytest.mark.parametrize(
    ("app", "words"),
    [
        (trainer.app, lambda name: ["block", "ctr", name]),
        (trainer.app, lambda name: ["allow", "ctr", name]),
        (retract.app, lambda name: ["ctr", name, "--first", "1"]),
    ],
)
def test_a_name_that_no_trainer_can_have_is_refused(
    app: typer.Typer, words: Callable[[str], list[str]], name: str
) -> None:
    result = CliRunner().invoke(app, [*words(name), "--bootstrap", "127.0.0.1:1"])
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.message.startswith("trainer name ")
    assert "1 to 200" in result.exception.hint
