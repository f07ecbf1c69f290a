"""curl, as OpenAI's API reference calls it, and as shortly as a person may."""

import json
import subprocess

from clips import FOLDER, KEY, QUESTION, SPOKEN, TYPED, URL, report

AUTHORIZED = ["-H", f"Authorization: Bearer {KEY}"]
JSON = ["-H", "Content-Type: application/json"]


def curl(path, *arguments):
    """What the server answers."""
    done = subprocess.run(["curl", "-sS", "--max-time", "30", URL + path, *arguments], capture_output=True, check=True)
    return done.stdout.decode()


def transcription():
    """The reference of `audio/transcriptions`."""
    form = ["-H", "Content-Type: multipart/form-data", "-F", f"file=@{QUESTION}", "-F", "model=gpt-4o-transcribe"]
    return {"heard": json.loads(curl("/audio/transcriptions", *AUTHORIZED, *form))["text"]}


def short_transcription():
    """A file and nothing else."""
    return {"heard": json.loads(curl("/audio/transcriptions", "-F", f"file=@{QUESTION}"))["text"]}


def speech():
    """The reference of `audio/speech`."""
    wanted = {"model": "gpt-4o-mini-tts", "input": SPOKEN, "voice": "alloy"}
    curl("/audio/speech", *AUTHORIZED, *JSON, "-d", json.dumps(wanted), "--output", FOLDER / "curl.mp3")
    return {"sound": "curl.mp3"}


def short_speech():
    """A text and nothing else."""
    curl("/audio/speech", *JSON, "-d", json.dumps({"input": SPOKEN}), "--output", FOLDER / "short.mp3")
    return {"sound": "short.mp3"}


def typed_question():
    """The reference of `chat/completions`."""
    messages = [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": TYPED},
    ]
    wanted = {"model": "gpt-5.4", "messages": messages}
    answer = json.loads(curl("/chat/completions", *JSON, *AUTHORIZED, "-d", json.dumps(wanted)))
    return {"answer": answer["choices"][0]["message"]["content"]}


def short_typed_question():
    """A question and nothing else."""
    wanted = {"messages": [{"role": "user", "content": TYPED}]}
    answer = json.loads(curl("/chat/completions", *JSON, "-d", json.dumps(wanted)))
    return {"answer": answer["choices"][0]["message"]["content"]}


report(transcription, short_transcription, speech, short_speech, typed_question, short_typed_question)
