import json

import pytest

from turnover.errors import RunError
from turnover.runs.text._words import (
    COMMON,
    TOKENIZER,
    common_pieces,
    pieces_of_run,
    shared_spans,
    words_of,
)


def spans(query, text, common=()):
    found = shared_spans(query, text, words_of, frozenset(common))
    return [text[start:stop] for start, stop in found]


def test_shared_words_are_found_whatever_their_capitals():
    assert spans("A Great film", "this film is GREAT") == ["film", "GREAT"]


def test_common_words_are_not_shared():
    assert spans("the film", "the other film", common=["the"]) == ["film"]


def test_words_count_where_they_stand_and_letters_do_not():
    assert words_of("a Fine, Straße!") == [("fine", 2, 6), ("strasse", 8, 14)]


def test_a_word_of_one_text_in_twenty_is_common():
    texts = ["the one"] * 10 + [f"word{i}" for i in range(90)]
    assert common_pieces(texts, words_of) == ["one", "the"]
    assert common_pieces(["the one", "the two", "the three"], words_of) == []


def test_pieces_of_a_tokenizer_are_joined_where_they_touch(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "ch": 1, "##rist": 2, "##urch": 3, "the": 4, ".": 5}
    model = tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / TOKENIZER))
    cut = pieces_of_run(tmp_path)
    text = "the church . the christ"
    found = shared_spans("christ .", text, cut, frozenset())
    assert [text[a:b] for a, b in found] == ["ch", "christ"]


def test_a_damaged_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / TOKENIZER).write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        pieces_of_run(tmp_path)


def test_without_a_tokenizer_pieces_are_words(tmp_path):
    assert pieces_of_run(tmp_path) is words_of
    assert json.dumps(COMMON)
