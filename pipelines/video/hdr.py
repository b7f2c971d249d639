"""Tone mapping from high to standard dynamic range: BT.2100's PQ and HLG to BT.709.

In linear light: the signal to light in cd/m2, BT.2390-11's roll-off (5.4.1) from a peak of 1,000 to the 203 cd/m2 that
BT.2408 has as diffuse white, on the largest of R, G and B, so that hues stay; BT.2020's primaries to BT.709's; and
BT.1886's power of 2.4. Letters: H W pixels.
"""

from functools import lru_cache

import numpy as np

PEAK, WHITE = 1000.0, 203.0  # cd/m2: the brightest of the source, and what becomes 255
TRANSFERS = {16: "PQ", 18: "HLG"}
"""By FFmpeg's number: SMPTE ST 2084, ARIB STD-B67."""
_HLG_GAMMA = 1.2  # of a screen of 1,000 cd/m2
_SCREEN_GAMMA = 2.4
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)  # BT.2087
_STEPS = 65536
# ST 2084
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def tone_mapped(signal: np.ndarray, transfer: str) -> np.ndarray:
    """R'G'B' of BT.2020, uint16 [H, W, 3] over the full range, coded with "PQ" or "HLG": uint8 [H, W, 3]."""
    light = _light_of(transfer)[signal]
    if transfer == "HLG":  # of the scene, which a screen shows brighter where it is bright
        brightness = np.maximum(light @ _LUMINANCE, 1e-6)[..., None]
        light *= PEAK * brightness ** np.float32(_HLG_GAMMA - 1)
    largest = light.max(axis=-1, keepdims=True)
    factors, values = _tables()
    light *= factors[_places(largest / np.float32(PEAK))]
    return values[_places(light @ _TO_709.T)]


def _places(share: np.ndarray) -> np.ndarray:
    """The table index for a share of 0..1: tables are spaced by its square root, as the eye perceives it."""
    return (np.sqrt(np.clip(share, 0, 1)) * np.float32(_STEPS - 1) + np.float32(0.5)).astype(np.uint16)


@lru_cache(maxsize=2)
def _light_of(transfer: str) -> np.ndarray:
    """The light of each signal: cd/m2 for PQ, 0..1 of the scene for HLG: float32 [65536]."""
    signal = np.arange(65536) / 65535
    if transfer == "PQ":
        return np.minimum(10_000 * _pq_light(signal), PEAK).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """By place: the factor from light to 0..1 on the screen, for its share of `PEAK`, float32 [65536]; and the
    picture's value for light of 0..1, uint8 [65536]."""
    places = np.linspace(0, 1, _STEPS)
    light = PEAK * places**2
    light[0] = light[1]
    factors = (rolled_off(light) / WHITE / light).astype(np.float32)
    return factors, np.rint(255 * places ** (2 / _SCREEN_GAMMA)).astype(np.uint8)


def rolled_off(light: np.ndarray) -> np.ndarray:
    """BT.2390's curve from cd/m2 up to `PEAK` to cd/m2 up to `WHITE`; the identity below 88 cd/m2."""
    peak = _pq_signal(np.array(PEAK / 10_000))
    most = _pq_signal(np.array(WHITE / 10_000)) / peak
    knee = 1.5 * most - 0.5
    signal = _pq_signal(light / 10_000) / peak
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return 10_000 * _pq_light(np.where(signal < knee, signal, bent) * peak)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    power = signal ** (1 / _M2)
    return (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _pq_signal(light: np.ndarray) -> np.ndarray:
    power = light**_M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
