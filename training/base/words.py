"""Word lists and makers of invented names, codes and values.

Every maker takes a ``random.Random`` and returns text: the corpus is a pure function of its seed.
Names are built from syllables as well as from words, so that copying an unseen name is a skill
the model needs on every page, not a list it can learn by heart.
"""

from random import Random

ONSETS = (  # noqa: SIM905
    "b br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sc sh sk sl sm sn sp st"
    " str t th tr v w y z zh"
).split()
VOWELS = "a e i o u a e i o u ai au ea ee ia ie io oa oo ou ue".split()  # noqa: SIM905
CODAS = [
    "",
    "",
    "",
    "",
    *"b ck d g k l ll lm ln m n nd ng nk nt p r rd rk rn rt s ss st t th v x z".split(),  # noqa: SIM905
]
NAME_ENDS = (  # noqa: SIM905
    "a ex ia ix io is on or um us ara elle ero eta ica ida ino ora osa ova well ton ford field mont"
    " wick berg stead haven mere gate port land dale brook crest"
).split()
NAME_WORDS = (  # noqa: SIM905
    "amber anchor apple arrow ash aspen atlas badger bamboo basil bay beacon birch bishop blossom"
    " blue bridge bright bronze canyon cedar chapel cherry cliff clover cobalt comet copper coral"
    " crane crown crystal daisy dawn delta desert dove eagle ember falcon feather fern finch fir"
    " fox garnet ginger glacier gold granite grove harbour hawk hazel heather heron hill holly"
    " honey indigo iris iron island ivory jade jasmine juniper lake lantern lark laurel lavender"
    " leaf lemon lily lime linden lion lotus lunar lynx maple marble meadow mint mist moon moss"
    " mountain oak ocean olive onyx opal orange orchid otter owl palm panda panther pearl pepper"
    " pilot pine pioneer planet plum pond poppy prairie quail quartz rain raven red reef ridge"
    " river robin rose ruby saffron sage salmon sand sapphire shadow silver sky snow solar sparrow"
    " spruce star stone storm summer sun swan swift thistle tiger timber topaz tulip valley velvet"
    " violet walnut wave west whale willow wind winter wolf wren"
).split()
FIRST_NAMES = (  # noqa: SIM905
    "Ada Alan Alice Amir Ana Anders Anita Anton Aya Ben Bianca Boris Carla Carlos Chen Clara Dana"
    " David Diego Dora Edgar Elena Elif Emil Emma Erik Eva Farid Fatima Felix Finn Fiona Frida"
    " Georg Grace Hana Hans Hugo Ida Igor Ines Ivan Jack Jan Jana John Jonas Julia Kai Karim Kate"
    " Kenji Lara Lars Lea Leo Lina Lucas Lucy Luis Magda Marco Maria Marta Max Maya Mei Mia Mila"
    " Mona Nadia Nina Noah Nora Olga Oscar Pablo Paul Petra Priya Rafael Ravi Rita Rosa Ruth Sam"
    " Sara Simon Sofia Sonia Stefan Tara Theo Tom Uma Vera Victor Wei Yara Yusuf Zoe"
).split()
COLOURS = (  # noqa: SIM905
    "red blue green yellow black white grey brown purple pink orange silver gold turquoise beige"
    " cream navy maroon teal violet"
).split()
MATERIALS = (  # noqa: SIM905
    "oak pine steel aluminium glass cotton wool linen leather plastic ceramic rubber bamboo copper"
    " paper stone silk velvet cork felt"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
CURRENCIES = ("{} euros", "${}", "£{}", "€{}", "{} dollars", "{} crowns", "{} pounds", "{} francs")
NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)

VERBS = (  # noqa: SIM905
    "check clean replace reset unplug remove tighten loosen open close refill rinse shake warm cool"
    " dry inspect turn adjust lift lower push press swap measure empty align charge update restart"
    " wipe drain cover lock unlock photograph weigh label scan sign print send bring return pack"
    " wrap book cancel confirm move fold unfold"
).split()
PARTS = (  # noqa: SIM905
    "battery,cable,button,lid,handle,filter,hose,lamp,sensor,fuse,plug,socket,knob,belt,wheel,spring,drawer,door,screen,panel,dial,switch,cap,valve,pump,fan,tray,blade,brush,motor,hinge,strap,zip,seat,pedal,chain,tank,nozzle,remote,adapter,antenna,speaker,bulb,thermostat,lens,cover,seal,screw,bracket,shelf,wire,frame,memory"
    " card,power cord,control panel,back plate,front cover,water tank,dust box,base unit,status"
    " light,side panel,key card,charging dock,app,software,order"
    " form,ticket,receipt,badge,label,parcel,account,password,booking,invoice"
).split(",")
MANNERS = (
    "for {n} seconds",
    "for {n} minutes",
    "twice",
    "{n} times",
    "with a soft cloth",
    "with warm water",
    "by hand",
    "before you start",
    "after one hour",
    "overnight",
    "gently",
    "slowly",
    "with the small key",
    "until it clicks",
    "in the settings",
    "in the app",
    "at the counter",
    "under the lid",
    "on a flat table",
    "with a dry brush",
    "in the morning",
    "and wait {n} minutes",
    "and try again",
    "and call us",
    "and send us a photo",
    "from the back",
    "in a cool room",
    "with fresh batteries",
    "and keep the receipt",
    "and write down the code",
    "as soon as you can",
)
SYMPTOMS = (
    "is broken",
    "does not work",
    "is stuck",
    "makes a strange noise",
    "is leaking",
    "is too hot",
    "is too cold",
    "does not turn on",
    "will not start",
    "will not close",
    "will not open",
    "keeps stopping",
    "is blinking",
    "is missing",
    "is scratched",
    "is cracked",
    "smells burnt",
    "is very loud",
    "is very slow",
    "is loose",
    "turns itself off",
    "shows an error",
    "is dirty",
    "came off",
    "does not charge",
    "is wet",
    "has lost its colour",
    "does not respond",
    "freezes",
    "does not connect",
    "is bent",
    "is torn",
    "arrived damaged",
    "is late",
    "is the wrong size",
    "was never delivered",
    "is empty",
    "vibrates",
    "flickers",
    "drips",
    "squeaks",
    "is jammed",
    "has no signal",
    "loses power",
    "runs out too fast",
    "is out of date",
    "cannot be read",
    "has faded",
)


