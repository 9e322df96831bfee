"""A hook of mkdocs: pages of the site that are no Markdown files of `docs/`.

Notebooks are pages, their text as it is and their code as code. Their cells hold no output, so that nothing has to run,
and no plugin is needed. Model cards and figures of speed lie with what they are about.
"""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ELSEWHERE = {
    "model-cards/storyworld-mini.md": "minigpt5/weights/storyworld-mini/README.md",
    "figures/speed.md": "benchmarks/README.md",
    "figures/results.json": "benchmarks/results.json",
    "figures/service.json": "benchmarks/service.json",
    "figures/simulated.json": "benchmarks/simulated.json",
    "figures/soak.json": "benchmarks/soak.json",
    "figures/training.json": "benchmarks/training.json",
}


class Notebook(File):
    """A notebook, as the Markdown that its cells are."""

    def is_documentation_page(self) -> bool:
        """So that it is rendered, and links to it lead to the page."""
        return True

    @property
    def content_string(self) -> str:
        """What mkdocs reads of a page."""
        cells = json.loads(super().content_string)["cells"]
        texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put notebooks in the place of the plain files that they are, and add what lies elsewhere."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        files.append(Notebook(file.src_uri, file.src_dir, file.dest_dir, file.use_directory_urls))
    root = Path(config.config_file_path).parent
    for page, path in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(root / path)))
    return files
