from __future__ import annotations

import numpy as np
import pytest
import torch

from models.adapt import Tuning, adapt, refit
from models.backbone import Backbone, hash_network
from models.cases import LabelledSlices, Sampler, frame_of
from models.evaluator import Evaluator, mean_dice
from models.nearest import nearest
from models.recalibrate import recalibrate
from models.state import State
from models.train import Source, train
from tests.support.networks import discs, random_state, small_spec

CPU = torch.device("cpu")


def source_of(contrast: float, seed: int) -> Source:
    return Sampler([discs(seed, contrast=contrast, count=24)], seed).draw


@pytest.fixture(scope="module")
def trained() -> tuple[Backbone, dict[str, State]]:
    """A network that tells the discs of two scanners apart."""
    sources = {"plain": source_of(1.0, 0), "dark": source_of(1.6, 1)}
    found = train(small_spec(), sources, steps=120, batch_size=8, learning_rate=1e-2, seed=0)
    assert np.mean(found.losses[-10:]) < 0.4 * np.mean(found.losses[:10])
    return found.backbone, dict(found.states)


def bench_of(backbone: Backbone) -> Evaluator:
    return Evaluator(backbone, CPU, torch.float32)


def test_training_moves_one_domains_state_per_step() -> None:
    sources = {"a": source_of(1.0, 0), "b": source_of(1.5, 1)}
    one = train(small_spec(), sources, steps=1, batch_size=4, seed=3)
    initial = State.initial(small_spec(), one.backbone.sha256)
    assert one.states["a"].sha256 != initial.sha256
    assert one.states["b"].sha256 == initial.sha256


def test_training_twice_with_one_seed_gives_the_same_backbone() -> None:
    def run() -> str:
        sources = {"a": source_of(1.0, 0)}
        return train(small_spec(), sources, steps=3, batch_size=4, seed=5).backbone.sha256

    assert run() == run()


