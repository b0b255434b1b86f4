"""`python -m edge`."""

from edge.main import main

main(prog_name="python -m edge")
