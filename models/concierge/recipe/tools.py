"""Tools that a venue may offer, requests that call them, and what follows."""

import json

from phrasings import INVENTED, MISHEARD, expand
from phrasings import TOOLS as PATTERNS
from questions import part
from venues import NOUNS, clock, coined, name, person, subject, word

ROOMS = ["bedroom", "living room", "bathroom", "kitchen", "hallway", "lobby", "meeting room", "balcony", "office", "studio", "terrace", "corridor", "sauna"]
FOODS = ["club sandwich", "caesar salad", "margherita pizza", "tomato soup", "cheese burger", "pot of tea", "bottle of water", "glass of red wine", "ice cream", "fruit plate", "omelette", "veggie wrap", "espresso", "beer", "fish and chips"]
GENRES = ["jazz", "rock", "classical music", "pop", "lounge music", "blues", "piano music", "techno", "folk", "salsa", "opera", "reggae"]
ITEMS = ["towels", "pillows", "blankets", "water bottles", "coat hangers", "bathrobes", "slippers", "chairs", "glasses", "keys", "soaps", "adapters"]
DAYS = ["today", "tomorrow", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "next week"]
PROBLEMS = ["the shower is broken", "the light does not work", "the tv has no signal", "the door is stuck", "the room is too cold", "the toilet is blocked", "there is a leak", "the air conditioning is loud", "the printer has no paper", "the key card does not work", "the heating is off", "the window does not close"]
STAFF = ["housekeeping", "reception", "security", "a waiter", "a nurse", "maintenance", "the manager", "a porter", "a guide", "a trainer"]
ONES = "zero one two three four five six seven eight nine ten eleven twelve".split()


def integer(description):
    return {"type": "integer", "description": description}


def string(description, enum=None):
    out = {"type": "string", "description": description}
    if enum:
        out["enum"] = enum
    return out


class Tool:
    """A kind of tool: names it goes by, its parameters, and how people ask for it.

    `params` maps a slot to (names of the parameter, schema, maker of a value);
    a maker returns (what is said, what is passed).
    """

    def __init__(self, names, description, params, asks, done, required=None):
        self.names, self.description, self.params, self.asks, self.done = names, description, params, asks, done
        self.required = required if required is not None else list(params)
        self.patterns = PATTERNS.get(names[0], [])

    def instance(self, rng, heldout):
        """One spelling of this tool, as a venue's app would declare it."""
        call_name = rng.choice(part(self.names, heldout) if heldout is not None else self.names)
        spelled = {slot: rng.choice(names) for slot, (names, _, _) in self.params.items()}
        schema = {"type": "object", "properties": {spelled[s]: self.params[s][1] for s in self.params},
                  "required": [spelled[s] for s in self.required]}
        if not self.params:
            schema = {"type": "object", "properties": {}}
        declared = {"type": "function", "function": {"name": call_name, "description": rng.choice(self.description), "parameters": schema}}
        return declared, call_name, spelled

    def request(self, rng, spelled, heldout, more=False):
        """(what the user says, the arguments that must be passed, what is said after it worked)."""
        said, passed = {}, {}
        for slot, (_, schema, make) in self.params.items():
            if more and getattr(make, "listed", False) and "enum" not in schema and rng.random() < 0.35:
                make = unlisted(slot)
            said[slot], value = make(rng)
            passed[spelled[slot]] = value
        if more and self.patterns and rng.random() < 0.55:
            ask = expand(rng, rng.choice(self.patterns))
        else:
            ask = rng.choice(part(self.asks, heldout) + (MORE.get(self.names[0], []) if more else []))
        for slot in list(self.params):
            # A request that does not mention a slot does not pass it.
            if "{" + slot + "}" not in ask:
                passed.pop(spelled[slot])
        return ask.format(**said), passed, rng.choice(self.done).format(**said)


def number(low, high, spoken=True):
    def make(rng):
        n = rng.randint(low, high)
        return (ONES[n] if spoken and n < len(ONES) and rng.random() < 0.5 else str(n)), n
    return make


def choice(items):
    def make(rng):
        item = rng.choice(items)
        return item, item
    make.listed = True
    return make


