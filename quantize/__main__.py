"""`python -m quantize`."""

import sys

try:
    from quantize.main import cli

    cli(prog_name="python -m quantize")
except KeyboardInterrupt:  # while modules are loaded, which takes a second; later on the commands say it
    sys.stderr.write("quantize: interrupted\n")
    sys.exit(130)
