"""The commands of `minigpt5`, a file for each kind: what it may be told, and what it does."""
