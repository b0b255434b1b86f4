"""Options that more than one command takes."""

import click

task = click.option(
    "--task", default="", metavar="FILE", help="A task file, for an instruct model that carries no release."
)
context_tokens = click.option(
    "--context-tokens",
    type=click.IntRange(min=64),
    default=1_024,
    show_default=True,
    help="As a gateway's `model.context_tokens`: room for a decoder's instruction, the event and the answer.",
)
