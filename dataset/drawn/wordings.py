"""Wordings of the drawn scenes' queries, which differ between the splits.

`{a}` is filled in; those that end with . or ? are sentences.
"""

Wordings = dict[str, tuple[str, ...]]
"""Templates for each split."""

ATTRIBUTE: Wordings = {
    "train": (
        "{a}", "{a} in the picture", "the place of {a}", "{a} here", "only {a}",
        "Which object is {a}?", "Find {a} in the picture.", "Show me {a}.", "Where can I see {a}?",
        "I am looking for {a}.", "Please point at {a}.", "Where would you find {a}?",
    ),
    "val": ("{a} that I see", "Can you show me {a}?", "Please find {a}."),
    "test": ("{a} I am looking for", "Where is {a} in the picture?", "Please show me where {a} is."),
}  # fmt: skip

FUNCTIONS: dict[str, Wordings] = {
    "ball": {
        "train": ("something that could roll away", "the object that children kick and throw",
                  "the round object to play with", "something to kick on a field", "the object that bounces and rolls",
                  "Which object could roll away?", "The floor is not flat. What could roll down?",
                  "Children want to play outside. What can they kick?", "Which object do children throw?",
                  "What bounces on the floor?", "We want to play. What can we throw?"),
        "val": ("the object that could roll", "the round object that children throw",
                  "What could children throw and kick?", "What bounces and could roll down?"),
        "test": ("what could roll down the floor", "something that children throw to play",
                  "Which object can children kick?", "What could roll away?"),
    },
    "umbrella": {
        "train": ("something that could keep you dry", "the object to take along in the rain",
                  "the object that keeps off the rain", "something to hold up when it rains",
                  "the object that helps against rain", "It starts to rain. What could keep you dry?",
                  "Which object helps when it is raining outside?", "I do not want to get wet. What can I take along?",
                  "It is wet outside. What do I hold up?", "Which object keeps off the rain?",
                  "What keeps you dry when it rains?"),
        "val": ("something to take along when it is raining", "the object to hold up in the rain",
                  "Which object could keep me dry?", "It rains. What helps?"),
        "test": ("the object that could keep you dry in the rain", "something against rain",
                  "It is raining. What can I take along?", "What helps when I do not want to get wet?"),
    },
    "cup": {
        "train": ("something to drink from", "the object that holds hot tea", "the object for tea or coffee",
                  "something with a handle to drink from", "the object to pour hot coffee into",
                  "I am thirsty. What can I drink from?", "Which object holds tea or water to drink?",
                  "Where would you pour the hot tea?", "Which object is for coffee?",
                  "I want hot coffee. What do I need?", "What has a handle and holds tea?"),
        "val": ("the object to drink tea from", "something for hot coffee", "I want hot tea. What can I drink from?",
                  "Which object has a handle to drink from?"),
        "test": ("something that holds tea", "the object to drink coffee from", "Which object can I drink from?",
                  "Where would I pour coffee to drink?"),
    },
    "tent": {
        "train": ("something to sleep in when camping", "the shelter for a night outside",
                  "the object to put up on a camping trip", "something to sleep in outside",
                  "the shelter that people put up", "We go camping. Where can we sleep?",
                  "Which object gives shelter for the night?", "Where would you sleep on a camping trip?",
                  "What do people put up when camping?", "We sleep outside. What gives shelter?",
                  "Which object do we put up for the night?"),
        "val": ("the shelter to sleep in", "something to put up for a night", "Where can we sleep when camping?",
                  "Which shelter do people put up outside?"),
        "test": ("the object that gives shelter when camping", "the shelter for a camping trip",
                  "Where could we sleep for the night?", "Which object do you sleep in on a trip?"),
    },
    "fish": {
        "train": ("the animal that lives in water", "something that can swim", "the animal with fins",
                  "something that lives in the sea", "the one that swims in the sea", "Which object is an animal?",
                  "What lives in the sea and can swim?", "I look for the one with fins. Where is it?",
                  "Which one swims in water?", "What has fins?", "Which animal lives in the sea?"),
        "val": ("the animal that can swim", "the one with fins", "Which one lives in water?", "What swims in the sea?"),
        "test": ("the one that lives in the sea", "something with fins that swims", "Which animal can swim?",
                  "What lives in water and has fins?"),
    },
    "star": {
        "train": ("something seen in the sky at night", "the shape with five points", "the object that shines at night",
                  "the one with five points", "something that shines in the sky", "What shines in the sky at night?",
                  "Which object has five points?", "I look up at night. What do I see shine?",
                  "Which shape shines at night?", "What has five points?", "I look at the sky. What shines?"),
        "val": ("the one that shines at night", "something with five points", "Which shape has five points?",
                  "What do I see in the sky?"),
        "test": ("the object with five points", "the shape seen in the sky", "What do I see in the sky at night?",
                  "Which one shines in the sky?"),
    },
    "key": {
        "train": ("something that opens a lock", "the object for a locked door", "the object that opens the door",
                  "something to open a lock with", "the small object that fits a lock",
                  "The door is locked. What opens it?", "Which object opens a lock?",
                  "I can not open the door. What do I need?", "What fits a lock?",
                  "What do I need to open a locked door?", "Which object is for the door?"),
        "val": ("something that opens the door", "the object that fits a lock", "What do I need for a lock?",
                  "Which object opens it when the door is locked?"),
        "test": ("the object that opens a locked door", "something for the lock of a door",
                  "What do I need to open the lock?", "Which object opens the door?"),
    },
    "candle": {
        "train": ("something that gives light in the dark", "the object that burns with a flame",
                  "the object made of wax", "something to light in a dark room", "the one with a flame",
                  "The room is dark. What could give light?", "Which object burns with a small flame?",
                  "There is no light. What can I burn?", "What is made of wax?", "Which object has a flame?",
                  "It is dark. What do I light?"),
        "val": ("the object that gives light", "something made of wax", "What could burn in the dark?",
                  "Which object do I light in the dark?"),
        "test": ("something that burns and gives light", "the object with a flame",
                  "What could give light in a dark room?", "Which object is made of wax?"),
    },
    "apple": {
        "train": ("the fruit in the picture", "something to eat from a tree", "the fruit that grows on a tree",
                  "something sweet to eat", "a healthy thing to eat", "I am hungry. What can I eat?",
                  "Which object is a fruit?", "What grows on a tree?", "Which fruit could I eat?",
                  "What is sweet and healthy?", "Which object comes from a tree?"),
        "val": ("something to eat", "the sweet fruit", "Which fruit grows on a tree?",
                  "What could I eat when I am hungry?"),
        "test": ("the healthy fruit", "something sweet that grows on a tree", "Which object could I eat?",
                  "I am hungry. Which fruit is sweet?"),
    },
    "bell": {
        "train": ("something that rings", "the object that makes a loud sound",
                  "the object that hangs in a tower and rings", "something to ring", "the one that sounds in a tower",
                  "What rings in a tower?", "Which object makes a loud sound?",
                  "I want to make a sound. What can I ring?", "Which object hangs in a tower?", "What could I ring?",
                  "What sounds loud when it rings?"),
        "val": ("the object that rings", "something with a loud sound", "Which object could ring?",
                  "What hangs in a tower?"),
        "test": ("the object to ring", "something that hangs and makes a sound", "What makes a loud sound?",
                  "Which object rings in a tower?"),
    },
    "bottle": {
        "train": ("something that holds water for a trip", "the object with a cork", "the object to keep wine in",
                  "something closed with a cork", "the glass object that holds wine",
                  "Which object is closed with a cork?", "Where do I keep the wine?",
                  "What is made of glass and holds wine?", "We need water for a trip. What holds it?",
                  "Which object holds wine?", "What has a cork?"),
        "val": ("the object that holds wine", "something made of glass with a cork", "Which object has a cork?",
                  "Where is the wine?"),
        "test": ("the object closed with a cork", "something to keep water in for a trip",
                  "Which object is made of glass?", "What holds the wine?"),
    },
    "boat": {
        "train": ("something to sail on a lake", "the object that carries people over water", "the object with a sail",
                  "something that floats on the lake", "the one with a sail",
                  "We want to cross the lake. What carries us?", "Which object has a sail?", "What floats on the lake?",
                  "What can people sail?", "Which object carries people over water?", "The wind blows. What can sail?"),
        "val": ("the object that floats", "something with a sail", "Which object can sail on the lake?",
                  "What carries us over the water?"),
        "test": ("the object to cross the lake with", "something that people sail", "Which object floats on water?",
                  "What has a sail?"),
    },
    "book": {
        "train": ("something to read", "the object with many pages", "the object that tells a story",
                  "something with a story to read", "the one with pages", "I want to read. What do I open?",
                  "Which object has many pages?", "What tells a story?", "Which object can I read?", "What has pages?",
                  "I like a story. What do I read?"),
        "val": ("the object to read", "something with many pages", "Which object tells a story?", "What can I read?"),
        "test": ("the object that has pages", "something that tells a story", "Which object do I read?",
                  "I want a story. What do I open?"),
    },
    "hat": {
        "train": ("something to wear on the head", "the object that keeps the sun off the head",
                  "the object to wear in the sun", "something that covers the head", "the one to wear",
                  "The sun is hot. What can I wear?", "Which object is for the head?", "What do I wear on my head?",
                  "What covers the head?", "Which object keeps off the sun?", "The sun shines. What covers my head?"),
        "val": ("the object for the head", "something to wear in the sun", "What could I wear on my head?",
                  "Which object covers the head?"),
        "test": ("the object to wear on the head", "something that keeps off the sun", "Which object can I wear?",
                  "The sun is hot. What covers the head?"),
    },
    "hammer": {
        "train": ("something to drive a nail", "the tool in the picture", "the tool for nails",
                  "the heavy tool to hit with", "something to hit a nail with", "Which object is a tool?",
                  "I have a nail. What drives it in?", "What do I hit a nail with?", "Which tool is for nails?",
                  "I want to build a house. Which tool do I need?", "What is heavy and hits nails?"),
        "val": ("the tool to hit with", "something for nails", "Which tool drives a nail?",
                  "What do I need for a nail?"),
        "test": ("the heavy tool", "something that drives nails", "Which object hits nails?",
                  "I have a nail. Which tool do I need?"),
    },
    "mushroom": {
        "train": ("something that grows in the forest", "the plant with a cap", "the object that grows under trees",
                  "something to pick in the forest", "the one that could be poisonous",
                  "What grows under trees in the forest?", "Which object could be poisonous?",
                  "What can I pick in the forest?", "Which plant has a cap?", "What grows in the forest?",
                  "I walk in the forest. What do I pick?"),
        "val": ("the plant that grows in the forest", "something poisonous", "Which object grows under trees?",
                  "What has a cap and grows?"),
        "test": ("the object to pick in the forest", "the plant that could be poisonous",
                  "Which object grows in the forest?", "What could be poisonous?"),
    },
}  # fmt: skip
"""What each kind is for."""

