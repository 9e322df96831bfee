"""Check a download of CC3M, VIST, MMDialog or drawn emoji and index its good pictures for the training programs.

    python training/prepare_data.py cc3m downloads/cc3m data/cc3m

A run that was stopped goes on where it was. Into OUT come the index, `report.json`, and a list of the bad pictures.
"""

import argparse
import os
import sys
from pathlib import Path

from minigpt5.data.prepare import LAYOUTS, as_table, prepare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=LAYOUTS, help="the data set")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the download; nothing in it is changed")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the index and the report")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that decode pictures")
    arguments = parser.parse_args()
    try:
        report = prepare(arguments.kind, arguments.source, arguments.out, arguments.workers)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(as_table(report))
    print(f"index, report.json and lists of the bad pictures: {arguments.out}")
    if not any(split["rows"]["kept"] + split["rows"]["cut"] for split in report["splits"].values()):
        sys.exit(f"error: no row of {arguments.source} has its pictures; is it the whole download?")


if __name__ == "__main__":
    main()
