"""Dialogues without facts: greetings, thanks, worries, clarifying questions, plain sentences about
daily life.
"""

from random import Random

from training.base import phrasing, words
from training.base.documents import Messages, message
from training.base.domains import DOMAINS
from training.base.faults import FAULTS, complaint
from training.base.worlds import CLOSINGS, MOODS, OPENINGS

GREETINGS = (
    "Hi",
    "Hello",
    "Good morning",
    "Hey there",
    "Hello, anybody there?",
    "Good evening",
    "hi",
    "hello!",
    "Hi, is this support?",
    "Are you there?",
    "Good day",
)
WELCOMES = (
    "Hello! How can I help you today?",
    "Hi there, what can I do for you?",
    "Good day, how may I help?",
    "Welcome! What would you like to know?",
    "Hello, you have reached support. What is it about?",
    "Hi! Tell me how I can help.",
    "Hello and welcome. How can we help?",
)
THANKS = (
    "Thanks!",
    "Thank you so much.",
    "Great, that helped.",
    "Perfect, thanks.",
    "ok thanks",
    "You are the best!",
    "That solved it.",
    "Cheers, bye",
    "Wonderful.",
    "Super, thank you.",
)
REPLIES = (
    "You are welcome!",
    "Glad I could help.",
    "Any time. Have a nice day!",
    "My pleasure. Is there anything else?",
    "Happy to help. Goodbye!",
    "No problem at all.",
    "With pleasure. Take care!",
    "It was nice to talk to you.",
    "Good to hear. All the best!",
)
ANGER = (
    "This is a disgrace.",
    "I am very unhappy with your service.",
    "I have been waiting for an hour!",
    "Nobody answers my letters.",
    "I want my money back.",
    "You never reply.",
    "This is the third time it fails.",
    "I am really angry.",
    "Your service is a joke.",
    "I want to speak to your boss.",
    "I feel let down.",
)
CALMING = (
    "I am very sorry about that. Let me see what I can do.",
    "I understand that this is annoying. I will help you now.",
    "Please accept our apologies. What happened exactly?",
    "I am sorry that you had to wait. How can I help?",
    "That should not happen. I will pass it on to the team.",
    "Thank you for telling us. We will do better.",
    "I hear you, and I am sorry. Could you give me your order number?",
    "I understand. Let us sort this out together.",
)
CLARIFY = (
    "Which product is it about?",
    "Could you tell me the model, please?",
    "Can you tell me a little more?",
    "What is the name of the item?",
    "When did you buy it?",
    "Could you give me the order number?",
    "What exactly happens?",
    "Which one do you mean?",
    "Since when does this happen?",
    "Did you see any message?",
)
VAGUE = (
    "It does not work.",
    "I have a problem.",
    "Something is wrong.",
    "It is broken.",
    "I need help.",
    "Help!",
    "I have a question about my order.",
    "What now?",
    "How long does it take?",
    "How much is it?",
    "Is it covered?",
    "Can I return it?",
    "Where is it?",
    "When do you open?",
    "My thing is kaput.",
)
WHO = (
    "Who are you?",
    "Are you a person?",
    "What can you do?",
    "Am I talking to a machine?",
    "What are you?",
)
SELF = (
    "I am an assistant that answers questions of customers.",
    "I am a small language model that helps with questions.",
    "I am a digital assistant. I can look things up and explain them.",
    "I am the assistant of this desk and I answer questions.",
    "I am a computer program that helps customers.",
)
OFF_TOPIC = (
    "Tell me a joke.",
    "What do you think of the weather?",
    "Who will win the match?",
    "Write my homework.",
    "What is the meaning of life?",
    "Sing a song.",
    "Give me a stock tip.",
)
DECLINES = (
    "I am sorry, I can only help with questions about our service.",
    "That is outside of what I can do. Is there something about our service I can help with?",
    "I would rather stick to questions about your order.",
    "I cannot help with that, but I am happy to answer questions about our service.",
)
DAILY = (
    "{p} went to the {k} in {b} on {d} because the {i} {s}.",
    "On {d}, {p} asked the {k} for a new {i}.",
    "The {k} in {b} has a {i} for everybody.",
    "{p} and {q} talk about a {i}. {p} says it {s}. {q} says: just {a}.",
    "When a {i} {s}, people often {a}.",
    "A {k} answers many questions about every {i}.",
    "At the {k}, {p} {v} the {i} and went home.",
    "It took {t} until the {i} of {p} came back from the {k}.",
    "{p} paid {y} for a {i} and was happy with it.",
)
PAST = (
    "returned",
    "bought",
    "repaired",
    "cleaned",
    "lost",
    "found",
    "booked",
    "cancelled",
    "picked up",
    "ordered",
    "opened",
    "checked",
)


