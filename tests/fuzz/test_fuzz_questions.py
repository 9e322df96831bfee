"""Files of questions and wishes with any value in the place of any other: they are read, or refused with a line."""

import json

from hypothesis import given
from hypothesis import strategies as st

from minigpt5.evaluation.interleaved_items import opening_items, ueval_items
from minigpt5.evaluation.reading_items import coco_items, llava_items, refcoco_items, vqa_items

REFERRED = {"img_id": "COCO_train2014_000000581857_0", "sents": "it", "bbox": [1, 2.5, 3, 4], "width": 6, "height": 8}
TALK = [{"from": "human", "value": "<image>\nwho?"}, {"from": "gpt", "value": "a fox"}]
CONVERSATION = [{"input": [{"text": "<BEGIN> Draw.", "image": "./a.jpg"}]}, {"output": []}]
# Of each layout what reads it, and its content as it should be.
GOOD = {
    "answers": (
        lambda file: vqa_items(file.with_name("questions.json"), file),
        {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}, {"answer": "blue"}]}]},
    ),
    "questions": (
        lambda file: vqa_items(file, file.with_name("answers.json")),
        {"data_subtype": "val2014", "questions": [{"question_id": 7, "image_id": 42, "question": "what?"}]},
    ),
    "refcoco": (refcoco_items, [REFERRED]),
    "coco": (
        coco_items,
        {"images": [{"id": 9, "file_name": "a.jpg"}], "annotations": [{"image_id": 9, "caption": "a fox"}]},
    ),
    "llava": (llava_items, [{"id": "1", "image": "a.png", "conversations": TALK}]),
    "opening": (opening_items, {"conversations": CONVERSATION}),
    "ueval": (ueval_items, [{"prompt": "draw", "text_rubrics": ["it is"], "image_rubrics": [{"criterion": "it is"}]}]),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(layout=st.sampled_from(sorted(GOOD)), value=JSON, data=st.data())
def test_json_with_other_values(tmp_path_factory, clear_errors, layout, value, data):
    folder = tmp_path_factory.mktemp("questions")
    for name, (_, content) in GOOD.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    read, content = GOOD[layout]
    assert read(folder / f"{layout}.json")
    # Walk down to any value and put another in its place.
    whole = at = {"root": json.loads(json.dumps(content))}
    key = "root"
    while isinstance(at[key], (dict, list)) and at[key] and data.draw(st.integers(0, 5)):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    at[key] = value
    (folder / f"{layout}.json").write_text(json.dumps(whole["root"]))
    with clear_errors(ValueError):
        read(folder / f"{layout}.json")
