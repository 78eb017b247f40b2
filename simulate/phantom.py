"""A head drawn from solids: every structure, left and right, near its real place.

No person's anatomy. Positions and sizes are round numbers in a frame like
that of common templates: mm, origin between the hemispheres near the anterior
commissure, x to the right, y ahead, z up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simulate.fields import SmoothField
from simulate.shapes import Canvas, Ellipsoid, Point, Solid, Tube
from simulate.tissue import Array

HEAD_SHAPE = (192, 224, 224)
SMALL_SHAPE, SMALL_SPACING_MM = (64, 76, 76), 3.0

_CENTRE_MM = (0.0, -12.0, -10.0)

# The right half's solids with (left, right) ids, painted in this order.
_VENTRICLES: tuple[tuple[Solid, tuple[int, int]], ...] = (
    (Tube(((7, 30, 4), (7, 12, 17), (9, -10, 23), (15, -30, 20)), (4, 5, 4, 5)), (4, 43)),
    (Tube(((15, -30, 20), (24, -42, 8), (24, -62, 6)), (5, 6, 2)), (4, 43)),
    (Tube(((27, -39, 0), (34, -28, -9), (34, -12, -18)), (2.5, 2.2, 2)), (5, 44)),
)
_NUCLEI: tuple[tuple[Solid, tuple[int, int]], ...] = (
    (Ellipsoid((10, -15, -11), (8, 10, 8)), (28, 60)),
    (Ellipsoid((10.5, -18, 7), (9, 16, 10.5), yaw=20), (10, 49)),
    (Ellipsoid((9.5, 13, -7), (5, 6, 5)), (26, 58)),
    (Ellipsoid((26, 2, 1), (6, 17, 12), yaw=-12), (12, 51)),
    (Ellipsoid((19, -3, -1), (5, 11, 8), yaw=-18), (13, 52)),
    (Ellipsoid((13, 14, 5), (6, 10, 10)), (11, 50)),
    (Tube(((14, 10, 14), (17, -6, 23), (23, -22, 21), (27, -32, 12)), (5, 3.5, 2.8, 2)), (11, 50)),
    (
        Tube(((23, -11, -20), (28, -22, -15), (29, -33, -7), (24, -40, 2)), (6.5, 6, 5, 3.5)),
        (17, 53),
    ),
    (Ellipsoid((22, -3, -20), (7.5, 8.5, 8)), (18, 54)),
)
_STEM = Tube(((0, -24, -10), (0, -24, -30), (0, -34, -48), (0, -42, -64)), (11, 14, 9, 7.5))
# Grey matter with fluid inside, (left, right) ids: the insula and the fissure over it.
_SYLVIAN: tuple[tuple[Solid, tuple[int, int]], ...] = (
    (Ellipsoid((38, 1, 2), (5.5, 25, 18)), (3, 42)),
    (Ellipsoid((54, -4, -2), (22, 28, 6.5)), (3, 42)),
    (Ellipsoid((38.5, 1, 2), (2, 22, 15)), (24, 24)),
    (Ellipsoid((54, -4, -2), (22, 25, 3)), (24, 24)),
)
_MIDDLE: tuple[tuple[Solid, int], ...] = (
    (Ellipsoid((0, -10, -1), (2.2, 14, 11)), 14),
    (_STEM, 16),
    (Tube(((0, -32, -10), (0, -40, -28), (0, -46, -36)), (1.5, 4, 3)), 15),
)
_CALLOSUM = Tube(
    ((0, 30, 0), (0, 33, 9), (0, 20, 20), (0, -8, 29), (0, -32, 24), (0, -38, 14)),
    (3, 4.5, 3.5, 3.5, 4, 5),
)
_CEREBRUM: tuple[Solid, ...] = (
    Ellipsoid((31, -17, 20), (39, 88, 58)),
    Ellipsoid((14, -17, 19), (30, 85, 56)),
    Ellipsoid((44, -18, -16), (24, 46, 24)),
)
_CEREBELLUM = Ellipsoid((21, -62, -36), (31, 30, 22))
_CEREBELLUM_WM = Ellipsoid((17, -54, -34), (15, 14, 9))
_SKULL: tuple[Solid, ...] = (
    Ellipsoid((0, -17, 16), (74, 92, 66)),
    Ellipsoid((0, -44, -28), (60, 54, 36)),
    Ellipsoid((0, 0, -22), (62, 52, 26)),
)
_FACE: tuple[Solid, ...] = (
    Ellipsoid((0, 42, -55), (60, 54, 78)),
    Tube(((0, 84, -18), (0, 100, -48)), (10, 14)),
)
_NECK = Tube(((0, -30, -50), (0, -40, -300)), (56, 62))
_EYE = Ellipsoid((32, 66, -24), (12, 12, 12))
_NOSE = Ellipsoid((0, 66, -50), (13, 30, 22))
_CORD = Tube(((0, -42, -64), (0, -42, -300)), (5, 5))
_SPINE = Tube(((0, -38, -74), (0, -38, -300)), (20, 20))
_CANAL = Tube(((0, -42, -55), (0, -42, -300)), (9, 9))

_SKIN_MM, _SCALP_MM, _BONE_MM, _CSF_MM, _CORTEX_MM, _SULCUS_MM = 3.0, 4.0, 6.0, 5.0, 2.8, 0.9
_SULCUS_DEPTH_MM, _FOLD_MM = 17.0, 9.0


def head_affine(
    shape: Sequence[int] = HEAD_SHAPE, spacing_mm: float = 1.0
) -> npt.NDArray[np.float64]:
    """(4, 4) voxel to mm of a drawn head, RAS+, the head in the middle of the box."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.array(_CENTRE_MM) - spacing_mm * (np.array(shape) - 1) / 2
    return affine


