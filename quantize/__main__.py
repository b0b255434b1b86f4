"""`python -m quantize`."""

from quantize.main import cli

cli(prog_name="python -m quantize")
