"""Write StoryWorld in the layouts of CC3M, VIST and MMDialog, the data that the miniature is trained on.

python training/export_storyworld.py --config configs/storyworld-mini/data.yaml --out runs/mini/data
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist
from minigpt5.utils.files import write_text
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting

EXPORTS = {"cc3m": export_cc3m, "vist": export_vist, "mmdialog": export_mmdialog}


@dataclass(kw_only=True)
class ExportConfig(Settings):
    """What is written."""

    out: Path = setting(help="folder to write to")
    cc3m: dict[str, int] = setting(factory=dict, least=1, help="captions by split, as {train: 60000, validation: 1000}")
    vist: dict[str, int] = setting(factory=dict, least=1, help="stories by split")
    mmdialog: dict[str, int] = setting(factory=dict, least=1, help="talks by split")

    def __post_init__(self):
        super().__post_init__()
        for layout in EXPORTS:
            for split in getattr(self, layout):
                if not split.isidentifier():
                    raise ValueError(f"{layout}: {split!r} is no name of a split")


def main(config: ExportConfig):
    done = config.out / "done"
    if done.exists():
        print(f"{config.out}: already exported")
        return
    for layout, export in EXPORTS.items():
        splits: Mapping[str, int] = getattr(config, layout)
        for split, count in splits.items():
            export(config.out / layout, split, count)
            print(f"{layout} {split}: {count}", flush=True)
    write_text(done, "")


if __name__ == "__main__":
    run_program(main, ExportConfig, __doc__)
