//! How facts are written in a prompt, asked for and answered.
//!
//! Only tables and their choice. Marks: `{e}` the thing with its article, `{E}` the same with a
//! capital, `{n}`/`{N}` without article, `{v}` the value, `{u}` the unit with a leading space,
//! `{a}`/`{b}` opening and closing time, `{r}` the whole schedule, `{day}` the asked day,
//! `{is}` is/are, `{do}` does/do, `{s}` the verb's ending. A question may carry an indirect form
//! after `|`. A leading `!` keeps a phrasing out of training.

use crate::entities::Kind;

/// What a fact says about its thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attr {
    /// Opening or serving times.
    Hours,
    /// An amount of money.
    Price,
    /// A deposit.
    Deposit,
    /// Where it is.
    Location,
    /// A phone number.
    Phone,
    /// Who leads it.
    Host,
    /// How many people fit.
    Capacity,
    /// From which age.
    Age,
    /// When it takes place.
    Time,
    /// Whether it is allowed.
    Rule,
    /// The network's name.
    Network,
    /// The network's password.
    Password,
    /// How far it is.
    Distance,
    /// A code.
    Code,
    /// A person's name.
    Name,
    /// A street address.
    Address,
    /// A mail address.
    Email,
    /// A web site.
    Website,
    /// A title or dish.
    Title,
    /// A length of time.
    Limit,
}

/// The phrasings of one kind of question.
#[derive(Debug)]
pub struct Bank {
    /// `key: value` lines of a prompt.
    pub lines: &'static [&'static str],
    /// Prose of a prompt.
    pub prose: &'static [&'static str],
    /// What the guest says.
    pub ask: &'static [&'static str],
    /// Short follow-up forms, when the thing was just spoken of (`it`).
    pub follow: &'static [&'static str],
    /// What the desk answers.
    pub say: &'static [&'static str],
    /// The topic, for "I don't have information about …".
    pub topic: &'static str,
}

/// The phrasings for a fact of `attr` about a thing of `kind`.
pub fn bank(attr: Attr, kind: Kind) -> &'static Bank {
    match (attr, kind) {
        (Attr::Hours, Kind::Meal) => &SERVED,
        (Attr::Hours, _) => &HOURS,
        (Attr::Price, Kind::Place) => &ENTRY,
        (Attr::Price, _) => &PRICE,
        (Attr::Deposit, _) => &DEPOSIT,
        (Attr::Location, Kind::Role) => &OFFICE,
        (Attr::Location, Kind::Item) => &COUNTER,
        (Attr::Location, _) => &LOCATION,
        (Attr::Phone, Kind::Venue) => &MAIN_PHONE,
        (Attr::Phone, _) => &PHONE,
        (Attr::Host, _) => &HOST,
        (Attr::Capacity, _) => &CAPACITY,
        (Attr::Age, _) => &AGE,
        (Attr::Time, Kind::Event) => &EVENT,
        (Attr::Time, _) => &MOMENT,
        (Attr::Rule, _) => &RULE,
        (Attr::Network, _) => &NETWORK,
        (Attr::Password, _) => &PASSWORD,
        (Attr::Distance, _) => &DISTANCE,
        (Attr::Code, _) => &CODE,
        (Attr::Name, _) => &NAME,
        (Attr::Address, _) => &ADDRESS,
        (Attr::Email, _) => &EMAIL,
        (Attr::Website, _) => &WEBSITE,
        (Attr::Title, _) => &TITLE,
        (Attr::Limit, _) => &LIMIT,
    }
}

