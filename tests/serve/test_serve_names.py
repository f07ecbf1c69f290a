"""OpenAI's names of models and voices: what they mean here, at every door of the server."""

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import ANSWER, HEARD, QUESTION, serving
from voxrill.runtime.bundle.manifest import Task
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.names import OPENAI_VOICES, VoiceId, check_model, check_voice, in_header, voice_list

FOUR = ("US male", "US female", "UK male", "UK female")


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    return server.client()


def speak(voices=FOUR, voice="US female", system="Use the {voice} voice."):
    return Task(system=system, mode="sequential", voice=voice, voices=voices)


# Models

THEIRS = [
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "tts-1",
    "tts-1-hd",
    "tts-1-1106",
    "gpt-4o-mini-tts",
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4o-2024-08-06",
    "gpt-4o-audio-preview",
    "gpt-4o-audio-preview-2025-06-03",
    "gpt-4.1",
    "gpt-4.1-mini-2025-04-14",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5.1",
    "gpt-audio",
    "gpt-audio-mini",
    "gpt-realtime",
    "gpt-realtime-mini",
    "gpt-realtime-2.1",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-2025-08-28",
    "gpt-4o-realtime-preview",
    "gpt-4o-mini-realtime-preview-2024-12-17",
    "chatgpt-4o-latest",
    "o3-mini",
    "gpt-3.5-turbo",
]
OTHERS = [
    "gpt",
    "gpt-",
    "whisper",
    "whisper-10",
    "llama-3",
    "pebble-2",
    "Pebble",
    "gpt-4o-",
    "gpt-4o mini",
    "gpt-4o\n",
    "my-gpt-4o",
]


@pytest.mark.parametrize("name", [*THEIRS, None, "", " ", "pebble"])
def test_openais_names_and_none_mean_the_served_model(server, name):
    check_model(server.service.model.manifest, name)


@pytest.mark.parametrize("name", [*OTHERS, "gpt-4o" + "-x" * 50_000 + "!"])
def test_any_other_name_is_a_404_that_lists_ours(server, name):
    with pytest.raises(ApiError, match="This server has: pebble") as refused:
        check_model(server.service.model.manifest, name)
    assert refused.value.status == 404 and refused.value.code == "model_not_found"


def test_every_endpoint_takes_openais_names_and_says_what_it_used(client):
    heard = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=QUESTION)
    assert heard.parse().text == HEARD and heard.headers["X-Voxrill-Model"] == "pebble"
    chatted = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": HEARD}])
    assert chatted.choices[0].message.content == ANSWER and chatted.model == "pebble"
    said = client.audio.speech.create(model="tts-1", voice="onyx", input=ANSWER, response_format="pcm")
    assert (
        said.response.headers["X-Voxrill-Model"] == "pebble" and said.response.headers["X-Voxrill-Voice"] == "US male"
    )
    assert client.models.retrieve("gpt-4o").id == "pebble"


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_request_without_a_model_means_the_served_one(server, model):
    with server.http() as http:
        spoken = http.post("/v1/audio/speech", json={"input": ANSWER, "response_format": "pcm"} | model)
        written = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": HEARD}]} | model)
        form = {name: value or "" for name, value in model.items()}
        heard = http.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", QUESTION.read_bytes())})
    assert spoken.status_code == 200 and spoken.headers["X-Voxrill-Voice"] == "US female"
    assert written.json()["model"] == "pebble" and heard.json()["text"] == HEARD


def test_empty_fields_of_a_form_mean_absent_ones(server):
    fields = dict.fromkeys(("model", "response_format", "temperature", "stream", "seed", "language", "prompt"), "")
    with server.http() as http:
        heard = http.post("/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", QUESTION.read_bytes())})
    assert heard.json()["text"] == HEARD


# Voices


