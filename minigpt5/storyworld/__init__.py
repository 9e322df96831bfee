"""A drawn world whose every frame is known: its scenes, language, stories, judge and exporters."""