_PLACE_TRAIN = ("the {a} object", "the {a} thing in the picture", "the {a} one of all", "the {a} one here",
                "Which object is the {a}?", "Find the {a} object.", "Show me the {a} of all objects.",
                "Which one is the {a}?", "Please find the {a} thing of all.")  # fmt: skip
SUPERLATIVE: Wordings = {
    "train": _PLACE_TRAIN,
    "val": ("the {a} thing", "Show me the {a} object."),
    "test": ("the {a} of all objects", "Which one is the {a} of all?", "Find the {a} thing in the picture."),
}
SUPERLATIVES: dict[str, tuple[str, ...]] = {
    "large": ("largest", "biggest"),
    "small": ("smallest", "tiniest"),
    "left": ("leftmost",),
    "right": ("rightmost",),
    "high": ("highest",),
    "low": ("lowest",),
}

SUPERLATIVE_OF: Wordings = {
    "train": ("the {a} {one}", "the {a} one of the {many}", "the {a} of all the {many}",
              "Which {one} is the {a}?", "Find the {a} {one}.", "Show me the {a} of the {many}.",
              "Which of the {many} is the {a}?"),
    "val": ("the {a} {one} that I see", "Show me the {a} {one}."),
    "test": ("the {a} of the {many}", "the {a} {one} of all", "Which one of the {many} is the {a}?",
             "Find the {a} of all the {many}."),
}  # fmt: skip
"""The same among the objects of a colour or of a kind."""

