"""Questions about what everybody knows, whose answers can be checked: what a base could do before
it was trained on a task. Only those that the base itself gets right say anything about forgetting.
"""

from __future__ import annotations

from training.evaluation.probe_row import ProbeRow

_CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo",
    "Egypt": "Cairo", "Russia": "Moscow", "Greece": "Athens", "Austria": "Vienna",
    "Portugal": "Lisbon", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "China": "Beijing", "India": "New Delhi", "Cuba": "Havana", "Peru": "Lima",
    "Ireland": "Dublin", "Canada": "Ottawa", "Kenya": "Nairobi",
}  # fmt: skip
_SUMS = (
    "7 + 5 = 12", "9 + 8 = 17", "20 + 30 = 50", "15 + 6 = 21", "40 + 2 = 42", "11 + 11 = 22",
    "10 - 7 = 3", "18 - 9 = 9", "50 - 20 = 30", "100 - 1 = 99", "6 * 7 = 42", "5 * 5 = 25",
    "3 * 8 = 24", "10 * 10 = 100", "20 / 4 = 5", "81 / 9 = 9",
)  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "day": "night", "fast": "slow", "happy": "sad",
    "rich": "poor", "early": "late", "strong": "weak", "light": "dark", "full": "empty",
    "first": "last",
}  # fmt: skip
_PLURALS = {
    "cat": "cats", "child": "children", "mouse": "mice", "foot": "feet", "woman": "women",
    "tooth": "teeth", "baby": "babies", "box": "boxes",
}  # fmt: skip
_PAST = {
    "go": "went", "see": "saw", "eat": "ate", "run": "ran", "write": "wrote", "take": "took",
    "buy": "bought", "speak": "spoke",
}  # fmt: skip
_WORDS = {
    ("thank you", "French"): "merci", ("hello", "Spanish"): "hola",
    ("thank you", "Spanish"): "gracias", ("good morning", "French"): "bonjour",
    ("thank you", "Italian"): "grazie", ("thank you", "German"): "danke",
    ("yes", "French"): "oui", ("water", "Spanish"): "agua",
}  # fmt: skip
_FACTS = (
    ("Which planet do we live on?", "Earth"),
    ("What is the chemical formula of water?", "H2O"),
    ("What is the chemical symbol of gold?", "Au"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("Which is the largest ocean?", "Pacific"),
    ("What colour is fresh grass?", "green"),
    ("What colour is a ripe banana?", "yellow"),
    ("What colour is fresh snow?", "white"),
    ("What is frozen water called?", "ice"),
    ("Which animal barks?", "dog"),
    ("What do bees make that people eat?", "honey"),
    ("Who painted the Mona Lisa?", "Leonardo"),
    ("Which language is spoken in Brazil?", "Portuguese"),
    ("What is the currency of Japan?", "yen"),
    ("Who was the first president of the United States?", "Washington"),
    ("Which is the highest mountain in the world?", "Everest"),
    ("At the centre of our solar system is which star?", "Sun"),
    ("Which month comes after March?", "April"),
    ("Which day comes after Monday?", "Tuesday"),
    ("Which season comes after winter?", "spring"),
    ("What is a young dog called?", "puppy"),
    ("What is a young cat called?", "kitten"),
    ("Which gas do people need to breathe?", "oxygen"),
    ("Which force makes things fall to the ground?", "gravity"),
    ("On which continent is Egypt?", "Africa"),
    ("On which continent is Brazil?", "South America"),
)
_TO_REPEAT = (
    "lantern", "harvest", "silver", "garden", "thunder", "blanket", "window", "orchard",
)  # fmt: skip


def general_questions() -> list[ProbeRow]:
    """Return the questions as raw rows; always the same."""
    found = [
        (f"What is the capital of {country}?", f"The capital of {country} is {city}.", city)
        for country, city in _CAPITALS.items()
    ]
    for each in _SUMS:
        asked, _, result = each.rpartition(" = ")
        found.append((f"What is {asked}?", f"{each}.", result))
    found += [
        (f'What is the opposite of "{word}"?', f'The opposite of "{word}" is "{other}".', other)
        for word, other in _OPPOSITES.items()
    ]
    found += [
        (f'What is the plural of "{word}"?', f'The plural of "{word}" is "{many}".', many)
        for word, many in _PLURALS.items()
    ]
    found += [
        (f'What is the past tense of "{verb}"?', f'The past tense of "{verb}" is "{past}".', past)
        for verb, past in _PAST.items()
    ]
    found += [
        (f'How do you say "{text}" in {language}?', f'In {language} it is "{word}".', word)
        for (text, language), word in _WORDS.items()
    ]
    found += [
        (f'Repeat this word and write nothing else: "{word}"', word, word) for word in _TO_REPEAT
    ]
    found += [(question, f"It is {answer}.", answer) for question, answer in _FACTS]
    return [{"prompt": asked, "completion": said, "checks": [fact]} for asked, said, fact in found]
