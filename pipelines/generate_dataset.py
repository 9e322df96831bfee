"""Make a data set: a model's replies to the prompts and pictures of a JSON Lines or Parquet file, as Parquet.

    python pipelines/generate_dataset.py --rows prompts.jsonl --out generated/
    python pipelines/generate_dataset.py --rows s3://bucket/prompts.parquet --out s3://bucket/generated --ray --actors 8

A line is `{"prompt": "<ImageHere> What does it do next?", "images": ["fox.png"]}`, with an `id` if it has one; pictures
are optional, and their paths relative to the file. Started again, it makes what is missing. Pictures are in the Parquet
files, as `datasets` opens them: `load_dataset("parquet", data_files="generated/part-*.parquet")`.
"""

import time
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from minigpt5.data.generation import GeneratedFolder, PartMaker, read_rows
from minigpt5.data.tolerant import BadRows
from minigpt5.loading import ModelSettings, identity, open_model
from minigpt5.utils.actors import ActorSettings, map_in_actors
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting
from minigpt5.vokens.decoding import IMAGE_MODES


@dataclass(kw_only=True)
class ReplySettings(ModelSettings):
    """What is replied; null is what the model's own folder says."""

    image_mode: str | None = setting(None, choices=IMAGE_MODES, help="when pictures are painted")
    max_new_tokens: int | None = setting(None, least=1, help="of a reply")
    do_sample: bool | None = setting(None, help="whether words are drawn")
    num_inference_steps: int | None = setting(None, least=1, most=1000, help="denoising steps")
    guidance_scale: float | None = setting(None, least=0, most=100, help="of pictures")
    seed: int = setting(0, least=0, most=2**32 - 1, help="of all that is drawn, with a row's id")

    @property
    def options(self):
        """Of the pipeline's call."""
        names = ("image_mode", "max_new_tokens", "do_sample", "num_inference_steps", "guidance_scale")
        return {name: getattr(self, name) for name in names}


@dataclass(kw_only=True)
class GenerationConfig(ReplySettings, ActorSettings):
    """The data set."""

    rows: str = setting(help="path or address of the prompts: JSON Lines, or Parquet if it ends in .parquet")
    out: str = setting(help="folder or address for the parts; those that are there stay")
    batch_size: int = setting(32, least=1, help="rows that are asked at a time")
    part_rows: int = setting(256, least=1, help="rows of a part; a kill loses what is done of a part, not more")
    max_bad_share: float = setting(
        0.01, least=0, below=1, help="share of the rows that may be left out, as they cannot be asked"
    )


def main(config: GenerationConfig):
    rows = read_rows(config.rows)
    folder = GeneratedFolder(config.out)
    folder.claim({**identity(config.model, config.adapter), **config.options, "seed": config.seed})
    missing = folder.missing(rows)
    parts = [missing[start : start + config.part_rows] for start in range(0, len(missing), config.part_rows)]
    load = partial(open_model, config.model, config.adapter)
    work = PartMaker(load, folder, config.batch_size, config.seed, config.options)
    count, began = BadRows(config.max_bad_share, "rows"), time.monotonic()
    count.read = len(rows)
    with tqdm(total=len(missing), unit="row", disable=None, leave=False) as progress:
        for asked, problems in map_in_actors(work, parts, config):
            for problem in problems:
                count.add(problem)
            progress.update(asked)
    seconds = time.monotonic() - began
    made = len(missing) - count.bad
    print(f"{made} rows in {seconds:.1f} s, {made / seconds:.2f} rows/s; {len(rows) - len(missing)} were there")
    if count.bad:
        print(f"{count.bad} left out: {count.first[0]}")


if __name__ == "__main__":
    run_program(main, GenerationConfig, __doc__)