def draw_head(
    seed: int, shape: tuple[int, int, int] = HEAD_SHAPE, spacing_mm: float = 1.0
) -> npt.NDArray[np.int32]:
    """Draw a head with a brain, skull, skin, face and neck.

    Parameters
    ----------
    seed : varies sizes, places and the folding of the cortex
    shape : (X, Y, Z) voxels; the head measures about 180 x 230 mm and its
        neck leaves the box below. `SMALL_SHAPE` holds it at `SMALL_SPACING_MM`
    spacing_mm : isotropic

    Returns
    -------
    (X, Y, Z) int32
        FreeSurfer ids, head ids from 502, on the grid of `head_affine`.
    """
    rng = np.random.default_rng(seed)
    size = 1 + 0.03 * float(np.clip(rng.standard_normal(), -2, 2))
    # A larger head is the same head on a finer grid.
    canvas = Canvas(
        shape, np.diag([1 / size, 1 / size, 1 / size, 1.0]) @ head_affine(shape, spacing_mm)
    )
    hemispheres = _union(canvas, _CEREBRUM, both_sides=True)
    _draw_outside(canvas, hemispheres)
    _draw_cortex(canvas, hemispheres, spacing_mm, rng)
    _draw_cerebellum(canvas)
    _draw_inside(canvas, rng)
    return canvas.labels


def _draw_outside(canvas: Canvas, hemispheres: Array) -> None:
    """Skin, soft tissue, bone, fluid, face and neck."""
    brain = np.minimum(hemispheres, _union(canvas, (_CEREBELLUM, _STEM), both_sides=True))
    skull = _union(canvas, _SKULL)
    skin = skull - (_BONE_MM + _SCALP_MM + _SKIN_MM)
    for solid in (*_FACE, _NECK):
        np.minimum(skin, canvas.distance(solid), out=skin)
    labels = canvas.labels
    labels[skin < 0] = 511
    labels[skin < -_SKIN_MM] = 507
    canvas.paint(_SPINE, 516)
    for eye in (_EYE, _EYE.mirrored()):
        canvas.paint(eye, 506, over=(507, 511))
    canvas.paint(_NOSE, 509, over=(507,))
    canvas.paint(_NOSE.changed(0.75, (0, 0, 0)), 0, over=(509,))
    labels[skull < _BONE_MM] = 515
    labels[(skull < 0.7 * _BONE_MM) & (skull > 0.3 * _BONE_MM)] = 516
    labels[skull < 0] = 515
    labels[(skull < 0) & (brain < _CSF_MM)] = 24
    canvas.paint(_CANAL, 24)
    canvas.paint(_CORD, 512)


