"""OpenAI's client over HTTP, as OpenAI's guides show it."""

import base64

from clips import FOLDER, KEY, QUESTION, SPOKEN, TYPED, URL, report
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY)


def transcription():
    """The guide "Speech to text"."""
    with open(QUESTION, "rb") as file:
        return {"heard": client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file).text}


def streamed_transcription():
    """The same guide, "Streaming the transcription of a completed recording"."""
    with open(QUESTION, "rb") as file:
        stream = client.audio.transcriptions.create(
            model="gpt-4o-mini-transcribe", file=file, response_format="text", stream=True
        )
        return {"heard": "".join(event.delta for event in stream if event.type == "transcript.text.delta")}


def timed_transcription():
    """The same guide, "Timestamps", with segments: the default."""
    with open(QUESTION, "rb") as file:
        found = client.audio.transcriptions.create(model="whisper-1", file=file, response_format="verbose_json")
    return {"heard": " ".join(segment.text.strip() for segment in found.segments)}


def speech():
    """The guide "Text to speech"."""
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="coral",
        input=SPOKEN,
        instructions="Speak in a cheerful and positive tone.",
    ) as response:
        response.stream_to_file(FOLDER / "speech.mp3")
    return {"sound": "speech.mp3"}


def question_with_sound():
    """The guide "Audio and speech": a question with sound, answered aloud."""
    encoded = base64.b64encode(QUESTION.read_bytes()).decode()
    completion = client.chat.completions.create(
        model="gpt-4o-audio-preview",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this recording?"},
                    {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
                ],
            },
        ],
    )
    said = completion.choices[0].message.audio
    (FOLDER / "chat.wav").write_bytes(base64.b64decode(said.data))
    return {"answer": said.transcript, "sound": "chat.wav"}


def response():
    """The README's first example."""
    made = client.responses.create(model="gpt-5.5", instructions="You are a helpful assistant.", input=TYPED)
    return {"answer": made.output_text}


def streamed_response():
    """The README, "Streaming responses"."""
    stream = client.responses.create(model="gpt-5.5", input=TYPED, stream=True)
    return {"answer": "".join(event.delta for event in stream if event.type == "response.output_text.delta")}


def typed_question():
    """The README's second example."""
    completion = client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "developer", "content": "You are a helpful assistant."},
            {"role": "user", "content": TYPED},
        ],
    )
    return {"answer": completion.choices[0].message.content}


report(
    transcription,
    streamed_transcription,
    timed_transcription,
    speech,
    question_with_sound,
    response,
    streamed_response,
    typed_question,
)
