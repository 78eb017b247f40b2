"""Whatever is changed in a file, nothing but a normbank error comes out."""

import os
import random
import shutil

import numpy as np
import pytest

from normbank.dicom.package import unpack
from normbank.dicom.references import read_seg_labels
from normbank.dicom.series import open_series
from normbank.errors import NormbankError
from normbank.imaging.scan import Limits
from tests.normbank.dicom.test_package import zipped
from tests.normbank.dicom.test_references import drawn_labels, seg_of
from tests.support.dicom import PLAIN_SYNTAXES, Phantom, as_bytes, compressed, write_series

LIMITS = Limits(1 << 22, 1 << 24, 1 << 18, 30.0)
COUNT = int(os.environ.get("NORMBANK_TEST_MUTATIONS", "200"))  # of all kinds together
KINDS = [
    *("explicit", "implicit", "big-endian", "deflated", "bare", "enhanced"),
    *("jpeg-lossless-70", "jpeg-ls-80", "jpeg-2000-90", "rle", "enhanced-jpeg-ls-80"),
]


def mutated(data, random_):
    """Some bytes flipped, cut out, doubled or overwritten with what breaks parsers."""
    data = bytearray(data)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(len(data) if random_.random() < 0.3 else min(len(data), 1600))
        action = random_.randrange(5)
        if action == 0:
            data[at] ^= 1 << random_.randrange(8)
        elif action == 1:
            data[at] = random_.randrange(256)
        elif action == 2:
            data[at : at + 4] = random_.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"])
        elif action == 3:
            del data[at : at + random_.randint(1, 40)]
        else:
            data[at:at] = data[at : at + random_.randint(1, 40)]
        if len(data) < 8:
            break
    return bytes(data)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Kind -> folder with an intact series."""
    base = tmp_path_factory.mktemp("originals")
    phantom, folders = Phantom(slope=1.5), {}
    for kind in KINDS:
        folder = base / kind
        if kind.startswith("enhanced"):
            folder.mkdir()
            image = phantom.enhanced()
            packed = as_bytes(image) if kind == "enhanced" else compressed(image, kind[9:], base)
            (folder / "one").write_bytes(packed)
        elif kind == "bare":
            write_series(phantom.images(), folder, lambda i: as_bytes(i, preamble=False))
        elif kind in PLAIN_SYNTAXES:
            write_series(phantom.images(), folder, lambda i, k=kind: as_bytes(i, PLAIN_SYNTAXES[k]))
        else:
            write_series(phantom.images(), folder, lambda i, k=kind: compressed(i, k, base))
        folders[kind] = folder
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_series_are_read_or_refused(originals, tmp_path, kind):
    refused = 0
    folder = tmp_path / "in"
    shutil.copytree(originals[kind], folder)
    paths = sorted(folder.iterdir())
    share = -(-COUNT // len(KINDS))
    for seed in range(share):
        random_ = random.Random(f"{kind}-{seed}")
        path = random_.choice(paths)
        intact = path.read_bytes()
        path.write_bytes(mutated(intact, random_))
        try:
            scan = open_series(folder, LIMITS, salt=b"salt").read()
            assert np.isfinite(scan.data).all()
        except NormbankError:
            refused += 1
        path.write_bytes(intact)
    assert open_series(folder, LIMITS).read().shape == (24, 20, 16)
    assert refused > share // 10


@pytest.mark.parametrize("kind", ["LABELMAP", "BINARY"])
def test_mutated_segmentations_are_read_or_refused(originals, tmp_path, kind):
    series = open_series(originals["explicit"], LIMITS)
    path = tmp_path / "seg"
    seg_of(series.headers, drawn_labels(series.shape), kind).save_as(path)
    intact, refused = path.read_bytes(), 0
    for seed in range(COUNT // 10):
        path.write_bytes(mutated(intact, random.Random(f"{kind}-{seed}")))
        try:
            labels = read_seg_labels(path, series, LIMITS, "freesurfer").data
            assert set(np.unique(labels)) <= {0, 16, 17, 53}
        except NormbankError:
            refused += 1
    assert refused > COUNT // 100


def test_mutated_zips_are_read_or_refused(tmp_path):
    intact = zipped(*((str(n), as_bytes(i)) for n, i in enumerate(Phantom().images()[:3])))
    refused = 0
    for seed in range(COUNT // 4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "zip").write_bytes(mutated(intact, random.Random(seed)))
        (folder / "out").mkdir()
        try:
            unpack(folder / "zip", folder / "out", LIMITS)
        except NormbankError:
            refused += 1
        shutil.rmtree(folder)
    assert refused > COUNT // 40
