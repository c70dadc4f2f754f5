"""What was found, in words, tables and pictures for a report."""

from __future__ import annotations

import math
from collections.abc import Iterator

from analysis.diagnose.api import Plot, Series, Value
from analysis.diagnose.verdicts import shown
from analysis.extraction import Extraction, Listing, Row
from analysis.reports.tables import counted, decimals, number
from analysis.spacing_mdn.extraction.found import LINEAR, OWN_MEAN, WINNER, Found, LinesFound
from analysis.spacing_mdn.extraction.lines import LineFit
from analysis.spacing_mdn.extraction.selection import name_of
from analysis.stats.interval import Interval

_MOST_LINES = 24  # in the table, those that the theory has strongest
_MOST_PRIMES = 12
_NOTHING = 0.05  # of a gain
_NONE = Interval(math.nan, math.nan, math.nan)


def told(found: Found) -> Extraction:
    """The extraction of what was found."""
    lines = found.lines
    tables = [_densities(found), _terms(found)]
    tables += [] if lines is None else [_primes(lines), _lines(lines)]
    return Extraction(
        says=(*_of_gain(found), _of_mean(found), *_of_lines(lines)),
        formula=found.formula.text(found.names),
        fitted_on=f"val, {found.num_fitted} targets",
        scored_on=f"test, {found.num_scored} targets",
        tables=tuple(tables),
        plots=(_left_plot(found), *([] if lines is None else [_amplitudes(lines)])),
        values=dict(_values(found)),
    )


def _of_gain(found: Found) -> Iterator[str]:
    yield (
        f"On test the winner has {found.rows[WINNER].nll.value:.3f} nats per spacing. A Gaussian about the formula, "
        f"with a width linear in {counted(len(found.width.places), 'term')}, has {found.rows[LINEAR].nll.value:.3f}."
    )
    for base, gain in found.gains.items():
        at = f"{base} ({found.rows[base].nll.value:.3f})"
        kept, own = (found.rows[name].shares[base] for name in (LINEAR, OWN_MEAN))
        if math.isnan(kept.value):
            yield f"The winner is not surely ahead of {at}: it gains {shown(gain)} nats, and there is no share to tell."
        elif kept.high < _NOTHING:
            yield f"Of its gain of {gain.value:.3f} nats over {at} the formula keeps next to nothing, {_percent(kept)}."
        else:
            yield (
                f"Of its gain of {gain.value:.3f} nats over {at} the formula keeps {_percent(kept)}. About the "
                f"winner's own mean such a width would keep {_percent(own)}: {_lacking(kept.value, own.value)}."
            )


def _lacking(kept: float, own: float) -> str:
    """Where the rest of the gain is."""
    if kept > 1.0 + _NOTHING:
        return "the formula scores better than the winner"
    if 1.0 - kept < _NOTHING:
        return "nothing to speak of is lacking"
    of_mean = (own - kept) / (1.0 - kept)
    if of_mean > 0.75:
        return "what the formula lacks, its mean lacks"
    return (
        "what it lacks is in the density's shape" if of_mean < 0.25 else "it lacks some of the mean, some of the shape"
    )


def _of_mean(found: Found) -> str:
    terms = len(found.formula.products)
    if not terms:
        return "No term of the dictionary tells anything of the winner's mean: the formula is a constant."
    return (
        f"The formula has {terms} of {len(found.names)} terms and their products, chosen one after the other. It was "
        f"fitted to the winner's mean on val, and holds {_percent(found.whole)} of that mean's variance on test. It "
        f"misses the mean by {found.missed:.3f} spacings in the root mean square, where the mean misses the spacing by "
        f"{found.error:.3f}."
    )


def _of_lines(lines: LinesFound | None) -> Iterator[str]:
    if lines is None:
        yield "The data's heights are not those of zeta zeros, or too few: there are no lines of primes to look for."
        return
    known = lines.mean.lines
    primes = counted(int((known.power == 1).sum()), "prime")
    yield (
        f"The lines of {primes} and their powers up to {known.prime.max():.0f},"
        f" fitted on val, hold {_percent(lines.of_mean.all)} of the variance of the winner's mean on test, and "
        f"{_percent(lines.of_spacings.all)} of that of the spacings themselves."
    )
    yield (
        f"The explicit formula has the line of p^k with amplitude 1 / (pi k p^(k/2)). Those of the primes are "
        f"{_range(lines.mean)} of it in the winner's mean, and {_range(lines.spacings)} in the true spacings. This "
        "holds to first order in each line: fast lines fall short, and powers hold what lower ones make together."
    )


def _range(fit: LineFit) -> str:
    """Amplitudes of the lines of primes, as shares of the explicit formula's."""
    theory = zip(fit.found, fit.lines.amplitude, fit.lines.power, strict=True)
    ratios = [line.amplitude.value / amplitude for line, amplitude, power in theory if power == 1]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def _densities(found: Found) -> Listing:
    rows = [
        Row((name,), (row.nll, *(_NONE if name in found.gains else row.shares[base] for base in found.gains)))
        for name, row in found.rows.items()
    ]
    header = ("density on test", "NLL (nats)", *(f"share of the gain over {base}" for base in found.gains))
    return Listing("What the formula keeps: all densities on the same targets.", header, tuple(rows))


