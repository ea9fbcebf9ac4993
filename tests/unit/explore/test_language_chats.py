"""Chats of several turns and responses that were cut, in the explorer of a language model."""

import json
from html import unescape

import pytest

from tests.unit.explore.test_language import asked, harmless, language_run, talk  # noqa: F401

CHAT = [
    {"role": "system", "content": "name <b>the</b> town"},
    {"role": "user", "content": "capital of landc please"},
]
SAYS = {"role": "assistant", "content": "the capital is townc"}


def test_a_chat_is_asked_about_with_all_its_turns(talk):  # noqa: F811
    page = unescape(talk.client.get("/ask").text)
    assert 'name="messages"' in page
    address = asked(talk, messages=json.dumps([*CHAT, SAYS]), span="townc")
    found = talk.explorer.answer(address.rpartition("/")[2])
    wanted = talk.explorer.classifier.typed([*CHAT, SAYS], span="townc")
    assert (found.prompt, found.response) == (wanted.talk.prompt, wanted.talk.response)
    assert found.span == wanted.span and not found.generated
    text = talk.client.get(address).text
    harmless(text)
    assert "name &lt;b&gt;the&lt;/b&gt; town" in text
    assert asked(talk, messages=json.dumps(CHAT), response=SAYS["content"]) != address


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"messages": "hello"}, "no list of chat messages"),
        ({"messages": json.dumps(CHAT[:1])}, "no turn of the user"),
        ({"messages": json.dumps(CHAT), "prompt": "a"}, "Both a prompt and a chat"),
        ({"messages": json.dumps([*CHAT, SAYS]), "response": "a"}, "another one was given"),
        ({"messages": json.dumps([*CHAT, SAYS]), "span": "townd"}, "does not hold"),
    ],
)
def test_what_is_no_chat_is_told(talk, form, says):  # noqa: F811
    sent = talk.post("/ask", **form)
    assert sent.status_code == 400 and says in unescape(sent.text)


@pytest.mark.filterwarnings("ignore:The model's own response was cut")
@pytest.mark.parametrize("cut", [True, False])
def test_an_own_response_that_was_cut_is_told_to_be(talk, monkeypatch, cut):  # noqa: F811
    said = "the capital is townc"
    kind = type(talk.explorer.classifier)
    monkeypatch.setattr(kind, "greedy", lambda self, tokens: (said, not cut))
    text = talk.client.get(asked(talk, prompt="capital of landc please")).text
    assert "Said by the model itself" in text
    assert ("cut before it came to its end, which is not asked about" in text) == cut
