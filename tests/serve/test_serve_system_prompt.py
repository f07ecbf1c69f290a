"""A client sends its own system prompt, and wants spoken answers: our models must be told so, unlike OpenAI's."""

import base64

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import ANSWER, HEARD, serving
from voxrill.runtime.serve.system_prompt import told_prompt

ASSISTANT = "You are a helpful assistant."
"""The prompt of most quickstarts. Pebble knows its words."""


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


def test_an_answer_is_spoken_whatever_the_system_prompt_is(server):
    answers = [
        server.client()
        .chat.completions.create(
            model="gpt-audio",
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "pcm16"},
            messages=[{"role": "system", "content": prompt}] * bool(prompt) + [{"role": "user", "content": HEARD}],
        )
        .choices[0]
        .message.audio
        for prompt in ("", ASSISTANT)
    ]
    assert [answer.transcript for answer in answers] == [ANSWER, ANSWER]
    assert min(len(base64.b64decode(answer.data)) for answer in answers) > 48_000


def test_the_model_s_own_prompt_is_told_once_and_only_for_sound(server):
    manifest = server.service.model.manifest
    own = manifest.tasks.chat.system
    assert told_prompt(manifest, ASSISTANT, "both") == f"{own} {ASSISTANT}"
    for wanted, output in ((ASSISTANT, "text"), (f"{ASSISTANT} {own}", "both"), (None, "both"), ("", "audio")):
        assert told_prompt(manifest, wanted, output) == wanted


def test_a_chat_in_which_nobody_asked_anything_is_answered_with_a_greeting(server):
    """LiveKit sends two prompts and no question, where its agent is to greet."""
    prompts = [{"role": "system", "content": text} for text in ("You are an AI.", "Greet the user.")]
    made = server.client().chat.completions.create(model="gpt-4.1", messages=prompts)
    assert made.choices[0].message.content == "hello how can i help"
