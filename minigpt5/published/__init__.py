"""The published model: its checkpoints, tokenizer and shapes."""
