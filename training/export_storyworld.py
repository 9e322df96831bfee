"""Write StoryWorld in the layouts of CC3M, VIST and MMDialog, the data that the miniature is trained on.

python training/export_storyworld.py --config configs/storyworld-mini/data.yaml --out runs/mini/data
"""

import argparse
from pathlib import Path

import yaml

from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist

EXPORTS = {"cc3m": export_cc3m, "vist": export_vist, "mmdialog": export_mmdialog}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the number of items of each split")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()

    done = arguments.out / "done"
    if done.exists():
        print(f"{arguments.out}: already exported")
        return
    for layout, splits in yaml.safe_load(arguments.config.read_text()).items():
        for split, count in splits.items():
            EXPORTS[layout](arguments.out / layout, split, count)
            print(f"{layout} {split}: {count}", flush=True)
    done.touch()


if __name__ == "__main__":
    main()
