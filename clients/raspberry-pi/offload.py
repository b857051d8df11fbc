#!/usr/bin/env python3
"""Sends a C or C++ file to the gateway, which builds and runs it, every five seconds, and prints what comes back."""

import sys
from pathlib import Path

import device

DELIMITER = b"----"


def main():
    parser = device.argument_parser(__doc__, interval=5.0)
    build = parser.add_mutually_exclusive_group()
    build.add_argument("--build", default="gcc <name>.c -o <name>", metavar="CMD",
                       help="compiler command; <name> stands for the program's path (default: %(default)s)")
    build.add_argument("--makefile", type=Path, metavar="FILE", help="makefile, instead of a compiler command")
    parser.add_argument("file", type=Path, metavar="FILE", help="the source")
    parser.add_argument("args", nargs="*", metavar="ARG", help="the program's arguments, without white space")
    options = parser.parse_args()
    try:
        source = options.file.read_bytes()
        build = options.makefile.read_bytes() if options.makefile else options.build.encode()
    except OSError as error:
        return device.fail(error)
    if DELIMITER in build:
        return device.fail("a build part that holds `----` cannot be sent in this form")
    name, args = options.file.stem.encode(), " ".join(options.args).encode()
    return device.run(options, "inputCode/", DELIMITER.join([name, args, source, build]))


if __name__ == "__main__":
    sys.exit(main())
