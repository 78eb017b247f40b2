from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from models.backbone import freeze, load_backbone
from models.cases import LabelledSlices
from models.network import UNet
from models.packs import read_states
from models.spec import SLICE_REACH, BackboneSpec
from models.train import Trained, Trainer
from normbank.anatomy import STRUCTURES, classes_of
from normbank.errors import InvalidError
from simulate.phantom import SMALL_SHAPE, SMALL_SPACING_MM, draw_head, head_affine
from tests.support.networks import discs, one_thread, random_state, small_spec
from training.blend import blended
from training.classes import starting_states, with_classes
from training.families import FAMILIES, turns
from training.heads import draw_case
from training.manifest import read_manifest
from training.own import own_plan
from training.pool import Pool
from training.release import finer_classes
from training.run import CHECKPOINT, LOG, Plan, run, save_release

CPU = torch.device("cpu")
COARSE = BackboneSpec(
    name="coarse",
    classes=STRUCTURES,
    down=(4, 6, 8, 8),
    up=(8, 6, 4),
    spacing_mm=3.0,
    window=(64, 72, 56),
)


@dataclass(frozen=True)
class Discs:
    """Case number i, drawn."""

    def __call__(self, number: int) -> LabelledSlices:
        return discs(number, contrast=1.0 + 0.5 * (number % 2))


def disc_plan(steps: int) -> Plan:
    names = ("plain", "dark")
    return Plan(
        small_spec(),
        turns(dict.fromkeys(names, 1.0), steps),
        Discs(),
        names,
        batch_size=4,
        learning_rate=1e-2,
        warm_up=2,
        kept=2,
        renew_every=3,
        mirrored=False,
    )


def test_steps_are_shared_out_evenly_mixed() -> None:
    order = turns({"a": 3, "b": 1}, 40)
    assert Counter(order) == {"a": 30, "b": 10}
    assert all(Counter(order[at : at + 4]) == {"a": 3, "b": 1} for at in range(0, 40, 4))


def test_a_broken_off_training_goes_on_where_it_ended(tmp_path: Path) -> None:
    with one_thread():
        plan = disc_plan(24)
        assert run(plan, tmp_path, device=CPU, precision=torch.float32, budget_s=0.0) is None
        done = torch.load(tmp_path / CHECKPOINT, weights_only=True)["done"]
        assert 0 < done < 24
        trained = run(plan, tmp_path, device=CPU, precision=torch.float32)
    assert trained is not None
    assert len(trained.losses) == 24
    assert np.mean(trained.losses[-4:]) < np.mean(trained.losses[:4])
    assert (tmp_path / LOG).read_text().startswith("step,loss,seconds\n20,")
    save_release(trained, tmp_path / "release")
    backbone = load_backbone(tmp_path / "release")
    assert backbone.sha256 == trained.backbone.sha256
    assert set(read_states(tmp_path / "release", backbone)) == {"plain", "dark"}


def test_a_training_can_give_the_average_of_its_steps() -> None:
    def trained(decay: float) -> tuple[Trainer, list[torch.Tensor]]:
        trainer = Trainer(small_spec(), ["one"], steps=3, learning_rate=1e-2, decay=decay)
        pool, rng = Pool(1), np.random.default_rng(0)
        pool.add(discs(0))
        heads = [trainer.result().backbone.head]
        for _ in range(3):
            trainer.step("one", *pool.draw(2, rng))
            heads.append(trainer.result().backbone.head)
        return trainer, heads

    with one_thread():
        trainer, heads = trained(1.0)  # young: 1/10, 2/11 and 3/12 of the average are kept
        average = heads[0]
        for head, kept in zip(heads[1:], (1 / 10, 2 / 11, 3 / 12), strict=True):
            average = kept * average + (1 - kept) * head
        result = trainer.result(averaged=True)
        torch.testing.assert_close(result.backbone.head, average, rtol=1e-5, atol=1e-6)
        assert torch.equal(trainer.result().backbone.head, heads[-1])
        result.states["one"].check(result.backbone.spec, result.backbone.sha256)
        last = trained(0.0)[0]
    assert last.result(averaged=True).backbone.sha256 == last.result().backbone.sha256


