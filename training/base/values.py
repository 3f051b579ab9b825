"""Values that policies are made of: durations, prices, places, channels, people, codes,
instructions.
"""

from collections.abc import Callable
from random import Random

from training.base import words

UNITS = ("hours", "days", "days", "weeks", "months", "months", "years")


def plural(number: int, unit: str) -> str:
    """``1 month``, ``24 months``: the unit is given in the plural."""
    return f"{number} {unit[:-1] if number == 1 else unit}"


def duration(rng: Random) -> str:
    """A length of time such as ``24 months``, sometimes written in words."""
    number = words.whole(rng, 99)
    if number <= 12 and rng.random() < 0.12:
        unit = rng.choice(UNITS)
        return f"{words.NUMBER_WORDS[number]} {unit[:-1] if number == 1 else unit}"
    return plural(number, rng.choice(UNITS))


def money(rng: Random) -> str:
    """A price in an invented or common currency."""
    amount = str(words.whole(rng, 400))
    if rng.random() < 0.25:
        amount += rng.choice((".50", ".90", ".99", ".20", ".75"))
    return rng.choice(words.CURRENCIES).format(amount)


def clock(rng: Random) -> str:
    """A time of day in one of four layouts."""
    hour, minute = rng.randint(1, 12), rng.choice(("00", "15", "30", "45", "00"))
    return rng.choice(
        (
            f"{hour}:{minute} {rng.choice(('am', 'pm'))}",
            f"{rng.randint(6, 22)}:{minute}",
            f"{hour} am",
            f"{hour} pm",
        )
    )


def hours(rng: Random) -> str:
    """Opening hours."""
    layout = rng.choice(("from {} to {}", "between {} and {}", "{} to {}"))
    return layout.format(
        f"{rng.randint(6, 11)}:{rng.choice(('00', '30'))}",
        f"{rng.randint(14, 22)}:{rng.choice(('00', '30'))}",
    )


def day(rng: Random) -> str:
    """A weekday, two weekdays, or a date."""
    roll = rng.random()
    if roll < 0.4:
        return rng.choice(words.WEEKDAYS)
    if roll < 0.6:
        first, second = rng.sample(words.WEEKDAYS, 2)
        return f"{first} and {second}"
    return f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)}"


def percent(rng: Random) -> str:
    """A percentage."""
    return f"{words.whole(rng, 95)}{rng.choice(('%', ' percent'))}"


def place(rng: Random) -> str:
    """A room, desk, gate or street."""
    return rng.choice(
        (
            f"room {rng.randint(1, 400)}",
            f"floor {rng.randint(1, 9)}",
            f"desk {rng.randint(1, 30)}",
            f"gate {rng.choice('ABCDEFG')}{rng.randint(1, 60)}",
            f"hall {rng.choice('ABCDEFG')}",
            f"{words.brand(rng)} Street {rng.randint(1, 99)}",
            f"the {words.brand(rng)} building",
            (
                f"the {rng.choice(words.COLOURS)} {rng.choice(('hall', 'desk', 'counter', 'shelf', 'door', 'zone'))}"
            ),
            (
                f"the {words.brand(rng)} {rng.choice(('centre', 'shop', 'depot', 'office', 'hub', 'point'))}"
            ),
        )
    )


def channel(rng: Random) -> str:
    """A way to reach somebody, as an adverbial: ``by phone at 555 1234``."""
    return rng.choice(
        (
            f"by e-mail at {words.email(rng)}",
            f"by phone at {words.phone(rng)}",
            f"by phone on {words.phone(rng)}",
            f"by text message to {words.phone(rng)}",
            f"at {place(rng)}",
            f"through the {words.brand(rng)} portal",
            f"in the {words.brand(rng)} app",
            *(
                "by phone",
                "by chat",
                "by e-mail",
                "by post",
                "by letter",
                "by video call",
                "by text message",
                "by fax",
            ),
            *(
                "in the app",
                "on our website",
                "at the front desk",
                "at the counter",
                "with the online form",
                "in any shop",
            ),
            *(
                "through the help desk",
                "at the service point",
                "through your dealer",
                "on the hotline",
                "in the members area",
            ),
        )
    )


def material(rng: Random) -> str:
    """A material or a colour and a material."""
    base = rng.choice(words.MATERIALS)
    return base if rng.random() < 0.5 else f"{rng.choice(words.COLOURS)} {base}"


def amount(rng: Random) -> str:
    """A weight, length, volume or count with its unit."""
    unit = rng.choice(
        (
            "kg",
            "g",
            "cm",
            "m",
            "km",
            "litres",
            "ml",
            "watts",
            "volts",
            "pages",
            "items",
            "people",
            "pieces",
            "points",
            "GB",
            "seats",
        )
    )
    return f"{words.whole(rng, 500)} {unit}"


def permission(rng: Random) -> str:
    """A yes-or-no policy."""
    return rng.choice(
        (
            "allowed",
            "not allowed",
            "allowed",
            "not allowed",
            "included",
            "not included",
            "possible",
            "not possible",
        )
    )


def level(rng: Random) -> str:
    """A named tier or group."""
    return rng.choice(
        (
            (
                f"the {rng.choice(words.NAME_WORDS)} {rng.choice(('plan', 'group', 'team', 'tier', 'class', 'level'))}"
            ),
            (
                f"the {words.coined(rng)} {rng.choice(('plan', 'group', 'team', 'tier', 'class', 'level'))}"
            ),
            f"plan {rng.choice('ABCDEFG')}",
            f"class {rng.randint(1, 9)}",
        )
    )


MAKERS: dict[str, Callable[[Random], str]] = {
    "duration": duration,
    "money": money,
    "clock": clock,
    "hours": hours,
    "day": day,
    "percent": percent,
    "place": place,
    "channel": channel,
    "material": material,
    "amount": amount,
    "permission": permission,
    "level": level,
    "person": words.person,
    "code": words.code,
    "email": words.email,
    "phone": words.phone,
    "name": words.model_name,
    "colour": lambda rng: rng.choice(words.COLOURS),
    "action": words.action,
}


def value(rng: Random, kind: str) -> str:
    """A fresh value of ``kind``, one of ``MAKERS``."""
    return MAKERS[kind](rng)
