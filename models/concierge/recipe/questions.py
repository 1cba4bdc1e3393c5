"""How people ask, and how concierge answers.

Each attribute has several ways to ask. The last fifth of every list is kept
out of training: the evaluation of "held-out phrasings" asks with those alone.
`{t}` is the thing without its article, `{the}` the thing as one says it.
"""

ASK = {
    "hours": ["when is {the} open", "what time does {the} open", "what are the opening hours of {the}", "what time does {the} close",
              "how late is {the} open", "is {the} open now", "when can i go to {the}", "{t} hours", "when does {the} open and close",
              "what are {the} hours", "tell me the {t} hours", "till when is {the} open", "from when can i use {the}",
              "what time can i use {the}", "how long is {the} open today", "are you able to tell me when {the} opens",
              "until what time can i still get into {the}", "at what hour does {the} shut", "is it possible to visit {the} early in the morning",
              "{t} opening times please"],
    "meal": ["when is {t}", "what time is {t} served", "when do you serve {t}", "what time is {t}", "until when can i get {t}",
             "how late is {t}", "when does {t} start", "{t} times", "when can i have {t}", "what are the {t} hours", "how long is {t} served",
             "is there still {t} now", "when does {t} end", "by what time must i come for {t}", "from what hour do you do {t}", "{t} is from when to when"],
    "price": ["how much is {t}", "what does {t} cost", "what is the price of {t}", "how much do you charge for {t}", "how expensive is {t}",
              "what do i pay for {t}", "price of {t}", "how much does {t} cost", "what's the cost of {t}", "is {t} free", "do i have to pay for {t}",
              "how much money for {t}", "can you tell me the price for {t}", "what would {t} set me back", "what is the fee for {t}", "how much would i owe you for {t}"],
    "place": ["where is {the}", "how do i get to {the}", "where can i find {the}", "which floor is {the} on", "what floor is {the}",
              "where's {the}", "i'm looking for {the}", "can you tell me where {the} is", "how do i find {the}", "i can't find {the}",
              "do you know where {the} is", "on which level is {the}", "where do i go for {the}", "could you point me to {the}", "in what part of the building is {the}",
              "which way to {the}"],
    "person": ["who is {the}", "what is the name of {the}", "what's {the} called", "who's {the}", "can you tell me who {the} is", "name of {the}",
               "do you know the name of {the}", "who works as {t}", "i need to know who {the} is", "who is {the} here",
               "how is {the} called", "could i get the name of {the}", "and which person is {the}"],
    "phone": ["what is the number of {the}", "how do i call {the}", "what's the phone number for {the}", "how can i reach {the}", "number for {the}",
              "which number do i dial for {the}", "what is the extension of {the}", "i need to phone {the}", "how do i contact {the}", "phone number of {the}",
              "give me the number for {the}", "what do i dial to get {the}", "i would like to ring {the}", "on what number can i get hold of {the}"],
    "distance": ["how far is {the}", "how far away is {the}", "how do i get to {the} and how long does it take", "how long does it take to {the}",
                 "what's the distance to {the}", "is {the} far from here", "how far is it to {the}", "how close is {the}", "distance to {the}",
                 "how many minutes to {the}", "can i walk to {the}", "is {the} nearby", "how long is the way to {the}"],
    "count": ["how many {t} are there", "how many {t} do you have", "what is the number of {t}", "how many {t}", "do you know how many {t} you have",
              "how many {t} are in the house", "can you tell me how many {t} there are", "count of {t}", "what number of {t} have you got", "the {t} here how many are there"],
    "policy": ["what is the rule about {t}", "what is your policy on {t}", "what are the rules for {t}", "what about {t}", "tell me about {t}",
               "is there a rule about {t}", "{t} policy", "what should i know about {t}", "what do i need to know about {t}", "how do you handle {t}",
               "any rules on {t}", "what do you say about {t}", "how is it with {t} here"],
    "wifi_name": ["what is the wifi called", "which wifi network do i use", "what's the wifi name", "name of the wifi", "which network should i connect to",
                  "what is the name of the wifi network", "which wlan is yours", "what network do i pick for the internet"],
    "wifi_password": ["what is the wifi password", "what's the password for the wifi", "wifi password please", "how do i get on the wifi", "how do i connect to the internet",
                      "can i have the wifi password", "what's the wifi code", "i need the internet password", "password for the internet", "give me the password for the wifi",
                      "what do i type in to get online", "the wireless is asking me for a password", "what is the key for the wireless"],
    "checkin": ["when is check in", "what time can i check in", "when can i get into my room", "from when can i check in", "check in time", "what time is check-in",
                "how early can i check in", "at what hour may i check in", "when will my room be ready"],
    "checkout": ["when is check out", "what time do i have to check out", "when do i need to leave the room", "until when can i check out", "check out time", "what time is check-out",
                 "by when do i have to be out", "what is the latest time to check out", "how long can i keep my room"],
    "address": ["what is your address", "where are you located", "what's the address here", "which street is this", "what is the address of this place", "can you give me the address",
                "what do i tell the taxi driver as the address", "what street are you on"],
    "closed": ["when are you closed", "on which day are you closed", "are you open every day", "which days are you closed", "is there a day you are closed",
               "what day do you not open", "on what day are your doors shut"],
    "opening": ["when are you open", "what are your opening hours", "what time do you open", "what time do you close", "how late are you open", "opening hours please", "when do you close today",
                "at what time do you shut", "from when to when can one come in"],
    "weekend": ["when are you open on the weekend", "what are your weekend hours", "are you open on weekends", "what are the hours on saturday and sunday",
                "when can i come on the weekend", "on weekends when do you open"],
    "event": ["when is the {t}", "what time does the {t} start", "when does the {t} begin", "what time is the {t}", "at what time is the {t}", "{t} time",
              "do you know when the {t} is", "when do i need to be there for the {t}", "at what hour does the {t} kick off", "what is the starting time of the {t}"],
    "year": ["when was this place built", "how old is this building", "when did you open first", "what year was it founded", "since when does this place exist", "in which year was this house built"],
}