/// Questions for the opening time alone.
pub const OPENS: &[&str] = &[
    "what time does {e} open|what time {e} open{s}", "when does {e} open|when {e} open{s}", "how early does {e} open|how early {e} open{s}",
    "from when is {e} open|from when {e} {is} open", "what's the opening time of {e}|the opening time of {e}",
    "when can i go to {e} at the earliest", "does {e} open early in the morning", "since when is {e} open today", "what time can i start using {e}|what time i can start using {e}",
    "!at what time does {e} start|at what time {e} starts", "!when do the doors of {e} open|when the doors of {e} open", "!how soon in the morning can i get into {e}",
];
/// Questions for the closing time alone.
pub const CLOSES: &[&str] = &[
    "what time does {e} close|what time {e} close{s}", "when does {e} close|when {e} close{s}", "how late is {e} open|how late {e} {is} open",
    "until when is {e} open|until when {e} {is} open", "how long is {e} open tonight", "what's the closing time of {e}|the closing time of {e}",
    "till when can i use {e}|till when i can use {e}", "when do you close {e}", "does {e} close late", "when does {e} shut",
    "!by when do i have to leave {e}|by when i have to leave {e}", "!how late can i still get into {e}", "!what time do they lock up {e}",
];
/// Follow-ups for the opening time.
pub const OPENS_FOLLOW: &[&str] = &["and when does it open", "what time does it open", "when does it open again", "and from when", "!how early does that open up", "and the opening time"];
/// Follow-ups for the closing time.
pub const CLOSES_FOLLOW: &[&str] = &["and when does it close", "until when", "and how late is it open", "when does it close", "what time does it close", "!till what time is that", "and the closing time"];
/// Answers for the opening time.
pub const OPENS_SAY: &[&str] = &["{E} open{s} at {a}.", "{E} {is} open from {a}."];
/// Answers for the closing time.
pub const CLOSES_SAY: &[&str] = &["{E} close{s} at {b}.", "{E} {is} open until {b}."];
/// Questions for one day.
pub const DAY: &[&str] = &[
    "what time is {e} open on {day}|what time {e} {is} open on {day}", "is {e} open on {day}|if {e} {is} open on {day}", "what are the hours of {e} on {day}|the hours of {e} on {day}",
    "when does {e} open on {day}|when {e} open{s} on {day}", "when is {e} open on a {day}|when {e} {is} open on a {day}", "on {day} when can i go to {e}", "{day} hours for {e}",
    "are you open on {day} i mean {e}", "!i come on {day} is {e} open then", "!how about {e} on {day} what are the times", "!can i visit {e} this {day}",
];
/// Follow-ups for one day.
pub const DAY_FOLLOW: &[&str] = &["and on {day}", "and on {day}s", "what about {day}", "how about on {day}", "is it the same on {day}", "!is that different on {day}", "and {day}s", "on {day} too", "!what if i come on {day}"];