def daily_sentence(rng: Random) -> str:
    """One sentence about ordinary life with things, people and places."""
    domain = rng.choice(DOMAINS)
    fill = phrasing._fill(rng, "{d}|{t}|{y}").split("|")
    return rng.choice(DAILY).format(
        p=words.person(rng),
        q=words.person(rng),
        k=rng.choice(domain.organisations),
        b=words.brand(rng),
        i=rng.choice(domain.items),
        s=rng.choice(rng.choice(FAULTS).sayings),
        a=words.action(rng),
        v=rng.choice(PAST),
        d=fill[0],
        t=fill[1],
        y=fill[2],
    )


def smalltalk_document(rng: Random) -> Messages:
    """Two to six messages of polite talk, built from exchanges that follow each other naturally."""
    domain = rng.choice(DOMAINS)
    item = rng.choice(domain.items)
    messages: Messages = []
    if rng.random() < 0.3:
        organisation = words.brand(rng)
        messages.append(
            message(
                "system",
                f"You are the assistant of {organisation}, a {rng.choice(domain.organisations)}.",
            )
        )
    exchanges = [
        (rng.choice(GREETINGS), rng.choice(WELCOMES)),
        (
            rng.choice(VAGUE),
            rng.choice(("Sorry to hear that. ", "I can help with that. ", "", ""))
            + rng.choice(CLARIFY),
        ),
        (
            phrasing.roughen(rng, complaint(rng, item, rng.choice(FAULTS))),
            f"I am sorry that your {item} gives you trouble. {rng.choice(CLARIFY)}",
        ),
        (phrasing.roughen(rng, rng.choice(ANGER)), rng.choice(CALMING)),
        (rng.choice(WHO), rng.choice(SELF)),
        (rng.choice(OFF_TOPIC), rng.choice(DECLINES)),
        (rng.choice(THANKS), rng.choice(REPLIES)),
    ]
    chosen = sorted(rng.sample(range(len(exchanges)), rng.choice((1, 2, 2, 3))))
    for number in chosen:
        messages += [
            message("user", exchanges[number][0]),
            message("assistant", exchanges[number][1]),
        ]
    return messages


def rewrite_document(rng: Random) -> Messages:
    """Say it again, politely, in capitals, with a greeting, or continue a plain text."""
    sentence = daily_sentence(rng)
    fill = {"o": words.brand(rng), "w": rng.choice(MOODS)}
    opening, closing = rng.choice(OPENINGS).format(**fill), rng.choice(CLOSINGS).format(**fill)
    asked, answer = rng.choice(
        (
            ("Repeat this: {s}", "{s}"),
            ("Put this in quotes: {s}", '"{s}"'),
            ('Begin with "{o}" and then say: {s}', "{o} {s}"),
            ('Say this and end with "{c}": {s}', "{s} {c}"),
            ("Write two sentences about daily life.", "{s} {t}"),
            ("Tell me something.", "{s}"),
            ('Put "{o}" before and "{c}" after this: {s}', "{o} {s} {c}"),
        )
    )
    parts = {"s": sentence, "t": daily_sentence(rng), "o": opening, "c": closing}
    return [message("user", asked.format(**parts)), message("assistant", answer.format(**parts))]
