#!/usr/bin/env python3
"""Sends a C or C++ file to the gateway, which builds and runs it, every five seconds, and prints what comes back."""

import sys
from pathlib import Path

import device
from offload_client import Request, Source


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
        source = options.file.read_text(encoding="utf-8")
        build = options.makefile.read_text(encoding="utf-8") if options.makefile else options.build
    except (OSError, UnicodeDecodeError) as error:
        return device.fail(error)
    return device.run(options, Request(Source(source, build, options.file.stem), options.args))


if __name__ == "__main__":
    sys.exit(main())
