"""What the local broker raises."""

from ekko.schemas.errors import EkkoError


class BrokerError(EkkoError):
    """The local broker, or what it is made of (Java, jars, data folder), is not usable."""
