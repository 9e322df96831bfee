"""What the libraries say on the way."""

from __future__ import annotations

import warnings


def quiet_libraries() -> None:
    """Keep diffusers and transformers from printing their own bars, notes and warnings."""
    import diffusers
    import transformers

    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
