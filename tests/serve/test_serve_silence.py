"""The silence around speech, at every door of the server that takes a sound."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the serve extra is not installed")

import websockets

from tests.places import CLIPS
from tests.serving import in_base64, serving
from tests.silence import AROUND, NAMES, SAID, room_noise, surrounded
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.sinc_resampler import resample

LIGHTS = next(clip for clip in SAID if clip["words"] == "bathroom lights on")
NOTHING = {
    "digital silence": np.zeros(2 * SAMPLE_RATE, np.float32),
    "a room": room_noise(2 * SAMPLE_RATE, -50, 0),
    "music": read_audio(CLIPS / "33-music.flac"),
}

around = pytest.mark.parametrize("around", AROUND, ids=NAMES)
nothing = pytest.mark.parametrize("sound", NOTHING.values(), ids=NOTHING)


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


def wav(sound):
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="WAV")
    return file.getvalue()


def transcribed(server, sound):
    file = ("a.wav", wav(sound))
    return server.client().audio.transcriptions.create(model="pebble", file=file, response_format="text").strip()


def message(sound):
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(sound)).decode(), "format": "wav"}}
    return {"role": "user", "content": [part]}


def chatted(server, sound):
    """The spoken answer's words; what can be only written has another prompt, which Pebble was not taught."""
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
    found = server.client().chat.completions.create(model="pebble", messages=[message(sound)], **spoken)
    return found.choices[0].message.audio.transcript.strip()


def committed(server, sound):
    """What a client that finds the turn's end by itself is answered, and the transcript of what it said."""

    async def talk():
        async with websockets.connect(server.url.replace("http:", "ws:") + "/realtime") as connection:

            async def send(kind, **fields):
                await connection.send(json.dumps({"type": kind, **fields}))

            heard = {"turn_detection": None, "transcription": {"model": "pebble"}}
            await send("session.update", session={"type": "realtime", "audio": {"input": heard}})
            pcm = pcm16(resample(sound, SAMPLE_RATE, 24_000)).tobytes()
            for start in range(0, len(pcm), 48_000):
                await send("input_audio_buffer.append", audio=in_base64(pcm[start : start + 48_000]))
            await send("input_audio_buffer.commit")
            await send("response.create")
            answer, words, done = "", None, False
            while words is None or not done:
                event = json.loads(await asyncio.wait_for(connection.recv(), 30))
                assert event["type"] != "error", event
                done = done or event["type"] == "response.done"
                if event["type"] == "response.output_audio_transcript.delta":
                    answer += event["delta"]
                if event["type"] == "conversation.item.input_audio_transcription.completed":
                    words = event["transcript"]
            return answer.strip(), words.strip()

    return asyncio.run(talk())


@around
def test_every_door_hears_the_speech(server, around):
    sound = surrounded(LIGHTS, around)
    assert transcribed(server, sound) == LIGHTS["words"]
    assert chatted(server, sound) == LIGHTS["reply"]
    assert committed(server, sound) == (LIGHTS["reply"], LIGHTS["words"])


@nothing
def test_no_door_makes_words_of_nothing(server, sound):
    assert transcribed(server, sound) == ""
    assert chatted(server, sound) == ""
    assert committed(server, sound) == ("", "")


def test_the_sound_of_an_earlier_message_is_cut_as_it_was(server):
    """A conversation that is told again is the one that was kept: the same answers, bit for bit."""
    chats = server.service.model
    asked = chats.parts.heard(surrounded(LIGHTS, (1.0, None)))
    one, other = chats.conversation(), chats.conversation()
    one.remember("bathroom lights on", audio=asked, trim=False)
    other.remember("bathroom lights on", audio=surrounded(LIGHTS, (1.0, None)))
    assert one.context.positions == other.context.positions


def test_very_quiet_speech_is_heard(server):
    """-50 dB: the beginnings of words were dropped."""
    right = 0
    for clip in SAID[:10]:
        sound = surrounded(clip, (1.0, None))
        loud = np.sqrt(np.mean(np.square(read_audio(CLIPS / clip["file"]))))
        right += transcribed(server, sound / loud * np.float32(10 ** (-50 / 20))) == clip["words"]
    assert right >= 9
