"""What can be asked about a thing: attributes with their kinds, questions and statements.

Each attribute has natural questions of its own; each kind adds questions that fit any label.
``{i}`` stands for the item, ``{l}`` for the label and ``{v}`` for the value.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """One askable property of an item."""

    label: str
    kind: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]


GENERIC_QUESTIONS = (
    "What is the {l} of the {i}?",
    "What is the {l} for the {i}?",
    "Can you tell me the {l} of the {i}?",
    "Please tell me the {l} for the {i}.",
    "{i}: {l}?",
    "I need the {l} of the {i}.",
    "I would like to know the {l} of my {i}.",
    "Do you know the {l} for the {i}?",
    "I am looking for the {l} of the {i}.",
    "Which {l} does the {i} have?",
    "I have a {i}. What is its {l}?",
    "About the {i}, what is the {l}?",
    "The {i} and its {l}, please.",
    "Could you look up the {l} of the {i}?",
    "My friend asked about the {l} of the {i}.",
    "Is there a {l} for the {i}?",
    "Remind me of the {l} of the {i}.",
    "We got the {i} recently. What about the {l}?",
)
GENERIC_STATEMENTS = (
    "The {l} of the {i} is {v}.",
    "The {l} for the {i} is {v}.",
    "For the {i}, the {l} is {v}.",
    "The {i} has a {l} of {v}.",
    "{i}: {l} {v}.",
    "It is {v}.",
    "The {l} is {v}.",
    "Its {l} is {v}.",
    "With the {i}, the {l} is {v}.",
)
KIND_QUESTIONS = {
    "duration": (
        "How long is the {l} of the {i}?",
        "How long is the {l} for a {i}?",
        "How long does the {l} last on the {i}?",
    ),
    "money": (
        "How much is the {l} for the {i}?",
        "How much do I pay as {l} for the {i}?",
        "What do you charge as {l} on the {i}?",
    ),
    "clock": ("When is the {l} of the {i}?", "At what time is the {l} for the {i}?"),
    "hours": ("What are the {l} of the {i}?", "When are the {l} for the {i}?"),
    "day": ("When is the {l} of the {i}?", "On which day is the {l} for the {i}?"),
    "percent": ("How high is the {l} on the {i}?", "How many percent is the {l} for the {i}?"),
    "place": ("Where is the {l} of the {i}?", "Where do I find the {l} for the {i}?"),
    "person": (
        "Who is the {l} of the {i}?",
        "Who is {l} for the {i}?",
        "What is the name of the {l} for the {i}?",
    ),
    "amount": ("How big is the {l} of the {i}?", "How much is the {l} of the {i}?"),
    "level": ("Which {l} does the {i} belong to?",),
}


def _a(label: str, kind: str, questions: str, statements: str) -> Attribute:
    """Build an attribute from ``|``-separated phrasings."""
    return Attribute(label, kind, tuple(questions.split("|")), tuple(statements.split("|")))


ATTRIBUTES = {
    a.label: a
    for a in (
        _a(
            "warranty",
            "duration",
            "How long is the {i} covered?|For how long is my {i} under warranty?|How long do I have"
            " a guarantee on the {i}?|If my {i} breaks, how long am I protected?|Until when does"
            " the guarantee for the {i} run?",
            "The {i} is covered for {v}.|Your {i} has a warranty of {v}.|The {i} comes with {v} of"
            " warranty.|The guarantee on the {i} lasts {v}.",
        ),
        _a(
            "return window",
            "duration",
            "How long can I return the {i}?|Until when can I send back the {i}?|I do not like the"
            " {i}. How long do I have to give it back?|How much time do I have to return my {i}?",
            "You can return the {i} within {v}.|Returns of the {i} are accepted for {v}.|You have"
            " {v} to send back the {i}.",
        ),
        _a(
            "delivery time",
            "duration",
            "How long does the {i} take to arrive?|When will my {i} be here?|How soon do you"
            " deliver the {i}?|How long must I wait for the {i}?",
            "The {i} arrives within {v}.|Delivery of the {i} takes {v}.|Please allow {v} for the"
            " {i} to arrive.",
        ),
        _a(
            "loan period",
            "duration",
            "How long may I keep the {i}?|For how long can I borrow the {i}?|When do I have to"
            " bring back the {i}?|How long is the {i} mine?",
            "You may keep the {i} for {v}.|The {i} can be borrowed for {v}.|Loans of the {i} last"
            " {v}.",
        ),
        _a(
            "repair time",
            "duration",
            "How long does it take to fix the {i}?|How long will the repair of my {i} take?|When do"
            " I get my {i} back from the workshop?",
            "We repair the {i} within {v}.|A repair of the {i} takes {v}.|Fixing the {i} takes"
            " {v}.",
        ),
        _a(
            "notice period",
            "duration",
            "How early must I cancel the {i}?|How long before can I cancel the {i}?|How much notice"
            " do I have to give for the {i}?",
            "You can cancel the {i} up to {v} before.|The {i} needs a notice of {v}.|Please cancel"
            " the {i} at least {v} ahead.",
        ),
        _a(
            "battery life",
            "duration",
            "How long does the {i} run on one charge?|How long will the {i} last without power?",
            "The {i} runs for {v} on one charge.|One charge keeps the {i} going for {v}.",
        ),
        _a(
            "length",
            "duration",
            "How long does the {i} go on?|How much time does the {i} take?|How long is the {i}?",
            "The {i} takes {v}.|The {i} lasts {v}.",
        ),
        _a(
            "price",
            "money",
            "How much is the {i}?|What does the {i} cost?|How much do I pay for a {i}?|What would a"
            " {i} set me back?|How expensive is the {i}?",
            "The {i} costs {v}.|The price of the {i} is {v}.|You pay {v} for the {i}.",
        ),
        _a(
            "late fee",
            "money",
            "What happens if I am late with the {i}?|How much is it if I am late with the {i}?|What"
            " do I owe when the {i} is overdue?",
            "If you are late with the {i}, you pay {v}.|The late fee for the {i} is {v}.|An overdue"
            " {i} costs {v}.",
        ),
        _a(
            "deposit",
            "money",
            "How much do I leave as a deposit for the {i}?|What do I pay in advance for the {i}?",
            "We ask for a deposit of {v} on the {i}.|The deposit for the {i} is {v}.",
        ),
        _a(
            "shipping fee",
            "money",
            "How much is it to send the {i}?|What does postage for the {i} come to?|How much for"
            " shipping the {i}?",
            "Shipping the {i} costs {v}.|We send the {i} for {v}.",
        ),
        _a(
            "discount",
            "percent",
            "How much do I save on the {i}?|Is there something off the price of the {i}?|How much"
            " cheaper is the {i} for members?",
            "You save {v} on the {i}.|There is a discount of {v} on the {i}.|Members get {v} off"
            " the {i}.",
        ),
        _a(
            "opening hours",
            "hours",
            "When is the {i} open?|When can I visit the {i}?|At what times can I come to the {i}?",
            "The {i} is open {v}.|You can visit the {i} {v}.|Opening hours of the {i} are {v}.",
        ),
        _a(
            "start time",
            "clock",
            "When does the {i} start?|At what time does the {i} begin?|How late does the {i}"
            " start?",
            "The {i} starts at {v}.|The {i} begins at {v}.",
        ),
        _a(
            "closing time",
            "clock",
            "When does the {i} close?|Until what time can I use the {i}?|How late is the {i} open?",
            "The {i} closes at {v}.|You can use the {i} until {v}.",
        ),
        _a(
            "check-in time",
            "clock",
            "When can I check in for the {i}?|From what time may I arrive for the {i}?",
            "Check-in for the {i} is at {v}.|You can check in for the {i} from {v}.",
        ),
        _a(
            "meeting day",
            "day",
            "On which day is the {i}?|When is the {i} on?|Which day should I come for the {i}?",
            "The {i} is on {v}.|Please come on {v} for the {i}.",
        ),
        _a(
            "deadline",
            "day",
            "By when must I apply for the {i}?|What is the last day for the {i}?|Until which date"
            " can I sign up for the {i}?",
            "The last day for the {i} is {v}.|Please apply for the {i} by {v}.|You can sign up for"
            " the {i} until {v}.",
        ),
        _a(
            "location",
            "place",
            "Where is the {i}?|Where do I find the {i}?|How do I get to the {i}?|Where must I go"
            " for the {i}?",
            "The {i} is at {v}.|You find the {i} at {v}.|Please go to {v} for the {i}.",
        ),
        _a(
            "pick-up point",
            "place",
            "Where can I collect the {i}?|Where do I pick up my {i}?|At which place do you hand out"
            " the {i}?",
            "You can collect the {i} at {v}.|Please pick up the {i} at {v}.",
        ),
        _a(
            "contact",
            "channel",
            "How do I reach you about the {i}?|How can I contact somebody about my {i}?|Who do I"
            " turn to with the {i}?|Where do I get help with the {i}?|What is the best way to talk"
            " to you about the {i}?",
            "You can reach us {v} about the {i}.|For the {i}, please contact us {v}.|Help with the"
            " {i} is given {v}.|Please write or speak to us {v} about the {i}.",
        ),
        _a(
            "booking channel",
            "channel",
            "How do I book the {i}?|How can I order the {i}?|Where can I reserve the {i}?|How do I"
            " sign up for the {i}?",
            "You can book the {i} {v}.|Please reserve the {i} {v}.|The {i} is booked {v}.",
        ),
        _a(
            "person in charge",
            "person",
            "Who looks after the {i}?|Who is responsible for the {i}?|Who runs the {i}?|Whom should"
            " I ask for about the {i}?",
            "{v} looks after the {i}.|{v} is in charge of the {i}.|Please ask for {v} about the"
            " {i}.",
        ),
        _a(
            "reference code",
            "code",
            "Which code do I enter for the {i}?|What number do I give for the {i}?|Which code"
            " belongs to the {i}?",
            "The code for the {i} is {v}.|Please enter {v} for the {i}.|Use the code {v} for the"
            " {i}.",
        ),
        _a(
            "e-mail address",
            "email",
            "Where do I write about the {i}?|To which address do I mail about the {i}?",
            "Please write to {v} about the {i}.|The address for the {i} is {v}.",
        ),
        _a(
            "phone number",
            "phone",
            "Which number do I call for the {i}?|What number do I dial about the {i}?",
            "Please call {v} about the {i}.|The number for the {i} is {v}.",
        ),
        _a(
            "colour",
            "colour",
            "Which colour is the {i}?|What colour does the {i} come in?",
            "The {i} is {v}.|The {i} comes in {v}.",
        ),
        _a(
            "material",
            "material",
            "What is the {i} made of?|Which material is used for the {i}?",
            "The {i} is made of {v}.|We make the {i} from {v}.",
        ),
        _a(
            "weight limit",
            "amount",
            "How much can the {i} carry?|What is the most I can put in the {i}?",
            "The {i} takes up to {v}.|The limit of the {i} is {v}.",
        ),
        _a(
            "size",
            "amount",
            "How big is the {i}?|How large is the {i}?",
            "The {i} measures {v}.|The size of the {i} is {v}.",
        ),
        _a(
            "pets",
            "permission",
            "Can I bring my dog to the {i}?|Are animals okay in the {i}?|May my cat come along to"
            " the {i}?",
            "Pets are {v} with the {i}.|For the {i}, pets are {v}.",
        ),
        _a(
            "breakfast",
            "permission",
            "Do I get breakfast with the {i}?|Is food part of the {i}?",
            "Breakfast is {v} with the {i}.|With the {i}, breakfast is {v}.",
        ),
        _a(
            "exchange",
            "permission",
            "Can I swap the {i}?|May I change my {i} for another one?",
            "An exchange of the {i} is {v}.|Exchanging the {i} is {v}.",
        ),
        _a(
            "plan",
            "level",
            "Which group is the {i} in?|What plan is my {i} on?",
            "The {i} belongs to {v}.|Your {i} is part of {v}.",
        ),
        _a(
            "spare part",
            "name",
            "Which spare part fits the {i}?|What do I order to repair the {i}?",
            "The part that fits the {i} is the {v}.|Please order the {v} for the {i}.",
        ),
        _a(
            "first step",
            "action",
            "What should I do first with the {i}?|How do I begin with the {i}?|What is the first"
            " thing to do with a new {i}?",
            "With the {i}, please {v} first.|Please {v} before you use the {i}.",
        ),
        _a(
            "care advice",
            "action",
            "How do I look after the {i}?|How should I treat my {i}?|What keeps the {i} in good"
            " shape?",
            "To look after the {i}, {v}.|For the {i} we advise you to {v}.",
        ),
    )
}
LABELS = tuple(ATTRIBUTES)
