"""What a model is told beside the client's question: the system prompt when a client sends its own, and an opening.

In: the client's prompt and what it wants answers to be. Out: the prompt for `Engine.conversation`. Chat requests and
realtime sessions both ask here.
"""

from __future__ import annotations

from voxrill.runtime.bundle.manifest import Manifest
from voxrill.runtime.engine.conversation import Output

OPENING = "hello"
"""What the model is asked when a client wants an answer, and nothing was said: its own greeting answers it."""


def told_prompt(manifest: Manifest, wanted: str | None, output: Output) -> str | None:
    """The client's prompt, behind the model's own where the answers are spoken. None: only the model's own.

    The model's own prompt says that answers are spoken. OpenAI's models speak whatever their prompt is. These models
    do not: "You are a helpful assistant." alone is answered in writing.
    """
    own = manifest.tasks.chat.system
    if not wanted or output == "text" or own in wanted:
        return wanted
    return f"{own} {wanted}"
