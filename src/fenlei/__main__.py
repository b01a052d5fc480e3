"""`python -m fenlei` is the `fenlei` command."""

from fenlei.cli.main import run

run()
