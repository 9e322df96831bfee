"""The paper's claims on StoryWorld: the plan as data, what carries it out, rows, verdicts and their page."""
