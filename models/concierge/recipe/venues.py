"""What a venue can be and know: things, attributes, values and how people write them.

Everything random comes from the `random.Random` that the caller passes, so a
seed gives the same venue for ever. Nothing here knows about questions; see
dialogues.py for those.
"""

KINDS = [
    "hotel", "hostel", "guesthouse", "clinic", "dental practice", "gym", "museum", "library", "spa",
    "coworking space", "restaurant", "campsite", "conference centre", "gallery", "airport lounge",
    "youth hostel", "resort", "theatre", "aquarium", "sports club", "university", "inn", "bowling hall",
    "car rental", "ski lodge", "ferry terminal", "train station", "cinema", "zoo", "swimming hall",
]

# Things that open and close, cost something, or are somewhere. The last tenth
# of each list is kept out of training (see `held`).
PLACES = [
    "pool", "gym", "spa", "sauna", "bar", "restaurant", "reception", "library", "cafe", "gift shop",
    "kids club", "business centre", "terrace", "pharmacy", "reading room", "kitchen", "laundry room",
    "playground", "tennis court", "ticket office", "cloakroom", "rooftop bar", "garden", "steam room",
    "lounge", "bakery", "game room", "conference room", "meeting room", "front desk", "luggage room",
    "bike room", "car park", "climbing wall", "yoga studio", "chapel", "ballroom", "wine cellar",
    "waiting room", "x-ray room", "blood test room", "first aid room", "prayer room", "smoking area",
    "photo exhibition", "dinosaur hall", "planetarium", "main hall", "archive", "children's library",
    "computer room", "print shop", "workshop", "changing room", "hot tub", "salt room", "beach bar",
    "mini golf", "barbecue area", "dog park", "camp shop", "showers", "toilets", "lifts", "cash machine",
    "lost and found", "information desk", "box office", "snack bar", "ice cream stand", "post office",
    "breakfast room", "coffee machine", "vending machine", "ironing room", "ski room", "boat dock",
    "aquarium tunnel", "penguin house", "members lounge", "quiet room", "phone booths", "podcast studio",
    "ice rink", "squash court", "greenhouse", "observatory", "nursery", "arcade", "juice bar", "map room",
]
MEALS = ["breakfast", "lunch", "dinner", "brunch", "happy hour", "afternoon tea", "room service", "supper"]
PRICED = [
    "parking", "breakfast", "laundry", "late checkout", "the airport shuttle", "bike rental",
    "an adult ticket", "a child ticket", "a student ticket", "a day pass", "a monthly membership",
    "a locker", "a towel", "the guided tour", "the audio guide", "a massage", "an extra bed", "the city tax",
    "printing", "early check-in", "a family ticket", "the buffet", "a yoga class", "a personal trainer",
    "the deposit", "a lost key card", "a baby cot", "a sauna visit", "a haircut", "a facial",
    "a tent pitch", "electricity", "firewood", "a kayak", "a ski pass", "a helmet", "a cleaning",
    "a check-up", "a parking ticket", "the cinema ticket", "a hot desk", "a private office", "a coffee",
    "a bottle of water", "a safe", "a group ticket", "the lunch menu", "luggage storage", "a pet",
    "popcorn", "a swimming lesson", "a boat trip", "a bowling lane", "a senior ticket", "a umbrella",
]
ROLES = [
    "manager", "head chef", "concierge", "doctor on duty", "yoga teacher", "librarian", "tour guide", "owner",
    "head nurse", "director", "host", "night porter", "receptionist", "dentist", "personal trainer",
    "curator", "pianist", "bartender", "caretaker", "event planner", "masseur", "housekeeper", "lifeguard",
    "IT contact", "camp leader", "duty manager", "swimming teacher", "sommelier",
]
PHONED = [
    "front desk", "taxi service", "room service", "emergency line", "lost and found", "housekeeping", "security",
    "doctor", "restaurant", "spa", "manager", "night porter", "box office", "pharmacy", "reception", "maintenance",
    "nurse", "valet",
]
DISTANT = [
    "train station", "beach", "airport", "city centre", "bus stop", "supermarket", "hospital", "harbour",
    "old town", "metro station", "cash machine", "pharmacy", "castle", "ferry terminal", "shopping centre",
    "tram stop", "petrol station", "bakery", "ski lift", "stadium",
]
COUNTED = [
    "rooms", "floors", "meeting rooms", "lifts", "parking spaces", "seats", "treatment rooms", "books", "desks",
    "paintings", "pools", "lanes", "restaurants", "tables", "animals", "pitches", "screens", "courts",
]