def unlisted(slot):
    """A value that is on no list, for training: what is said must be passed on as it stands."""
    def make(rng):
        if slot in ("problem", "message"):
            value = " ".join(rng.choice([rng.choice(NOUNS), rng.choice(MISHEARD), coined(rng), rng.choice(["the", "is", "not", "my", "in", "we", "at"])]) for _ in range(rng.randint(2, 6)))
        elif slot == "day":
            value = rng.choice(["the weekend", "next monday", "next friday", "this evening", "the day after tomorrow", "tonight", f"the {rng.randint(3, 31)}th of may", f"the {rng.randint(4, 30)}th"])
        elif slot == "who":
            value = rng.choice(["the ", "a ", "your "]) + subject(rng, "person")
        else:
            value = subject(rng, "place") if slot == "room" else rng.choice([coined(rng), f"{coined(rng)} {rng.choice(NOUNS)}"])
        return value, value
    return make


def time(rng):
    text = clock(rng, rng.choice(["24", "24s", "am", "am"]), 6, 22)
    return text, text


def who(rng):
    text = person(rng)
    return text, text


def where(rng):
    text = rng.choice([f"the {rng.choice(['airport', 'station', 'harbour', 'museum', 'hospital', 'theatre', 'stadium'])}", f"{name(rng)} street", name(rng)])
    return text, text


def words(rng):
    text = " ".join(rng.choice([rng.choice(NOUNS), coined(rng), rng.choice(["the", "my", "our", "new"])]) for _ in range(rng.randint(1, 4)))
    return text, text


STATE = choice(["on", "off"])
ROOM = (["room", "area", "where", "location"], string("which room", None), choice(ROOMS))

