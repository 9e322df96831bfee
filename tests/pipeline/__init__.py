"""The pipeline as a user of diffusers expects one to be: a configuration of tiny real parts, and a mixin a concern.

Another pair of parts is tested by a class of its own that inherits the mixins it should pass.
"""

from pathlib import Path

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("[!_]*.py")))
