"""Whole conversations: a system prompt with a venue's facts, then turns.

`conversation(rng)` makes one for training. `case(rng, kind)` makes one with a
known right answer for the evaluation, from venues, subjects and phrasings that
training never sees.
"""

import json
import random

import phrasings as P
import questions as Q
import tools as T
import venues as V

FILLERS = ["um", "uh", "so", "well", "ok", "hey", "hi", "hello", "excuse me", "sorry", "yeah", "er", "right", "please", "quick question", "good morning", "hi there"]
LEADS = ["could you tell me", "can you tell me", "do you know", "i was wondering", "i'd like to know", "please tell me", "tell me", "i wanted to ask", "can i ask", "just wondering"]
TAILS = ["please", "thanks", "thank you", "today", "then", "by the way", "if you know", "for me"]


def noisy(rng, text, whole=False):
    """Speech-like text: fillers, lost punctuation, repeated or misspelt words.

    With `whole` nothing is changed inside the text: a request to a tool carries
    values that must be passed on exactly.
    """
    words = text.split()
    if rng.random() < 0.25:
        words = rng.choice(LEADS).split() + words
    if rng.random() < 0.3:
        words = rng.choice(FILLERS).split() + words
    if rng.random() < 0.15:
        words += rng.choice(TAILS).split()
    if not whole and rng.random() < 0.06 and len(words) > 2:
        i = rng.randrange(len(words))
        words.insert(i, words[i])
    if not whole and rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["um", "uh", "like", "er"]))
    if not whole and rng.random() < 0.15:
        i = rng.randrange(len(words))
        word = words[i]
        # Numbers, names and times stay as they are: a misheard value has no right answer.
        if len(word) > 4 and word.isalpha() and word.islower():
            j = rng.randrange(1, len(word) - 1)
            words[i] = rng.choice([word[:j] + word[j + 1:], word[:j] + word[j + 1] + word[j] + word[j + 2:], word[:j] + word[j] + word[j:]])
    text = " ".join(words)
    style = rng.random()
    if style < 0.45:
        return text
    text = text[:1].upper() + text[1:]
    if style < 0.6:
        return text
    if style < 0.68:
        return text.replace("'", "")
    return text + ("?" if rng.random() < 0.85 else ".")


PREAMBLES = [
    "You are the concierge of {v}.", "You are the assistant at the front desk of {v}.", "You answer guests of {v}.", "You are a friendly voice assistant at {v}.",
    "You help visitors of {v}. Answer only from these facts.", "You are the digital concierge of {v}. If the facts do not say, say that you don't have that information.",
    "Welcome to {v}. You are the assistant here.", "You are concierge, the lobby assistant of {v}. Be short.", "You work at {v}, a {k}. Answer from the facts below.",
    "You are the receptionist at {v}.", "Assistant for {v}.", "{v}", "You are a helpful assistant for {v}. Use the information below to answer.",
    "You are an AI assistant in the lobby of {v}. Keep answers short and true.",
]
HEADINGS = ["Facts:", "Information:", "Here is what you know:", "What you know:", "About us:", "Facts about this place:", "Details:", "Info", "House information:", "Venue facts:", ""]