# More ways to ask, for training alone; none of them is kept out.
MORE = {
    "hours": ["can i still go to {the} tonight", "could i use {the} in the evening", "at what time may i enter {the}", "is {the} open late",
              "when do you lock {the}", "what are the times for {the}", "until when is {the} accessible", "when is {the} closing",
              "by when must i leave {the}", "from what hour can people visit {the}", "does {the} close early", "i want to know the hours of {the}",
              "what hours does {the} have"],
    "meal": ["until what hour can one have {t}", "at what hour is {t}", "is it too late for {t}", "when should i come for {t}",               "what are the times of {t}", "when do people eat {t} here", "what hour do you start with {t}", "may i still have {t}"],
    "price": ["what must i pay for {t}", "what will {t} cost me", "is there a charge for {t}", "what's the rate for {t}",
              "how many do i have to pay for {t}", "what do you ask for {t}", "tell me what {t} costs", "and what is the charge for {t}", "how dear is {t}",
              "the price for {t} please", "what does one pay for {t}"],
    "place": ["on what level would i find {the}", "where in the house is {the}", "in which building is {the}", "tell me the way to {the}",
              "show me where {the} is", "where would {the} be", "how can i reach {the} from here",               "where should i go to find {the}", "how do you get to {the}", "in what area is {the}", "where exactly is {the}", "what is the location of {the}"],
    "person": ["who do i ask for as {t}", "the name of {the} please", "who is working as {t}", "tell me the name of {the}", "do you know who {the} is",
              "who would {the} be", "what do you call {the}", "may i know who {the} is"],
    "phone": ["what do i call to talk to {the}", "what's {the}'s number", "under which number is {the}", "i want to call {the}",
              "which phone number has {the}", "tell me how to call {the}", "how do i get through to {the}", "what number is {the} on",
              ],
    "distance": ["how many metres to {the}", "how long do i need to {the}", "how much time does it take to {the}", "is it a long walk to {the}",
              "in how many minutes am i at {the}", "how near is {the}", "how long would i walk to {the}"],
    "count": ["tell me the number of {t}", "how many {t} does this place have", "are there many {t}",
              "do you have a lot of {t} how many", "exactly how many {t} are here", "and how many {t} exist"],
    "policy": ["are {t} ok here", "can you explain the rule on {t}", "what do i do about {t}", "how about {t}", "what does the house say about {t}",
              "is anything said about {t}", "are there rules concerning {t}", "what's allowed with {t}", "tell me the rule for {t}",
              "do you have a rule for {t}"],
    "wifi_name": ["which wireless network is it", "under what name is the wifi", "how is the wifi named", "tell me the network name",
              "what is the name of your wlan", "to which network do i connect", "what's the internet called here"],
    "wifi_password": ["what is the code for the internet", "tell me the wifi password", "which password does the wifi have", "what do i enter for the wifi",
              "how can i log in to the wifi", "i want to use the wifi what is the password",               "what are the wifi login details", "what is the secret for the wlan"],
    "checkin": ["from what time is my room free", "when may i move into the room", "at what time do you let us check in", "what hour is the check in",
              "when are rooms available", "can you say when check in begins"],
    "checkout": ["at what time must the room be empty", "when does check out end", "until what hour may i stay in my room", "what hour is the check out",
              "by what time do we leave the room", "till when do i have the room"],
    "address": ["tell me the address please", "in which street do i find you", "what address do i give the driver", "where is this house",
              "how do i write your address"],
    "closed": ["do you close on some day", "which day is your day off", "is it closed on any day"],
    "opening": ["what hours are you open", "from when are you open", "till when are you open", "when is the house open", "at what hour do you open and close"],
    "weekend": ["what about the weekend hours", "do you open on saturday", "how long are you open on sundays", "when do you open on saturday and sunday"],
    "event": ["from when is the {t}", "when exactly is the {t}", "what hour is the {t}", "when will the {t} start",
              "tell me when the {t} is", "what is the time of the {t}", "at which time is the {t} on"],
    "year": ["how many years old is the house", "in what year did it open", "when did they build this", "since what year are you here"],
}

