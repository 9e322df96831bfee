"""The systems of the field that readers are composed as, by name."""

from __future__ import annotations

from minigpt5.readers.cogvlm import COGVLM
from minigpt5.readers.compose import System
from minigpt5.readers.llava import LLAVA, LLAVA_15
from minigpt5.readers.minigpt_v2 import MINIGPT_V2
from minigpt5.readers.qwen_vl import QWEN_VL
from minigpt5.readers.sphinx import SPHINX, SPHINX_1K
from minigpt5.readers.tinygpt_v import TINYGPT_V

SYSTEMS: dict[str, System] = {
    system.name.lower(): system
    for system in (LLAVA, LLAVA_15, MINIGPT_V2, TINYGPT_V, SPHINX, SPHINX_1K, COGVLM, QWEN_VL)
}
