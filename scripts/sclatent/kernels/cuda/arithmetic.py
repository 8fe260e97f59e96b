"""log p(x) of counts and its derivatives in single precision, element by element, for Triton.

No term here is large where log p(x) is small, so nothing cancels and float32 is enough for theta
from 1e-4 to 1e6 and any count. With mu the rate, theta the inverse dispersion and

    r = (x - mu) / (theta + mu),   h(r) = r - log(1 + r)

counts up to 8 are evaluated by products, and larger ones in the saddle-point form of Loader (2000),
in which the parts of lgamma that cancel have been taken out::

    log p(x) = -x h(-theta r / x) - theta h(r) + log prod_k<8 (theta + k) / (theta + 8)
               + log(v / (2 pi x (theta + x))) / 2 + 8 - theta log(1 + 8 / theta)
               + s(theta + x) - s(v) - s(x),       v = theta + 8

where s is the rest of Stirling's series. The derivatives are::

    d log mu     theta r
    d log theta  theta (psi(x + theta) - psi(theta) - log(1 + x / theta) - h(r))
"""

import triton
import triton.language as tl

HALF_LOG_TWO_PI = tl.constexpr(0.9189385332046727)
N_FACTORS = tl.constexpr(8)
"""Up to this count gamma functions are products."""
FAR = tl.constexpr(-60.0)
"""Below this log rate the rate itself would leave the range of float32."""


@triton.jit
def log1p(x):
    """Return log(1 + x) for x > -1, accurate for small x."""
    y = 1.0 + x
    return tl.log(y) + (x - (y - 1.0)) / y


@triton.jit
def expm1(x):
    """Return e^x - 1 for x <= 0, accurate for small x (Kahan): the error of e^x cancels."""
    power = tl.exp(x)
    log_power = tl.log(tl.maximum(power, 1e-30))
    equal = log_power == 0.0
    near = tl.where(equal, x, (power - 1.0) * x / tl.where(equal, 1.0, log_power))
    return tl.where(x < -1.0, power - 1.0, near)


@triton.jit
def softplus(x):
    """Return log(1 + e^x)."""
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + e^-x)."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def excess(r, log_one_plus_r):
    """Return h(r) = r - log(1 + r); near 0 by the series of the inverse hyperbolic tangent."""
    t = r / (2.0 + r)
    s = t * t
    series = r * t - 2.0 * t * s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s / 9)))
    return tl.where(tl.abs(r) < 0.3, series, r - log_one_plus_r)


@triton.jit
def stirling(n):
    """Return log n! - ((n + 1/2) log n - n + log(2 pi) / 2) for n > 8."""
    over = 1.0 / n
    square = over * over
    return over * (1.0 / 12 - square * (1.0 / 360 - square / 1260))


@triton.jit
def stirling_slope(n):
    """Return the derivative of `stirling`."""
    square = 1.0 / (n * n)
    return -square * (1.0 / 12 - square * (1.0 / 120 - square / 252))


@triton.jit
def rate_over_count(x, log_rate, rate):
    """Return log(mu / x), x >= 1."""
    near = tl.log(tl.maximum(rate, 1e-30) / x)
    return tl.where(log_rate < FAR, log_rate - tl.log(x), near)


@triton.jit
def poisson(x, log_rate):
    """Return log p(x) and its derivative by log mu."""
    rate = tl.exp(tl.minimum(log_rate, 80.0))
    factorial = tl.full(x.shape, 1.0, tl.float32)
    for k in tl.static_range(1, N_FACTORS):
        factorial = tl.where(k < x, factorial * (k + 1), factorial)
    few = x * log_rate - rate - tl.log(factorial)
    some = tl.maximum(x, 1.0)
    apart = excess((rate - some) / some, rate_over_count(some, log_rate, rate))
    many = -some * apart - 0.5 * tl.log(some) - HALF_LOG_TWO_PI - stirling(some)
    return tl.where(x > N_FACTORS, many, few), x - rate


@triton.jit
def negative_binomial(x, log_rate, log_theta):
    """Return log p(x) and its derivatives by log mu and log theta."""
    rate, theta = tl.exp(tl.minimum(log_rate, 80.0)), tl.exp(log_theta)
    total, large, v = theta + rate, theta + x, theta + N_FACTORS
    r = (x - rate) / total
    d_rate = theta * r
    log_ratio = tl.log(large / total)
    h = excess(r, log_ratio)
    # Products over k < x of (theta + k) / v and k + 1, and the derivative of the first. v keeps
    # them within the range of float32.
    over = 1.0 / v
    product, slope = tl.full(x.shape, 1.0, tl.float32), tl.zeros(x.shape, tl.float32)
    factorial = tl.full(x.shape, 1.0, tl.float32)
    for k in tl.static_range(N_FACTORS):
        factor = (theta + k) * over
        slope = tl.where(k < x, slope * factor + product * over, slope)
        product = tl.where(k < x, product * factor, product)
        factorial = tl.where(k < x, factorial * (k + 1), factorial)
    harmonic = slope / product
    few = x * (log_rate + tl.log(v / total)) + tl.log(product / factorial)
    few -= theta * log1p(rate / theta)
    few_theta = harmonic - log1p(x / theta)
    some = tl.maximum(x, 1.0)
    apart = excess(-d_rate / some, log_ratio + rate_over_count(some, log_rate, rate))
    eight = log1p(N_FACTORS / theta)
    many = -some * apart - theta * h + tl.log(product) + 0.5 * tl.log(v / (large * some))
    many += N_FACTORS - HALF_LOG_TWO_PI - theta * eight
    many += stirling(large) - stirling(v) - stirling(some)
    many_theta = harmonic + 0.5 / v - 0.5 / large - eight
    many_theta += stirling_slope(large) - stirling_slope(v)
    value = tl.where(x > N_FACTORS, many, few)
    d_theta = theta * (tl.where(x > N_FACTORS, many_theta, few_theta) - h)
    return value, d_rate, d_theta


@triton.jit
def inflate(x, value, d_rate, d_theta, logit):
    """Add extra zeros, of probability sigmoid(logit), to a distribution of counts.

    Returns log p(x) and its derivatives by log mu, log theta and the logit.
    """
    is_zero = x == 0
    counted = sigmoid(value - logit)  # share of the zeros that are counts
    missing = sigmoid(-logit) * expm1(tl.minimum(value, 0.0))  # p(0) - 1
    near_one = log1p(tl.maximum(missing, -0.5))
    zero = tl.where(missing > -0.5, near_one, softplus(value - logit) - softplus(-logit))
    kept = tl.where(is_zero, counted, 1.0)
    d_logit = tl.where(is_zero, sigmoid(-logit) - counted, -sigmoid(logit))
    value = tl.where(is_zero, zero, value - softplus(logit))
    return value, d_rate * kept, d_theta * kept, d_logit
