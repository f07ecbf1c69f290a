"""Lines that stand at the end of each command's help. A test reads each as the command line would."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "transcribe": (
        "voxrill transcribe question.wav",
        "voxrill transcribe meeting.mp3 -o meeting.srt",
        "voxrill transcribe recordings --format srt -o subtitles",
        "voxrill transcribe --live",
    ),
    "speak": (
        'voxrill speak "kitchen lights on"',
        'voxrill speak "kitchen lights on" -o reply.wav',
        'echo "kitchen lights on" | voxrill speak - -o - | aplay -f S16_LE -r 24000',
    ),
    "chat": (
        "voxrill chat question.wav",
        'voxrill chat --text "turn on the kitchen lights" -o answer.wav',
        "arecord -d 5 | voxrill chat - --output text",
    ),
    "talk": (
        "voxrill talk",
        "voxrill talk --barge-in",
        "voxrill talk --text",
    ),
    "translate": ("voxrill translate question.wav --to German",),
    "ask": ('voxrill ask "How do I descale the kettle?" --docs manuals --quote',),
    "control": (
        "voxrill control commands.toml question.wav --dry-run",
        "voxrill control commands.toml --live",
    ),
    "classify": (
        "voxrill classify question.wav",
        "voxrill classify question.wav --labels lights,music",
    ),
    "pebble": ("voxrill pebble | grep kitchen",),
    "snapshot": (
        "voxrill snapshot -o prompt.snapshot --document house.txt",
        "voxrill talk --snapshot prompt.snapshot",
    ),
    "replay": (
        "voxrill talk --record kept",
        "voxrill replay kept",
    ),
    "serve": (
        "voxrill serve --port 8000",
        "voxrill serve --port 8000 --wyoming tcp://127.0.0.1:10300",
    ),
    "web": ("voxrill web -o site", "voxrill web mine-int8 -o site --force"),
    "export": (
        "voxrill export LiquidAI/LFM2.5-Audio-1.5B -o bundle",
        "voxrill export LiquidAI/LFM2.5-Audio-1.5B -o small --precision int8",
        "voxrill export LiquidAI/LFM2.5-Audio-1.5B -o mine --weights tuned --lora adapter",
    ),
    "quantize": ("voxrill quantize bundle -o small --recipe int4",),
    "sensitivity": ("voxrill sensitivity bundle --audio recordings -o mine.toml",),
    "compare": ("voxrill compare bundle small --audio recordings",),
    "tune": ("voxrill tune small",),
    "pack": ("voxrill pack small -o model.voxrill",),
    "unpack": (
        "voxrill unpack model.voxrill -o model",
        "voxrill talk --bundle model.voxrill",
    ),
    "compile": ("voxrill compile phone --soc SM8650",),
    "doctor": (
        "voxrill doctor",
        "voxrill doctor --audio",
    ),
    "plan": (
        "voxrill plan --device pi5",
        "voxrill plan small",
    ),
    "devices": (
        "voxrill devices",
        "voxrill devices --audio --tone",
    ),
    "inspect": ("voxrill inspect small",),
    "verify": ("voxrill verify small",),
    "providers": ("voxrill providers --provider openvino",),
    "accept": (
        "voxrill accept bundle --published published",
        "voxrill accept bundle --published published --stage codec --stage transcript",
    ),
    "golden": ("voxrill golden docs/golden",),
    "npu-check": ("voxrill npu-check phone --graph decoder",),
    "eval": (
        "voxrill eval asr --data recordings",
        "voxrill eval tts --data texts.txt",
    ),
    "bench": ("voxrill bench --minutes 10",),
}
