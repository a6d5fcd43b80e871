"""`python -m latentseg`."""

from latentseg.cli import main

main()