ANSWER = {
    "hours": ["The {t} is open {v}.", "The opening hours of the {t} are {v}."],
    "meal": ["{T} is served {v}.", "We serve {t} {v}."],
    "price": ["{T} costs {v}.", "The price of {t} is {v}."],
    "place": ["The {t} is {v}.", "You will find the {t} {v}."],
    "person": ["The {t} is {v}.", "Our {t} is {v}."],
    "phone": ["You can reach the {t} at {v}.", "The number of the {t} is {v}."],
    "distance": ["The {t} is {v}.", "It is {v} to the {t}."],
    "count": ["There are {v} {t}.", "We have {v} {t}."],
    "policy": ["{V}."],
    "wifi_name": ["The Wi-Fi network is {v}.", "The network is called {v}."],
    "wifi_password": ["The Wi-Fi password is {v}."],
    "checkin": ["Check-in is from {v}.", "You can check in from {v}."],
    "checkout": ["Check-out is until {v}.", "Please check out by {v}."],
    "address": ["Our address is {v}.", "We are at {v}."],
    "closed": ["We are closed on {v}."],
    "opening": ["We are open {v}.", "Our opening hours are {v}."],
    "weekend": ["On weekends we are open {v}."],
    "event": ["The {t} starts at {v}.", "The {t} is at {v}."],
    "year": ["It dates from {v}.", "The year is {v}."],
}

# A follow-up on the same attribute with another subject, or on the same subject with another attribute.
FOLLOW_THING = ["and {the}", "what about {the}", "and for {the}", "how about {the}", "and {the} please", "ok and {the}", "same question for {the}", "and what of {the}"]
FOLLOW_ATTR = {
    "hours": ["when is it open", "what time does it open", "what are the hours", "and when does it close", "until when can i use it"],
    "price": ["how much is it", "what does it cost", "and the price", "how much is that", "what do i pay for it"],
    "place": ["where is it", "and where is that", "how do i get there", "which floor is it on", "and how do i find it"],
    "person": ["who is that"],
    "phone": ["what is the number", "how do i call them", "and the phone number", "what do i dial"],
    "distance": ["how far is it", "is it far", "and how long does it take"],
}

