import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from schemas.errors import ModelError, RowError
from schemas.metrics import MATCHED, metric_outputs
from schemas.pipeline import ModelSettings
from tests.labelled import labelled_images
from tests.tiny_pipelines import Folder, with_columns
from udfs.caption_match import CaptionMatch, judge
from udfs.grammar import WORDS
from udfs.nano_model import clip_tokenizer
from udfs.picture import decode
from udfs.udf import Worker

N = 48


@pytest.fixture(scope="module")
def shown():
    files = Folder()
    return files, labelled_images(files, N, seed=81)


@pytest.fixture(scope="module")
def measured(shown):
    files, rows = shown
    return CaptionMatch().setup(Worker("cpu", files))(rows.select(CaptionMatch.inputs))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A CLIP model with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer(32)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


def test_what_the_caption_does_not_say_is_not_judged():
    read = {name: WORDS[name][0] for name in MATCHED}
    said = {"scene": WORDS["scene"][0], "lighting": WORDS["lighting"][1]}
    row = judge(said, read, 0.25)
    assert row["caption_match"] == 0.5
    assert (row["scene_right"], row["lighting_right"]) == (True, False)
    half = judge(said | {"lighting": None}, read, 0.25)
    assert (half["caption_match"], half["lighting_right"], half["lighting_read"]) == (1, None, None)
    assert row["caption_similarity"] == 0.25
    nothing = judge(dict.fromkeys(MATCHED) | {"scene": "moon base"}, read, None)
    assert nothing["caption_match"] is None, "a word that the grammar does not know was not looked for"


def test_renders_show_what_their_captions_say(measured):
    assert measured.schema.equals(metric_outputs("caption_match"))
    assert measured["caption_similarity"].null_count == N
    for name, least in (("scene", 0.5), ("lighting", 0.25)):
        verdicts = [v for v in measured[f"{name}_right"].to_pylist() if v is not None]
        assert len(verdicts) >= N // 3
        assert np.mean(verdicts) >= least, name


def test_another_images_caption_matches_less(shown, measured):
    files, rows = shown
    other = np.roll(np.arange(N), 7)
    exchanged = rows
    for name in ("text", *MATCHED):
        exchanged = with_columns(exchanged, **{name: rows[name].take(pa.array(other)).to_pylist()})
    wrong = CaptionMatch().setup(Worker("cpu", files))(exchanged.select(CaptionMatch.inputs))
    own, others = (np.mean(t["caption_match"].to_numpy()) for t in (measured, wrong))
    assert own > others + 0.25


def test_clip_measures_what_transformers_says(shown, checkpoint):
    files, rows = shown
    some = rows.slice(0, 5)
    udf = CaptionMatch(settings=ModelSettings(model=str(checkpoint))).pinned()
    found = udf.setup(Worker("cpu", files))(some.select(CaptionMatch.inputs))
    model = CLIPModel.from_pretrained(checkpoint).eval()
    pictures = [Image.fromarray(decode(files.read(f"{k}.png"), "")[0]) for k in range(5)]
    inputs = dict(CLIPImageProcessor.from_pretrained(checkpoint)(pictures, return_tensors="pt"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def logits(texts):
        ids = tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs, **ids).logits_per_image

    alike = logits(some["text"].to_pylist()).diagonal() / model.logit_scale.exp()
    assert np.allclose(found["caption_similarity"].to_numpy(), alike.detach().numpy(), atol=1e-5)
    best = logits([f"a photo of a person in {word}" for word in WORDS["lighting"]]).argmax(1).tolist()
    for read, said, k in zip(
        found["lighting_read"].to_pylist(), some["lighting"].to_pylist(), best, strict=True
    ):
        assert read == (None if said is None else WORDS["lighting"][k])


def test_other_checkpoints_and_broken_images_are_refused(shown, tmp_path, checkpoint):
    files, rows = shown
    files.write("broken.png", b"no picture")
    with pytest.raises(RowError, match=r"broken\.png"):
        CaptionMatch().setup(Worker("cpu", files))(
            with_columns(rows.slice(0, 1), image_path="broken.png").select(CaptionMatch.inputs)
        )
    text = (checkpoint / "config.json").read_text()
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(text.replace('"model_type": "clip"', '"model_type": "bert"'))
    with pytest.raises(ModelError, match="looks with CLIP models"):
        CaptionMatch(settings=ModelSettings(model=str(tmp_path))).setup(Worker("cpu", files))
    (tmp_path / "config.json").write_text(text)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        CaptionMatch(settings=ModelSettings(model=str(tmp_path))).setup(Worker("cpu", files))