# topic -> ways to state the rule; {n} a number, {p} a price, {t} a time
POLICIES = {
    "pets": ["pets are welcome for {p} per night", "pets are not allowed", "only small dogs up to {n} kg are allowed",
             "dogs are allowed in the garden only", "pets stay free"],
    "smoking": ["smoking is not allowed anywhere", "smoking is allowed on the terrace only",
                "smoking is allowed in the courtyard", "smoking in the room costs {p}"],
    "photos": ["photos are allowed without flash", "photos are not allowed", "photos are allowed in the main hall only"],
    "food and drink": ["food and drink are not allowed inside", "only water is allowed inside",
                       "you may bring your own food to the terrace", "food is allowed in the kitchen only"],
    "quiet hours": ["quiet hours are from {t} to {t2}", "please be quiet after {t}"],
    "visitors": ["visitors must leave by {t}", "visitors must sign in at the desk", "visitors are not allowed in the rooms",
                 "each guest may bring {n} visitors"],
    "children": ["children under {n} must be with an adult", "children under {n} get in free",
                 "children are welcome everywhere", "children are not allowed in the sauna"],
    "bags": ["large bags must be left in the cloakroom", "bags are stored for {p}", "bags are not allowed in the hall"],
    "shoes": ["please take off your shoes at the door", "indoor shoes are required", "no shoes are allowed on the mats"],
    "dress code": ["the dress code is smart casual", "there is no dress code", "swimwear is required in the pool area"],
    "cancellation": ["you can cancel free until {t} the day before", "cancelling costs {p}",
                     "cancelling is free up to {n} days before", "bookings cannot be cancelled"],
    "payment": ["we take cards and cash", "we take cards only", "we take cash only", "payment is due at check-in",
                "we accept all major cards but no cheques"],
    "age limit": ["guests must be {n} or older", "there is no age limit", "the minimum age is {n}"],
    "swimming": ["a shower before swimming is required", "a swimming cap is required", "no diving in the pool"],
    "loans": ["you can borrow {n} books for three weeks", "items can be kept for {n} days", "each loan is for {n} weeks"],
    "appointments": ["please come {n} minutes before your appointment", "no appointment is needed in the morning",
                     "appointments are made at the desk"],
    "towels": ["towels are free at the desk", "please bring your own towel", "towels are changed every {n} days"],
    "alcohol": ["alcohol is not served after {t}", "no alcohol is allowed in the rooms", "alcohol is for guests over {n}"],
    "fires": ["open fires are not allowed", "fires are allowed in the fire pits only"],
    "drones": ["drones are not allowed", "drones need a permit from the desk"],
}

SYLLABLES = ("al an ar as be bel ber bo bri ca cal cor da del do dra el en es fa fe fin fo ga gil gra ha hel in is "
             "ja jo ka kel kin la lan le lin lo lu ma mar mel mi mo na nel ni no nor o ol or pa pel per pi po ra ren ri "
             "ro ru sa sel si so sta ta tel ter ti to tri u va vel ver vi vo wen wi ya ye za zel zo zu").split()