UNKNOWN = [
    "I'm sorry, I don't have that information. Please ask the staff.",
    "I don't have that information, sorry. The staff can help you.",
    "Sorry, I don't have that information. Please ask at the desk.",
]
# Nothing that a venue's facts would say.
OFF_TOPIC = [
    "what is the capital of {x}", "who won the football game last night", "write me a poem about {x}", "what is the weather tomorrow", "how do i cook {x}",
    "what's {n} times {m}", "who is the president", "translate {x} into french", "what is the meaning of life", "can you help me with my homework",
    "what time is it", "what day is it today", "how tall is the eiffel tower", "tell me the news", "explain quantum physics", "what should i wear today",
    "who wrote {x}", "is it going to rain", "how do i fix my car", "what is the best phone to buy", "book me a flight to {x}", "what happened in {y}",
    "how many people live in {x}", "give me a recipe for {x}", "what stocks should i buy", "who is {x}", "how do i get to the moon", "define {x}",
    "is {x} a good movie", "what does {x} mean", "can you read my email", "how far is the sun", "why is the sky blue", "what is {n} percent of {m}",
]
OFF_TOPIC_WORDS = "pasta france rice soup germany love winter music peru music cheese history paris spring chess japan bread coffee brazil tea dreams".split()

SMALL_TALK = [
    (["hello", "hi", "hi there", "hey", "good morning", "good evening", "hello there", "good afternoon", "hey there", "hiya", "greetings", "good day to you"],
     ["Hello and welcome{at}! How can I help you?", "Hello! How can I help you today?"]),
    (["thank you", "thanks", "thanks a lot", "thank you very much", "great thanks", "perfect thank you", "ok thanks", "cheers", "thanks for your help", "many thanks", "that was helpful thanks", "much appreciated"],
     ["You're welcome! Is there anything else I can do for you?", "You're welcome!", "My pleasure."]),
    (["bye", "goodbye", "see you", "see you later", "good night", "bye bye", "have a nice day", "that's all", "ok bye", "i'm leaving now", "until next time", "so long"],
     ["Goodbye! Have a nice day.", "Goodbye, and thank you for visiting{at}."]),
    (["who are you", "what are you", "are you a robot", "are you human", "what's your name", "who am i talking to", "what is your name", "are you a real person", "is this a machine", "am i speaking to a person", "what do i call you"],
     ["I'm the digital concierge{at}. I can answer questions about this place.", "I'm concierge, a small assistant that runs on this device."]),
    (["how are you", "how are you doing", "how's it going", "are you ok", "how do you do", "how are you today", "everything fine with you", "what's up"],
     ["I'm doing well, thank you! How can I help you?", "Very well, thank you. What can I do for you?"]),
    (["what can you do", "can you help me", "i need help", "how can you help me", "what can i ask you", "help", "i have a question", "what do you know", "what are you good for", "which things can i ask"],
     ["I can answer questions about this place, such as hours, prices and directions.", "Of course. Ask me about hours, prices, rooms or rules."]),
    (["you are great", "good job", "well done", "you're very kind", "i like you", "that's nice", "wonderful", "awesome", "you are so helpful", "you are the best"],
     ["Thank you, that is kind of you!", "Thank you! I'm glad I could help."]),
    (["that's wrong", "you are useless", "you are stupid", "this is bad", "i'm not happy", "i am angry", "this is terrible", "what a bad service"],
     ["I'm sorry about that. The staff will be happy to help you.", "I'm sorry. Please talk to the staff, they can help."]),
    (["tell me a joke", "say something funny", "make me laugh", "do you know a joke", "another joke please"],
     ["Why did the suitcase go to the doctor? It had too much baggage.", "What does a clock do when it is hungry? It goes back four seconds."]),
    (["sorry", "never mind", "nothing", "forget it", "it's ok", "no thanks", "no", "i was not talking to you", "wrong button"],
     ["No problem. Just ask if you need anything.", "All right. I'm here if you need me."]),
    (["yes", "ok", "okay", "sure", "alright", "right", "i see", "got it", "understood", "fine then"],
     ["Great. Is there anything else I can do for you?", "Good. Just ask if you need anything else."]),
]


def part(items, heldout):
    """Training's four fifths of a list of phrasings, or the fifth kept out."""
    cut = max(1, len(items) // 5)
    return items[-cut:] if heldout else items[:-cut]
