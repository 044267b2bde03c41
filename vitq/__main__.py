"""``python -m vitq``: the command line."""

from vitq.compiler.cli.main import program

program()
