"""The site's icons as PNG, drawn by Chromium from the page's SVG: python -m tests.web.icons"""

from base64 import b64decode, b64encode

from playwright.sync_api import sync_playwright

from tests.browser import CHROMIUM
from tests.places import ROOT

ICONS = ROOT / "web" / "site" / "icons"
SVG = ROOT / "runtime" / "serve" / "page" / "icon.svg"

# name: pixels, and the part of the picture that the icon fills. Systems may cut a maskable one to a circle.
DRAWN = {"icon-192.png": (192, 1.0), "icon-512.png": (512, 1.0), "maskable-512.png": (512, 0.72)}

# In the page: a canvas with the icon, as the address of a PNG.
DRAW = """async ([svg, pixels, part]) => {
    const image = new Image();
    image.src = "data:image/svg+xml;base64," + svg;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = pixels;
    const context = canvas.getContext("2d");
    if (part < 1) {
        context.fillStyle = "#0b6e69";
        context.fillRect(0, 0, pixels, pixels);
    }
    const edge = (pixels * (1 - part)) / 2;
    context.drawImage(image, edge, edge, pixels * part, pixels * part);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


def drawn(page, name) -> str:
    """The icon of that name, drawn anew in a page, as base64."""
    pixels, part = DRAWN[name]
    return page.evaluate(DRAW, [b64encode(SVG.read_bytes()).decode(), pixels, part])


def main() -> None:
    """Write all of them."""
    ICONS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        for name in DRAWN:
            (ICONS / name).write_bytes(b64decode(drawn(page, name)))


if __name__ == "__main__":
    main()