const HOURS: Bank = Bank {
    lines: &["{N} hours: {r}", "{N} opening hours: {r}", "{N}: {r}", "{N}: open {r}", "{N} (open {r})", "Hours of {e}: {r}", "{N} - {r}"],
    prose: &["{E} {is} open {r}.", "{E} {is} open {r}.", "You can use {e} {r}.", "Opening times of {e}: {r}.", "{E} {is} there for you {r}."],
    ask: &[
        "what are the opening hours of {e}|the opening hours of {e}", "when is {e} open|when {e} {is} open", "what are the hours for {e}|the hours for {e}",
        "what time is {e} open|what time {e} {is} open", "what time can i use {e}|what time i can use {e}", "what hours does {e} have|what hours {e} {do} have", "{n} hours",
        "opening times of {e}", "when can i go to {e}|when i can go to {e}", "from when to when is {e} open|from when to when {e} {is} open", "is {e} open today", "{e} when is it open", "what are your hours for {e}",
        "between what times is {e} open|between what times {e} {is} open", "how long is {e} open|how long {e} {is} open", "at what times is {e} open", "tell me when {e} is open",
        "!what is the schedule of {e}|the schedule of {e}", "!at which times could i visit {e}|at which times i could visit {e}", "!when would i find {e} open|when i would find {e} open", "!the {n} what times please",
    ],
    follow: &["and when is it open", "what are the hours", "when is it open", "and the opening hours", "what times is it open", "!and which hours is that", "when can i go there", "!at what times can i go"],
    say: &["{E} {is} open {r}.", "{E} {is} open {r}."],
    topic: "the opening hours of {e}",
};
const SERVED: Bank = Bank {
    lines: &["{N}: {r}", "{N} served: {r}", "{N} hours: {r}", "{N} times: {r}", "{N} - {r}"],
    prose: &["{E} {is} served {r}.", "{E} {is} available {r}.", "We serve {e} {r}.", "You can have {e} {r}."],
    ask: &[
        "what time is {e}|what time {e} is", "when is {e} served|when {e} is served", "when do you serve {e}|when you serve {e}", "what time is {e} served|what time {e} is served",
        "when can i get {e}|when i can get {e}", "when is {e}|when {e} is", "from when to when is {e}", "what are the times for {e}|the times for {e}", "when can we have {e}|when we can have {e}",
        "what time do you do {e}|what time you do {e}", "{n} times", "at what time is {e}", "how long is {e} on|how long {e} is on", "when do i need to come for {e}|when i need to come for {e}",
        "!at what hours can we eat {e}|at what hours we can eat {e}", "!which hours is {e} on|which hours {e} is on", "!when would i be able to have {e}", "!when should i be there for {e}|when i should be there for {e}",
    ],
    follow: &["and when is it", "what time is that", "when is that served", "and what time", "!at what hours"],
    say: &["{E} {is} served {r}.", "{E} {is} available {r}."],
    topic: "the times of {e}",
};
const PRICE: Bank = Bank {
    lines: &["{N}: {v}{u}", "{N} price: {v}{u}", "Price of {e}: {v}{u}", "{N} - {v}{u}", "{N} costs {v}{u}", "{N} ({v}{u})"],
    prose: &["{E} cost{s} {v}{u}.", "{E} {is} {v}{u}.", "For {e} we charge {v}{u}.", "The price of {e} is {v}{u}.", "{E} is available for {v}{u}."],
    ask: &[
        "how much is {e}|how much {e} {is}", "how much does {e} cost|how much {e} cost{s}", "what does {e} cost|what {e} cost{s}", "what's the price of {e}|the price of {e}", "what is the price for {e}|the price for {e}",
        "how much do you charge for {e}|how much you charge for {e}", "how much for {e}", "do i have to pay for {e}|if i have to pay for {e}", "how expensive is {e}|how expensive {e} {is}", "price of {e}",
        "how much do i pay for {e}|how much i pay for {e}", "what do you charge for {e}|what you charge for {e}", "what would {e} cost me|what {e} would cost me", "how much money is {e}", "{n} price",
        "!what will i be paying for {e}|what i will be paying for {e}", "!is {e} expensive how much", "!what's the cost of {e}|the cost of {e}", "!what does it cost to get {e}|what it costs to get {e}", "!how many euros is {e}",
    ],
    follow: &["how much is that", "and how much is it", "what does it cost", "how much does that cost", "and the price", "is that free or what does it cost", "!what's that gonna cost me", "do i have to pay for that", "!and what do you charge for that", "how much"],
    say: &["{E} cost{s} {v}{u}.", "{E} {is} {v}{u}.", "That's {v}{u}."],
    topic: "the price of {e}",
};
const ENTRY: Bank = Bank {
    lines: &["{N} entry: {v}{u}", "{N} fee: {v}{u}", "Entry to {e}: {v}{u}", "{N} price: {v}{u}", "{N} use: {v}{u}"],
    prose: &["Entry to {e} costs {v}{u}.", "Using {e} costs {v}{u}.", "{E} costs {v}{u}.", "The fee for {e} is {v}{u}."],
    ask: &[
        "how much is {e}|how much {e} {is}", "how much does {e} cost|how much {e} cost{s}", "what does it cost to use {e}|what it costs to use {e}", "how much is entry to {e}|how much entry to {e} is", "do i have to pay for {e}|if i have to pay for {e}",
        "is there a fee for {e}|if there is a fee for {e}", "what's the entrance fee for {e}|the entrance fee for {e}", "what's the price for {e}|the price for {e}", "how much do you charge for {e}|how much you charge for {e}", "what does {e} cost",
        "!is {e} free of charge", "!what do i pay to get into {e}|what i pay to get into {e}", "!what's the cost of going to {e}|the cost of going to {e}",
    ],
    follow: PRICE.follow,
    say: &["{E} cost{s} {v}{u}.", "Entry to {e} costs {v}{u}."],
    topic: "the price of {e}",
};
const DEPOSIT: Bank = Bank {
    lines: &["{N} deposit: {v}", "Deposit for {e}: {v}"],
    prose: &["The deposit for {e} is {v}.", "For {e} we take a deposit of {v}.", "{E} requires a deposit of {v}."],
    ask: &[
        "how much is the deposit for {e}|how much the deposit for {e} is", "is there a deposit for {e}|if there is a deposit for {e}", "do i have to leave a deposit for {e}|if i have to leave a deposit for {e}", "what's the deposit on {e}|the deposit on {e}",
        "what deposit do you take for {e}|what deposit you take for {e}", "deposit for {e}", "!how much do you hold for {e} as a deposit", "!what do i leave as deposit for {e}|what i leave as deposit for {e}",
    ],
    follow: &["and the deposit", "is there a deposit", "how much is the deposit", "!do you take a deposit for that"],
    say: &["The deposit for {e} is {v}."],
    topic: "a deposit for {e}",
};
const LOCATION: Bank = Bank {
    lines: &["{N} location: {v}", "{N}: {v}", "{N} is {at}", "Where {e} is: {v}", "{N} - {v}", "{N} ({v})"],
    prose: &["{E} {is} {at}.", "{E} {is} {at}.", "You find {e} {at}.", "{E} {is} located {at}."],
    ask: &[
        "where is {e}|where {e} {is}", "where can i find {e}|where i can find {e}", "how do i get to {e}|how i get to {e}", "which floor is {e} on|which floor {e} {is} on", "where do i find {e}|where i find {e}", "where's {e}|where {e} {is}",
        "what floor is {e}|what floor {e} {is} on", "i'm looking for {e}", "i can't find {e}", "can you tell me the way to {e}", "where do i go for {e}|where i go for {e}", "location of {e}", "which way is {e}|which way {e} {is}", "where is {e} located|where {e} {is} located",
        "!in which part of the building is {e}|in which part of the building {e} {is}", "!where exactly would {e} be", "!i need to get to {e} where do i go", "!whereabouts is {e}|whereabouts {e} {is}",
    ],
    follow: &["where is it", "and where is that", "where do i find it", "which floor is that on", "where exactly", "how do i get there", "!whereabouts is that", "!where do i have to go", "and where"],
    say: &["{E} {is} {at}.", "You'll find {e} {at}."],
    topic: "where {e} {is}",
};
const COUNTER: Bank = Bank {
    lines: &["{N}: available {at}", "{N} available: {v}", "Where to get {e}: {v}"],
    prose: &["You can get {e} {at}.", "{E} {is} available {at}."],
    ask: &[
        "where do i get {e}|where i get {e}", "where can i get {e}|where i can get {e}", "where can i buy {e}|where i can buy {e}", "where do i pick up {e}|where i pick up {e}", "i need {e} where do i go",
        "!where would i find {e}|where i would find {e}", "!who do i see or where do i go to get {e}",
    ],
    follow: &["where do i get it", "and where", "where can i get that", "!where do i pick that up"],
    say: &["You can get {e} {at}.", "{E} {is} available {at}."],
    topic: "where to get {e}",
};
const OFFICE: Bank = Bank {
    lines: &["{N} office: {v}", "{N}'s office: {v}", "{N} is {at}"],
    prose: &["The office of {e} is {at}.", "{E} sits {at}.", "You find {e} {at}."],
    ask: &[
        "where is {e}|where {e} is", "where can i find {e}|where i can find {e}", "where is the office of {e}|where the office of {e} is", "where does {e} sit|where {e} sits", "which room is {e} in|which room {e} is in",
        "!in which office would i find {e}", "!where do i go to see {e}|where i go to see {e}",
    ],
    follow: &["where is that", "and where do i find them", "where is the office", "!which room is that"],
    say: &["You'll find {e} {at}.", "{E} is {at}."],
    topic: "where {e} is",
};
const PHONE: Bank = Bank {
    lines: &["{N} phone: {v}", "{N} tel: {v}", "Phone of {e}: {v}", "{N}: call {v}"],
    prose: &["You can reach {e} at {v}.", "The phone number of {e} is {v}.", "Call {v} for {e}."],
    ask: &[
        "what's the phone number of {e}|the phone number of {e}", "how do i call {e}|how i call {e}", "how can i reach {e} by phone|how i can reach {e} by phone", "what number do i dial for {e}|what number i dial for {e}", "can i get the number of {e}",
        "which extension is {e}|which extension {e} {is}", "do you have a number for {e}|if you have a number for {e}", "phone number for {e}", "what's the number for {e}|the number for {e}", "i want to call {e}",
        "!how would i ring {e}|how i would ring {e}", "!what do i dial to speak to {e}|what i dial to speak to {e}", "!on which number can i get hold of {e}|on which number i can get hold of {e}",
    ],
    follow: &["what's the number", "and the phone number", "how do i call them", "do you have a phone number", "can i call them", "!what do i dial for that"],
    say: &["You can reach {e} at {v}.", "The number of {e} is {v}."],
    topic: "the phone number of {e}",
};
const MAIN_PHONE: Bank = Bank {
    lines: &["Phone: {v}", "Tel: {v}", "Phone number: {v}", "Main phone: {v}"],
    prose: &["Our phone number is {v}.", "You can call us at {v}.", "The phone number of {e} is {v}."],
    ask: &[
        "what's your phone number|your phone number", "how can i call you|how i can call you", "what's the phone number of {e}|the phone number of {e}", "on what number can i reach you|on what number i can reach you", "can i have your number", "which number do i call|which number i call", "do you have a phone number",
        "!how do i ring you later|how i ring you later", "!what number should my friend dial to call you",
    ],
    follow: &["and the phone number", "what's the number", "!and by phone"],
    say: &["Our phone number is {v}.", "You can call us at {v}."],
    topic: "a phone number",
};
const HOST: Bank = Bank {
    lines: &["{N} led by: {v}", "{N} with {v}", "{N} host: {v}", "{N} is run by {v}"],
    prose: &["{E} {is} led by {v}.", "{E} {is} run by {v}.", "{v} is in charge of {e}.", "{v} looks after {e}."],
    ask: &[
        "who leads {e}|who leads {e}", "who runs {e}|who runs {e}", "who is in charge of {e}|who is in charge of {e}", "who does {e}", "who is responsible for {e}|who is responsible for {e}", "who do i ask about {e}|who i ask about {e}", "who is the person for {e}", "with whom is {e}",
        "!whose job is {e}|whose job {e} is", "!who should i talk to about {e}|who i should talk to about {e}",
    ],
    follow: &["who leads it", "and who runs that", "who is in charge of that", "who does it", "!who should i talk to about that"],
    say: &["{E} {is} led by {v}.", "{v} is in charge of {e}."],
    topic: "who runs {e}",
};
const CAPACITY: Bank = Bank {
    lines: &["{N} capacity: {v} people", "{N}: seats {v}", "Capacity of {e}: {v}"],
    prose: &["{E} hold{s} up to {v} people.", "There is room for {v} people in {e}.", "{E} seat{s} {v} people."],
    ask: &[
        "how many people fit in {e}|how many people fit in {e}", "how big is {e}|how big {e} {is}", "what's the capacity of {e}|the capacity of {e}", "how many people can use {e}|how many people can use {e}", "for how many people is {e}", "how many seats does {e} have|how many seats {e} {do} have",
        "!how large a group can go into {e}|how large a group can go into {e}", "!we are a group how many can {e} take",
    ],
    follow: &["how many people fit", "and how big is it", "how many people can go in", "!what's its capacity"],
    say: &["{E} hold{s} up to {v} people.", "There is room for {v} people in {e}."],
    topic: "the capacity of {e}",
};
const AGE: Bank = Bank {
    lines: &["{N} minimum age: {v}", "Minimum age for {e}: {v}", "{N}: from age {v}", "{N}: {v}+"],
    prose: &["The minimum age for {e} is {v}.", "{E} {is} open to guests from the age of {v}.", "You must be at least {v} to use {e}."],
    ask: &[
        "what's the minimum age for {e}|the minimum age for {e}", "how old do you have to be for {e}|how old you have to be for {e}", "can my son use {e}", "from what age can kids use {e}|from what age kids can use {e}", "is there an age limit for {e}|if there is an age limit for {e}", "are children allowed in {e}|if children are allowed in {e}", "how old must my daughter be for {e}",
        "!is my kid old enough for {e}", "!what's the youngest age for {e}|the youngest age for {e}",
    ],
    follow: &["is there an age limit", "and for children", "how old do you have to be", "!from what age"],
    say: &["The minimum age for {e} is {v}.", "You must be at least {v} for {e}."],
    topic: "an age limit for {e}",
};
const EVENT: Bank = Bank {
    lines: &["{N}: {when}", "{N} time: {when}", "{N} - {when}", "{N} starts {when}", "{N} ({when})"],
    prose: &["{E} {is} {when}.", "{E} start{s} {when}.", "{E} takes place {when}.", "There is {n} {when}."],
    ask: &[
        "when is {e}|when {e} {is}", "what time is {e}|what time {e} {is}", "when does {e} start|when {e} start{s}", "at what time does {e} start|at what time {e} start{s}", "what time does {e} begin|what time {e} begins", "when does {e} take place|when {e} takes place", "is there {n} today", "when do you have {e}|when you have {e}", "when can i go to {e}|when i can go to {e}", "i want to join {e} when is it", "{n} when", "what's the time of {e}|the time of {e}",
        "!what time should i be at {e}|what time i should be at {e}", "!when is {e} on|when {e} {is} on", "!at what hour do they do {e}|at what hour they do {e}", "!when is {e} scheduled|when {e} is scheduled",
    ],
    follow: &["when is that", "and what time does it start", "when does it start", "what time", "!when is that on"],
    say: &["{E} {is} {when}.", "{E} start{s} {when}."],
    topic: "the time of {e}",
};
const MOMENT: Bank = Bank {
    lines: &["{N}: {v}", "{N} time: {v}", "{N} at {v}", "{N} - {v}", "{N}: at {v}"],
    prose: &["{E} {is} at {v}.", "{E} {is} at {v}.", "The time for {e} is {v}."],
    ask: &[
        "what time is {e}|what time {e} is", "when is {e}|when {e} is", "at what time is {e}|at what time {e} is", "what's the time for {e}|the time for {e}", "{n} time", "when exactly is {e}|when exactly {e} is", "what's the {n} time", "by when is {e}", "tell me the time for {e}",
        "!at which hour is {e}|at which hour {e} is", "!what time do you have for {e}|what time you have for {e}", "!when would {e} be|when {e} would be",
    ],
    follow: &["what time is that", "and when is it", "when exactly", "!at what hour"],
    say: &["{E} {is} at {v}."],
    topic: "the time of {e}",
};
const RULE: Bank = Bank {
    lines: &["{N}: {v}", "{N}: {v}", "{N} {is} {v}", "Policy on {n}: {v}", "{N} - {v}"],
    prose: &["{E} {is} {v}.", "{E} {is} {v}.", "Please note that {e} {is} {v}."],
    ask: &[
        "are {n} allowed|if {n} {is} allowed", "is {n} allowed|if {n} {is} allowed", "what's the rule on {n}|the rule on {n}", "do you allow {n}|if you allow {n}", "can i bring {n}", "is it ok with {n}", "what's your policy on {n}|your policy on {n}", "{n} ok or not", "what about {n} are they allowed", "do you permit {n}|if you permit {n}", "am i allowed {n}", "are there rules about {n}|if there are rules about {n}", "{n} allowed",
        "!would {n} be a problem|if {n} would be a problem", "!how do you feel about {n} here", "!is {n} permitted in here|if {n} {is} permitted in here", "!what do the rules say about {n}|what the rules say about {n}",
    ],
    follow: &["is that allowed", "and is that ok"],
    say: &["{E} {is} {v}."],
    topic: "the rules for {n}",
};
const NETWORK: Bank = Bank {
    lines: &["{N} network: {v}", "{N} name: {v}", "{N} SSID: {v}", "Network: {v}", "{N}: {v}"],
    prose: &["The {N} network is {v}.", "The {N} network is called {v}.", "Connect to the network {v}."],
    ask: &[
        "what's the {n} network|the {n} network", "what is the name of the {n}|the name of the {n}", "which {n} do i use|which {n} i use", "which network do i connect to|which network i connect to", "is there {n} here|if there is {n} here", "do you have {n}|if you have {n}", "how do i get online|how i get online", "what's the {n} called|what the {n} is called", "{n} name", "how do i connect to the {n}|how i connect to the {n}",
        "!what should i pick in the {n} list on my phone", "!which one is your {n}|which one is your {n}", "!how can i get on the {n}|how i can get on the {n}",
    ],
    follow: &["and the network name", "which network", "what is the network called", "!which one do i pick"],
    say: &["The Wi-Fi network is {v}."],
    topic: "the Wi-Fi network",
};
const PASSWORD: Bank = Bank {
    lines: &["{N} password: {v}", "{N} key: {v}", "Password for {n}: {v}", "{N} pass: {v}", "Password: {v}"],
    prose: &["The {N} password is {v}.", "The password for the {N} is {v}.", "Use the password {v} for the {N}."],
    ask: &[
        "what's the {n} password|the {n} password", "what is the password for the {n}|the password for the {n}", "can i have the {n} password", "{n} password", "what's the password|the password", "how do i log in to the {n}|how i log in to the {n}", "do i need a password for the {n}|if i need a password for the {n}", "give me the {n} password", "i need the password for the {n}", "what password does the {n} have|what password the {n} has", "password for {n}", "the {n} is asking for a password",
        "!what do i type in to use the {n}|what i type in to use the {n}", "!the {n} wants a key what is it", "!could i get the code for the {n}", "!what are the login details of the {n}",
    ],
    follow: &["and the password", "what's the password", "password", "is there a password", "and what is the password for it", "!what do i type in", "do i need a password"],
    say: &["The Wi-Fi password is {v}."],
    topic: "the Wi-Fi password",
};
const DISTANCE: Bank = Bank {
    lines: &["{N}: {v}", "Distance to {e}: {v}", "{N}: {v} away", "{N} - {v}", "To {e}: {v}"],
    prose: &["{E} {is} {v} away.", "{E} {is} {v} from here.", "It is {v} to {e}.", "You reach {e} in {v}."],
    ask: &[
        "how far is {e}|how far {e} {is}", "how far away is {e}|how far away {e} {is}", "what's the distance to {e}|the distance to {e}", "how do i get to {e} is it far", "is {e} far from here|if {e} {is} far from here", "how long does it take to {e}|how long it takes to {e}", "how far is it to {e}|how far it is to {e}", "is {e} close by|if {e} is close by", "can i walk to {e}", "is there {n} nearby",
        "!how near is {e}|how near {e} {is}", "!what distance is {e} from here|what distance {e} {is} from here", "!how long would i need to reach {e}|how long i would need to reach {e}",
    ],
    follow: &["how far is it", "is that far", "and how far is that", "!is it a long way"],
    say: &["{E} {is} {v} away."],
    topic: "how far {e} {is}",
};
const CODE: Bank = Bank {
    lines: &["{N}: {v}", "{N} is {v}", "{N} - {v}"],
    prose: &["The {n} is {v}.", "Use {v} as the {n}.", "Our {n} is {v}."],
    ask: &[
        "what's the {n}|the {n}", "what is the {n}|the {n}", "can i have the {n}", "i forgot the {n}", "{n} please", "tell me the {n}", "i need the {n}", "which {n} do i use|which {n} i use", "do you know the {n}", "what was the {n} again|what the {n} was again",
        "!give me that {n} would you", "!remind me of the {n}", "!what do i punch in as the {n}",
    ],
    follow: &["and the code", "what's the code"],
    say: &["The {n} is {v}."],
    topic: "the {n}",
};
const NAME: Bank = Bank {
    lines: &["{N}: {v}", "{N} name: {v}", "{N} - {v}", "{N} is {v}", "Our {n}: {v}"],
    prose: &["{E} is {v}.", "Our {n} is {v}.", "The name of {e} is {v}.", "{v} is {e}."],
    ask: &[
        "who is {e}|who {e} is", "what's the name of {e}|the name of {e}", "who is your {n}|who your {n} is", "what is {e} called|what {e} is called", "what's {e}'s name|{e}'s name", "can you tell me who {e} is", "which person is {e}", "who works as {n}|who works as {n}", "name of {e}", "i'd like to speak to {e} who is that", "what's the name of your {n}|the name of your {n}",
        "!by what name does {e} go", "!who's the {n} around here|who the {n} around here is", "!who do you have as {n}|who you have as {n}",
    ],
    follow: &["who is that", "and what's the name", "what's their name"],
    say: &["{E} is {v}.", "Our {n} is {v}."],
    topic: "the name of {e}",
};
const ADDRESS: Bank = Bank {
    lines: &["Address: {v}", "Street address: {v}", "Where we are: {v}", "Location: {v}"],
    prose: &["{E} is at {v}.", "Our address is {v}.", "You find us at {v}."],
    ask: &[
        "what's your address|your address", "what is the address of {e}|the address of {e}", "where are you located|where you are located", "what's the address here|the address here", "what address do i give the taxi driver", "which street is this|which street this is", "where is {e}|where {e} is", "i need the address of {e}",
        "!what do i put in my navigation to get to you", "!on which street are you|on which street you are", "!where should i tell the cab to go",
    ],
    follow: &["and the address", "what's the address", "!and on which street"],
    say: &["The address is {v}.", "Our address is {v}."],
    topic: "the address",
};
const EMAIL: Bank = Bank {
    lines: &["Email: {v}", "E-mail: {v}", "Mail: {v}", "Contact: {v}"],
    prose: &["Our email address is {v}.", "You can write to us at {v}.", "Send mail to {v}."],
    ask: &[
        "what's your email|your email", "what is the email address of {e}|the email address of {e}", "how can i email you|how i can email you", "where do i send an email|where i send an email", "do you have an email address|if you have an email address", "can i get your mail address", "to which address do i write an email|to which address i write an email",
        "!how do i write to you online|how i write to you online", "!where can i mail my question",
    ],
    follow: &["and the email", "do you have an email", "!and by mail"],
    say: &["Our email address is {v}.", "You can write to {v}."],
    topic: "an email address",
};
const WEBSITE: Bank = Bank {
    lines: &["Website: {v}", "Web: {v}", "Homepage: {v}", "Online: {v}"],
    prose: &["Our website is {v}.", "Find us online at {v}.", "More on {v}."],
    ask: &[
        "what's your website|your website", "do you have a website|if you have a website", "what is the web address|the web address", "where can i look online|where i can look online", "what's the homepage of {e}|the homepage of {e}", "which website do i go to|which website i go to",
        "!where on the internet are you|where on the internet you are", "!can i look you up online where",
    ],
    follow: &["and the website", "do you have a website", "!and online"],
    say: &["Our website is {v}."],
    topic: "a website",
};
const TITLE: Bank = Bank {
    lines: &["{N}: {v}", "{N} - {v}", "{N} is {v}", "Today's {n}: {v}"],
    prose: &["{E} is {v}.", "Our {n} is {v}.", "As {n} we have {v}."],
    ask: &[
        "what's {e}|what {e} is", "what is {e}|what {e} is", "what do you have as {n}|what you have as {n}", "tell me {e}", "which one is {e}|which one is {e}", "what's the name of {e}|the name of {e}", "{n}", "what's your {n}|your {n}", "what is {e} today|what {e} is today",
        "!what have you got for {n}", "!i'd like to hear what {e} is", "!any {n}",
    ],
    follow: &["and what is it", "what is that"],
    say: &["{E} is {v}."],
    topic: "{e}",
};
const LIMIT: Bank = Bank {
    lines: &["{N}: {v}", "{N} - {v}", "{N} is {v}"],
    prose: &["{E} is {v}.", "Our {n} is {v}."],
    ask: &[
        "what's {e}|what {e} is", "how long is {e}|how long {e} is", "what is {e}|what {e} is", "what's your {n}|your {n}", "tell me {e}", "{n}", "is there a {n}", "how many minutes or hours is {e}",
        "!what length is {e}|what length {e} is", "!how much time is {e}|how much time {e} is",
    ],
    follow: &["how long is that", "and how long", "!what length is that"],
    say: &["{E} is {v}."],
    topic: "{e}",
};