def test_the_nearest_state_is_the_one_trained_on_such_scans(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    states = {**states, "noise": random_state(backbone, 1)}
    for contrast, name in ((1.0, "plain"), (1.6, "dark")):
        found = nearest(bench_of(backbone), states, [discs(7, contrast=contrast)])
        assert found[0].ref == name
        assert len(found) == 3
        assert found[0].dice == max(c.dice for c in found)


def test_adapting_beats_the_nearest_state_and_changes_nothing_else(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    before = {name: state.sha256 for name, state in states.items()}
    new = [discs(seed, contrast=0.4) for seed in (11, 12, 13)]
    found = adapt(
        bench_of(backbone),
        states["plain"],
        new[:2],
        new[2:],
        Tuning(steps=40, validate_every=10, stride=1),
    )
    start, end = found.history[0].dice, max(look.dice for look in found.history)
    assert end > start + 0.1
    assert mean_dice(bench_of(backbone).score(found.state, new[2:])) == pytest.approx(end)
    assert {name: state.sha256 for name, state in states.items()} == before
    assert hash_network(backbone.network) == backbone.sha256
    assert all(p.grad is None for p in backbone.network.parameters())


def test_adapting_twice_with_one_seed_gives_the_same_state(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    cases = [discs(seed, contrast=0.5) for seed in (21, 22)]

    def run(seed: int) -> str:
        found = adapt(
            bench_of(backbone), states["dark"], cases[:1], cases[1:], Tuning(seed, 8, stride=1)
        )
        return found.state.sha256

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_where_nothing_helps_the_start_is_kept(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    cases = [discs(0, count=24), discs(31)]
    found = adapt(
        bench_of(backbone),
        states["plain"],
        cases[:1],
        cases[1:],
        Tuning(steps=6, learning_rate=10.0, validate_every=2, patience=1, stride=1),
    )
    assert found.state.sha256 == states["plain"].sha256
    assert found.best_step == 0
    assert len(found.history) == 2  # stopped after one look without progress


def test_a_report_that_raises_ends_the_run(trained: tuple[Backbone, dict[str, State]]) -> None:
    backbone, states = trained

    class StopRunError(Exception):
        pass

    def on_progress(_progress: float, _step: str) -> None:
        raise StopRunError

    with pytest.raises(StopRunError):
        adapt(
            bench_of(backbone),
            states["plain"],
            [discs(1)],
            [discs(2)],
            Tuning(),
            on_progress=on_progress,
        )


def test_a_head_is_learnt_only_where_the_tuning_says_so(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    cases = [discs(seed, contrast=0.5) for seed in (21, 22)]
    plain, headed = (
        refit(bench_of(backbone), states["dark"], cases, Tuning(steps=2, head=head))
        for head in (False, True)
    )
    assert plain.head is None
    assert headed.head is not None
    assert not torch.equal(headed.head, backbone.head)
    assert State.from_bytes(headed.to_bytes(), backbone=backbone.sha256).sha256 == headed.sha256


def test_adapters_are_learnt_only_where_the_tuning_says_so(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    cases = [discs(seed, contrast=0.5) for seed in (21, 22)]
    before = hash_network(backbone.network)
    plain, adapted = (
        refit(bench_of(backbone), states["dark"], cases, Tuning(steps=2, adapters=wanted))
        for wanted in (False, True)
    )
    assert plain.adapters is None
    assert adapted.adapters is not None
    assert adapted.adapters.any()
    adapted.check(backbone.spec, backbone.sha256)
    assert hash_network(backbone.network) == before


def test_a_state_with_adapters_is_tuned_further(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    cases, evaluator = [discs(21, contrast=0.5)], bench_of(backbone)
    first = refit(evaluator, states["dark"], cases, Tuning(steps=2))
    kept = refit(evaluator, first, cases, Tuning(steps=1, learning_rate=0.0, adapters=False))
    assert first.adapters is not None
    assert kept.adapters is not None
    assert torch.equal(kept.adapters, first.adapters)


def test_a_structure_of_several_classes_is_judged_as_one(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    judged = {"both": (1, 2), "third": (3,)}
    evaluator = Evaluator(backbone, CPU, torch.float32, judged=judged)
    case = discs(3)
    swapped = np.array([0, 2, 1, 3], np.uint8)[case.classes]
    assert evaluator.compare(swapped, case).tolist() == [1.0, 1.0]
    half = LabelledSlices(case.images, case.classes, np.array([True, True, False, True]))
    assert np.isnan(evaluator.compare(swapped, half)).tolist() == [True, False]
    assert [c.by_name.keys() for c in nearest(evaluator, states, [case])] == [judged.keys()] * 2


def test_training_looks_at_what_is_annotated_and_a_margin() -> None:
    case = discs(5)
    rows, columns = frame_of([case], margin=2, least=8, multiple=8)
    assert (rows.stop - rows.start) % 8 == (columns.stop - columns.start) % 8 == 0
    inside = case.classes[:, rows, columns]
    assert (inside > 0).sum() == (case.classes > 0).sum()
    assert frame_of([case]) == (slice(0, 32), slice(0, 40))
    one = LabelledSlices(case.images, case.classes, np.array([False, True, False, False]))
    rows, _ = frame_of([one], margin=0, least=8, multiple=8)
    assert rows.stop - rows.start == 16


def test_sparse_slices_are_those_that_show_what_is_annotated() -> None:
    case = discs(3, count=10)
    case.classes[:4] = 0
    assert len(case.showing(1).images) == 6
    assert len(case.showing(3).images) == 2
    blind = LabelledSlices(case.images, case.classes, np.zeros(4, bool))
    assert len(blind.showing(1).images) == 0


def test_an_excerpt_is_what_shows_a_judged_structure(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, _ = trained
    evaluator = Evaluator(backbone, CPU, torch.float32, judged={"second": (2,)})
    size = (200, 300)
    classes = np.zeros((10, *size), np.uint8)
    classes[:, 5:195, 5:295] = 1
    classes[2:8, 140:150, 40:90] = 2
    case = LabelledSlices(classes.astype(np.float32), classes, np.ones(4, bool))
    found = evaluator.excerpt(case, 2)
    assert found.images.shape == (3, 128, 128)
    assert np.array_equal(found.images, found.classes)
    assert [(one == 2).sum() for one in found.classes] == [500] * 3
    assert found.annotated.all()


def test_the_best_look_is_that_of_the_state(trained: tuple[Backbone, dict[str, State]]) -> None:
    backbone, states = trained
    evaluator, cases = bench_of(backbone), [discs(seed, contrast=0.5) for seed in (21, 22)]
    tuning = Tuning(steps=6, validate_every=2, stride=2)
    found = adapt(evaluator, states["dark"], cases[:1], cases[1:], tuning)
    again = mean_dice(evaluator.score(found.state, [evaluator.excerpt(cases[1], 2)]))
    assert again == found.best_dice == max(look.dice for look in found.history)


def test_recalibration_takes_the_statistics_of_the_scans_and_nothing_else(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    start = states["plain"]
    case = discs(4, contrast=0.6, count=16)
    found = recalibrate(bench_of(backbone), start, [case], batch_slices=16)
    assert torch.equal(found.rows[:2], start.rows[:2])
    first = backbone.spec.layers[0]
    weight = backbone.network.convolutions[first.name].detach()
    features = torch.nn.functional.conv2d(torch.from_numpy(case.images)[:, None], weight, padding=1)
    var, mean = torch.var_mean(features, (0, 2, 3), correction=0)
    torch.testing.assert_close(found.rows[2, : first.channels], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.rows[3, : first.channels], var, rtol=1e-4, atol=1e-5)


def test_a_shifted_scanner_is_brought_back_by_recalibration(
    trained: tuple[Backbone, dict[str, State]],
) -> None:
    backbone, states = trained
    case = discs(5, count=16)
    dim = LabelledSlices(case.images * 0.3, case.classes, case.annotated)
    evaluator = bench_of(backbone)
    before = mean_dice(evaluator.score(states["plain"], [dim]))
    after = mean_dice(evaluator.score(recalibrate(evaluator, states["plain"], [dim]), [dim]))
    assert after > before + 0.1