# Words for subjects that nobody listed ("the violin corner"): what a model must
# find in its prompt rather than remember.
NOUNS = ("anchor apple arch attic badge balloon bamboo barn basket beacon bell bench berry bird blossom boot bottle box branch brass brick bridge brush bucket button cabin "
         "cactus camera candle canoe canvas carpet castle cedar chalk cherry chess chimney circle cliff clock cloud clover comb compass copper coral corner cotton cradle crane crown "
         "crystal cupboard curtain daisy deck diamond dock dome door dove dragon drum eagle easel engine falcon feather fern fiddle field fig flag flame flute fog fork fountain fox "
         "frame frog gate gem ginger glove goat grape guitar hammer harp hat hazel hedge heron hive honey horn ink iris iron island ivory ivy jar jewel jungle kettle kite knot ladder "
         "lamp lantern leaf lemon lens lily linen lion lock loft magnet maple marble mask meadow medal melon mill mint mirror moon moss mountain mud music nest needle oak oar oasis olive "
         "onyx orchid otter owl oyster paddle palm panda paper parrot peach pearl pebble pepper piano pier pigeon pillar pine pipe planet plum pond poppy pot prism pump puzzle quartz "
         "quilt rabbit rail raven ribbon ring robin rocket rope rose ruby saddle saffron sand satin scarf shell shield silk skate slate sled smoke snail spark spice spoon spring stamp steam "
         "stone storm straw sugar swan sword table tent thistle thread thunder tiger tile timber torch tower trail train tree trumpet tulip tunnel turtle umbrella valley vase velvet vine "
         "violin wagon walnut water wave wheat wheel whistle willow window wing wolf wool yarn zebra").split()
SPOTS = "room corner desk hall shop court station point lab house pool gallery counter stage cabin box park yard deck office bar lounge area court track arena booth".split()
JOBS = "manager teacher coach guide doctor chef assistant officer trainer cleaner driver host expert keeper captain cook artist clerk porter helper".split()

VENUE_WORDS = ["Grand", "Royal", "Blue", "Golden", "Old", "Little", "Harbour", "Garden", "Park", "River", "Sunny", "North",
               "Silver", "Green", "White", "Lake", "Hill", "Central", "Star", "Forest"]
FIRST = ("Anna Ben Clara David Elena Frank Grace Hugo Ida Jonas Kate Liam Maria Noah Olga Paul Rosa Sam Tina Victor "
         "Wendy Yusuf Zoe Amir Bella Carlos Dana Emil Fatima George Hana Ivan Julia Karim Lena Marco Nina Oscar Petra "
         "Ravi Sofia Tom Uma Vera Walter Xenia Yara Zane Aiko Bruno Chloe Diego").split()
COLOURS = ["red", "blue", "green", "yellow", "white", "glass", "wooden", "second", "big", "side"]
CURRENCIES = [("{} euros", 1), ("€{}", 1), ("{} dollars", 1), ("${}", 1), ("£{}", 1), ("{} pounds", 1),
              ("{} EUR", 1), ("{} francs", 1), ("{} kroner", 10), ("{} crowns", 10), ("USD {}", 1), ("{} yen", 100)]


def held(items, heldout):
    """The part of a list that training sees, or the part that it never does."""
    cut = max(1, len(items) // 10)
    return items[-cut:] if heldout else items[:-cut]


def syllables(rng, low, high):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(low, high)))


def word(rng, low=2, high=3):
    """A name's or a password's word. Not of syllables alone: any string must be passed on as it stands."""
    return coined(rng) if rng.random() < 0.4 else syllables(rng, low, high)


def name(rng):
    return word(rng).capitalize()


def coined(rng):
    """A word that may mean anything: listed, or made from letters."""
    roll = rng.random()
    if roll < 0.6:
        return rng.choice(NOUNS)
    if roll < 0.75:
        return syllables(rng, 1, 2)
    letters = ["bcdfghjklmnprstvwz", "aeiou", "bcdfglmnprstvwxz", "aeiouy", "dklmnrstgp", "aeo"]
    clusters = ["", "", "st", "tr", "sq", "ch", "sh", "gr", "bl", "pl", "sc", "qu", "th", "fl"]
    start = rng.choice(clusters)
    return start + "".join(rng.choice(part) for part in letters[1 if start else 0:rng.randint(3, 6)])


