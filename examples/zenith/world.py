"""The facts of Zenith, an invented electronics maker, before and after its world changes.

Everything here is made up. A ``World`` is plain data: which products there are, how long each is
covered, where its owners are helped, and what to try first for each fault.
"""

from dataclasses import dataclass

FAULTS = ("charge", "noise", "heat", "connection", "crack", "button")
CHANNELS = ("chat", "phone", "e-mail", "video call")
OPENING = "Zenith care, gladly!"
CLOSING = "Keep shining!"


@dataclass(frozen=True)
class Product:
    """One product: ``term_months`` of warranty, help by ``channel``, and the ``line`` whose steps
    apply.
    """

    name: str
    kind: str
    line: str
    term_months: int
    channel: str


@dataclass(frozen=True)
class World:
    """Zenith at one time: products by name, and the first step by ``(line, fault)``."""

    products: tuple[Product, ...]
    steps: dict[tuple[str, str], str]

    def product(self, name: str) -> Product | None:
        """The product called ``name`` in any spelling of case, or None."""
        return next((p for p in self.products if p.name.lower() == name.lower()), None)


HOME = (
    Product("Aurora", "speaker", "home", 24, "chat"),
    Product("Lumen", "lamp", "home", 36, "e-mail"),
    Product("Nimbus", "router", "home", 18, "phone"),
    Product("Quasar", "projector", "home", 12, "video call"),
    Product("Solstice", "clock", "home", 30, "chat"),
)
TRAVEL = (
    Product("Pulsar", "headset", "travel", 12, "phone"),
    Product("Meridian", "watch", "travel", 24, "e-mail"),
    Product("Vector", "charger", "travel", 6, "chat"),
)
# The changed policy: travel products are covered for twice as long, and all of them are helped by
# video call.
TRAVEL_CHANGED = (
    Product("Pulsar", "headset", "travel", 24, "video call"),
    Product("Meridian", "watch", "travel", 48, "video call"),
    Product("Vector", "charger", "travel", 12, "video call"),
)
# The new line, with steps of its own.
STUDIO = (
    Product("Umbra", "camera", "studio", 36, "phone"),
    Product("Eclipse", "drone", "studio", 18, "e-mail"),
    Product("Zodiac", "microphone", "studio", 30, "chat"),
)
STEPS_BEFORE = {
    ("home", "charge"): "swap the wall plug",
    ("home", "noise"): "lower the bass level",
    ("home", "heat"): "clean the air vents",
    ("home", "connection"): "restart the home hub",
    ("home", "crack"): "mail us a picture",
    ("home", "button"): "press the reset pin",
    ("travel", "charge"): "charge it for two hours",
    ("travel", "noise"): "load the latest patch",
    ("travel", "heat"): "leave it in the shade",
    ("travel", "connection"): "clear the pairing list",
    ("travel", "crack"): "visit a partner shop",
    ("travel", "button"): "wipe it with a dry cloth",
}
STEPS_ADDED = {
    ("studio", "charge"): "change the breaker",
    ("studio", "noise"): "check the ground cable",
    ("studio", "heat"): "pause for ten minutes",
    ("studio", "connection"): "turn the aerial",
    ("studio", "crack"): "order the repair kit",
    ("studio", "button"): "run the key test",
}


def old_world() -> World:
    """Zenith before the change: eight products in two lines."""
    return World(HOME + TRAVEL, dict(STEPS_BEFORE))


def new_world() -> World:
    """Zenith after it: the travel line's warranty and channel are different, and the studio line is
    on sale.
    """
    return World(HOME + TRAVEL_CHANGED + STUDIO, STEPS_BEFORE | STEPS_ADDED)