# Two facts about one subject in one line: (attributes, list forms, sentence forms).
JOINED = [
    (("hours", "place"), ["{T}: {hours}, {place}", "{T}: {place}, {hours}", "{T} ({place}): {hours}", "{T}: open {hours}, {place}"],
     ["The {t} is {place} and open {hours}.", "The {t} is {place}, open {hours}.", "The {t} is open {hours} and is {place}.", "You find the {t} {place}, it is open {hours}."]),
    (("hours", "price"), ["{T}: {hours}, {price}", "{T}: {price}, open {hours}", "{T}: {hours}, costs {price}"],
     ["The {t} is open {hours} and costs {price}.", "The {t} costs {price} and is open {hours}.", "The {t} is open {hours}, entry is {price}."]),
    (("place", "price"), ["{T}: {place}, {price}", "{T}: {price}, {place}"], ["The {t} is {place} and costs {price}.", "The {t} {place} costs {price}."]),
    (("meal", "place"), ["{T}: {meal}, {place}", "{T}: {meal} {place}"], ["{T} is served {meal} {place}.", "{T} is {place}, {meal}.", "We serve {t} {place} {meal}."]),
    (("meal", "price"), ["{T}: {meal}, {price}", "{T}: {meal} for {price}"], ["{T} is served {meal} and costs {price}.", "{T} is {meal} and is {price}."]),
    (("event", "price"), ["{T}: {event}, {price}"], ["The {t} starts at {event} and costs {price}."]),
    (("event", "place"), ["{T}: {event}, {place}"], ["The {t} starts at {event} {place}.", "The {t} is at {event}, {place}."]),
    (("wifi_name", "wifi_password"), ["WiFi: {wifi_name}, password {wifi_password}", "Wi-Fi: network {wifi_name}, password {wifi_password}", "wifi {wifi_name} / {wifi_password}"],
     ["The Wi-Fi network is {wifi_name} with the password {wifi_password}.", "Connect to {wifi_name}, the password is {wifi_password}."]),
    (("checkin", "checkout"), ["Check-in {checkin}, check-out {checkout}", "Check-in from {checkin}, check-out by {checkout}"],
     ["Check-in is from {checkin} and check-out is until {checkout}.", "You can check in from {checkin} and must check out by {checkout}."]),
]


def lines_of(rng, facts, form):
    """One line a fact, in any order; now and then one line for two facts that belong together."""
    facts = facts[:]
    rng.shuffle(facts)
    lines = []
    while facts:
        fact = facts.pop()
        one = rng.choice(["list", "prose"]) if form == "mixed" else form
        joined = None
        if rng.random() < 0.5:
            for attrs, lists, sentences in JOINED:
                if fact.attr not in attrs:
                    continue
                other = attrs[1] if fact.attr == attrs[0] else attrs[0]
                mates = [f for f in facts if f.attr == other and (f.thing == fact.thing or other.startswith(("wifi", "check")))]
                if mates:
                    facts.remove(mates[0])
                    thing = V.strip_article(fact.thing)
                    joined = rng.choice(sentences if one == "prose" else lists).format(
                        t=thing, T=thing[:1].upper() + thing[1:], **{fact.attr: fact.value, other: mates[0].value})
                    break
        lines.append(joined or V.written(rng, fact, one))
    return lines


def system_prompt(rng, venue, kind, facts):
    """The venue's facts in one of many forms, in any order."""
    lines = []
    if rng.random() < 0.93:
        lines.append(rng.choice(PREAMBLES).format(v=venue, k=kind))
    else:
        lines.append(f"Name: {venue}")
    if not facts:
        return "\n".join(lines)
    heading = rng.choice(HEADINGS)
    layout = rng.random()
    if layout < 0.62:
        form = rng.choice(["list", "list", "list", "prose", "dash", "equals", "mixed", "prose"])
        bullet = rng.choice(["- ", "- ", "", "* ", "• "])
        if heading:
            lines.append(heading)
        lines += [bullet + line for line in lines_of(rng, facts, form)]
        return "\n".join(lines)
    prose = " ".join(lines_of(rng, facts, "prose"))
    if heading and rng.random() < 0.4:
        lines.append(heading)
    return rng.choice(["\n", " ", "\n\n"]).join(lines + [prose])


def the(fact):
    thing = fact.thing
    return thing if fact.attr in ("price", "meal", "policy", "count") or thing in V.MEALS else f"the {thing}"


def question(rng, fact, heldout=False, facts=None):
    """How one asks for a fact. With `facts`, the venue's, as training asks: in far more ways."""
    ask = rng.choice(Q.part(Q.ASK[fact.attr], heldout) + (Q.MORE[fact.attr] if facts is not None else []))
    if facts is not None:
        if rng.random() < 0.55:
            ask = P.expand(rng, rng.choice(P.PATTERNS[fact.attr]))
        # Words may be lost where the subject alone says what is meant: it has one fact, or none.
        alone = all(f is fact or V.strip_article(f.thing) != V.strip_article(fact.thing) for f in facts)
        if "{t" in ask and alone and rng.random() < 0.22:
            ask = P.vague(rng, ask, V.coined)
    return ask.format(t=V.strip_article(fact.thing) if fact.attr != "price" else fact.thing, the=the(fact))