def subject(rng, attr):
    """A subject that is on no list, as one would say it."""
    a, b = coined(rng), coined(rng)
    spot = rng.choice([f"{a} {rng.choice(SPOTS)}", f"{a} {rng.choice(SPOTS)}", f"{a} {b}", a, f"{a} {b} {rng.choice(SPOTS)}"])
    if attr == "price":
        thing = rng.choice([f"{a} {b}", f"{a} ticket", f"{a} pass", f"{a} {rng.choice(['rental', 'service', 'lesson', 'tour', 'menu', 'hire', 'fee', 'class', 'trip'])}", a])
        article = "an" if thing[0] in "aeiou" else "a"
        return rng.choice([f"{article} {thing}", f"{article} {thing}", f"the {thing}", thing])
    if attr == "person":
        return rng.choice([f"{a} {rng.choice(JOBS)}", f"{a} {rng.choice(JOBS)}", f"{a} {b} {rng.choice(JOBS)}"])
    if attr == "count":
        return rng.choice([f"{a}s", f"{a} {rng.choice(SPOTS)}s", f"{a} {b}s"])
    if attr == "event":
        return rng.choice([f"{a} {rng.choice(['show', 'class', 'night', 'tour', 'walk', 'hour', 'concert', 'party', 'contest', 'talk', 'lesson'])}", f"{a} {b}"])
    return spot


def person(rng):
    first = rng.choice(FIRST) if rng.random() < 0.7 else name(rng)
    last = name(rng)
    return rng.choice([f"{first} {last}", f"{first} {last}", f"{first} {last}", f"Mr {last}", f"Ms {last}", f"Dr {last}", first])


def clock(rng, style, low=5, high=23):
    hour, minute = rng.randint(low, high), rng.choice([0, 0, 0, 30, 15, 45])
    if style == "24":
        return f"{hour:02d}:{minute:02d}"
    if style == "24s":
        return f"{hour}:{minute:02d}"
    if style == "dot":
        return f"{hour}.{minute:02d}"
    half = "am" if hour < 12 else "pm"
    h12 = hour % 12 or 12
    gap = "" if style == "tight" else " "
    return f"{h12}{gap}{half}" if minute == 0 else f"{h12}:{minute:02d}{gap}{half}"


def hours(rng, style):
    if rng.random() < 0.05:
        return rng.choice(["24 hours a day", "around the clock", "all day"])
    a, b = clock(rng, style, 5, 12), clock(rng, style, 13, 23)
    return rng.choice([f"{a} to {b}", f"{a}-{b}", f"{a} - {b}", f"from {a} to {b}", f"{a} until {b}"])


def price(rng, currency):
    form, scale = currency
    amount = rng.choice([rng.randint(1, 40), rng.randint(1, 250), rng.randint(2, 60)]) * scale
    text = f"{amount}.{rng.choice(['50', '90', '99', '20', '75'])}" if scale == 1 and rng.random() < 0.3 else str(amount)
    return form.format(text)


def place(rng):
    n = rng.randint(2, 12)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(n if n < 11 else 0, "th")
    floor = rng.choice([f"on the {n}{suffix} floor", f"on floor {n}", f"on level {n}", "on the ground floor",
                        "in the basement", "on the top floor", f"in building {rng.choice('ABCDEF')}",
                        f"on the {rng.choice(['first', 'second', 'third', 'fourth', 'fifth', 'sixth'])} floor"])
    near = rng.choice(["next to the lifts", "behind the reception", f"next to the {rng.choice(PLACES[:40])}",
                       "past the stairs", "opposite the main entrance", "to the left of the entrance",
                       f"by the {rng.choice(COLOURS)} door", "across the courtyard", f"in room {rng.randint(1, 620)}"])
    return rng.choice([floor, floor, near, f"{floor}, {near}", f"{floor} {near}"])


def eating_place(rng):
    return rng.choice([f"in the {name(rng)} {rng.choice(['room', 'restaurant', 'hall', 'lounge', 'bar'])}", f"in the {rng.choice(['restaurant', 'lobby bar', 'garden', 'cafe', 'dining room', 'breakfast room'])}",
                       f"in the {rng.choice(['restaurant', 'dining room', 'bar'])} on floor {rng.randint(1, 9)}", "on the terrace"])


