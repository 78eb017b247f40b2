"""What a network answers for a volume in its own space, shown upright where that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.entities import Flag
from normbank.entities.flags import info, severe, severe_ones, warning
from normbank.errors import EmptyScanError
from normbank.imaging.brain import NetworkSpace, SlicePredictor, frame_brain, is_cerebrum
from normbank.imaging.masks import box_of, largest_component, open_to_outside
from normbank.imaging.plausibility import Measured, Pose, cut_off, doubts, half_doubts, is_judged
from normbank.imaging.sides import Sides, split_sides
from normbank.imaging.upright import Upright
from normbank.imaging.window import Window
from pipeline.clock import Clock
from pipeline.crop import cut_slices
from pipeline.pose import find_pose

CONTRADICTED = "orientation_contradicted"
_BORDER_VOXELS = 500  # of cerebrum along the focus's border, that are no sign of a wrong focus
_TURNED_DEG = 12.0  # from here on a head is shown upright
_IN_PLACE_MM = 5.0  # mean distance of structures from where they belong
_UNLIKELY_DEG = 60.0  # nobody lies in a scanner like that: the header is wrong


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Labels in the network's space.

    Attributes
    ----------
    labels : (X', Y', Z') uint8, FreeSurfer ids
    pose : how the head lies in the volume; None where nobody could say
    mirrored : see `normbank.imaging.sides.Plane`
    flags : what is doubtful
    """

    labels: npt.NDArray[np.uint8]
    pose: Pose | None
    mirrored: float
    flags: tuple[Flag, ...]

    @property
    def quality(self) -> Mapping[str, Any]:
        """What a reader may judge the answer by."""
        known: dict[str, Any] = {"mirrored": round(self.mirrored, 3)}
        if self.pose is not None:
            known["turned_deg"] = round(self.pose.angle_deg, 1)
            known["misplaced_mm"] = round(self.pose.residual_mm, 1)
        return known


def answer_upright(
    volume: npt.NDArray[np.float32],
    predictor: SlicePredictor,
    space: NetworkSpace,
    clock: Clock,
    *,
    look_around: bool = True,
) -> Answer:
    """The answer for a volume, whose head is turned upright first where it does not lie so.

    Parameters
    ----------
    volume : (X', Y', Z') RAS+, in the network's spacing
    look_around : False: answer as the head lies, also where that is no anatomy

    Raises
    ------
    EmptyScanError
        See `frame_brain`.
    """
    if not (look_around and is_judged(space.classes)):
        return answer_volume(volume, predictor, space, clock)
    try:
        lying = answer_volume(volume, predictor, space, clock)
    except EmptyScanError:
        turned = _turned(volume, predictor, space, clock, None)
        if turned is None or severe_ones(turned.flags):
            raise
        return turned
    if not _is_doubtful(lying):
        return lying
    turned = _turned(volume, predictor, space, clock, lying.pose)
    lying = replace(lying, flags=(*lying.flags, *_lying_doubts(lying)))
    return lying if turned is None or _rank(turned) > _rank(lying) else turned


def _rank(answer: Answer) -> tuple[bool, int]:
    """The less, the better: half a head is worse than a whole one, then severe flags count."""
    half = any(flag.code == "half_head" for flag in answer.flags)
    wrong = [flag for flag in severe_ones(answer.flags) if flag.code != CONTRADICTED]
    return half, len(wrong)


def _is_doubtful(lying: Answer) -> bool:
    """Whether it is worth while to look how the head lies.

    Not where its structures lie upright and where they belong: what is wrong then, such as
    a contrast that the state does not know, is no matter of the pose.
    """
    pose = lying.pose
    return pose is None or pose.angle_deg > _TURNED_DEG or pose.residual_mm > _IN_PLACE_MM


def _turned(
    volume: npt.NDArray[np.float32],
    predictor: SlicePredictor,
    space: NetworkSpace,
    clock: Clock,
    guess: Pose | None,
) -> Answer | None:
    """The answer for the head turned upright; None where it is so already, or nobody can say."""
    pose = find_pose(volume, predictor, space, guess)
    clock.lap("pose")
    if pose is None or pose.angle_deg <= _TURNED_DEG:
        return None
    centre = pose.centre_mm / space.spacing_mm
    upright = Upright.of(pose.rotation, centre, space.spacing_mm)
    try:
        answer = answer_volume(upright.turn(volume), predictor, space, clock)
    except EmptyScanError:
        return None
    labels = upright.turn_back(answer.labels, volume.shape)
    clock.lap("pose")
    flags = (_pose_flag(pose), *(f for f in answer.flags if f.code != "field_of_view"))
    return replace(
        answer, labels=labels, pose=pose, flags=(*flags, *cut_off(labels, space.spacing_mm))
    )


