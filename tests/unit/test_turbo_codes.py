"""turbovec's codes: what they find, what they leave out, and what they refuse to be made from."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from engramdb.index.codes import turbo
from engramdb.index.codes.depths import depth_for, depth_of, ranks_of
from engramdb.index.codes.turbo import TurboCodes

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

DIMENSION = 64
needs_turbovec = pytest.mark.skipif(
    not turbo.available(), reason="TURBOVEC IS NOT INSTALLED: its codes go untested"
)


def units(count: int, dimension: int = DIMENSION, seed: int = 1) -> Floats32:
    """Random directions around some centres, as real embeddings lie."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((32, dimension))
    vectors = centres[generator.integers(32, size=count)]
    vectors = vectors + 0.7 * generator.standard_normal((count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def built(vectors: Floats32, **options: Callable[[], None]) -> TurboCodes:
    chosen = np.random.default_rng(5).choice(len(vectors), min(1024, len(vectors)), replace=False)
    blocks = [vectors[start : start + 1_000] for start in range(0, len(vectors), 1_000)]
    return TurboCodes.build(blocks, vectors[np.sort(chosen)], **options)


def best(vectors: Floats32, query: Floats32, limit: int, rows: Rows | None = None) -> Rows:
    rows = np.arange(len(vectors)) if rows is None else rows
    return rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:limit]]


def recall(found: Rows, true: Rows) -> float:
    return float(np.isin(true, found).mean())


@pytest.fixture(scope="module")
def vectors() -> Floats32:
    return units(12_000)


@pytest.fixture(scope="module")
def queries() -> Floats32:
    return units(40, seed=2)


@pytest.fixture(scope="module")
def codes(vectors: Floats32) -> TurboCodes:
    return built(vectors)


@needs_turbovec
class TestCandidates:
    @pytest.mark.parametrize("limit", [1, 10, 100, 700])
    def test_hold_the_best_rows_and_few_others(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32, limit: int
    ) -> None:
        recalls = []
        for query in queries:
            found = codes.candidates(query, limit)
            assert found.dtype == np.int64
            assert (np.diff(found) > 0).all()
            assert found[0] >= 0 and found[-1] < len(vectors)
            assert found.size == codes.depth(limit) <= 3 * limit + 60
            recalls.append(recall(found, best(vectors, query, limit)))
        assert np.mean(recalls) >= 0.99

    @pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.3, 0.07, 0.005, 0.0])
    def test_are_visible(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32, share: float
    ) -> None:
        mask = np.random.default_rng(3).random(len(vectors)) < share
        rows = mask.nonzero()[0]
        recalls = [1.0]
        for query in queries:
            found = codes.candidates(query, 10, -2.0, mask.take)
            assert mask[found].all()
            if rows.size:
                recalls.append(recall(found, best(vectors, query, 10, rows)))
        assert np.mean(recalls) >= 0.99

    def test_are_found_though_the_nearest_are_all_hidden(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32
    ) -> None:
        query = queries[0]
        mask = np.ones(len(vectors), np.bool_)
        mask[best(vectors, query, 6_000)] = False
        found = codes.candidates(query, 10, -2.0, mask.take)
        assert mask[found].all()
        assert recall(found, best(vectors, query, 10, mask.nonzero()[0])) >= 0.9

    def test_stop_at_the_bound(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32
    ) -> None:
        for query in queries:
            cosines = vectors @ query
            bound = float(np.sort(cosines)[-4])
            found = codes.candidates(query, 100, bound)
            assert np.isin((cosines >= bound).nonzero()[0], found).all()
            assert cosines[found].min() >= bound - 2 * codes.epsilon
            assert found.size < 100
        assert codes.candidates(queries[0], 10, 1.5).size == 0

    @pytest.mark.parametrize("share", [0.5, 0.06, 0.03, 0.001])
    def test_among_rows_are_of_these_rows(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32, share: float
    ) -> None:
        rows = (np.random.default_rng(4).random(len(vectors)) < share).nonzero()[0]
        recalls = []
        for query in queries:
            found = codes.among(query, 10, -2.0, rows)
            assert np.isin(found, rows).all() and (np.diff(found) > 0).all()
            recalls.append(recall(found, best(vectors, query, 10, rows)))
        assert np.mean(recalls) >= 0.99
        assert codes.among(queries[0], 0, -2.0, rows).size == 0
        assert codes.among(queries[0], 10, -2.0, rows[:0]).size == 0

    def test_of_no_limit_and_of_all_rows(self, codes: TurboCodes, queries: Floats32) -> None:
        assert codes.candidates(queries[0], 0).size == 0
        assert codes.candidates(queries[0], codes.rows).size == codes.rows
        assert codes.candidates(queries[0], 10**9).size == codes.rows

    def test_of_many_queries_are_those_of_each(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32
    ) -> None:
        mask = np.random.default_rng(3).random(len(vectors)) < 0.6
        bounds = np.full(len(queries), -2.0, np.float32)
        bounds[::2] = 0.5
        for visible in (None, mask.take):
            found = codes.candidates_many(queries, 10, bounds, visible)
            assert found.shape[0] == len(queries)
            for query, bound, rows in zip(queries, bounds.tolist(), found, strict=True):
                alone = codes.candidates(query, 10, bound, visible)
                kept = rows[rows >= 0]
                assert np.unique(kept).size == kept.size
                assert visible is None or mask[kept].all()
                true = best(vectors, query, 10, None if visible is None else mask.nonzero()[0])
                true = true[vectors[true] @ query >= bound]
                assert np.isin(true, kept).sum() >= np.isin(true, alone).sum()
        nobody = codes.candidates_many(queries, 10, None, lambda rows: np.zeros(len(rows), bool))
        assert (nobody == -1).all()
        assert codes.candidates_many(queries[:0], 10).shape[0] == 0
        assert codes.candidates_many(queries, 0).shape == (len(queries), 0)

    def test_in_threads_are_the_same(self, codes: TurboCodes, queries: Floats32) -> None:
        alone = [codes.candidates(query, 10).tolist() for query in queries]
        wrong: list[int] = []

        def ask() -> None:
            for at, query in enumerate(queries):
                if codes.candidates(query, 10).tolist() != alone[at]:
                    wrong.append(at)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@needs_turbovec
