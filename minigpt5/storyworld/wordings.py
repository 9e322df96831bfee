"""How people ask, wish and end stories, and what they ask for that is not in the world.

Every list has two parts: "train", and a third, "fresh", that no training text has, so that what is measured is
understanding and not recall.
"""

from __future__ import annotations

Wording = dict[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What is asked about one picture or more. {animal} is "the fox" or "the red fox", {a_fox} "a fox" or "a red fox".
QUESTIONS: dict[str, Wording] = {
    "animal": {
        "train": (
            "Which animal is this?",
            "What animal do you see?",
            "What kind of animal is it?",
            "Name the animal.",
            "Can you say which animal it is?",
            "Say what animal you see.",
            "Tell me which animal is here.",
            "What is this animal?",
        ),
        "fresh": (
            "Which animal can you see?",
            "Tell me what animal this is.",
            "Can you name the animal?",
            "Say which kind of animal this is.",
        ),
    },
    "animals": {
        "train": (
            "Which animals are these?",
            "What animals do you see?",
            "Which two animals are here?",
            "Name both animals.",
            "Can you say which animals you see?",
            "Say what animals these are.",
            "Tell me which two animals are here.",
            "What are these animals?",
        ),
        "fresh": (
            "Which animals can you see?",
            "Tell me what animals these are.",
            "Can you name both animals?",
            "Say which two animals you see.",
        ),
    },
    "animal there": {
        "train": (
            "Who is {side}?",
            "Which animal is {side}?",
            "What animal stands {side}?",
            "Who do you see {side}?",
            "What is the animal {side}?",
            "Tell me which animal stands {side}.",
            "Name the animal {side}.",
            "Say who stands {side}.",
        ),
        "fresh": (
            "Tell me who is {side}.",
            "Which animal do you see {side}?",
            "Can you say who stands {side}?",
            "Say who is {side}.",
        ),
    },
    "colour": {
        "train": (
            "What colour is {animal}?",
            "Which colour is {animal}?",
            "Name the colour of {animal}.",
            "What colour does {animal} have?",
            "Tell me which colour {animal} is.",
            "Say what colour {animal} has.",
            "Can you name the colour of {animal}?",
            "{animal} has which colour?",
        ),
        "fresh": (
            "Which colour does {animal} have?",
            "Tell me what colour {animal} is.",
            "Can you say which colour {animal} has?",
            "{animal} is what colour?",
        ),
    },
    "place": {
        "train": (
            "Where is {animal}?",
            "Where was this picture made?",
            "What place is this?",
            "In which place is {animal}?",
            "Tell me in which place this is.",
            "Can you say where {animal} is?",
            "Which place is this?",
            "Say what place you see.",
        ),
        "fresh": (
            "Which place do you see?",
            "Tell me where {animal} is.",
            "What place does this picture show?",
            "Say where this was made.",
        ),
    },
    "time": {
        "train": (
            "When is this?",
            "Is it day or night?",
            "What time of day is it?",
            "Which time of day do you see?",
            "Tell me when this was made.",
            "Can you say which time of day it is?",
            "Say if it is day or night.",
            "At what time is this?",
        ),
        "fresh": (
            "Tell me if it is day or night.",
            "At what time was this picture made?",
            "Which time of day is this?",
            "Can you say when this is?",
        ),
    },
    "side": {
        "train": (
            "On which side is {animal}?",
            "Which side is {animal} on?",
            "Is {animal} on the left, in the middle or on the right?",
            "At which side of the picture is {animal}?",
            "Tell me which side {animal} is on.",
            "Left, in the middle or right: where does {animal} stand?",
            "Can you say at which side {animal} stands?",
            "Does {animal} stand on the left, in the middle or on the right?",
        ),
        "fresh": (
            "Tell me on which side {animal} is.",
            "Left, middle or right: where is {animal}?",
            "On what side do you see {animal}?",
            "Say which side {animal} stands on.",
        ),
    },
    "is there": {
        "train": (
            "Is there {a_fox}?",
            "Do you see {a_fox}?",
            "Is there {a_fox} in this picture?",
            "Is {a_fox} here?",
            "Does this picture have {a_fox}?",
            "Can you find {a_fox}?",
            "Tell me: is there {a_fox}?",
            "Is {a_fox} to be seen?",
        ),
        "fresh": (
            "Can you see {a_fox}?",
            "Does the picture show {a_fox}?",
            "Yes or no: is there {a_fox}?",
            "Is {a_fox} in the picture?",
        ),
    },
    "is it so": {
        "train": (
            "Is {animal} {so}?",
            "Is it true that {animal} is {so}?",
            "{animal} is {so}: yes or no?",
            "Tell me: is {animal} {so}?",
            "Would you say {animal} is {so}?",
            "Do you see that {animal} is {so}?",
            "{animal} is {so}, is that true?",
            "{animal} is {so}, do you agree?",
        ),
        "fresh": (
            "Would you say that {animal} is {so}?",
            "Do you agree that {animal} is {so}?",
            "Yes or no: is {animal} {so}?",
            "{animal} is {so}: is it true?",
        ),
    },
    "is it now": {
        "train": (
            "Is it {time}?",
            "Is it {time} here?",
            "Is this at {time}?",
            "Was this picture made by {time}?",
            "Is it true that it is {time}?",
            "Do you see that it is {time}?",
            "It is {time}, do you agree?",
            "Does this show the {time}?",
        ),
        "fresh": (
            "Would you say it is {time}?",
            "Does this picture show the {time}?",
            "Tell me: is it {time}?",
            "It is {time}: yes or no?",
        ),
    },
    "are there two": {
        "train": (
            "Are there two animals?",
            "Do you see two animals?",
            "Are two animals in this picture?",
            "Is there more than one animal?",
            "Is it true that there are two animals?",
            "Does this picture have two animals?",
            "There are two animals, do you agree?",
            "Can you find two animals?",
        ),
        "fresh": (
            "Can you see two animals?",
            "Does the picture show two animals?",
            "Do you see more than one animal?",
            "There are two animals: yes or no?",
        ),
    },
    "count": {
        "train": (
            "How many {foxes} are there?",
            "How many {foxes} do you see?",
            "Count the {foxes}.",
            "How many {foxes} are in this picture?",
            "Tell me the number of {foxes}.",
            "Say how many {foxes} are here.",
            "How many {foxes} does this picture have?",
            "What is the number of {foxes}?",
        ),
        "fresh": (
            "How many {foxes} can you see?",
            "Tell me how many {foxes} there are.",
            "Can you count the {foxes}?",
            "How many {foxes} does the picture show?",
        ),
    },
    "which": {
        "train": (
            "Which picture shows {a_fox}?",
            "In which picture do you see {a_fox}?",
            "Where is {a_fox}: in which picture?",
            "Which one has {a_fox}?",
            "Tell me in which of them {a_fox} is.",
            "Which of the pictures has {a_fox}?",
            "Find the picture with {a_fox}.",
            "Say which one shows {a_fox}.",
        ),
        "fresh": (
            "Tell me which picture has {a_fox}.",
            "Which of them shows {a_fox}?",
            "In which of the pictures is {a_fox}?",
            "Say in which picture you see {a_fox}.",
        ),
    },
    "compare": {
        "train": (
            "What is different?",
            "Compare the two pictures.",
            "What has changed?",
            "How are these pictures different?",
            "Can you say what is different?",
            "What is not the same?",
            "Tell me what has changed.",
            "Say how the two pictures are different.",
        ),
        "fresh": (
            "Tell me what is different.",
            "What is not the same in both pictures?",
            "Can you compare these pictures?",
            "Say what has changed.",
        ),
    },
    "describe": {
        "train": (
            "Describe this in a sentence.",
            "What does this picture show?",
            "Say what you see in one sentence.",
            "Tell me about this picture.",
            "Describe the picture.",
            "Tell me what you see.",
            "Can you describe this picture?",
            "Say what this picture shows.",
        ),
        "fresh": (
            "Describe what you see.",
            "What can you see in this picture?",
            "Tell me what this picture shows.",
            "Can you say in a sentence what you see?",
        ),
    },
    "ground": {
        "train": (
            "Give the box of {thing}.",
            "Where in the picture is {thing}? Give a box.",
            "Draw a box around {thing}.",
            "Find {thing}.",
            "Tell me the box of {thing}.",
            "In which box is {thing}?",
            "Can you draw the box of {thing}?",
            "Show me {thing} by a box.",
        ),
        "fresh": (
            "Give a box around {thing}.",
            "Find the box of {thing}.",
            "Can you give the box of {thing}?",
            "Where is {thing}? Draw a box.",
        ),
    },
    "refer": {
        "train": (
            "What is in the box {box}?",
            "What is at {box}?",
            "Who or what is in {box}?",
            "Name what {box} shows.",
            "Say what is at {box}.",
            "Tell me what you see in the box {box}.",
            "What does {box} show?",
            "Can you name what is in the box {box}?",
        ),
        "fresh": (
            "What does the box {box} show?",
            "Tell me what is at {box}.",
            "Who or what is at {box}?",
            "Say what stands at {box}.",
        ),
    },
}

# What is wished for of a picture that is shown.
CHANGES: dict[str, Wording] = {
    "colour": {
        "train": (
            "Make {animal} {colour}.",
            "Paint {animal} {colour}.",
            "Now {animal} is {colour}.",
            "Show {animal} in {colour}.",
            "Let {animal} have the colour {colour}.",
            "I want to see {animal} in {colour}.",
            "Can you paint {animal} {colour}?",
            "Change {animal}: now it is {colour}.",
        ),
        "fresh": (
            "Turn {animal} {colour}.",
            "Change the colour of {animal} to {colour}.",
            "Can you make {animal} {colour}?",
            "I want {animal} to be {colour}.",
        ),
    },
    "animal": {
        "train": (
            "Make {animal} {a_fox}.",
            "Show {a_fox} in place of {animal}.",
            "Change {animal} into {a_fox}.",
            "Now {animal} is {a_fox}.",
            "Turn {animal} to {a_fox}.",
            "I want {a_fox} in place of {animal}.",
            "Can you change {animal} into {a_fox}?",
            "Put {a_fox} where {animal} is.",
        ),
        "fresh": (
            "Turn {animal} into {a_fox}.",
            "Let {animal} be {a_fox}.",
            "Can you make {animal} {a_fox}?",
            "I want {animal} to be {a_fox}.",
        ),
    },
    "place": {
        "train": (
            "Show the same {place}.",
            "Now {place}.",
            "Move {it} {to}.",
            "Make the same picture {place}.",
            "Take {it} from here {to}.",
            "I want to see the same {place}.",
            "Can you show {it} {place}?",
            "Let {it} be {place}.",
        ),
        "fresh": ("Now let it be {place}.", "Take {it} {to}.", "Can you move {it} {to}?", "I want {it} {place}."),
    },
    "time": {
        "train": (
            "Show the same {time}.",
            "Now {time}.",
            "Make it {day}.",
            "Make the same picture {time}.",
            "Turn it into {day}.",
            "I want to see the same {time}.",
            "Can you show this {time}?",
            "Change it: now it is {day}.",
        ),
        "fresh": ("Let this be {day}.", "Turn it to {day}.", "Can you make it {day}?", "I want it {time}."),
    },
    "add": {
        "train": (
            "Add {friend}.",
            "Put {friend} beside it.",
            "Show it with {friend}.",
            "Now {friend} comes too.",
            "Let {friend} come too.",
            "I want to see it with {friend}.",
            "Can you add {friend}?",
            "{friend} is with it now.",
        ),
        "fresh": (
            "Let {friend} be beside it.",
            "Show {friend} beside it.",
            "Can you put {friend} beside it?",
            "I want {friend} to come too.",
        ),
    },
    "remove": {
        "train": (
            "Remove {animal}.",
            "Take {animal} away.",
            "Show {it} without {animal}.",
            "Now {animal} is gone.",
            "Let {animal} be gone.",
            "I want to see {it} without {animal}.",
            "Can you take {animal} away?",
            "{animal} has to go.",
        ),
        "fresh": (
            "Let {animal} go.",
            "The same without {animal}.",
            "Can you remove {animal}?",
            "I want {animal} to be gone.",
        ),
    },
}

# How a picture is asked for; {scene} is a caption without its full stop, or two named animals.
WISHES: Wording = {
    "train": (
        "{scene}",
        "draw {scene}",
        "paint {scene}",
        "show me {scene}",
        "make a picture of {scene}",
        "I want to see {scene}",
        "can you paint {scene}",
        "let me have a picture of {scene}",
        "I would like to see {scene}",
        "create a picture of {scene}",
    ),
    "fresh": (
        "I would like a picture of {scene}",
        "let me see {scene}",
        "create {scene}",
        "can you draw {scene}",
        "I want a picture of {scene}",
    ),
}

# Put round what is asked, as people do who are polite.
POLITE: Wording = {
    "train": (
        "please {text}",
        "{text} please",
        "hi, {text}",
        "hello! {text}",
        "can you tell me: {text}",
        "{text} thanks",
        "hey you, {text}",
        "{text}, I thank you",
        "please would you say: {text}",
        "now please {text}",
    ),
    "fresh": (
        "hey, {text}",
        "{text} thank you",
        "would you please {text}",
        "hello, {text} please",
        "hi! {text} thanks",
    ),
}

ENDINGS: Wording = {
    "train": (
        "The {animals} {sleep}, and the story ends.",
        "{place} the {animals} {sleep}. The end.",
        "So the story of the {animals} ends {place}.",
        "Here {place} the story ends.",
    ),
    "fresh": ("The {animals} {sleep} {place}. The end.", "So the story ends {place}."),
}
END_QUESTIONS: Wording = {
    "train": (
        "How does it end?",
        "How does the story end?",
        "Tell me the end.",
        "End the story.",
        "Say how the story ends.",
        "What is its end?",
        "Bring it to an end.",
        "Can you tell me the end of it?",
    ),
    "fresh": (
        "Tell me how it ends.",
        "Bring the story to its end.",
        "Can you end the story?",
        "What is the end of the story?",
    ),
}

# What is not in the world. No word is one letter away from a word that is.
OUTSIDE: dict[str, Wording] = {
    "animal": {
        "train": _words(
            "lion tiger horse cow pig sheep goat wolf monkey snake mouse duck chicken frog fish shark whale "
            "giraffe zebra camel panda crocodile spider ant penguin kangaroo hamster donkey squirrel octopus "
            "dinosaur dragon unicorn hedgehog owl parrot swan snail leopard rhino"
        ),
        "fresh": _words(
            "crab lizard koala cheetah gorilla dolphin butterfly eagle moose otter beaver hippo lobster "
            "peacock bee ostrich seal badger lynx mole"
        ),
    },
    "colour": {
        "train": _words("black brown gray golden silver turquoise violet beige crimson magenta"),
        "fresh": ("grey", "bronze", "indigo", "scarlet", "maroon"),
    },
    "place": {
        "train": (
            "in the kitchen",
            "in space",
            "on a boat",
            "in the house",
            "at school",
            "in the jungle",
            "in a castle",
            "under water",
            "on the farm",
            "in a cave",
            "at the zoo",
            "in the garden",
            "on a bridge",
            "in the office",
            "on an island",
            "in a swamp",
            "at the airport",
            "in a museum",
            "on the roof",
            "in the bathroom",
        ),
        "fresh": (
            "in the bedroom",
            "on the planet Mars",
            "in a restaurant",
            "on a train",
            "in a shop",
            "in a stadium",
            "on a volcano",
            "at the hospital",
            "in a tunnel",
            "on a ship",
        ),
    },
    "thing": {
        "train": _words(
            "car ball hat book table house robot guitar bicycle phone cake pizza balloon umbrella lamp clock "
            "computer sword crown bottle spoon piano camera rocket airplane ladder basket kite shoe hammer"
        ),
        "fresh": _words(
            "chair violin helmet truck apple drum bucket scarf candle tractor pencil mirror banana bus flag"
        ),
    },
    "request": {
        "train": (
            "Write a poem.",
            "What is two plus two?",
            "Who are you?",
            "Tell me a joke.",
            "What is the capital of France?",
            "Translate this into German.",
            "How old are you?",
            "Sing a song.",
            "What is the weather like?",
            "Write some code.",
            "Who is the president?",
            "Give me a recipe for soup.",
            "What is the meaning of life?",
            "Help me with my homework.",
            "Play some music.",
            "How do I fix my bicycle?",
            "What is seven times six?",
            "Tell me the news.",
            "Write a letter to my boss.",
            "Where can I buy a phone?",
        ),
        "fresh": (
            "Write an essay.",
            "What is ten minus three?",
            "What is your name?",
            "What is the capital of Spain?",
            "Tell me something about history.",
            "How do I bake bread?",
            "Solve this equation.",
            "Who won the match?",
            "Translate hello into French.",
            "Book a hotel for me.",
        ),
    },
}
SORRY = {
    "animal": "Sorry, I know no such animal.",
    "colour": "Sorry, I know no such colour.",
    "place": "Sorry, I know no such place.",
    "thing": "Sorry, I know no such thing.",
    "request": "Sorry, I only know pictures of my small world.",
}
