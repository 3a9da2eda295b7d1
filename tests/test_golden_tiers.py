"""Few bits and slower tiers, by hand: codes, scales and bytes; which tokens move where, and capacities."""

import pytest
import torch

from kvbench.plan.ops import Release
from kvbench.strategy.base import CapacityExceeded
from kvbench.strategy.quantized import Quantized
from tests.support.catalogue import strategy
from tests.support.numbered import TOKEN, admitted, contents, look, numbered, positions, read, write

# Four tokens (rows) of four channels.
KEYS = [[0, 0, 5, 0], [1, 10, 5, 0.4], [2, 20, 5, 1.6], [3, 30, 5, 3]]
VALUES = [[0, 3, 6, 9], [1, 1, 1, 1], [-3, 0, 0, -1.4], [0, 0, 0.6, 1.2]]


def quantized(bits, keys_per="channel", residual=0, group=4):
    return Quantized(bits=bits, group_size=group, residual_tokens=residual, keys_per=keys_per)


def rounded(bits, keys_per="channel"):
    """The cache after four tokens and a fifth, for which the four were rounded."""
    cache = admitted(quantized(bits, keys_per))
    keys, values = (torch.tensor(rows, dtype=torch.float32).view(1, 1, 4, 4) for rows in (KEYS, VALUES))
    cache.step([keys], [values])
    cache.step(*numbered(4, 1))
    return cache


def chunk(cache):
    """Codes, scales and minima of K, then of V, of the four tokens."""
    tensors = cache.sequence().stores["packed"].chunks[0][0]
    groups = [4 if tensor.shape[2] == 128 else 1 for tensor in tensors]  # rows: tokens, or the one group of tokens
    return [tensor[0, 0, :count].reshape(count, -1).tolist() for count, tensor in zip(groups, tensors, strict=True)]


def restored(cache):
    keys, values, _ = cache.sequence().full_context(0)
    return keys[0, 0, :4], values[0, 0, :4]


def test_two_bits_by_hand():
    # Keys by channel: ranges 3, 30, 0 and 3 over 3 steps: scales 1, 10, 0 and 1. Codes by token: 0000, 1100, 2202,
    # 3303 (0.4 to 0, 1.6 to 2), the first in the lowest bits: 0; 1 + 4; 2 + 8 + 128; 3 + 12 + 192.
    # Values by token: 0 3 6 9 has scale 3 and codes 0123: 4 + 32 + 192; 1 1 1 1 has scale 0 and minimum 1; the third
    # scale 1 and codes 0332 (-1.4 is 1.6 above the minimum): 12 + 48 + 128; the fourth scale 0.4 and codes 0023 (0.6
    # is 1.5 steps, to the even 2): 32 + 192.
    codes, scale, least, value_codes, value_scale, value_least = chunk(rounded(2))
    assert codes == [[0], [5], [138], [207]]
    assert (scale, least) == ([[1, 10, 0, 1]], [[0, 0, 5, 0]])
    assert value_codes == [[228], [0], [188], [224]]
    assert [row[0] for row in value_scale] == pytest.approx([3, 0, 1, 0.4])
    assert [row[0] for row in value_least] == [0, 1, -3, 0]
    keys, values = restored(rounded(2))
    assert keys.tolist() == [[0, 0, 5, 0], [1, 10, 5, 0], [2, 20, 5, 2], [3, 30, 5, 3]]
    expected = torch.tensor([[0, 3, 6, 9], [1, 1, 1, 1], [-3, 0, 0, -1], [0, 0, 0.8, 1.2]])
    assert torch.allclose(values, expected, atol=1e-6)


def test_keys_by_token_share_what_channels_differ_in():
    # Token 3 is 3 30 5 3: range 27 over 3 steps, scale 9, codes 0 3 0 0: 12. Token 2: 1.6 to 20, scale 18.4 / 3;
    # 2 and 5 are 0.07 and 0.55 steps up: 0 3 1 0: 12 + 16.
    codes, scale, least, *_ = chunk(rounded(2, "token"))
    assert codes == [[0b00_11_00_00], [0b00_01_11_00], [0b00_01_11_00], [0b00_00_11_00]]
    assert [row[0] for row in scale] == pytest.approx([5 / 3, 9.6 / 3, 18.4 / 3, 9])
    assert [row[0] for row in least] == pytest.approx([0, 0.4, 1.6, 3])


def test_four_and_eight_bits_by_hand():
    # Channel 0 over 15 steps: scale 0.2, codes 0, 5, 10, 15; channel 1 likewise; 2 is constant; 0.4 and 1.6 are 2 and
    # 8 steps. Two to a byte, channels 0 and 2, 1 and 3.
    codes, scale, *_ = chunk(rounded(4))
    assert codes == [[0, 0], [5 + 0, 5 + 2 * 16], [10 + 0, 10 + 8 * 16], [15 + 0, 15 + 15 * 16]]
    assert scale[0] == pytest.approx([0.2, 2, 0, 0.2])
    # Over 255 steps: 0, 85, 170, 255; 0.4 and 1.6 are 34 and 136 steps of 3 / 255.
    codes, scale, *_ = chunk(rounded(8))
    assert codes == [[0, 0, 0, 0], [85, 85, 0, 34], [170, 170, 0, 136], [255, 255, 0, 255]]
    assert scale[0] == pytest.approx([3 / 255, 30 / 255, 0, 3 / 255])