class TestOddVectors:
    def test_equal_ones_are_followed_to_the_end(self) -> None:
        vectors = units(4_000)
        vectors[1_000:2_000] = vectors[0]
        codes = built(vectors)
        same = np.concatenate((np.zeros(1, np.int64), np.arange(1_000, 2_000)))
        assert np.isin(same, codes.candidates(vectors[0], 10)).all()
        found = codes.candidates_many(vectors[:2], 10)
        assert np.isin(same, found[0]).all()
        among = codes.among(vectors[0], 10, -2.0, np.arange(500, 2_500))
        assert np.isin(same[1:], among).all()

    @pytest.mark.parametrize("count", [800, 10_500])
    def test_zero_vectors_have_cosine_zero(self, count: int) -> None:
        """They are the best of all when every other cosine is negative."""
        vectors = np.abs(units(count))
        vectors[[3, 700]] = 0.0
        codes = built(vectors)
        query = np.full(DIMENSION, -1 / np.sqrt(DIMENSION), np.float32)
        assert np.isin([3, 700], codes.candidates(query, 2)).all()
        worst = codes.candidates(query, 10)
        assert recall(worst, best(vectors, query, 10)) >= 0.9
        zero = codes.candidates(np.zeros(DIMENSION, np.float32), 5)
        assert zero.size >= 5 and zero[-1] < count

    def test_lengths_do_not_matter(self) -> None:
        vectors = units(3_000)
        scales = np.ones((len(vectors), 1), np.float32)
        scales[::3], scales[1::3] = 1e-30, 1e30
        scaled, plain = built(vectors * scales), built(vectors)
        for query in units(10, seed=2):
            true = best(vectors, query, 10)
            assert recall(scaled.candidates(query, 10), true) >= 0.9
            assert scaled.candidates(query, 10).size == plain.candidates(query, 10).size

    def test_all_alike(self) -> None:
        codes = built(np.repeat(units(1), 3_000, axis=0))
        assert codes.candidates(units(1)[0], 10).size == 3_000

    @pytest.mark.parametrize("count", [0, 1, 7, 511, 513])
    def test_few(self, count: int) -> None:
        vectors = units(count)
        codes = built(vectors)
        assert codes.rows == count
        found = codes.candidates(units(1, seed=2)[0], 600)
        assert found.tolist() == list(range(count))
        again = TurboCodes.of_values(codes.values(), count, DIMENSION)
        assert again.rows == count

    @pytest.mark.parametrize("dimension", [2, 3, 7, 8, 9, 100, 1_001])
    def test_every_dimension(self, dimension: int) -> None:
        vectors = units(2_000, dimension)
        codes = built(vectors)
        asked = units(30, dimension, seed=2)
        recalls = [recall(codes.candidates(q, 10), best(vectors, q, 10)) for q in asked]
        assert np.mean(recalls) >= 0.9
        truth = np.stack([best(vectors, query, 10) for query in asked])
        codes.depths = codes.calibrate(asked, {10: truth}, 0.99)
        recalls = [recall(codes.candidates(q, 10), best(vectors, q, 10)) for q in asked]
        assert np.mean(recalls) >= 0.99


