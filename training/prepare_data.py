"""Check a download of CC3M, VIST, MMDialog or drawn emoji and index its good pictures for the training programs.

    python training/prepare_data.py cc3m downloads/cc3m data/cc3m

A run that was stopped goes on where it was. Into OUT come the index, `report.json`, and a list of the bad pictures.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from minigpt5.data.prepare import LAYOUTS, as_table, prepare
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import Settings, setting


@dataclass(kw_only=True)
class PrepareConfig(Settings):
    """The download and its index."""

    kind: str = setting(choices=tuple(LAYOUTS), positional=True, help="the data set")
    src: Path = setting(positional=True, help="folder of the download; nothing in it is changed")
    out: Path = setting(positional=True, help="folder for the index and the report")
    workers: int = setting(os.cpu_count() or 1, least=1, most=1024, help="processes that decode pictures")


def main(config: PrepareConfig):
    report = prepare(config.kind, config.src, config.out, config.workers)
    print(as_table(report))
    print(f"index, report.json and lists of the bad pictures: {config.out}")
    if not any(split["rows"]["kept"] + split["rows"]["cut"] for split in report["splits"].values()):
        raise ProgramError(f"no row of {config.src} has its pictures; is it the whole download?")


if __name__ == "__main__":
    run_program(main, PrepareConfig, __doc__)