def answer(rng, fact):
    cap = lambda s: s[:1].upper() + s[1:]
    text = rng.choice(Q.ANSWER[fact.attr])
    if fact.thing in V.MEALS and fact.attr == "place":
        text = "{T} is {v}."
    return cap(text.format(t=fact.thing, T=cap(fact.thing), v=fact.value, V=cap(fact.value)))


def absent(rng, facts, kind, heldout=False, coin=0.0):
    """A question that these facts do not answer, preferably a near miss."""
    known = {fact.key() for fact in facts}
    things = {fact.thing for fact in facts}
    style = rng.random()
    for _ in range(50):
        if style < 0.35 and facts:
            # The subject is known, but not this about it.
            fact = rng.choice(facts)
            attr = rng.choice(["hours", "price", "place", "phone", "person", "distance"])
            if fact.attr not in ("hours", "price", "place", "meal", "event", "distance") or attr == "person":
                style = 0.5
                continue
            other = V.Fact(attr, V.strip_article(fact.thing), "")
            if (attr, fact.thing) in known or (attr, other.thing) in known or fact.attr == "meal" and attr in ("hours",):
                continue
            if attr in ("distance", "phone") and fact.attr == "distance":
                continue
            # One written label serves hours of places and meals alike.
            if attr == "hours" and ("meal", fact.thing) in known:
                continue
            return other
        other = V.facts(rng, kind, 1, heldout, coin)[0]
        # A different subject of an attribute that is known, or something else altogether.
        if other.key() in known or other.thing in things:
            continue
        if other.attr == "price" and any(V.strip_article(other.thing) == V.strip_article(t) for t in things):
            continue
        if other.attr in ("opening", "weekend", "closed") and known & {("opening", "opening hours"), ("weekend", "weekend hours"), ("closed", "closed")}:
            continue
        return other
    return V.Fact("year", "year", "") if ("year", "year") not in known else None


def off_topic(rng, heldout=False, wide=False):
    ask, topic = rng.choice(Q.part(Q.OFF_TOPIC, heldout)), rng.choice(Q.OFF_TOPIC_WORDS)
    if wide:
        if rng.random() < 0.6:
            ask = P.expand(rng, rng.choice(P.OFF_TOPIC))
        topic = topic if rng.random() < 0.4 else V.coined(rng)
    return ask.format(x=topic, y=rng.randint(1200, 2020), n=rng.randint(2, 99), m=rng.randint(2, 99))


def small_talk(rng, venue, heldout=False, wide=False):
    index = rng.randrange(len(Q.SMALL_TALK)) if wide else None
    asks, answers = Q.SMALL_TALK[index] if wide else rng.choice(Q.SMALL_TALK)
    at = f" to {venue}" if rng.random() < 0.8 else ""
    text = rng.choice(answers)
    where = at if "welcome" in text else (f" of {venue}" if "concierge" in text else (f" {venue}" if "visiting" in text else at))
    ask = P.expand(rng, rng.choice(P.SMALL_TALK[index])) if wide and rng.random() < 0.6 else rng.choice(Q.part(asks, heldout))
    return ask, text.format(at=where if venue and at else "")


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def follow_up(rng, facts, last):
    """A short question that leans on the last one: (text, fact or None)."""
    same_attr = [f for f in facts if f.attr == last.attr and f.thing != last.thing]
    same_thing = [f for f in facts if f.thing == last.thing and f.attr != last.attr and f.attr in Q.FOLLOW_ATTR]
    if same_attr and (not same_thing or rng.random() < 0.6):
        fact = rng.choice(same_attr)
        return rng.choice(Q.FOLLOW_THING).format(the=the(fact)), fact
    if same_thing:
        fact = rng.choice(same_thing)
        return rng.choice(Q.FOLLOW_ATTR[fact.attr]), fact
    return None, None


def paired(rng, facts, kind):
    """Adds facts that make follow-ups possible: other attributes of the same subjects."""
    known = {fact.key() for fact in facts}
    for fact in facts[:]:
        if fact.attr in ("hours", "place", "event", "meal") and rng.random() < 0.45:
            attr = rng.choice([a for a in ("hours", "price", "place") if a != fact.attr])
            if (attr, fact.thing) in known or (fact.attr in ("event", "meal") and attr == "hours"):
                continue
            style = rng.choice(["24", "24s", "am", "tight"])
            value = {"hours": lambda: V.hours(rng, style), "price": lambda: V.price(rng, rng.choice(V.CURRENCIES)),
                     "place": lambda: V.eating_place(rng) if fact.attr == "meal" else V.place(rng)}[attr]()
            facts.append(V.Fact(attr, fact.thing, value))
            known.add((attr, fact.thing))
    return facts