@pytest.mark.parametrize(("bits", "codes"), [(2, 8), (4, 16), (8, 32)])
@pytest.mark.parametrize(("keys_per", "groups"), [("channel", 4 + 4), ("token", 4 + 4)])
def test_bytes_of_few_bits(bits, codes, keys_per, groups):
    # Of 4 tokens: codes of 2 x 16 elements; of keys 4 groups (a channel's, or a token's), of values 4 (a token's);
    # each a scale and a minimum of 4 bytes. A chunk is 128 tokens; 4 slots of the window stay.
    cache = rounded(bits, keys_per)
    staging = 1024 * TOKEN
    assert cache.ledger.allocated_bytes == 32 * (codes + groups * 8) + 4 * TOKEN + staging
    assert cache.ledger.used_bytes == codes + groups * 8 + TOKEN


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("keys_per", ["channel", "token"])
def test_rounding_is_off_by_half_a_step_at_most(bits, keys_per):
    generator = torch.Generator().manual_seed(bits)
    cache = admitted(quantized(bits, keys_per, group=4))
    keys, values = (torch.randn(1, 1, 40, 4, generator=generator) for _ in range(2))
    cache.step([keys], [values])
    cache.step(*numbered(40, 1))
    found = [tensor[:, :, :40] for tensor in cache.sequence().full_context(0)[:2]]
    by_channel = keys.view(1, 1, 10, 4, 4)
    spans = {
        "channel": (by_channel.amax(3, True) - by_channel.amin(3, True)).expand(by_channel.shape).reshape(keys.shape),
        "token": (keys.amax(3, True) - keys.amin(3, True)).expand(keys.shape),
    }
    value_span = values.amax(3, True) - values.amin(3, True)
    for live, true, span in ((found[0], keys, spans[keys_per]), (found[1], values, value_span)):
        assert ((live - true).abs() <= span / (2**bits - 1) / 2 + 1e-5).all()


def test_the_newest_stay_as_they_are_and_leave_in_groups():
    # A window of 8 and a group of 4: up to 12 in full precision. 30 tokens at once: (30 - 8) // 4 = 5 groups leave.
    cache = admitted(quantized(8, residual=8))
    write(cache, 0, 30)
    assert (cache.view.num_used(0, "packed"), cache.view.num_used(0)) == (20, 10)
    assert (cache.view.num_altered(0), cache.view.capacity(0)) == (20, 12)
    for token in (30, 31):
        write(cache, token, 1)
    assert cache.view.num_used(0) == 12
    plan = cache.strategy.on_append(0, 1, cache.view)
    receipt = cache.carry_out(plan, *numbered(32, 1))
    # One group: 32 bytes of codes, 8 groups of 8 bytes; nothing within the ring is copied.
    assert (receipt.moved_bytes, receipt.copied_bytes) == (32 + 64, 0)
    assert (cache.view.num_used(0, "packed"), cache.view.num_used(0)) == (24, 9)
    keys, _, at = cache.sequence().full_context(0)
    assert at[0, 0].tolist() == list(range(33))
    assert torch.allclose(keys[0, 0, :, 0], torch.arange(33.0), atol=1e-4)
    assert keys[0, 0, 24:, 0].tolist() == list(range(24, 33))


def tiers(fast, slow, disk=0, eviction="age"):
    """A step accesses its top token; the last two steps count."""
    changed = {"fast_capacity": fast, "slow_capacity": slow, "disk_capacity": disk, "eviction": eviction}
    return strategy("hierarchical", **changed, top_accessed=1, access_window=2, read_ahead=False)


def held(cache):
    return {name: cache.view.num_used(0, area) for name, area in (("host", "host"), ("device", "main"))}


def test_the_older_half_moves_when_the_fast_tier_is_full():
    cache = admitted(tiers(4, 512))
    for token in range(4):
        write(cache, token, 1)
    assert (held(cache), cache.ledger.tier_bytes["host"]) == ({"host": 0, "device": 4}, 0)
    receipt = cache.carry_out(cache.strategy.on_append(0, 1, cache.view), *numbered(4, 1))
    assert (receipt.moved_bytes, receipt.copied_bytes, receipt.num_resizes) == (2 * TOKEN, 0, 0)
    assert held(cache) == {"host": 2, "device": 3}
    assert cache.ledger.tier_bytes == {"device": (4 + 1024) * TOKEN, "host": 512 * TOKEN, "disk": 0, "remote": 0}
    assert cache.ledger.used_bytes == 3 * TOKEN  # of the device
    assert [piece.positions for piece in cache.sequence().stores["host"].pieces(0)] == [range(2)]
    # Five more: four pass through at once (two moves of what is there), then one.
    write(cache, 5, 5)
    assert contents(cache) == list(range(10))
    assert cache.view.num_altered(0) == 0


