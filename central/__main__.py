"""`python -m central`."""

from central.main import main

main(prog_name="python -m central")
