"""Questions about pictures that are replied to in words: VQA v2 and OK-VQA, RefCOCO, captions, chats, StoryWorld.

    python evaluation/evaluate_reading.py --data runs/asked/ground/validation.jsonl --judge storyworld --out runs/boxes
    accelerate launch evaluation/evaluate_reading.py …

A pipeline's reader replies, or a vision-language model of transformers by itself. Writes `results.json` and
`results.md`. A run that was stopped goes on where it was.
"""

from minigpt5.evaluation.reading import ReadingConfig, evaluate_reading
from minigpt5.utils.programs import run_program

if __name__ == "__main__":
    run_program(evaluate_reading, ReadingConfig, __doc__, many_processes=True)
