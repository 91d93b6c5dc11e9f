import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust.randomness import Randomness, generator


@given(ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=12, unique=True), seed=st.integers(0, 2**53 - 1))
@settings(max_examples=25, deadline=None)
def test_draws_belong_to_the_sample_not_to_the_batch(ids, seed):
    whole = Randomness.of(seed, ids, "pgd").fork("restart", 1)
    for draw in (
        lambda r: r.uniform((2, 3)),
        lambda r: r.normal((4,)),
        lambda r: r.laplace((4,)),
        lambda r: r.integers(10, (5,)),
        lambda r: r.permutation(6),
    ):
        together = draw(whole)
        apart = torch.cat([draw(whole.select([i])) for i in range(len(ids))])
        assert torch.equal(together, apart)
        backwards = draw(Randomness.of(seed, ids[::-1], "pgd").fork("restart", 1))
        assert torch.equal(together.flip(0), backwards)


def test_seed_id_and_purpose_each_change_the_draw():
    base = Randomness.of(0, [1], "a").uniform((8,))
    others = [
        Randomness.of(1, [1], "a").uniform((8,)),
        Randomness.of(0, [2], "a").uniform((8,)),
        Randomness.of(0, [1], "b").uniform((8,)),
        Randomness.of(0, [1], "a").fork("a").uniform((8,)),
    ]
    assert all(not torch.equal(base, other) for other in others)


def test_purposes_cannot_run_together():
    assert generator(0, "ab", "c").random() != generator(0, "a", "bc").random()


def test_draws_have_the_moments_they_promise():
    rng = Randomness.of(7, range(2000), "moments")
    normal, uniform = rng.normal((20,), torch.zeros(1).double()), rng.fork("u").uniform((20,), -1, 3)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean() - 1) < 0.03
    assert uniform.min() >= -1
    assert uniform.max() < 3


def test_golden_draws_guard_against_a_silent_change_of_generator():
    drawn = Randomness.of(0, [0, 1], "golden").uniform((2,), like=torch.zeros(1).double())
    expected = torch.tensor([[GOLDEN[0], GOLDEN[1]], [GOLDEN[2], GOLDEN[3]]], dtype=torch.float64)
    assert torch.equal(drawn, expected)


GOLDEN = (0.4188601093855354, 0.6701034865859841, 0.36383379744109046, 0.5940033761621601)
