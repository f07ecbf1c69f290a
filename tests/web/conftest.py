"""What the tests of the browser's runtime share: the site of Pebble, and a browser."""

import shutil

import pytest

from tests.browser import chromium
from tests.places import PEBBLE
from tests.web.hosting import MODULES
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.upkeep import web_packages, web_site


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """The files of other packages that a site needs."""
    folder = tmp_path_factory.mktemp("packages")
    for name, (package, _) in web_packages.FILES.items():
        shutil.copy(MODULES / package / "dist" / name, folder)
    return folder


@pytest.fixture(scope="session")
def site(packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "site"
    web_site.write_site(open_bundle(PEBBLE), folder, packages, False, lambda _name, _bytes: None)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as launched:
        yield launched
