#!/usr/bin/env python3
"""Sends arguments to the program that the gateway runs by default, twice a second, and prints what comes back."""

import sys

import device
from offload_client import DefaultProgram, Request


def main():
    parser = device.argument_parser(__doc__, interval=0.5)
    parser.add_argument("args", nargs="*", default=["1", "2"], metavar="ARG",
                        help="the program's arguments, without white space (default: 1 2)")
    options = parser.parse_args()
    return device.run(options, Request(DefaultProgram(), options.args))


if __name__ == "__main__":
    sys.exit(main())