def tool_turn(rng, offered, heldout, more=False):
    """Messages of one request that calls a tool, with the arguments that are right."""
    tool, declared, call_name, spelled = rng.choice(offered)
    ask, arguments, done = tool.request(rng, spelled, heldout, more)
    return tool, ask, call_name, arguments, done


def offer(rng, count, heldout):
    chosen = rng.sample(T.TOOLS, count)
    if heldout is None:
        chosen = [T.invented(rng) if rng.random() < 0.25 else tool for tool in chosen]
    offered = []
    for tool in chosen:
        declared, call_name, spelled = tool.instance(rng, heldout)
        offered.append((tool, declared, call_name, spelled))
    return offered


def call_message(rng, call_name, arguments):
    return {"role": "assistant", "content": "", "tool_calls": [
        {"id": f"call_{rng.randint(0, 16 ** 8):08x}", "type": "function", "function": {"name": call_name, "arguments": arguments}}]}


def world(rng, heldout=False, low=3, high=15, coin=0.0):
    kind = rng.choice(V.held(V.KINDS, heldout))
    venue = V.venue_name(rng, kind)
    facts = V.facts(rng, kind, rng.randint(low, high), heldout, coin)
    return kind, venue, paired(rng, facts, kind)


# The share of training subjects that are on no list.
COIN = 0.5


def conversation(rng):
    """(messages, tools) of one training conversation."""
    if rng.random() < 0.03:
        system = rng.choice([None, None, "You are a helpful assistant.", "You are a voice assistant.", "Be brief."])
        messages = [{"role": "system", "content": system}] if system else []
        for _ in range(rng.randint(1, 2)):
            if rng.random() < 0.6:
                ask, text = small_talk(rng, "", wide=True)
            else:
                kind, _, facts = world(rng, low=2, high=4, coin=COIN)
                ask, text = (off_topic(rng, wide=True) if rng.random() < 0.5 else question(rng, rng.choice(facts), facts=[])), rng.choice(Q.UNKNOWN)
            messages += [user(noisy(rng, ask)), said(text)]
        return messages, []
    with_tools = rng.random() < 0.28
    kind, venue, facts = world(rng, low=0 if with_tools else 2, high=6 if with_tools else rng.choice([6, 10, 15, 22]), coin=COIN)
    offered = offer(rng, rng.choice([1, 1, 2, 2, 3, 4]), None) if with_tools else []
    messages = [{"role": "system", "content": system_prompt(rng, venue, kind, facts)}]
    last = None
    # Many turns on one set of facts: the facts are most of the tokens, the answers all of the lesson.
    for _ in range(rng.choice([1, 2, 3, 4, 5, 6, 8, 10])):
        roll = rng.random()
        if offered and roll < 0.6:
            if rng.random() < 0.1:
                others = [t for t in T.TOOLS if t not in [o[0] for o in offered]]
                tool = rng.choice(others)
                _, _, spelled = tool.instance(rng, None)
                ask, _, _ = tool.request(rng, spelled, False)
                messages += [user(noisy(rng, ask, True)), said(rng.choice(T.NO_TOOL))]
            else:
                tool, ask, call_name, arguments, done = tool_turn(rng, offered, False, more=True)
                messages += [user(noisy(rng, ask, True)), call_message(rng, call_name, arguments)]
                if rng.random() < 0.85:
                    result = rng.choice(['{"ok": true}', "ok", '{"status": "done"}', "success", '{"result": "ok"}', "done"])
                    messages += [{"role": "tool", "content": result, "tool_call_id": "1"}, said(done)]
                else:
                    return messages, [o[1] for o in offered]
            last = None
            continue
        if roll < 0.08 or (offered and not facts):
            ask, text = small_talk(rng, venue, wide=True)
            messages += [user(noisy(rng, ask) if rng.random() < 0.4 else ask), said(text)]
            continue
        if last is not None and rng.random() < 0.4:
            ask, fact = follow_up(rng, facts, last)
            if ask:
                messages += [user(noisy(rng, ask)), said(answer(rng, fact))]
                last = fact
                continue
            if rng.random() < 0.5:
                # A follow-up that the facts do not answer.
                other = absent(rng, facts, kind, coin=COIN)
                if other is not None and other.attr == last.attr:
                    messages += [user(noisy(rng, rng.choice(Q.FOLLOW_THING).format(the=the(other)))), said(rng.choice(Q.UNKNOWN))]
                    continue
        if rng.random() < 0.3 or not facts:
            other = absent(rng, facts, kind, coin=COIN) if rng.random() < 0.75 else None
            ask = question(rng, other, facts=facts) if other is not None else off_topic(rng, wide=True)
            messages += [user(noisy(rng, ask)), said(rng.choice(Q.UNKNOWN))]
            last = None
            continue
        fact = rng.choice(facts)
        messages += [user(noisy(rng, question(rng, fact, facts=facts))), said(answer(rng, fact))]
        last = fact
    return messages, [o[1] for o in offered]


