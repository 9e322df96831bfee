"""`python -m minigpt5` is the command line."""

from minigpt5.cli import program

program()