def _draw_cortex(
    canvas: Canvas, hemispheres: Array, spacing_mm: float, rng: np.random.Generator
) -> None:
    """Grey matter along the surface and along folds that reach into it."""
    x = canvas.axes[0]
    outer = np.maximum(hemispheres, 1.2 - np.abs(x))
    folds = SmoothField(canvas.labels.shape, [_FOLD_MM / spacing_mm] * 3, rng).volume()
    # A smooth field's zero surface is a fold; its distance follows from a
    # typical gradient, and it fades out below the reach of the sulci.
    fold_mm = np.abs(folds) * (0.75 * _FOLD_MM) + np.clip(-outer - _SULCUS_DEPTH_MM, 0, None)
    depth = np.minimum(-outer, fold_mm - _SULCUS_MM)
    cerebrum = (outer < 0) & np.isin(canvas.labels, (24, 515, 516))
    right = np.broadcast_to(x > 0, depth.shape)
    for side, (gm, wm) in ((~right, (3, 2)), (right, (42, 41))):
        canvas.labels[cerebrum & side] = 24
        canvas.labels[cerebrum & side & (depth > 0)] = gm
        canvas.labels[cerebrum & side & (depth > _CORTEX_MM)] = wm


def _draw_cerebellum(canvas: Canvas) -> None:
    """Leaves of grey and white matter around a white core."""
    labels, right = canvas.labels, np.broadcast_to(canvas.axes[0] > 0, canvas.labels.shape)
    for core, body in (
        (_CEREBELLUM_WM.mirrored(), _CEREBELLUM.mirrored()),
        (_CEREBELLUM_WM, _CEREBELLUM),
    ):
        canvas.paint(body, 8, over=(24, 515, 516))
        box, inside = canvas.inside(body.changed(0.86, (0, 4, 0)))
        ax, ay, az = (axis[part] for axis, part in zip(canvas.axes, box, strict=True))
        leaves = np.cos(np.arctan2(az + 34, -ay - 40) * 18) * (np.abs(ax) > 3) > 0.75
        labels[box][inside & leaves & (labels[box] == 8)] = 7
        canvas.paint(core, 7, over=(8,))
    labels[(labels == 8) & right] = 47
    labels[(labels == 7) & right] = 46


def _draw_inside(canvas: Canvas, rng: np.random.Generator) -> None:
    """Callosum, ventricles, nuclei and brain stem."""
    x = canvas.axes[0]
    box, inside = canvas.inside(_CALLOSUM.changed(1.1, (0, 0, 0)))
    right = np.broadcast_to(x[box[0]] > 0, inside.shape)
    canvas.labels[box][inside] = np.where(right, 41, 2)[inside]
    _clear_core(canvas)
    wide = float(np.exp(rng.normal(0, 0.18)))
    for solids, scale in ((_SYLVIAN, 1.0), (_VENTRICLES, wide), (_NUCLEI, 1.0)):
        for solid, (left, right_id) in solids:
            size, shift = scale * rng.uniform(0.94, 1.06), _shift(rng)
            varied_solid = solid.changed(size, shift)
            canvas.paint(varied_solid.mirrored(), left, over=_BRAIN)
            canvas.paint(varied_solid, right_id, over=_BRAIN)
    for middle, label in _MIDDLE:
        canvas.paint(middle, label, over=None if label == 15 else (*_BRAIN, *_DEEP, 515, 516))
    _pave_horns(canvas)


# What nuclei may replace, and what the third ventricle and stem may.
_BRAIN = (2, 3, 41, 42, 24, 4, 43, 5, 44)
_DEEP = (10, 49, 28, 60, 7, 8, 46, 47)


def _clear_core(canvas: Canvas) -> None:
    """White matter around the nuclei, so that no fold runs between them."""
    for side, wm in ((-1.0, 2), (1.0, 41)):
        core = Ellipsoid((17 * side, -6, 3), (18, 36, 25))
        canvas.paint(core, wm, over=(24, 3, 42))


def _pave_horns(canvas: Canvas) -> None:
    """The midline between the lateral ventricles is septum, not fissure."""
    septum = Ellipsoid((0, 6, 14), (1.6, 22, 8))
    canvas.paint(septum, 2, over=(24,))


def _union(canvas: Canvas, solids: Sequence[Solid], *, both_sides: bool = False) -> Array:
    """(X, Y, Z) float32 mm: distance to the nearest of the solids."""
    if both_sides:
        solids = [*solids, *(s.mirrored() for s in solids)]
    nearest = canvas.distance(solids[0])
    for solid in solids[1:]:
        np.minimum(nearest, canvas.distance(solid), out=nearest)
    return nearest


def _shift(rng: np.random.Generator) -> Point:
    x, y, z = rng.normal(0, 0.5, 3)
    return float(x), float(y), float(z)
