"""A web application of your own: sound to words, and words to sound.

On one machine, in four lines:

    pip install fastapi uvicorn python-multipart
    uvicorn --app-dir examples web_app:app
    curl -F file=@examples/question.wav http://127.0.0.1:8000/transcribe
    curl "http://127.0.0.1:8000/speak?text=kitchen+lights+on" >answer.wav
"""

import asyncio
import io
from typing import Any

from fastapi import FastAPI, HTTPException, Response, UploadFile

import voxrill

app = FastAPI()
model = voxrill.load()  # one for all requests, which take turns


@app.post("/transcribe")
async def transcribe(file: UploadFile) -> dict[str, Any]:
    """The words of a sound file, with the times of its segments."""
    try:
        return (await model.atranscribe(await file.read())).as_json()
    except voxrill.AudioFileError as error:
        raise HTTPException(400, str(error)) from None


@app.get("/speak")
async def speak(text: str) -> Response:
    """A text, spoken, as WAV."""
    sound = io.BytesIO()
    try:
        await asyncio.to_thread(model.speak(text).save, sound)
    except voxrill.VoxrillError as error:
        raise HTTPException(400, str(error)) from None
    return Response(sound.getvalue(), media_type="audio/wav")
