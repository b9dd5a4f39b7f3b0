import pytest
import torch

from affectflow.losses import ClassStatistics, build_loss, center_diagnostics, cluster_state


@pytest.fixture
def seen(small):
    statistics = ClassStatistics(8, 5)
    for part in (slice(0, 4), slice(4, 13)):
        statistics.update(small["features"][part], small["target"][part])
    return statistics


def test_statistics_of_batches_are_those_of_the_whole(small, seen):
    features, target = small["features"], small["target"]
    for j in range(8):
        mine = features[target == j]
        assert int(seen.counts[j]) == len(mine)
        if len(mine):
            torch.testing.assert_close(seen.means[j], mine.mean(dim=0))
            within = (mine - mine.mean(dim=0)).square().sum(dim=1).mean().sqrt()
            torch.testing.assert_close(seen.within[j], within, atol=1e-7, rtol=1e-6)
        else:
            assert seen.means[j].isnan().all()
    torch.testing.assert_close(seen.mean_square_norm, features.square().sum(dim=1).mean())
    scatter = (features - features.mean(dim=0)).square().sum(dim=1).mean()
    torch.testing.assert_close(seen.scatter, scatter)


def test_diagnostics_are_the_distances_they_name(small, seen):
    before, after = small["centers"], small["centers"] + 2
    found = center_diagnostics(seen, after, before, alpha=3.0)
    for j in range(8):
        spread = sum(float((after[k] - after[j]).square().sum()) for k in range(8))
        assert float(found["s_plus_alpha"][j]) == pytest.approx(spread + 3)
        assert float(found["center_moved"][j]) == pytest.approx(2 * 5**0.5)
        if seen.counts[j]:
            assert float(found["center_to_mean"][j]) == pytest.approx(float(torch.dist(after[j], seen.means[j])))
    present = [j for j in range(8) if seen.counts[j]]
    pairs = [float(torch.dist(seen.means[i], seen.means[j])) for i in present for j in present if i < j]
    assert float(found["between"]) == pytest.approx(sum(pairs) / len(pairs))


def test_without_centers_only_the_features_are_described(seen):
    assert set(center_diagnostics(seen)) == {"within", "between", "scatter", "mean_square_norm"}
    assert cluster_state(center_diagnostics(seen)) == "off"


def test_centers_from_n01_in_512_dimensions_are_called_off_and_near_ones_active():
    loss = build_loss("weighted_cluster+weighted_softmax", class_weights=[1.0] * 8, num_classes=8, feature_dim=512)
    statistics = ClassStatistics(8, 512)
    statistics.update(torch.randn(64, 512), torch.arange(64) % 8)
    found = center_diagnostics(statistics, loss.auxiliary.centers)
    assert 5000 < float(found["s_plus_alpha"].mean()) < 9000
    assert cluster_state(found) == "off"
    assert cluster_state(center_diagnostics(statistics, loss.auxiliary.centers / 10)) == "active"


@pytest.mark.parametrize("same", [0.0, 5.0])
def test_equal_features_are_called_collapsed(same):
    statistics = ClassStatistics(8, 4)
    statistics.update(torch.full((16, 4), same), torch.arange(16) % 8)
    assert cluster_state(center_diagnostics(statistics, torch.zeros(8, 4))) == "collapsed"


@pytest.mark.parametrize(("share", "state"), [(0.005, "collapsed"), (0.04, "active")])
def test_a_scatter_below_a_hundredth_of_the_length_is_called_collapsed_whatever_the_centers_do(share, state):
    torch.manual_seed(0)
    around = torch.randn(4000, 4, dtype=torch.float64)
    features = 10 + around * (100 * share / around.square().sum(dim=1).mean() * 4).sqrt()
    statistics = ClassStatistics(8, 4)
    statistics.update(features, torch.arange(4000) % 8)
    assert float(statistics.scatter / statistics.mean_square_norm) == pytest.approx(share, rel=0.1)
    assert cluster_state(center_diagnostics(statistics, torch.randn(8, 4))) == state
    without_centers = cluster_state(center_diagnostics(statistics))
    assert without_centers == ("collapsed" if state == "collapsed" else "off")
