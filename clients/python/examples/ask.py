#!/usr/bin/env python3
"""The least that a program needs: runs a program that the gateway has, and one of its own."""

import sys

from offload_client import Error, Gateway


def main(url, path, *args):
    try:
        with Gateway(url) as gateway:
            print(gateway.run("add", ["5", "7"]).text, end="")
            print(gateway.offload(path, args).text, end="")
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
