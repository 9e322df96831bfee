"""CLIP encoders of three libraries, on tiny random weights."""

import json

import clip
import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from minigpt5.metrics import ClipEncoder, MissingWeights, OpenClipEncoder, TransformersClipEncoder, load_clip_encoder

TEXTS = ["a red fox in the forest", "two dogs", "a city at night " * 40]


def test_clip_anytorch_gives_unit_vectors_of_its_own_features(clip_file, clip_encoder, blots):
    model, preprocess = clip.load(str(clip_file), device="cpu")
    with torch.no_grad():
        pictures = model.encode_image(torch.stack([preprocess(blot) for blot in blots]))
        texts = model.encode_text(clip.tokenize(TEXTS, truncate=True))
    for ours, theirs in ((clip_encoder.encode_pictures(blots), pictures), (clip_encoder.encode_texts(TEXTS), texts)):
        assert torch.allclose(ours.norm(dim=-1), torch.ones(len(ours)))
        assert torch.allclose(cosine_similarity(ours, theirs), torch.ones(len(ours)), atol=1e-5)
        assert (ours[0] @ ours[1]).item() < 0.999


def test_pictures_may_be_tensors_and_batches_do_not_matter(clip_encoder, blots, monkeypatch):
    whole = clip_encoder.encode_pictures(blots)
    floats = torch.stack([torch.from_numpy(np.array(blot)).permute(2, 0, 1) for blot in blots]) / 255
    monkeypatch.setattr("minigpt5.metrics.encoders.BATCH_SIZE", 5)
    assert torch.allclose(clip_encoder.encode_pictures(floats), whole, atol=1e-5)


def test_open_clip_agrees_with_clip_anytorch_on_the_same_weights(clip_file, clip_encoder, blots, tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="open_clip is in the extra minigpt5[eval]")
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    # The architecture of `clip_file`.
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    encoder = OpenClipEncoder("tiny-clip", clip_file)
    assert torch.allclose(encoder.encode_texts(TEXTS), clip_encoder.encode_texts(TEXTS), atol=1e-4)
    assert torch.allclose(encoder.encode_pictures(blots), clip_encoder.encode_pictures(blots), atol=1e-4)


def test_transformers_gives_the_cosines_of_its_own_logits(clip_folder, blots):
    encoder = TransformersClipEncoder(clip_folder)
    cut = {"padding": True, "truncation": True, "max_length": 77}
    inputs = encoder.processor(text=TEXTS, images=blots[:3], return_tensors="pt", **cut)
    with torch.no_grad():
        logits = encoder.model(**inputs).logits_per_image / encoder.model.logit_scale.exp()
    ours = encoder.encode_pictures(blots[:3]) @ encoder.encode_texts(TEXTS).T
    assert torch.allclose(ours, logits, atol=1e-5)


def test_a_name_a_file_a_folder_or_an_encoder_makes_an_encoder(clip_file, clip_folder, clip_encoder):
    assert type(load_clip_encoder(clip_file)) is ClipEncoder
    assert type(load_clip_encoder(clip_folder)) is TransformersClipEncoder
    assert load_clip_encoder(clip_encoder) is clip_encoder


def test_a_cached_file_is_found_by_the_model_s_name(clip_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/clip").mkdir(parents=True)
    (tmp_path / ".cache/clip/ViT-B-32.pt").symlink_to(clip_file)
    assert load_clip_encoder("ViT-B/32").model.visual.input_resolution == 32


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (lambda: load_clip_encoder("ViT-L/14"), (".cache/clip/ViT-L-14.pt", "https://openaipublic", "put it there")),
        (lambda: load_clip_encoder("nowhere.pt"), ("nowhere.pt", "ViT-B/32")),
        (lambda: load_clip_encoder("openai/clip-vit-base-patch32"), ("`hf download openai/clip-vit-base-patch32`",)),
        (lambda: load_clip_encoder("./no such folder"), ("no such folder", "folder")),
        (lambda: OpenClipEncoder("ViT-H-14", "h.pt", "its makers"), ("h.pt", "its makers", "put it there")),
    ],
)
def test_missing_weights_are_told_with_where_they_come_from(load, told, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights) as error:
        load()
    assert all(part in str(error.value) for part in told)


def test_nothing_is_encoded_from_nothing(clip_encoder):
    with pytest.raises(ValueError, match="empty"):
        clip_encoder.encode_texts([])
