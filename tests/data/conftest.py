"""Files in the form of downloads."""

import io
import tarfile

import pytest
from PIL import Image


@pytest.fixture
def shard():
    """Writes a tar in the form of img2dataset: pictures by caption, each a width or the file's bytes."""

    def write(path, **members):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number, (caption, picture) in enumerate(members.items()):
                if isinstance(picture, int):
                    buffer = io.BytesIO()
                    Image.new("RGB", (picture, 4)).save(buffer, "JPEG")
                    picture = buffer.getvalue()
                key = f"{path.stem}{number:04d}"
                for ending, content in (
                    ("jpg", picture),
                    ("txt", caption.encode()),
                    ("json", b'{"status": "success"}'),
                ):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

    return write
