"""Is the candidate worse? A test that may be looked at after every request without crying wolf.

While a candidate gets share q of the traffic by a random split, and is no worse than the stable
version, each failure falls on the candidate with probability at most q. The evidence against that,
after a failures on the candidate and b on the stable version, is the mixture likelihood ratio

    E(a, b) = ∫_q^1 θ^a (1-θ)^b dθ / (1-q)  ÷  q^a (1-q)^b
            = B(a+1, b+1) · P(Binomial(a+b+1, q) ≤ a) / ((1-q) · q^a (1-q)^b)

which is a non-negative martingale of mean at most 1 while the candidate is no worse, so P(E ever
reaches 1/α) ≤ α (Ville's inequality). The mixture form is Robbins' (1970, "Statistical methods
related to the law of the iterated logarithm", Annals of Mathematical Statistics 41); its use for
experiments that are watched all the time is in Johari, Pekelis and Walsh (2015, "Always valid
inference").

Example: q = 0.1 and the first two failures both on the candidate give E = 33; three give 250.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p


def evidence(candidate_failures: int, stable_failures: int, share: float) -> float:
    """E(a, b) for a share strictly between 0 and 1; 1.0 where nothing has failed.

    Large means the candidate is worse.
    """
    a, b = candidate_failures, stable_failures
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; expected a number between 0 and 1, both excluded")
    log_beta = lgamma(a + 1) + lgamma(b + 1) - lgamma(a + b + 2)
    log_evidence = (
        log_beta
        + _log_binomial_at_most(a, a + b + 1, share)
        - log1p(-share)
        - a * log(share)
        - b * log1p(-share)
    )
    return exp(min(log_evidence, 700.0))


def _log_binomial_at_most(k: int, n: int, q: float) -> float:
    """Logarithm of P(Binomial(n, q) ≤ k)."""
    terms = [
        lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(q) + (n - i) * log1p(-q)
        for i in range(k + 1)
    ]
    largest = max(terms)
    return min(0.0, largest + log(sum(exp(term - largest) for term in terms)))