@needs_turbovec
class TestBuilding:
    def test_pauses_between_blocks(self) -> None:
        pauses: list[int] = []
        built(units(9_500), pause=lambda: pauses.append(1))
        assert len(pauses) == 11  # once for the sample, and once for each of ten blocks

    def test_an_interruption_passes_through(self) -> None:
        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            built(units(2_000), pause=stop)

    def test_says_what_it_takes(self, codes: TurboCodes) -> None:
        assert codes.mapped_bytes == 0
        payload = codes.values()["turbo"]
        assert isinstance(payload, bytes)
        assert 0.6 * len(payload) < codes.resident_bytes <= len(payload)

    def test_prepares(self, codes: TurboCodes, queries: Floats32) -> None:
        before = codes.candidates(queries[0], 10).tolist()
        codes.prepare()
        assert codes.candidates(queries[0], 10).tolist() == before

    def test_epsilon_bounds_nearly_all_errors(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32
    ) -> None:
        assert 0.0 < codes.epsilon < 0.1
        for query in queries:
            cosines = vectors @ query
            at_least = codes.candidates(query, 1_000, 0.6)
            true = (cosines >= 0.6).nonzero()[0]
            assert recall(at_least, true) >= 0.99


@needs_turbovec
class TestValues:
    def test_make_the_same_codes(self, codes: TurboCodes, queries: Floats32) -> None:
        values = codes.values()
        assert all(len(name) <= 16 for name in values)
        again = TurboCodes.of_values(values, codes.rows, DIMENSION)
        assert again.depths == codes.depths and again.epsilon == codes.epsilon
        assert again.resident_bytes == codes.resident_bytes
        for query in queries:
            assert again.candidates(query, 10).tolist() == codes.candidates(query, 10).tolist()

    def test_damage_is_noticed_at_every_place(self) -> None:
        codes = built(units(600))
        values = codes.values()
        payload = values["turbo"]
        assert isinstance(payload, bytes)
        generator = np.random.default_rng(8)
        for at in [0, 4, 5, len(payload) - 1, *generator.integers(len(payload), size=100)]:
            broken = bytearray(payload)
            broken[at] ^= 1 << int(generator.integers(8))
            with pytest.raises(ValueError):
                TurboCodes.of_values({**values, "turbo": bytes(broken)}, 600, DIMENSION)
        for torn in (b"", payload[:-1], payload + b"\0", payload[: len(payload) // 2]):
            with pytest.raises(ValueError):
                TurboCodes.of_values({**values, "turbo": torn}, 600, DIMENSION)

    def test_forged_with_a_right_checksum_is_refused(self) -> None:
        values = built(units(600)).values()
        other = built(units(601)).values()
        wide = built(units(600, 72)).values()
        for forged in (
            {**values, "turbo": b"", "digest": turbo._digest(b"")},
            {**values, "turbo": b"TVPI", "digest": turbo._digest(b"TVPI")},
            {**values, "turbo": other["turbo"], "digest": other["digest"]},
            {**values, "turbo": wide["turbo"], "digest": wide["digest"]},
        ):
            with pytest.raises(ValueError):
                TurboCodes.of_values(forged, 600, DIMENSION)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("turbo", np.zeros(4, np.uint8)),
            ("shape", np.array([2, 600, DIMENSION, 4])),
            ("shape", np.array([1, 600, DIMENSION])),
            ("shape", b"1"),
            ("depths", np.empty((0, 2), np.int64)),
            ("depths", np.array([[10, 0]])),
            ("depths", np.array([[100, 200], [10, 20]])),
            ("depths", np.array([[10.0, 20.0]])),
            ("epsilon", np.array([np.nan])),
            ("epsilon", np.array([-1.0])),
            ("epsilon", np.array([np.inf])),
            ("epsilon", np.array([0.1, 0.2])),
            ("digest", b""),
        ],
    )
    def test_senseless_is_refused(self, name: str, value: npt.NDArray[np.int64] | bytes) -> None:
        values = built(units(600)).values()
        with pytest.raises(ValueError):
            TurboCodes.of_values({**values, name: value}, 600, DIMENSION)
        del values[name]
        with pytest.raises(ValueError):
            TurboCodes.of_values(values, 600, DIMENSION)

    @pytest.mark.parametrize(("rows", "dimension"), [(599, 64), (601, 64), (600, 63), (600, 65)])
    def test_of_another_file_is_refused(self, rows: int, dimension: int) -> None:
        with pytest.raises(ValueError):
            TurboCodes.of_values(built(units(600)).values(), rows, dimension)