def secret(rng):
    chars = "abcdefghijkmnpqrstuvwxyz23456789"
    return rng.choice([
        lambda: word(rng) + str(rng.randint(10, 9999)),
        lambda: "".join(rng.choice(chars) for _ in range(rng.randint(6, 10))),
        lambda: f"{name(rng)}-{rng.randint(10, 999)}",
        lambda: f"{name(rng)}{name(rng)}{rng.randint(1, 99)}",
        lambda: f"{word(rng)}_{word(rng)}",
        lambda: f"{coined(rng)}-{coined(rng)}-{rng.randint(1, 99)}",
        lambda: f"{coined(rng)}{rng.choice(['', '-', '_', '.'])}{rng.randint(1, 9999)}",
        lambda: f"{word(rng)}{rng.choice('!#$@')}{rng.randint(1, 99)}",
        lambda: str(rng.randint(10000000, 99999999)),
    ])()


def phone(rng):
    return rng.choice([
        lambda: f"extension {rng.randint(1, 999)}",
        lambda: f"{rng.randint(100, 999)}",
        lambda: f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}",
        lambda: f"0{rng.randint(10, 99)} {rng.randint(100, 999)} {rng.randint(10, 99)} {rng.randint(10, 99)}",
        lambda: f"555-{rng.randint(1000, 9999)}",
        lambda: f"ext. {rng.randint(1, 99)}",
    ])()


def distance(rng):
    return rng.choice([
        lambda: f"{rng.randint(2, 30)} minutes on foot", lambda: f"{rng.randint(1, 9)}.{rng.randint(1, 9)} km away",
        lambda: f"{rng.randint(2, 40)} km away", lambda: f"a {rng.randint(2, 25)} minute walk", lambda: f"{rng.randint(50, 950)} metres away",
        lambda: f"{rng.randint(5, 50)} minutes by {rng.choice(['bus', 'car', 'tram', 'taxi', 'train'])}",
    ])()


def venue_name(rng, kind):
    base = rng.choice([name(rng), f"{rng.choice(VENUE_WORDS)} {name(rng)}", f"{name(rng)} {rng.choice(VENUE_WORDS)}"])
    kind = kind.title()
    return rng.choice([f"{kind} {base}", f"{base} {kind}", f"the {base} {kind}", base])


class Fact:
    """One thing that the venue knows: attribute, subject, value, and its written form."""

    __slots__ = ("attr", "thing", "value")

    def __init__(self, attr, thing, value):
        self.attr, self.thing, self.value = attr, thing, value

    def key(self):
        return (self.attr, self.thing)