def _terms(found: Found) -> Listing:
    formula = found.formula
    rows = [Row(("1", "the intercept"), (formula.intervals[0], math.nan))]
    for product, coef, explained in zip(formula.products, formula.intervals[1:], found.explained[1:], strict=True):
        meaning = "; times ".join(found.names[place].meaning for place in dict.fromkeys(product))
        meaning += "; squared" if len(product) == 2 and product[0] == product[1] else ""
        rows.append(Row((name_of(product, found.names), meaning), (coef, explained)))
    header = ("term", "what it is", "coefficient", "variance of the mean on test, up to here")
    return Listing("The formula, in the order in which its terms were chosen.", header, tuple(rows))


def _primes(lines: LinesFound) -> Listing:
    of_mean, of_spacings = lines.of_mean.by_prime, lines.of_spacings.by_prime
    order = sorted(of_mean, key=lambda p: -of_spacings[p])
    rows = [Row((str(p),), (of_spacings[p], of_mean[p])) for p in order[:_MOST_PRIMES]]
    if rest := order[_MOST_PRIMES:]:
        sums = (sum(of[p] for p in rest) for of in (of_spacings, of_mean))
        rows.append(Row((f"{len(rest)} others",), tuple(sums)))
    rows.append(Row(("all",), (lines.of_spacings.all, lines.of_mean.all)))
    header = ("prime and its powers", "of the spacings", "of the winner's mean")
    return Listing("Shares of the variance on test by prime.", header, tuple(rows))


def _lines(lines: LinesFound) -> Listing:
    known = lines.mean.lines
    order = sorted(range(len(known.omega)), key=lambda i: -known.amplitude[i])[:_MOST_LINES]
    rows = []
    for i in order:
        values: list[Value] = [float(known.amplitude[i])]
        for fit in (lines.spacings, lines.mean):
            values += [fit.found[i].amplitude, fit.found[i].phase]
        rows.append(Row((_called(known.prime[i], known.power[i]),), tuple(values)))
    header = (
        "line",
        "theory",
        "in the spacings",
        "phase (degrees)",
        "in the winner's mean",
        "phase (degrees)",
    )
    caption = "Lines as amplitudes of S(t), in zeros, measured on val; theory has phase 0."
    if len(order) < len(known.omega):
        caption += f" The {len(order)} strongest of {len(known.omega)}."
    return Listing(caption, header, tuple(rows))


def _called(prime: float, power: float) -> str:
    return f"{prime:.0f}" if power == 1 else f"{prime:.0f}^{power:.0f}"


def _amplitudes(lines: LinesFound) -> Plot:
    known = lines.mean.lines
    first = [i for i, power in enumerate(known.power) if power == 1]
    primes = tuple(float(known.prime[i]) for i in first)

    def of(label: str, fit: LineFit) -> Series:
        return Series.of(label, [fit.found[i].amplitude for i in first], primes)

    theory = Series("1 / (pi p^1/2)", primes, tuple(float(known.amplitude[i]) for i in first))
    return Plot(
        "Amplitudes of the lines of the primes",
        "p",
        "amplitude of S (zeros)",
        "line",
        (theory, of("true spacings", lines.spacings), of("the winner's mean", lines.mean)),
        log_x=True,
        log_y=True,
    )


def _left_plot(found: Found) -> Plot:
    left = tuple(1.0 - explained for explained in found.explained)
    return Plot(
        "What a formula of so many terms leaves of the winner's mean",
        "terms",
        "share of the variance left on test",
        "line",
        (Series("formula", tuple(range(len(left))), left),),
        log_y=True,
    )


def _values(found: Found) -> Iterator[tuple[str, Value]]:
    """Everything, by name, with all digits."""
    for name, interval in zip(
        ("1", *(name_of(p, found.names) for p in found.formula.products)), found.formula.intervals, strict=True
    ):
        yield f"coefficient {name}", interval
    yield "share of the variance of the mean", found.whole
    for name, coef in zip(
        ("1", *(found.names[place].name for place in found.width.places)), found.width.coef, strict=True
    ):
        yield f"log width {name}", float(coef)
    for name, row in found.rows.items():
        yield f"nll of {name}", row.nll
        for base, share in row.shares.items():
            yield f"share of {name} over {base}", share
    for base, gain in found.gains.items():
        yield f"gain over {base}", gain
    if found.lines is not None:
        for series, fit in (("spacings", found.lines.spacings), ("mean", found.lines.mean)):
            for line, p, k in zip(fit.found, fit.lines.prime, fit.lines.power, strict=True):
                yield f"amplitude of {_called(p, k)} in the {series}", line.amplitude
                yield f"phase of {_called(p, k)} in the {series}", line.phase
        for series, of in (("spacings", found.lines.of_spacings), ("mean", found.lines.of_mean)):
            yield f"lines in the {series}", of.all
            yield from ((f"prime {p} in the {series}", share) for p, share in of.by_prime.items())


def _percent(share: Interval) -> str:
    """``82% (80% to 84%)``, with as many digits as the interval has."""
    places = max(0, decimals(100.0 * share.half_width) - 1)
    value, low, high = (f"{number(100.0 * part, places)}%" for part in share)
    return value if math.isnan(share.low) else f"{value} ({low} to {high})"
