"""A command line whose errors are sentences: what an operator can mend is printed as one, without a traceback."""

import errno
import os
import sys
from typing import Any

import click

from models.contracts.errors import ConfigError, HeadwaterError, UntrustedError


class Commands(click.Group):
    """Exits 2 where something cannot work as configured, 1 where something else went wrong."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (ConfigError, UntrustedError) as error:
            click.echo(f"headwater: {error}", err=True)
            context.exit(2)
        except HeadwaterError as error:
            click.echo(f"headwater: {error}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            context.exit(130)  # 128 + SIGINT, where click would say that it aborted and exit 1
        except BrokenPipeError:
            # Whoever read us has had enough. What is still buffered goes nowhere when the interpreter flushes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(141)  # 128 + SIGPIPE, what `head` leaves behind in any shell
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"headwater: standard output cannot be written: {error.strerror}", err=True)
            context.exit(1)


class ListByDefault(click.Group):
    """Lists where no command is named."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        asks_for_help = arguments[:1] and arguments[0] in context.help_option_names
        if not asks_for_help and (not arguments or arguments[0].startswith("-")):
            arguments = ["list", *arguments]
        return super().parse_args(context, arguments)