# attribute -> (label forms for lists, sentence forms for prose). {T} has no article, {the} has one where it fits.
WRITTEN = {
    "hours": (["{T}", "{T} hours", "{T} opening hours", "{T} open"],
              ["The {t} is open {v}.", "{T} hours are {v}.", "You can use the {t} {v}.", "The {t} opens {v}."]),
    "meal": (["{T}", "{T} times", "{T} served", "{T} hours"],
             ["{T} is served {v}.", "{T} is {v}.", "We serve {t} {v}."]),
    "price": (["{T}", "{T} price", "{T} costs", "price of {t}"],
              ["{T} costs {v}.", "{T} is {v}.", "We charge {v} for {t}.", "The price of {t} is {v}."]),
    "place": (["{T} location", "{T}", "where is the {t}"],
              ["The {t} is {v}.", "You find the {t} {v}.", "The {t} is located {v}."]),
    "person": (["{T}", "{T} name", "our {t}"],
               ["The {t} is {v}.", "Our {t} is {v}.", "{v} is the {t}.", "The {t} is called {v}."]),
    "phone": (["{T}", "{T} phone", "{T} number", "call {t}"],
              ["The {t} is reached at {v}.", "Call the {t} at {v}.", "The number of the {t} is {v}.", "For the {t} dial {v}."]),
    "distance": (["{T}", "distance to {t}", "to the {t}"],
                 ["The {t} is {v}.", "It is {v} to the {t}." , "The nearest {t} is {v}."]),
    "count": (["{T}", "number of {t}"], ["There are {v} {t}.", "We have {v} {t}.", "The house has {v} {t}."]),
    "policy": (["{T}", "{T} policy", "{T} rule"], ["{V}.", "About {t}: {v}.", "Please note that {v}."]),
    "wifi_name": (["WiFi", "Wi-Fi network", "wifi name", "WLAN", "network"],
                  ["The Wi-Fi network is {v}.", "Our wifi is called {v}.", "Connect to the network {v}."]),
    "wifi_password": (["WiFi password", "Wi-Fi password", "wifi code", "password", "internet password"],
                      ["The Wi-Fi password is {v}.", "The wifi password is {v}.", "Use the password {v} for the wifi."]),
    "checkin": (["Check-in", "check in time", "check-in from"], ["Check-in is from {v}.", "Check-in starts at {v}.", "You can check in from {v}."]),
    "checkout": (["Check-out", "check out time", "checkout by"], ["Check-out is by {v}.", "Check-out is until {v}.", "Please check out by {v}."]),
    "address": (["Address", "our address", "street"], ["Our address is {v}.", "We are at {v}.", "You find us at {v}."]),
    "closed": (["Closed", "closed on", "day off"], ["We are closed on {v}.", "Closed on {v}.", "We do not open on {v}."]),
    "opening": (["Opening hours", "open", "hours"], ["We are open {v}.", "Opening hours are {v}.", "The house is open {v}."]),
    "weekend": (["Weekend hours", "on weekends", "Sunday hours"], ["On weekends we are open {v}.", "Weekend hours are {v}.", "On Sundays we open {v}."]),
    "event": (["{T}", "{T} time", "{T} starts"], ["The {t} starts at {v}.", "The {t} is at {v}.", "{T} begins at {v}."]),
    "year": (["Founded", "opened in", "built"], ["We opened in {v}.", "The house was built in {v}.", "It was founded in {v}."]),
}
EVENTS = ["guided tour", "yoga class", "live music", "film night", "feeding show", "quiz night", "wine tasting", "story hour",
          "water aerobics", "city walk", "evening show", "concert", "opening ceremony", "bus to the airport", "last ferry",
          "shuttle to the city", "cooking class", "dance class", "morning meditation", "poetry night", "ghost tour"]


