"""Augmentation keeps image and classes together, and stays small."""

from __future__ import annotations

import torch

from models.augment import augment, random_crops


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    classes = torch.zeros(count, 8, 6, dtype=torch.int64)
    classes[:, :3, 1:4] = 1  # on one side alone
    return classes[:, None].float(), classes


def test_image_and_classes_are_mirrored_together() -> None:
    images, classes = drawn(200)
    changed, labels = augment(images, classes, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, 0] > 0.5, labels == 1)
    mirrored = labels[:, 7].any(1)
    assert 60 < int(mirrored.sum()) < 140
    assert torch.equal(labels[mirrored][0], classes[0].flip(0))
    assert torch.equal(labels[~mirrored][0], classes[0])


def test_air_stays_air_and_the_rest_varies_a_little() -> None:
    images, classes = drawn(50)
    changed, labels = augment(images, classes, torch.Generator().manual_seed(1))
    assert not changed[:, 0][labels == 0].any()
    inside = changed[:, 0][labels == 1]
    assert 0.85 < float(inside.min()) < float(inside.max()) < 1.15
    assert float(inside.std()) > 0.01


def test_the_same_generator_draws_the_same() -> None:
    images, classes = drawn(4)
    first, second = (augment(images, classes, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_crops_lie_anywhere_and_hold_the_classes_of_their_pixels() -> None:
    images = torch.arange(1, 61.0).view(1, 1, 10, 6).expand(300, 1, 10, 6)
    cut, labels = random_crops(
        images, images[:, 0].long(), (4, 5), torch.Generator().manual_seed(0)
    )
    assert cut.shape == (300, 1, 4, 5)
    assert torch.equal(cut[:, 0].long(), labels)
    corners = labels[:, 0, 0]
    assert torch.equal(
        corners.unique(), (torch.arange(7)[:, None] * 6 + torch.arange(1, 3)).ravel()
    )
    assert torch.equal(
        labels - corners[:, None, None], (labels[:1] - labels[0, 0, 0]).expand(300, 4, 5)
    )


def test_a_slice_smaller_than_the_crop_is_left_whole() -> None:
    images, classes = drawn(3)
    cut, labels = random_crops(images, classes, (5, 100), torch.Generator().manual_seed(0))
    assert cut.shape == (3, 1, 5, 6)
    assert labels.shape == (3, 5, 6)