def test_a_blend_lies_between_start_and_end() -> None:
    start = freeze(UNet(small_spec()))
    end = freeze(UNet(small_spec()))
    begun = (start, {"one": random_state(start, 1)})
    trained = Trained(end, {"one": random_state(end, 2)}, ())

    assert blended(begun, trained, 0.0).backbone.sha256 == start.sha256
    assert blended(begun, trained, 1.0).backbone.sha256 == end.sha256
    half = blended(begun, trained, 0.5)
    state = half.states["one"]
    torch.testing.assert_close(
        half.backbone.head, (start.head + end.head) / 2, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        state.rows, (begun[1]["one"].rows + trained.states["one"].rows) / 2, rtol=1e-5, atol=1e-6
    )
    state.check(half.backbone.spec, half.backbone.sha256)


def test_a_blend_needs_a_start(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("domain,scan,labels,scheme,role\n")
    words = ["train", "--manifest", str(tmp_path / "cases.csv"), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*words, "--blend", "0.5"])
    assert refused.exit_code == 2
    assert "--start" in refused.stderr


def test_a_finer_head_begins_with_the_same_probabilities() -> None:
    classes = ("background", "thalamus", "ventricles", "caudate")
    old = freeze(UNet(replace(small_spec(), classes=classes)))
    assert finer_classes(classes)[:4] == ("background", "thalamus", "lateral-ventricle", "caudate")
    parts = [name for name in finer_classes(classes) if "ventricle" in name]
    finer = ("background", "thalamus", *parts, "caudate")
    new = with_classes(old, replace(old.spec, classes=finer))
    state = random_state(old, 1)
    scan = torch.rand(1, 1, 32, 40)

    def probabilities(backbone, number):  # type: ignore[no-untyped-def]
        from models.bank import affine

        logits = backbone.network(scan, affine(state.affine(1e-5)[None]))
        return logits.softmax(1)[:, number].sum(1)

    with torch.no_grad():
        before = probabilities(old, [2])
        after = probabilities(new, list(classes_of("ventricles", new.spec.classes)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_family_without_a_state_starts_from_the_most_alike() -> None:
    backbone = freeze(UNet(small_spec()))
    stored = {
        name: random_state(backbone, seed) for seed, name in enumerate(("sim-t1w-3t", "sim-t2w-3t"))
    }
    found = starting_states(backbone, stored)
    assert set(found) == set(FAMILIES)
    assert torch.equal(found["sim-t1w-1p5t"].rows, stored["sim-t1w-3t"].rows)
    assert torch.equal(found["sim-flair-3t"].rows, stored["sim-t2w-3t"].rows)
    assert all(state.backbone == backbone.sha256 for state in found.values())


@pytest.fixture(scope="module")
def label_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "head.nii.gz"
    labels = draw_head(1, SMALL_SHAPE, SMALL_SPACING_MM)
    nibabel.save(
        nibabel.Nifti1Image(labels.astype(np.int16), head_affine(SMALL_SHAPE, SMALL_SPACING_MM)),
        path,
    )
    return path


def test_a_simulated_case_follows_from_its_number(label_map: Path) -> None:
    family = FAMILIES["sim-t1w-3t"]
    one, same, other = (draw_case(label_map, family, COARSE, seed) for seed in (3, 3, 4))
    assert one.images.shape == one.classes.shape == (56, 64, 72)
    assert np.array_equal(one.images, same.images)
    assert np.array_equal(one.classes, same.classes)
    assert not np.array_equal(one.images, other.images)
    assert np.count_nonzero(np.bincount(one.classes.ravel())) > 14
    assert one.annotated.all()


def test_a_pool_forgets_the_oldest_and_draws_what_shows_most() -> None:
    pool = Pool(2, crop=(16, 24))
    for seed in range(3):
        pool.add(discs(seed))
    assert len(pool) == 2
    images, classes, annotated = pool.draw(5, np.random.default_rng(0))
    assert images.shape == (5, 1, 16, 24)
    assert classes.shape == (5, 16, 24)
    assert annotated.shape == (5, 4)


def test_a_window_holds_the_brain_as_a_service_would_place_it(label_map: Path) -> None:
    """Whole head or stripped, thick slices or not: 10 mm above the crown, 8 mm astray at most."""
    brainless = [STRUCTURES.index(name) for name in ("background", "csf")]
    for seed in range(6):
        family = replace(FAMILIES["sim-t1w-3t"], stripped=float(seed % 2))
        case = draw_case(label_map, family, COARSE, seed)
        z, x, y = np.nonzero(~np.isin(case.classes, brainless))
        ends = [(axis.min(), axis.max() + 1) for axis in (x, y)]
        middle = np.array([sum(pair) / 2 for pair in ends])
        # 3 mm voxels; the brain was found on every second one
        assert (np.abs(middle - np.array([32, 36])) <= 8 / 3 + 2).all()
        assert abs(56 - (z.max() + 1) - 10 / 3) <= 8 / 3 + 2
        lit = case.images[~np.isin(case.classes, brainless)]
        assert 0.2 < np.median(lit) < 1.2


def test_a_pool_shows_slices_between_their_neighbours() -> None:
    case = discs(0)
    pool = Pool(1, inputs=3)
    pool.add(case)
    images, classes, _ = pool.draw(40, np.random.default_rng(0), mirrored=False)

    assert images.shape == (40, 3, *case.images.shape[1:])
    for shown, drawn in zip(images.numpy(), classes.numpy(), strict=True):
        middle = next(n for n, one in enumerate(case.images) if np.array_equal(one, shown[1]))
        np.testing.assert_array_equal(shown[0], case.images[max(middle - 1, 0)])
        np.testing.assert_array_equal(shown[2], case.images[min(middle + 1, len(case.images) - 1)])
        np.testing.assert_array_equal(drawn, case.classes[middle])


def write_manifest(folder: Path, text: str) -> Path:
    (folder / "scan.nii.gz").touch()
    (folder / "labels.nii.gz").touch()
    path = folder / "cases.csv"
    path.write_text(text)
    return path


def test_a_manifest_names_its_files_from_its_own_folder(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "scan,labels,domain\nscan.nii.gz,labels.nii.gz,ward-7\n")
    (row,) = read_manifest(path)
    assert (row.domain, row.scheme, row.role) == ("ward-7", "freesurfer", "train")
    assert row.scan == tmp_path / "scan.nii.gz"
    assert row.name == "scan"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scan,labels\na,b\n", "header lacks domain"),
        (
            "scan,labels,domain\nnone.nii,labels.nii.gz,a\n",
            "Line 2 of the manifest: there is no file",
        ),
        ("scan,labels,domain,scheme\nscan.nii.gz,labels.nii.gz,a,talairach\n", "scheme is none of"),
        ("scan,labels,domain,role\nscan.nii.gz,labels.nii.gz,a,judge\n", "role is none of"),
        ("scan,labels,domain\n", "no row"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        read_manifest(write_manifest(tmp_path, text))


def test_a_manifest_without_a_row_to_learn_from_is_refused(tmp_path: Path) -> None:
    text = "scan,labels,domain,role\nscan.nii.gz,labels.nii.gz,a,test\n"
    rows = read_manifest(write_manifest(tmp_path, text))
    with pytest.raises(InvalidError, match="role `train`"):
        own_plan(rows, name="own", steps=1, batch_size=1, learning_rate=1e-3)


def test_a_network_from_nothing_lets_slices_have_a_say_in_others(tmp_path: Path) -> None:
    rows = read_manifest(
        write_manifest(tmp_path, "scan,labels,domain\nscan.nii.gz,labels.nii.gz,a\n")
    )
    plan = own_plan(rows, name="own", steps=1, batch_size=1, learning_rate=1e-3)
    assert plan.spec.slice_reach == SLICE_REACH
    assert plan.mirrored  # what it is shown in the mirror later it has to have seen there