@needs_turbovec
class TestCalibration:
    def test_finds_the_depths_that_the_truth_needs(
        self, codes: TurboCodes, vectors: Floats32, queries: Floats32
    ) -> None:
        truths = {
            limit: np.stack([best(vectors, query, limit) for query in queries])
            for limit in (100, 10)
        }
        depths = codes.calibrate(queries, truths, 0.99)
        assert [limit for limit, _ in depths] == [10, 100]
        exact = TurboCodes.of_values(codes.values(), codes.rows, DIMENSION)
        exact.depths = depths
        for limit, depth in depths:
            assert limit <= depth <= 3 * limit
            found = [exact.candidates(query, limit) for query in queries]
            shares = [recall(f, t) for f, t in zip(found, truths[limit], strict=True)]
            assert np.mean(shares) >= 0.99 - 1e-9
            exact.depths = ((limit, depth - 1),)
            fewer = [exact.candidates(query, limit) for query in queries]
            shares = [recall(f, t) for f, t in zip(fewer, truths[limit], strict=True)]
            assert np.mean(shares) < 0.99
            exact.depths = depths

    def test_looks_as_deep_as_it_must(self, codes: TurboCodes, queries: Floats32) -> None:
        """A truth that has nothing to do with the codes lies anywhere."""
        truth = np.random.default_rng(6).integers(codes.rows, size=(5, 10))
        ((_, depth),) = codes.calibrate(queries[:5], {10: truth}, 0.99)
        assert depth > codes.rows // 2

    def test_sees_what_a_scan_of_one_bit_loses(self) -> None:
        """Of random directions, a shallow search of many rows finds less than its depth of a deep
        one."""
        generator = np.random.default_rng(11)
        vectors, asked = (
            generator.standard_normal((count, 32)).astype(np.float32) for count in (33_000, 30)
        )
        for some in (vectors, asked):
            some /= np.linalg.norm(some, axis=1, keepdims=True)
        codes = built(vectors)
        truth = np.stack([best(vectors, query, 10) for query in asked])
        codes.depths = codes.calibrate(asked, {10: truth}, 0.99)
        found = [codes.candidates(query, 10) for query in asked]
        assert np.mean([recall(f, t) for f, t in zip(found, truth, strict=True)]) >= 0.99 - 1e-9

    def test_of_nothing(self, codes: TurboCodes, queries: Floats32) -> None:
        none = np.full((len(queries), 10), -1)
        assert codes.calibrate(queries, {10: none}, 0.99) == ((10, 1),)
        assert codes.calibrate(queries, {}, 0.99) == ()


class TestDepths:
    def test_a_depth_is_a_quantile_of_ranks(self) -> None:
        ranks = np.arange(100)
        assert depth_of(ranks, 0.99) == 99
        assert depth_of(ranks, 1.0) == 100
        assert depth_of(ranks, 0.995) == 100
        assert depth_of(ranks[:1], 0.5) == 1
        assert depth_of(ranks[:0], 0.99) == 1

    def test_ranks_count_what_scores_better(self) -> None:
        scores = np.array([[0.9, 0.8, 0.8, 0.1], [0.5, 0.4, 0.3, 0.2]], np.float32)
        slots = np.array([[7, 3, 5, 0], [5, 7, 1, 2]])
        truth = np.array([[3, 5, 0, 9], [7, 3, -1, 5]])
        assert ranks_of(scores, slots, truth).tolist() == [[1, 1, 3, 4], [1, 4, 4, 0]]
        assert ranks_of(scores[:, :0], slots[:, :0], truth).tolist() == [[0] * 4] * 2

    def test_between_what_was_measured(self) -> None:
        depths = ((10, 20), (100, 120), (1_000, 1_050))
        found = [depth_for(depths, limit) for limit in (1, 10, 11, 50, 100, 200, 1_000, 2_000)]
        assert found == [20, 20, 22, 100, 120, 240, 1_050, 2_100]
        assert depth_for(((10, 1),), 10) == 10

    def test_never_falls(self) -> None:
        depths = ((10, 19), (100, 135), (1_000, 1_100))
        found = [depth_for(depths, limit) for limit in range(1, 3_000)]
        assert (np.diff(found) >= 0).all()
        assert all(depth >= limit for limit, depth in enumerate(found, 1))


class TestWithoutTurbovec:
    def test_the_module_does_not_need_it(self) -> None:
        """It is not loaded by an import, and where there is none, that is said and nothing else."""
        program = (
            "import sys, numpy\n"
            "from engramdb.index.codes import turbo\n"
            "assert 'turbovec' not in sys.modules\n"
            "sys.modules['turbovec'] = None\n"
            "assert not turbo.available()\n"
            "for call in (lambda: turbo.TurboCodes.build([], numpy.zeros((0, 8), 'f4')),):\n"
            "    try:\n"
            "        call()\n"
            "    except RuntimeError as error:\n"
            "        assert 'turbovec' in str(error)\n"
            "    else:\n"
            "        raise AssertionError\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    def test_one_that_is_too_old_does_not_count(self) -> None:
        program = (
            "import sys, types\n"
            "from engramdb.index.codes import turbo\n"
            "sys.modules['turbovec'] = types.ModuleType('turbovec')\n"
            "assert not turbo.available()\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
