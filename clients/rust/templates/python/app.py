"""Adds up the numbers in its arguments and on its standard input."""

import sys

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import environment


class Run(exports.Run):
    """What the gateway runs: `wasi:cli/run`. An `Err` ends it with exit code 1."""

    def run(self) -> None:
        words = environment.get_arguments()[1:] + sys.stdin.read().split()
        try:
            print(sum(int(word) for word in words))
        except ValueError as problem:
            print(problem, file=sys.stderr)
            raise Err(None) from problem