def syllable(rng: Random) -> str:
    """One invented syllable in lower case."""
    return rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)


def coined(rng: Random) -> str:
    """An invented word such as ``Trenoka``, capitalised."""
    stem = "".join(syllable(rng) for _ in range(rng.choice((1, 1, 1, 2, 2))))
    if rng.random() < 0.5 or len(stem) < 4:
        stem += rng.choice(NAME_ENDS)
    return stem[:12].capitalize()


def brand(rng: Random) -> str:
    """An invented brand or place name of one or two words."""
    roll = rng.random()
    if roll < 0.55:
        return coined(rng)
    if roll < 0.75:
        return f"{rng.choice(NAME_WORDS).capitalize()} {rng.choice(NAME_WORDS).capitalize()}"
    if roll < 0.9:
        return f"{rng.choice(NAME_WORDS).capitalize()}{rng.choice(NAME_ENDS)}"
    return f"{coined(rng)} & {coined(rng)}"


def model_name(rng: Random) -> str:
    """The name of a product or service of an invented line."""
    roll = rng.random()
    head = coined(rng) if rng.random() < 0.6 else rng.choice(NAME_WORDS).capitalize()
    if roll < 0.4:
        return head
    if roll < 0.65:
        return f"{head} {rng.choice((1, 2, 3, 4, 5, 7, 9, 10, 20, 40, 50, 80, 100, 200, 300, 500, 700, 900))}"
    if roll < 0.8:
        return f"{head} {rng.choice(('Plus', 'Mini', 'Pro', 'Max', 'Lite', 'Home', 'Air', 'Go', 'One', 'Duo', 'Classic'))}"
    if roll < 0.92:
        return f"{head} {rng.choice(NAME_WORDS).capitalize()}"
    return f"{rng.choice('ABCDEFGHKLMNPRSTVXZ')}{rng.choice(('', '-', ' '))}{rng.randint(1, 999)}"


def person(rng: Random) -> str:
    """A first name, or a first name and an invented family name."""
    first = rng.choice(FIRST_NAMES)
    return first if rng.random() < 0.4 else f"{first} {coined(rng)}"


def code(rng: Random) -> str:
    """An order number, ticket number or error code."""
    letters = "".join(
        rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))
    )
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 6)))
    return f"{letters}{rng.choice(('', '-', '-'))}{digits}" if letters else digits


def email(rng: Random) -> str:
    """An address under the reserved domain ``.example``."""
    desk = rng.choice(
        ("help", "care", "service", "info", "desk", "support", "hello", "repairs", "team", "office")
    )
    return f"{desk}@{coined(rng).lower()}.example"


def phone(rng: Random) -> str:
    """An invented telephone number in one of three layouts."""
    groups = rng.choice(((3, 4), (4, 3, 3), (2, 2, 2, 2)))
    return " ".join("".join(rng.choice("0123456789") for _ in range(size)) for size in groups)


def whole(rng: Random, top: int = 120) -> int:
    """A whole number from 1 to about ``top``; small ones and round ones are frequent, as in
    policies.
    """
    if rng.random() < 0.5:
        return rng.choice(
            (
                1,
                2,
                3,
                4,
                5,
                6,
                7,
                8,
                9,
                10,
                12,
                14,
                15,
                18,
                20,
                21,
                24,
                25,
                28,
                30,
                36,
                40,
                45,
                48,
                50,
                60,
                72,
                90,
            )
        )
    return rng.randint(1, top)


def action(rng: Random) -> str:
    """An instruction in the imperative, without a capital or a full stop: ``tighten the hinge by
    hand``.
    """
    text = f"{rng.choice(VERBS)} the {rng.choice(PARTS)}"
    if rng.random() < 0.7:
        text += " " + rng.choice(MANNERS).format(n=rng.choice((2, 3, 5, 10, 15, 20, 30)))
    if rng.random() < 0.2:
        text += f" and {rng.choice(VERBS)} the {rng.choice(PARTS)}"
    return text


def trouble(rng: Random) -> str:
    """A complaint as a clause about a part: ``the hinge squeaks``."""
    return f"the {rng.choice(PARTS)} {rng.choice(SYMPTOMS)}"
