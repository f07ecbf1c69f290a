"""Wheels with the library of products inside, one for each platform, made from the pure wheel.

    python -m kernels.wheels dist

In: a folder with the pure wheel, which works without the library. Out, beside it: a wheel for each Linux that the tests
run, and in build/untested those for the other systems. pip prefers a wheel for its platform to the pure one.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import zipfile
from pathlib import Path

from kernels.build import TARGETS, NotBuilt, build

NATIVE = "voxrill/devices/native"
"""Where the library lies in a wheel."""
UNTESTED = Path("build", "untested")
"""Wheels for systems on which nothing ran. A folder in `dist` would stop `twine upload dist/*`."""


def platform_wheel(pure: Path, native: Path, tag: str, folder: Path) -> Path:
    """The pure wheel with all files of the folder `native`, under the name of a platform.

    Args:
        pure: a wheel whose name ends with -none-any.whl.
        native: the library with its facts.
        tag: the platform as wheels name it, such as manylinux_2_28_x86_64.
        folder: where it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / pure.name.replace("-none-any.whl", f"-none-{tag}.whl")
    with zipfile.ZipFile(pure) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        files = {entry.filename: source.read(entry) for entry in source.infolist() if not entry.is_dir()}
        (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
        about = record.replace("RECORD", "WHEEL")
        files |= {f"{NATIVE}/{path.name}": path.read_bytes() for path in sorted(native.iterdir()) if path.is_file()}
        files[about] = _about(files[about].decode(), tag).encode()
        del files[record]
        lines = [_line(name, data) for name, data in files.items()] + [f"{record},,"]
        for name, data in (*files.items(), (record, "\n".join(lines).encode() + b"\n")):
            target.writestr(name, data)
    return made


def _about(text: str, tag: str) -> str:
    """The file WHEEL for one platform."""
    return text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false").replace("-none-any", f"-none-{tag}")


def _line(name: str, data: bytes) -> str:
    """A file's line in RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path, help="the folder with the pure wheel")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="these platforms only")
    args = parser.parse_args()
    pure = sorted(args.dist.glob("*-none-any.whl"))
    if len(pure) != 1:
        sys.exit(f"{args.dist} holds {len(pure)} pure wheels instead of one; make dist builds it")
    for name in args.only:
        target, library = TARGETS[name], Path("build", "kernels", name)
        try:
            build(name, library, portable=True)
        except NotBuilt as reason:
            sys.exit(f"the library of products for {name} was not built: {reason}")
        print(platform_wheel(pure[0], library, target.tag, args.dist if target.tested else UNTESTED))


if __name__ == "__main__":
    main()
