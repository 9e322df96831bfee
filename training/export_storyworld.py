"""Write StoryWorld in the layouts of CC3M, VIST, MMDialog and chats, the data that the miniature is trained on.

python training/export_storyworld.py --config configs/storyworld-mini/data.yaml --out runs/mini/data
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigpt5.storyworld.export import EXPORTS
from minigpt5.utils.files import write_json
from minigpt5.utils.json_files import read_json
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import Settings, setting


@dataclass(kw_only=True)
class ExportConfig(Settings):
    """What is written."""

    out: Path = setting(help="folder to write to")
    cc3m: dict[str, int] = setting(factory=dict, least=1, help="captions by split, as {train: 60000, validation: 1000}")
    vist: dict[str, int] = setting(factory=dict, least=1, help="stories by split")
    mmdialog: dict[str, int] = setting(factory=dict, least=1, help="talks by split")
    question: dict[str, int] = setting(factory=dict, least=1, help="questions about pictures by split")
    ground: dict[str, int] = setting(factory=dict, least=1, help="boxes for phrases by split")
    refer: dict[str, int] = setting(factory=dict, least=1, help="phrases for boxes by split")
    change: dict[str, int] = setting(factory=dict, least=1, help="changes of pictures by split")
    paint: dict[str, int] = setting(factory=dict, least=1, help="wishes for pictures, as people type them, by split")
    outside: dict[str, int] = setting(factory=dict, least=1, help="wishes for what is not in the world by split")
    ending: dict[str, int] = setting(factory=dict, least=1, help="ends of stories by split")
    turns: dict[str, int] = setting(factory=dict, least=1, help="chats about a picture by split")

    def __post_init__(self):
        super().__post_init__()
        if not any(getattr(self, layout) for layout in EXPORTS):
            raise ValueError(f"nothing to export: name splits and counts of a layout, {', '.join(EXPORTS)}")
        for layout in EXPORTS:
            for split in getattr(self, layout):
                if not split.isidentifier():
                    raise ValueError(f"{layout}: {split!r} is no name of a split")


def main(config: ExportConfig):
    done = config.out / "done"
    asked = {layout: getattr(config, layout) for layout in EXPORTS if getattr(config, layout)}
    if done.exists():
        if read_json(done, dict) != asked:
            raise ProgramError(f"{config.out} holds another export; name a new folder")
        print(f"{config.out}: already exported")
        return
    for layout, export in EXPORTS.items():
        splits: Mapping[str, int] = getattr(config, layout)
        for split, count in splits.items():
            export(config.out / layout, split, count)
            print(f"{layout} {split}: {count}", flush=True)
    write_json(done, asked)


if __name__ == "__main__":
    run_program(main, ExportConfig, __doc__)