RELATION: dict[str, Wordings] = {
    "near": {
        "train": ("the object closest to {a}", "the thing next to {a}", "the one closest to {a}",
                  "Which object is closest to {a}?", "What is next to {a}?", "Find the one next to {a}.",
                  "Show me the thing closest to {a}."),
        "val": ("the thing closest to {a}", "What is the object closest to {a}?"),
        "test": ("the object next to {a}", "Which thing is next to {a}?"),
    },
    "left": {
        "train": ("the object to the left of {a}", "the thing left of {a}", "the one on the left side of {a}",
                  "What is to the left of {a}?", "Which object is left of {a}?",
                  "Find the object on the left side of {a}.", "Show me the thing to the left of {a}."),
        "val": ("the thing to the left of {a}", "What is left of {a}?"),
        "test": ("the object left of {a}", "Which thing is to the left of {a}?"),
    },
    "right": {
        "train": ("the object to the right of {a}", "the thing right of {a}", "the one on the right side of {a}",
                  "What is to the right of {a}?", "Which object is right of {a}?",
                  "Find the object on the right side of {a}.", "Show me the thing to the right of {a}."),
        "val": ("the thing to the right of {a}", "What is right of {a}?"),
        "test": ("the object right of {a}", "Which thing is to the right of {a}?"),
    },
    "above": {
        "train": ("the object above {a}", "the thing higher than {a}", "the one above {a}",
                  "What is above {a}?", "Which object is higher than {a}?", "Find the one higher than {a}.",
                  "Show me the thing above {a}."),
        "val": ("the thing that is above {a}", "Which object is above {a}?"),
        "test": ("the object higher than {a}", "What is higher than {a}?"),
    },
    "below": {
        "train": ("the object below {a}", "the thing lower than {a}", "the one below {a}",
                  "What is below {a}?", "Which object is lower than {a}?", "Find the one lower than {a}.",
                  "Show me the thing below {a}."),
        "val": ("the thing that is below {a}", "Which object is below {a}?"),
        "test": ("the object lower than {a}", "What is lower than {a}?"),
    },
}  # fmt: skip

SEVERAL: Wordings = {
    "train": ("all the {a}", "every one of the {a}", "the {a} in the picture",
              "Find all the {a}.", "Where are the {a}?", "Show me every one of the {a}."),
    "val": ("all of the {a}", "Show me all the {a}."),
    "test": ("all the {a} in the picture", "Where are all the {a}?", "Find every one of the {a}."),
}  # fmt: skip
