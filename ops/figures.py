"""How a number looks in a table."""


def figure(value: float | None, form: str) -> str:
    """A value by a format such as ``.1f`` or ``,d``; a dash where nothing is known."""
    return "-" if value is None else format(value, form)