TOOLS = [
    Tool(["set_lights", "lights", "control_lights", "switch_lights", "set_light_state", "light_switch"], ["Switch the lights", "Turn lights on or off", "Control the lights of a room"],
         {"room": ROOM, "state": (["state", "power", "on_off", "mode"], string("on or off", ["on", "off"]), STATE)},
         ["turn {state} the lights in the {room}", "turn the {room} lights {state}", "switch {state} the light in the {room}", "lights {state} in the {room}", "can you turn the light in the {room} {state}",
          "put the {room} light {state}", "i want the {room} lights {state}", "please have the lights in the {room} switched {state}", "the {room} lamp should be {state}"],
         ["Done, the {room} lights are {state}.", "The lights in the {room} are {state} now."]),
    Tool(["dim_lights", "set_brightness", "brightness", "adjust_brightness", "light_level"], ["Set the brightness", "Dim the lights to a percentage"],
         {"level": (["level", "percent", "brightness", "value"], integer("percent, 0 to 100"), number(0, 100, False))},
         ["dim the lights to {level} percent", "set the brightness to {level}", "lights to {level} percent", "make the light {level} percent", "brightness {level}", "put the lights at {level} percent",
          "could the lights go to {level} percent", "i'd like {level} percent of light"],
         ["Done, the lights are at {level} percent.", "The brightness is {level} percent now."]),
    Tool(["set_volume", "volume", "change_volume", "adjust_volume", "audio_volume", "speaker_volume"], ["Set the volume", "Change how loud it is"],
         {"level": (["level", "volume", "value", "percent"], integer("0 to 100"), number(0, 100, False))},
         ["set the volume to {level}", "volume {level}", "turn the volume to {level}", "make it {level} percent loud", "put the sound at {level}", "change the volume to {level}", "can you set the sound to {level}",
          "i want the speaker at {level}", "loudness {level} please"],
         ["The volume is {level} now.", "Done, the volume is set to {level}."]),
    Tool(["play_music", "music", "start_music", "play_audio", "play_genre"], ["Play music", "Start music of a genre"],
         {"genre": (["genre", "style", "kind", "type"], string("kind of music"), choice(GENRES))},
         ["play some {genre}", "can you play {genre}", "put on {genre}", "i want to hear {genre}", "music please some {genre}", "play {genre}", "start {genre}", "let me listen to {genre}", "a bit of {genre} would be nice"],
         ["Playing {genre} now.", "Here is some {genre}."]),
    Tool(["set_temperature", "temperature", "thermostat", "set_thermostat", "climate_control", "heating"], ["Set the temperature", "Set the thermostat in degrees"],
         {"degrees": (["degrees", "celsius", "temperature", "target"], integer("degrees Celsius"), number(15, 28, False))},
         ["set the temperature to {degrees} degrees", "make it {degrees} degrees", "temperature {degrees}", "heat the room to {degrees} degrees", "cool it to {degrees}", "can you set the heating to {degrees}",
          "i would like {degrees} degrees in here", "change the thermostat to {degrees}"],
         ["The temperature is set to {degrees} degrees.", "Done, {degrees} degrees."]),
    Tool(["call_staff", "notify_staff", "page_staff", "request_staff", "get_staff", "alert_staff"], ["Call a member of staff", "Ask someone from the staff to come"],
         {"who": (["who", "department", "role", "staff"], string("who should come"), choice(STAFF))},
         ["please call {who}", "can you get {who}", "i need {who}", "send {who} please", "call {who} for me", "could you ask {who} to come", "i want to talk to {who}", "i'd like {who} to come over", "have {who} come here"],
         ["I have called {who}.", "All right, {who} will be with you soon."]),
    Tool(["report_problem", "report_issue", "create_ticket", "log_problem", "maintenance_request"], ["Report a problem", "Tell maintenance about a problem"],
         {"problem": (["problem", "description", "issue", "text"], string("what is wrong"), choice(PROBLEMS))},
         ["{problem}", "i want to report that {problem}", "hello {problem}", "can someone help {problem}", "please note that {problem}", "we have a problem {problem}", "just so you know {problem}", "excuse me but {problem}"],
         ["I'm sorry. I have reported that {problem}.", "Thank you, I have told the staff that {problem}."]),
    Tool(["book_table", "reserve_table", "table_booking", "restaurant_booking", "make_reservation"], ["Book a table", "Reserve a table in the restaurant"],
         {"people": (["people", "guests", "party_size", "persons"], integer("number of people"), number(1, 12)), "time": (["time", "at", "when"], string("time of day"), time)},
         ["book a table for {people} at {time}", "can i reserve a table for {people} people at {time}", "table for {people} at {time} please", "i need a table at {time} for {people}", "reserve for {people} at {time}",
          "we are {people} and want to eat at {time}", "could you get us a table for {people} for {time}", "dinner for {people} at {time} please"],
         ["Your table for {people} at {time} is booked.", "Done, a table for {people} at {time}."]),
    Tool(["wake_up_call", "set_alarm", "set_wake_up", "schedule_wakeup", "alarm"], ["Set a wake-up call", "Wake the guest at a time"],
         {"time": (["time", "at", "when"], string("time of day"), time)},
         ["wake me up at {time}", "i need a wake up call at {time}", "set an alarm for {time}", "wake up call at {time} please", "can you wake me at {time}", "please call me at {time} to wake me", "i have to get up at {time}", "alarm at {time}"],
         ["I will wake you at {time}.", "Your wake-up call is set for {time}."]),
    Tool(["order_taxi", "call_taxi", "book_taxi", "request_cab", "get_taxi"], ["Order a taxi", "Call a cab to a destination"],
         {"destination": (["destination", "to", "where"], string("where to"), where), "time": (["time", "at", "when"], string("time of day"), time)},
         ["i need a taxi to {destination} at {time}", "order a taxi to {destination} for {time}", "call me a cab at {time} to {destination}", "get me a taxi to {destination} at {time}", "taxi to {destination} at {time} please",
          "can i have a cab to {destination} at {time}", "a car to {destination} at {time} would be good", "i want to go to {destination} at {time} by taxi"],
         ["Your taxi to {destination} will come at {time}.", "Done, a taxi to {destination} at {time}."]),
    Tool(["request_items", "bring_items", "order_items", "deliver_items", "extra_items"], ["Bring items to the guest", "Ask housekeeping for items"],
         {"item": (["item", "what", "name"], string("what to bring"), choice(ITEMS)), "count": (["count", "quantity", "amount", "number"], integer("how many"), number(1, 12))},
         ["can i get {count} {item}", "i need {count} more {item}", "please bring me {count} {item}", "bring {count} {item} please", "could we have {count} {item}", "send up {count} {item}", "{count} extra {item} please", "we are short of {item} we need {count}"],
         ["I will have {count} {item} brought to you.", "All right, {count} {item} are on the way."]),
    Tool(["order_food", "room_service", "place_order", "order_from_menu", "food_order"], ["Order food or drinks", "Place an order with the kitchen"],
         {"item": (["item", "dish", "name"], string("what to order"), choice(FOODS)), "quantity": (["quantity", "count", "amount"], integer("how many"), number(1, 9))},
         ["i want to order {quantity} {item}", "can i have {quantity} {item}", "{quantity} {item} please", "please order {quantity} {item}", "i would like {quantity} {item}", "get me {quantity} {item}", "could you bring {quantity} {item} to my room", "we'll take {quantity} {item}"],
         ["Your order of {quantity} {item} is placed.", "Done, {quantity} {item} will come soon."]),
    Tool(["book_room", "reserve_room", "room_booking", "book_space", "reserve_space"], ["Book a room for a day", "Reserve a room or a court"],
         {"room": ROOM, "day": (["day", "date", "when"], string("which day"), choice(DAYS))},
         ["book the {room} for {day}", "reserve the {room} for {day}", "i need the {room} {day}", "can i book the {room} {day}", "is it possible to reserve the {room} for {day}", "we want the {room} for {day}", "please keep the {room} for us {day}"],
         ["The {room} is booked for {day}.", "Done, you have the {room} {day}."]),
    Tool(["leave_message", "send_message", "take_message", "pass_message"], ["Leave a message for someone", "Pass on a message"],
         {"person": (["person", "to", "recipient", "name"], string("who gets it"), who), "message": (["message", "text", "content"], string("the message"), choice(["i am late", "please call me back", "i am in the lobby", "dinner is cancelled", "the keys are at the desk", "see you tomorrow", "i will wait outside", "the meeting is moved"]))},
         ["tell {person} that {message}", "leave a message for {person} that {message}", "please tell {person} {message}", "can you let {person} know {message}", "send a message to {person} saying {message}", "give {person} the message that {message}", "inform {person} that {message}"],
         ["I have told {person} that {message}.", "Your message for {person} is passed on."]),
    Tool(["open_blinds", "blinds", "set_blinds", "curtains", "control_curtains"], ["Open or close the blinds", "Move the curtains"],
         {"action": (["action", "position", "state"], string("open or close", ["open", "close"]), choice(["open", "close"]))},
         ["{action} the blinds", "{action} the curtains please", "can you {action} the blinds", "please {action} the curtains", "{action} the shades", "i want to {action} the curtains", "would you {action} the window blinds"],
         ["Done.", "All right, that is done."]),
    Tool(["extend_stay", "extend_booking", "add_nights", "prolong_stay"], ["Extend the stay", "Add nights to the booking"],
         {"nights": (["nights", "days", "count"], integer("number of nights"), number(1, 9))},
         ["i want to stay {nights} more nights", "can i extend my stay by {nights} nights", "add {nights} nights to my booking", "we stay {nights} nights longer", "extend by {nights} nights please", "is it possible to remain {nights} more nights", "make it {nights} nights longer"],
         ["Your stay is extended by {nights} nights.", "Done, {nights} more nights."]),
    Tool(["do_not_disturb", "set_dnd", "privacy_mode", "dnd"], ["Switch do-not-disturb", "Turn do not disturb on or off"],
         {"state": (["state", "enabled", "mode"], string("on or off", ["on", "off"]), STATE)},
         ["turn do not disturb {state}", "do not disturb {state} please", "switch {state} do not disturb", "set do not disturb to {state}", "please put do not disturb {state}", "i want do not disturb {state}"],
         ["Do not disturb is {state}.", "Done, do not disturb is {state} now."]),
    Tool(["join_class", "book_class", "enrol_class", "class_signup"], ["Sign up for a class", "Book a place in a class"],
         {"name": (["name", "class_name", "course"], string("which class"), choice(["yoga", "pilates", "spinning", "zumba", "boxing", "aqua gym", "meditation", "dance", "stretching"])), "day": (["day", "date"], string("which day"), choice(DAYS))},
         ["sign me up for {name} on {day}", "book a place in {name} {day}", "i want to join {name} {day}", "put me down for {name} on {day}", "can i do {name} {day}", "register me for {name} {day}", "i'd like a spot in {name} on {day}"],
         ["You are signed up for {name} {day}.", "Done, {name} {day} is booked for you."]),
]
# More ways to ask, for training alone; none of them is kept out.
MORE = {
    "set_lights": ["the {room} lights {state} please", "lights {state} in the {room} now", "would you put the {room} lights {state}", "{room} light {state} thanks", "make the {room} light go {state}"],
    "set_temperature": ["put the heating at {degrees}", "{degrees} degrees would be nice", "we need {degrees} degrees", "let it be {degrees} degrees in this room", "turn the heat to {degrees}", "i am cold make it {degrees} degrees"],
    "call_staff": ["would you send {who} to us", "we want to see {who}", "is {who} free to come", "ask {who} to come here", "we could use {who} here", "bring me {who} please"],
    "report_problem": ["i have a problem {problem}", "something is wrong {problem}", "sorry but {problem}", "i must tell you that {problem}", "listen {problem}", "help {problem}"],
    "book_table": ["put us down for {people} at {time}", "{people} people for {time} in the restaurant", "we would like a table at {time} we are {people}", "may we have a table for {people} for {time}", "keep a table for {people} at {time}"],
    "wake_up_call": ["get me out of bed at {time}", "could you ring me at {time} in the morning", "i must wake up at {time}", "let me be woken at {time}", "{time} wake up please", "do wake us at {time}"],
    "order_taxi": ["send a taxi for {time} to {destination}", "we need to get to {destination} by taxi at {time}", "please get a cab for {time} to {destination}", "book a car to {destination} at {time}", "taxi at {time} going to {destination}"],
    "request_items": ["we could use {count} {item}", "{count} {item} for our room please", "may i have {count} {item}", "get us {count} {item}", "there are no {item} left bring {count}", "i would like to have {count} {item}", "send {count} {item}"],
    "order_food": ["we want {quantity} {item}", "{quantity} {item} for me", "let me have {quantity} {item}", "we would love {quantity} {item} now", "{quantity} {item} and that is all", "give us {quantity} {item}"],
    "book_room": ["i would like to have the {room} {day}", "is the {room} free {day} then book it", "put us in the {room} {day}", "hold the {room} for me {day}", "may we use the {room} {day}", "get me the {room} for {day}"],
    "leave_message": ["let {person} know that {message}", "say to {person} {message}", "a message to {person} please {message}", "would you tell {person} that {message}", "pass on to {person} that {message}"],
    "open_blinds": ["{action} up the blinds", "i'd like you to {action} the blinds", "could you {action} the curtains", "blinds {action} please", "make the curtains {action}"],
    "extend_stay": ["we would like {nights} extra nights", "keep our room for {nights} more nights", "we stay another {nights} nights", "i need {nights} nights more", "please prolong by {nights} nights"],
    "do_not_disturb": ["i do not want to be disturbed put it {state}", "do not disturb should be {state}", "make it {state} the do not disturb", "the do not disturb sign {state}", "put the do not disturb {state}"],
    "join_class": ["we want to do {name} {day}", "is there a place in {name} {day} for me", "enter me for {name} {day}", "add me to {name} on {day}", "i am coming to {name} {day} sign me up", "get me into {name} {day}"],
}
NO_TOOL = ["I'm sorry, I can't do that from here. Please ask the staff.", "I can't do that myself, sorry. The staff can help you."]


def invented(rng):
    """A tool that is on no list, as training alone offers them."""
    call_name, description, slot, kind, asks, done = rng.choice(INVENTED)
    thing = rng.choice([coined(rng), coined(rng), f"{coined(rng)} {rng.choice(NOUNS)}"])
    parameter = {"number": (integer(rng.choice(["the value", "0 to 100", "how much"])), number(0, 100, False)),
                 "state": (string("on or off", ["on", "off"]), STATE), "time": (string("time of day"), time), "count": (integer("how many"), number(1, 12)),
                 "words": (string("what to say"), words), "word": (string("which one"), lambda rng: (lambda w: (w, w))(coined(rng)))}[kind]
    fill = lambda text: expand(rng, text).replace("X", thing)
    tool = Tool([expand(rng, call_name).replace("X", thing.replace(" ", "_"))], [fill(description)], {"v": ([expand(rng, slot)],) + parameter},
                asks=[fill(ask) for ask in asks for _ in range(3)], done=[text.replace("X", thing) for text in done])
    # Its name may happen to be a listed tool's.
    tool.patterns = []
    return tool


def call_text(call_name, arguments):
    return json.dumps({"name": call_name, "arguments": arguments}, ensure_ascii=False)