def case(rng, kind_of_case):
    """One evaluation case: what to send, and how to tell whether the answer is right."""
    tool_case = kind_of_case in ("tool call", "tool offered, not needed")
    # "phrasing" asks trained subjects in new words; the others ask new venues and subjects in trained words.
    kind, venue, facts = world(rng, heldout=kind_of_case != "phrasing", low=5, high=6 if tool_case else 14)
    out = {"kind": kind_of_case, "tools": []}
    messages = [{"role": "system", "content": system_prompt(rng, venue, kind, facts)}]
    if kind_of_case in ("fact", "phrasing", "tool offered, not needed"):
        if tool_case:
            out["tools"] = [o[1] for o in offer(rng, rng.choice([1, 2, 3]), True)]
        fact = rng.choice(facts)
        messages.append(user(noisy(rng, question(rng, fact, kind_of_case == "phrasing"))))
        out["value"] = fact.value
    elif kind_of_case == "follow-up":
        for _ in range(200):
            first = rng.choice(facts)
            ask, fact = follow_up(rng, facts, first)
            if ask:
                break
            kind, venue, facts = world(rng, heldout=True, low=6, high=14)
        messages = [{"role": "system", "content": system_prompt(rng, venue, kind, facts)},
                    user(noisy(rng, question(rng, first))), said(answer(rng, first)), user(noisy(rng, ask))]
        out["value"] = fact.value
    elif kind_of_case == "not in the facts":
        other = absent(rng, facts, kind, True) if rng.random() < 0.75 else None
        messages.append(user(noisy(rng, question(rng, other, rng.random() < 0.5) if other is not None else off_topic(rng, rng.random() < 0.5))))
        out["unknown"] = True
    elif kind_of_case == "tool call":
        offered = offer(rng, rng.choice([1, 2, 2, 3]), True)
        tool, ask, call_name, arguments, _ = tool_turn(rng, offered, rng.random() < 0.5)
        out["tools"] = [o[1] for o in offered]
        messages.append(user(noisy(rng, ask, True)))
        out["call"] = {"name": call_name, "arguments": arguments}
    elif kind_of_case == "small talk":
        ask, text = small_talk(rng, venue, True)
        messages.append(user(ask))
        out["small_talk"] = True
    out["messages"] = messages
    return out


CASES = [("fact", 300), ("phrasing", 300), ("follow-up", 200), ("not in the facts", 300), ("tool call", 300), ("tool offered, not needed", 200), ("small talk", 200)]


def evaluation(seed=20260101):
    """The fixed held-out set. Its seed is far from every training seed."""
    cases = []
    for kind, count in CASES:
        rng = random.Random(f"{seed} {kind}")
        cases += [case(rng, kind) for _ in range(count)]
    return cases


if __name__ == "__main__":
    shown = random.Random(7)
    for _ in range(6):
        messages, offered = conversation(shown)
        for message in messages:
            print(f"[{message['role']}] {message.get('content') or json.dumps(message.get('tool_calls'))}")
        for tool in offered:
            print("[tool]", json.dumps(tool))
        print("-" * 60)