@pytest.mark.parametrize(
    ("wanted", "voice"),
    [(name, sound) for name, sound in OPENAI_VOICES.items()]
    + [("Alloy", "US female"), ("uk_male", "UK male"), ("UK-FEMALE", "UK female"), ("us female", "US female")]
    + [(None, "US female"), ("", "US female"), ("default", "US female"), (VoiceId("verse"), "US male")],
)
def test_the_published_models_four_voices(wanted, voice):
    assert check_voice(speak(), wanted, "voice") == voice


@pytest.mark.parametrize("name", OPENAI_VOICES)
def test_a_model_with_one_voice_or_none_has_it_for_every_name(name):
    assert check_voice(speak((), "", "Answer."), name, "voice") == ""
    assert check_voice(speak(("Anna",), "Anna"), name, "voice") == "Anna"
    assert check_voice(speak((), "A calm voice."), name, "voice") == "A calm voice."


def test_voices_of_other_names_are_chosen_by_gender_or_by_their_own_name():
    two = speak(("Deep male", "Bright female"), "Bright female")
    assert check_voice(two, "onyx", "voice") == "Deep male" and check_voice(two, "nova", "voice") == "Bright female"
    assert check_voice(speak(("Anna", "Alloy"), "Anna"), "alloy", "voice") == "Alloy"


def test_a_voice_may_be_described_where_the_prompt_takes_descriptions():
    described = speak((), "A calm voice.")
    assert check_voice(described, "A deep voice.", "voice") == "A deep voice."
    with pytest.raises(ApiError):
        check_voice(described, "deep " * 100, "voice")
    with pytest.raises(ApiError):
        check_voice(speak((), "", "Answer."), "A deep voice.", "voice")


@pytest.mark.parametrize("name", ["nobody", "../../etc/passwd", {"id": "voice_123"}])
def test_a_voice_that_is_not_there_is_refused_with_those_that_are(server, name):
    with server.http() as http:
        refused = http.post("/v1/audio/speech", json={"input": ANSWER, "voice": name})
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["param"] == "voice"
    assert "This model has: US male, US female, UK male, UK female, default" in error["message"]
    assert "alloy" in error["message"] and "verse" in error["message"]


def test_the_list_of_voices_says_what_openais_names_mean(server):
    with server.http() as http:
        found = http.get("/v1/audio/voices").json()
    assert [voice["id"] for voice in found["voices"]] == list(FOUR) and found["openai"] == OPENAI_VOICES
    assert all(found["openai"][name] == voice["id"] for voice in found["voices"] for name in voice["openai"])
    assert [voice["id"] for voice in found["voices"] if voice["default"]] == ["US female"]
    assert found["chat"] == "default" and set(found["openai"].values()) == set(FOUR)


def test_the_list_of_voices_of_a_model_with_one():
    found = voice_list(speak((), "A calm voice."), speak((), "", "Answer."))
    assert [voice["id"] for voice in found["voices"]] == ["default"] and found["descriptions"]
    assert set(found["openai"].values()) == {"default"}


@pytest.mark.parametrize("voice", ["alloy", "marin", {"id": "cedar"}, None, "", "default"])
def test_a_chat_in_openais_voices(server, voice):
    """The model has one voice for answers: all of OpenAI's names mean it, and the answer says so."""
    body = {"messages": [{"role": "user", "content": HEARD}], "modalities": ["text", "audio"]}
    with server.http() as http:
        said = http.post("/v1/chat/completions", json=body | {"audio": {"voice": voice, "format": "wav"}})
    assert said.json()["choices"][0]["message"]["audio"]["transcript"] == ANSWER
    assert said.headers["X-Voxrill-Voice"] == "default"


def test_a_name_in_a_header_is_printable_ascii():
    assert in_header("UK female") == "UK female"
    assert in_header("Zoë\r\nX: 1") == "Zo%C3%AB%0D%0AX: 1"


def test_another_sites_page_may_read_what_was_used():
    site = {"Origin": "https://example.org"}
    with serving(admission=Admission(origins=(site["Origin"],))) as open_to, open_to.http() as http:
        assert "X-Voxrill-Model" in http.get("/v1/models", headers=site).headers["access-control-expose-headers"]