def test_all_that_both_tiers_can_hold_is_held():
    # From 40 on 20 move each time: 25 times 20 make 500 of 512. At 540 tokens the host has room for 12.
    cache = admitted(tiers(40, 512))
    for token in range(540):
        write(cache, token, 1)
    assert held(cache) == {"host": 500, "device": 40}
    write(cache, 540, 1)
    assert held(cache) == {"host": 512, "device": 29}
    for token in range(541, 552):
        write(cache, token, 1)
    with pytest.raises(CapacityExceeded) as caught:
        write(cache, 552, 1)
    assert (caught.value.num_tokens, caught.value.maximum) == (553, 552)
    assert contents(cache) == list(range(552))


def test_three_tiers_pass_whole_chunks_on():
    # Each of 512. At 512, 768, 1024 and 1280 tokens the older 256 of the device move; the host's first 512 go to
    # files when a third 256 come.
    cache = admitted(tiers(512, 512, 512))
    write(cache, 0, 512)
    for end, on_disk, on_host in ((768, 0, 256), (1024, 0, 512), (1280, 512, 256), (1536, 512, 512)):
        write(cache, end - 256, 1)
        view = cache.view
        assert (view.num_used(0, "disk"), view.num_used(0, "host"), view.num_used(0)) == (on_disk, on_host, 257)
        write(cache, end - 255, 255)
    assert cache.ledger.tier_bytes == {
        "device": (512 + 1024) * TOKEN,
        "host": 512 * TOKEN,
        "disk": 512 * TOKEN,
        "remote": 0,
    }
    assert [tier.num_used for tier in cache.sequence().stores.values()] == [512, 512, 512]
    assert contents(cache) == list(range(1536))
    with pytest.raises(CapacityExceeded):
        write(cache, 1536, 1)
    cache.carry_out((Release(0),))
    assert cache.ledger.held_bytes == cache.ledger.fixed_bytes == 1024 * TOKEN


def test_what_the_host_cannot_hold_at_once_passes_through_it():
    # 1,600 leave a device of 1,600 (for an append as large) for a host of 512 and files: in moves of at most 512.
    cache = admitted(tiers(1600, 512, 2048))
    write(cache, 0, 1600)
    receipt = cache.carry_out(cache.strategy.on_append(0, 1600, cache.view), *numbered(1600, 1600))
    view = cache.view
    # 512, 512, 512 and 64: the host's first three fills go on to files.
    assert (view.num_used(0, "disk"), view.num_used(0, "host"), view.num_used(0)) == (1536, 64, 1600)
    assert receipt.moved_bytes == (1600 + 1536) * TOKEN
    assert cache.ledger.tier_bytes["host"] == 512 * TOKEN
    assert contents(cache) == list(range(3200))


def test_by_access_the_least_looked_at_move():
    # The top token of each step by mass, over the last two steps. Weights 1, 5, 2, 1: token 0 is the top of step 0,
    # token 1 of steps 1 to 3. So of 0, 1 and 2 (3 is the newest quarter) token 1 stays: accesses 0, 2, 0.
    cache = admitted(tiers(4, 512, eviction="access"), attend=True)
    for weight in (1, 5, 2, 1):
        look(cache, [weight])
    store = cache.sequence().stores["main"]
    assert store.scores[0][0, 0].tolist() == [0b00, 0b11, 0, 0]
    look(cache, [9])
    assert positions(cache) == [3, 1, 4]
    assert cache.sequence().stores["host"].pieces(0)[0].positions.tolist() == [[[0, 2]]]
    # Token 4 is the top of steps 4 and 5; what token 1 was before is forgotten.
    look(cache, [1])
    assert positions(cache) == [3, 1, 4, 5]
    assert store.scores[0][0, 0].tolist() == [0, 0b00, 0b11, 0]
    # Of 3, 1 and 4 (5 is recent) 4 stays; 3 and 1 go as they lay.
    look(cache, [1])
    assert sorted(positions(cache)) == [4, 5, 6]
    assert cache.sequence().stores["host"].pieces(0)[0].positions.tolist() == [[[0, 2, 3, 1]]]
    assert cache.view.num_altered(0) == 0


def test_an_access_counts_among_all_tiers():
    # Token 0, the heaviest, moves; then no token on the device is the top of a step.
    cache = admitted(tiers(4, 512, eviction="access"), attend=True)
    for weight in (50, 1, 1, 1):
        look(cache, [weight])
    store = cache.sequence().stores["main"]
    store.scores[0].zero_()  # as if nobody had looked: the oldest two of 0, 1 and 2 move
    look(cache, [1])
    assert sorted(positions(cache)) == [2, 3, 4]
    look(cache, [1])
    assert store.scores[0][0, 0].tolist() == [0, 0, 0, 0]


def test_reading_goes_over_all_tiers():
    cache = admitted(tiers(4, 512, 512))
    write(cache, 0, 11)
    assert sorted(read(cache)) == list(range(11))