def _pose_flag(pose: Pose) -> Flag:
    said = f"The head is turned by {pose.angle_deg:.0f} degrees; the network was shown it upright."
    return _contradiction(said) if pose.angle_deg > _UNLIKELY_DEG else info("pose", said)


def _lying_doubts(lying: Answer) -> list[Flag]:
    """What is doubtful about an answer for a head that was labelled as it lies."""
    pose, half = lying.pose, any(flag.code == "half_head" for flag in lying.flags)
    if pose is None or half or pose.angle_deg <= _TURNED_DEG:
        return []
    said = f"The head seems to be turned by {pose.angle_deg:.0f} degrees; it was labelled as it is."
    return [_contradiction(said) if pose.angle_deg > _UNLIKELY_DEG else warning("pose", said)]


def _contradiction(said: str) -> Flag:
    said += " A header that says so is hardly true, and then nobody knows which side is left."
    return severe(CONTRADICTED, said)


def answer_volume(
    volume: npt.NDArray[np.float32], predictor: SlicePredictor, space: NetworkSpace, clock: Clock
) -> Answer:
    """The answer for a volume as it is; see `answer_upright`."""
    framing = frame_brain(volume, predictor, space)
    slices = cut_slices(volume, framing.window, space)
    clock.lap("frame")
    classes = predict_slices(slices, predictor, framing.focus, is_cerebrum(space.classes))
    classes = erase_air(classes, slices)
    box = np.ascontiguousarray(np.moveaxis(classes, 0, space.slice_axis))
    sides = split_sides(keep_brain(box), space.classes)
    labels = framing.window.paste(sides.ids.astype(np.uint8), volume.shape)
    answer = Answer(labels, None, sides.mirrored, ())
    if is_judged(space.classes):
        answer = _judged(answer, sides, framing.window, space)
    clock.lap("sides")
    return answer


def _judged(answer: Answer, sides: Sides, window: Window, space: NetworkSpace) -> Answer:
    """The same with how the head lies, and what is doubtful."""
    spacing = (space.spacing_mm,) * 3
    measured = Measured.of(sides.ids, spacing, window.start, answer.labels.shape)
    pose = measured.pose()
    flags = [*half_doubts(sides), *doubts(measured, pose, sides.only)]
    return replace(answer, pose=pose, flags=(*flags, *cut_off(answer.labels, space.spacing_mm)))


def predict_slices(
    slices: npt.NDArray[np.float32],
    predictor: SlicePredictor,
    focus: tuple[slice, slice],
    cerebrum: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Classes of every slice.

    Air in front of the first slice and behind the last is not computed, nor
    what lies outside of the focus, unless the cerebrum reaches its border.

    Parameters
    ----------
    slices : N H W
    focus : rows and columns
    cerebrum : (K,), which classes belong to it

    Returns
    -------
    N H W uint8
    """
    classes = np.zeros(slices.shape, np.uint8)
    busy = (number for number, image in enumerate(slices) if image.any())
    first = next(busy, None)
    if first is None:
        return classes
    last = next(n for n in reversed(range(len(slices))) if slices[n].any())
    head = slice(first, last + 1)
    rows, columns = focus
    seen = predictor(np.ascontiguousarray(slices[head, rows, columns]), consecutive=True)
    if seen.shape[1:] != slices.shape[1:] and _reaches_border(cerebrum[seen]):
        seen, rows, columns = predictor(slices[head], consecutive=True), slice(None), slice(None)
    classes[head, rows, columns] = seen
    return classes


def _reaches_border(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether more than a little lies along the outermost rows and columns, N H W."""
    ring = (mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    return sum(map(np.count_nonzero, ring)) > _BORDER_VOXELS


def erase_air(
    classes: npt.NDArray[np.uint8], volume: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Erase labels where nothing was measured.

    That is what is exactly 0 and hangs together with the volume's faces:
    what skull stripping or a mask has taken away, and what lies beyond the
    field of view. A network that knows heads would draw fluid there.

    Parameters
    ----------
    classes, volume : (X, Y, Z) in any order of axes
    """
    nothing = volume == 0
    if not (nothing & (classes > 0)).any():
        return classes
    return classes * ~open_to_outside(nothing)


def keep_brain(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Erase what hangs together with nothing: islands outside the brain.

    Parameters
    ----------
    classes : (X, Y, Z), 0 is background
    """
    box = box_of(classes)
    kept = np.zeros_like(classes)
    kept[box] = classes[box] * largest_component(classes[box] > 0)
    return kept