def facts(rng, kind, count, heldout=False, coin=0.0):
    """`count` facts about different subjects, as one venue would have them.

    With `heldout`, about half of the subjects come from the part of the lists
    that training never sees. `coin` is the share of subjects that are on no list:
    there are too few listed ones to learn what a subject is.
    """
    style = rng.choice(["24", "24s", "am", "am", "tight", "dot"])
    currency = rng.choice(CURRENCIES)

    def pick(items, attr=None):
        if attr and coin and rng.random() < coin:
            return subject(rng, attr)
        return rng.choice(held(items, heldout and rng.random() < 0.5))

    def policy():
        if coin and rng.random() < coin:
            topic = rng.choice([coined(rng) + "s", f"{coined(rng)} {coined(rng)}s", coined(rng)])
            text = rng.choice(["{x} are not allowed", "no {x} after {t}", "{x} are welcome in the garden", "{x} cost {p} a day", "{x} are allowed until {t}", "please leave {x} at the desk",
                               "{x} must be booked {n} days before", "only {n} {x} for each guest", "{x} are free for guests", "{x} need a permit from the {y}", "{x} are kept in the {y}"]).format(
                x=topic, y=subject(rng, "place"), n=rng.randint(2, 30), p=price(rng, currency), t=clock(rng, style, 8, 23))
            return Fact("policy", topic, text)
        topic = pick(list(POLICIES))
        text = rng.choice(POLICIES[topic]).format(
            n=rng.randint(2, 30), p=price(rng, currency), t=clock(rng, style, 19, 23), t2=clock(rng, style, 5, 9))
        return Fact("policy", topic, text)

    def named_place():
        return f"{name(rng)} {rng.choice(['room', 'hall', 'bar', 'lounge', 'suite', 'garden', 'restaurant', 'wing', 'studio'])}"

    street = lambda: rng.choice([f"{rng.randint(1, 240)} {name(rng)} {rng.choice(['Street', 'Road', 'Avenue', 'Lane', 'Square'])}",
                                 f"{name(rng)}{rng.choice(['strasse', 'gatan', 'weg', 'plein'])} {rng.randint(1, 120)}"])
    weekday = lambda: rng.choice(["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "public holidays",
                                  "Mondays and Tuesdays", "Christmas Day"])
    makers = [
        (5, lambda: Fact("hours", pick(PLACES, "hours") if rng.random() < 0.8 else named_place(), hours(rng, style))),
        (3, lambda: Fact("meal", pick(MEALS), hours(rng, style))),
        (5, lambda: Fact("price", pick(PRICED, "price"), price(rng, currency))),
        (5, lambda: Fact("place", pick(PLACES, "place") if rng.random() < 0.7 else named_place(), place(rng))),
        (2.5, lambda: Fact("person", pick(ROLES, "person"), person(rng))),
        (2, lambda: Fact("phone", pick(PHONED, "phone"), phone(rng))),
        (1.5, lambda: Fact("distance", pick(DISTANT, "distance"), distance(rng))),
        (1, lambda: Fact("count", pick(COUNTED, "count"), str(rng.choice([rng.randint(2, 20), rng.randint(2, 400)])))),
        (3, policy),
        (1.5, lambda: Fact("event", pick(EVENTS, "event"), clock(rng, style, 8, 22))),
        (2, lambda: Fact("wifi_password", "wifi password", secret(rng))),
        (1.2, lambda: Fact("wifi_name", "wifi network", rng.choice([f"{name(rng)}-Guest", f"{name(rng)}_WiFi", f"{name(rng)}{rng.randint(1, 99)}", "Guest" + name(rng)]))),
        (1.2, lambda: Fact("checkin", "check-in", clock(rng, style, 12, 18))),
        (1.2, lambda: Fact("checkout", "check-out", clock(rng, style, 9, 13))),
        (0.8, lambda: Fact("address", "address", street())),
        (0.8, lambda: Fact("closed", "closed", weekday())),
        (1.0, lambda: Fact("opening", "opening hours", hours(rng, style))),
        (0.7, lambda: Fact("weekend", "weekend hours", hours(rng, style))),
        (0.4, lambda: Fact("year", "year", str(rng.randint(1650, 2024)))),
    ]
    weights = [weight for weight, _ in makers]
    found = {}
    while len(found) < count:
        fact = rng.choices(makers, weights)[0][1]()
        # One label must not stand for two facts: "Pool: 2nd floor" beside "Pool: 9-20" is kept, since the attribute differs.
        found.setdefault(fact.key(), fact)
    return list(found.values())


def strip_article(thing):
    """The subject as a list's label says it."""
    for article in ("the ", "a ", "an "):
        if thing.startswith(article):
            return thing[len(article):]
    return thing


def written(rng, fact, form):
    """One line about a fact, as a list entry ("list") or a sentence ("prose")."""
    labels, sentences = WRITTEN[fact.attr]
    thing, value = fact.thing, fact.value
    cap = lambda s: s[:1].upper() + s[1:]
    if form == "prose":
        text = "{T} is {v}." if thing in MEALS and fact.attr == "place" else rng.choice(sentences)
        out = text.format(t=thing, T=cap(thing), v=value, V=cap(value))
        return cap(out)
    bare = strip_article(thing)
    label = rng.choice(labels).format(t=bare, T=cap(bare) if rng.random() < 0.8 else bare)
    if fact.attr == "price" and label in (bare, cap(bare)) and rng.random() < 0.4:
        label += " price"
    sep = {"list": ": ", "dash": " - ", "equals": " = "}[form]
    return f"{cap(label) if rng.random() < 0.7 else label}{sep}{value}"
