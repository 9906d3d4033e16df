"""`ekko kafka`: Kafka's own command line tools, from the jars that the local broker has anyway."""

import subprocess
from typing import Annotated

import typer

app = typer.Typer()

TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "configs": "org.apache.kafka.tools.ConfigCommand",
    "consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "offsets": "org.apache.kafka.tools.GetOffsetShell",
    "producer-perf": "org.apache.kafka.tools.ProducerPerformance",
    "quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
}


@app.command(
    epilog="Example: ekko kafka topics --bootstrap-server 127.0.0.1:9092 --list",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def kafka(
    context: typer.Context,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="One of: " + ", ".join(TOOLS))] = "--help",
) -> None:
    """Run one of Kafka's own tools with the arguments that follow; each explains itself with --help."""
    from ekko.ops.broker.distribution import load
    from ekko.schemas.errors import ConfigurationError

    if tool == "--help":
        typer.echo(context.get_help())
        return
    if tool not in TOOLS:
        raise ConfigurationError(f"no such tool of Kafka's: {tool}", hint="There are: " + ", ".join(TOOLS) + ".")
    command = load().command(TOOLS[tool], *context.args)
    raise typer.Exit(subprocess.run(command, check=False).returncode)
