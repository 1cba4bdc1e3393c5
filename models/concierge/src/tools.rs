//! Tools, the requests that need them and the calls that serve these.
//!
//! A family is one ability under many names and parameter names, so that the model must read the
//! schema. A leading `!` keeps a name or a phrasing out of training.

use serde_json::{Map, Value, json};

use crate::rng::Rng;
use crate::speech::KEEP;
use crate::split::{Split, draw, phrase};
use crate::values::{self, Clock};

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A room of the house.
    Room,
    /// 0 to 100.
    Percent,
    /// 15 to 30.
    Degrees,
    /// `on` or `off`.
    OnOff,
    /// `open` or `close`.
    OpenClose,
    /// A time of day, as said.
    Time,
    /// 1 to 12.
    Count,
    /// A person's name.
    Person,
    /// Something to reserve.
    Facility,
    /// Something to bring.
    Item,
    /// Where to go.
    Place,
    /// Music.
    Genre,
    /// A department.
    Team,
    /// Something broken.
    Broken,
    /// A room's number.
    Number,
    /// A television channel.
    Channel,
    /// A city.
    City,
}

/// One parameter of a family.
#[derive(Debug)]
pub struct Param {
    slot: Slot,
    /// Names a schema may use; `!` keeps one out of training.
    names: &'static [&'static str],
    /// What the desk asks when it is missing.
    ask: &'static str,
}

/// One ability.
#[derive(Debug)]
pub struct Family {
    /// Names a schema may use.
    names: &'static [&'static str],
    /// Descriptions a schema may use.
    about: &'static [&'static str],
    params: &'static [Param],
    /// Requests; `{0}` is the first parameter's value.
    says: &'static [&'static str],
    /// Requests without the first parameter; empty when it is always given.
    vague: &'static [&'static str],
    /// What the desk says when it worked.
    done: &'static [&'static str],
}

const fn p(slot: Slot, names: &'static [&'static str], ask: &'static str) -> Param {
    Param { slot, names, ask }
}

/// Every ability.
pub const FAMILIES: &[Family] = &[
    Family {
        names: &["set_lights", "set_light", "dim_lights", "lights_level", "control_lights", "set_brightness", "!adjust_lights", "lights.set_level"],
        about: &["Set the brightness of the lights in a room", "Dim lights", "Sets light level in percent", "Light control"],
        params: &[p(Slot::Room, &["room", "area", "zone", "location", "!place"], "In which room?"), p(Slot::Percent, &["level", "brightness", "percent", "value", "!intensity"], "To how many percent?")],
        says: &["set the lights in the {0} to {1} percent", "dim the {0} lights to {1} percent", "put the light in the {0} at {1}%", "lights in the {0} to {1} percent", "make the {0} lights {1} percent", "i'd like the lights in the {0} at {1} percent", "turn the {0} lights to {1}%", "can you dim the lights in the {0} to {1} percent", "brightness {1} percent in the {0}", "!bring the {0} lights down to {1} percent", "!could the {0} be lit at {1} percent", "!change the {0} lighting to {1}%"],
        vague: &["dim the lights to {1} percent", "set the lights to {1} percent"],
        done: &["Done, the lights in the {0} are at {1} percent."],
    },
    Family {
        names: &["switch_lights", "light_switch", "toggle_lights", "lights_on_off", "turn_lights", "!lights_power", "set_light_state"],
        about: &["Switch the lights in a room on or off", "Turns lights on/off", "Light switch"],
        params: &[p(Slot::Room, &["room", "area", "zone", "location", "!place"], "In which room?"), p(Slot::OnOff, &["state", "power", "action", "!mode"], "On or off?")],
        says: &["turn {1} the lights in the {0}", "switch {1} the lights in the {0}", "turn the lights in the {0} {1}", "lights {1} in the {0}", "switch the {0} lights {1}", "turn {1} the {0} light", "can you turn the {0} lights {1}", "please switch the light in the {0} {1}", "{0} lights {1}", "!i want the lights {1} in the {0}", "!would you get the {0} lights {1}", "!flip the {0} lights {1}"],
        vague: &["turn {1} the lights", "lights {1}"],
        done: &["Done, the lights in the {0} are {1}."],
    },
    Family {
        names: &["set_volume", "volume", "change_volume", "audio_volume", "speaker_volume", "!adjust_volume", "sound_level"],
        about: &["Set the volume of the speakers", "Music volume in percent", "Sets the sound level"],
        params: &[p(Slot::Percent, &["level", "volume", "percent", "value", "!loudness"], "To how many percent?")],
        says: &["set the volume to {0}", "volume to {0} percent", "turn the music to {0} percent", "put the volume at {0}", "turn the volume up to {0}", "turn the volume down to {0}", "make the volume {0} percent", "can you set the sound to {0} percent", "music volume {0}", "i'd like the volume at {0} percent", "!could the music be at {0} percent", "!change the loudness to {0}", "!take the volume to {0} please"],
        vague: &["change the volume", "set the volume"],
        done: &["The volume is at {0} percent now."],
    },
    Family {
        names: &["set_temperature", "set_thermostat", "thermostat", "climate_set", "heating", "!adjust_temperature", "set_ac"],
        about: &["Set the temperature of a room", "Sets the thermostat in degrees Celsius", "Climate control"],
        params: &[p(Slot::Room, &["room", "area", "zone", "location", "!place"], "In which room?"), p(Slot::Degrees, &["temperature", "degrees", "celsius", "target", "!temp"], "To how many degrees?")],
        says: &["set the temperature in the {0} to {1} degrees", "heat the {0} to {1} degrees", "make the {0} {1} degrees", "{1} degrees in the {0}", "cool the {0} down to {1} degrees", "put the thermostat in the {0} at {1}", "temperature {1} in the {0}", "i want {1} degrees in the {0}", "can you set the {0} to {1} degrees", "set the {0} thermostat to {1}", "!warm up the {0} to {1} degrees", "!bring the {0} to {1} degrees", "!could we have {1} degrees in the {0}"],
        vague: &["set the temperature to {1} degrees", "make it {1} degrees"],
        done: &["The {0} is set to {1} degrees."],
    },
    Family {
        names: &["call_staff", "notify_staff", "request_staff", "page_team", "call_department", "!summon_staff", "staff_call"],
        about: &["Call a member of the staff", "Sends someone from a team to the guest", "Page the staff"],
        params: &[p(Slot::Team, &["team", "department", "who", "role", "!recipient"], "Whom should I call?")],
        says: &["call {0}", "can you call {0} for me", "i need {0}", "please send {0}", "get {0} please", "could someone from {0} come", "i need to talk to {0}", "can {0} come here", "send someone from {0}", "i want to see {0}", "ask {0} to come over", "!would you fetch {0}", "!let {0} know that i need them", "!page {0} for me"],
        vague: &["call someone", "i need someone from the staff"],
        done: &["I've called {0}. Someone is on the way."],
    },
    Family {
        names: &["book_table", "reserve_table", "table_reservation", "restaurant_booking", "create_booking", "!make_reservation"],
        about: &["Book a table in the restaurant", "Reserves a table", "Restaurant reservation"],
        params: &[p(Slot::Time, &["time", "at", "start_time", "!when"], "For what time?"), p(Slot::Count, &["people", "guests", "party_size", "persons", "!seats"], "For how many people?"), p(Slot::Person, &["name", "guest_name", "customer", "!on_name"], "Under what name?")],
        says: &["book a table for {1} at {0} under {2}", "reserve a table at {0} for {1} people name is {2}", "table for {1} at {0} please the name is {2}", "i'd like a table for {1} people at {0} for {2}", "can i book a table at {0} for {1} under the name {2}", "we are {1} people can we have a table at {0} on the name {2}", "dinner for {1} at {0} my name is {2}", "!could we eat at {0} there are {1} of us name {2}", "!put {2} down for a table for {1} at {0}"],
        vague: &["book a table for {1} under {2}", "i'd like a table for {1} people the name is {2}"],
        done: &["Your table for {1} at {0} is booked under {2}."],
    },
    Family {
        names: &["wake_up_call", "set_wakeup", "schedule_wake_up", "wakeup", "alarm_call", "!morning_call"],
        about: &["Schedule a wake-up call", "Wakes the guest at a time", "Sets a wake-up call for a room"],
        params: &[p(Slot::Time, &["time", "at", "wake_time", "!when"], "At what time should I wake you?"), p(Slot::Number, &["room", "room_number", "number", "!room_no"], "What is your room number?")],
        says: &["wake me up at {0} room {1}", "i need a wake up call at {0} for room {1}", "can you wake me at {0} in room {1}", "wake up call {0} room {1}", "please call room {1} at {0} to wake us up", "set a wake up call for {0} my room is {1}", "i have to get up at {0} i'm in room {1}", "!ring room {1} at {0} so i don't oversleep", "!could you get me up at {0} room number {1}"],
        vague: &["i need a wake up call i'm in room {1}", "can you wake me up tomorrow room {1}"],
        done: &["I'll wake you at {0} in room {1}."],
    },
    Family {
        names: &["order_taxi", "book_taxi", "call_taxi", "taxi", "request_cab", "!get_cab"],
        about: &["Order a taxi", "Books a taxi to a destination", "Taxi booking"],
        params: &[p(Slot::Place, &["destination", "to", "drop_off", "!where_to"], "Where do you want to go?"), p(Slot::Time, &["time", "pickup_time", "at", "!when"], "For what time?")],
        says: &["i need a taxi to the {0} at {1}", "book a taxi to the {0} for {1}", "order me a cab to the {0} at {1}", "can you get me a taxi at {1} to the {0}", "taxi to the {0} {1} please", "call a taxi for {1} we're going to the {0}", "we need a cab at {1} to the {0}", "!could a car take us to the {0} at {1}", "!get us a ride to the {0} at {1}"],
        vague: &["i need a taxi at {1}", "book me a cab for {1}"],
        done: &["Your taxi to the {0} is ordered for {1}."],
    },
    Family {
        names: &["play_music", "music_play", "start_music", "play", "set_music", "!put_on_music"],
        about: &["Play music of a genre", "Starts music", "Music player"],
        params: &[p(Slot::Genre, &["genre", "style", "music", "query", "!kind"], "What kind of music?")],
        says: &["play some {0}", "put on some {0} music", "i want to hear {0}", "can you play {0}", "play {0} please", "some {0} music would be nice", "start playing {0}", "change the music to {0}", "!let's have some {0}", "!i'm in the mood for {0}", "!how about a bit of {0} music on the speakers"],
        vague: &["play some music", "put on some music"],
        done: &["Playing {0} now."],
    },
    Family {
        names: &["set_blinds", "blinds", "control_curtains", "move_blinds", "shades", "!curtain_control"],
        about: &["Open or close the blinds in a room", "Moves the blinds", "Curtains and blinds"],
        params: &[p(Slot::Room, &["room", "area", "zone", "location", "!place"], "In which room?"), p(Slot::OpenClose, &["action", "position", "command", "!direction"], "Open or close?")],
        says: &["{1} the blinds in the {0}", "{1} the curtains in the {0}", "can you {1} the blinds in the {0}", "please {1} the {0} curtains", "{1} the {0} blinds", "i want you to {1} the blinds in the {0}", "!would you {1} the shades of the {0}", "!the {0} blinds please {1} them"],
        vague: &["{1} the blinds", "can you {1} the curtains"],
        done: &["Done, I told the blinds in the {0} to {1}."],
    },
    Family {
        names: &["request_items", "bring_item", "housekeeping_request", "deliver_items", "order_item", "!send_items"],
        about: &["Bring items to a room", "Housekeeping brings things to the guest", "Request towels and other items"],
        params: &[p(Slot::Item, &["item", "what", "product", "article", "!thing"], "What do you need?"), p(Slot::Count, &["quantity", "count", "amount", "!how_many"], "How many?"), p(Slot::Number, &["room", "room_number", "number", "!room_no"], "What is your room number?")],
        says: &["bring {1} {0} to room {2}", "can i get {1} {0} in room {2}", "we need {1} {0} in room {2}", "please send {1} {0} to room {2}", "{1} {0} for room {2} please", "i'd like {1} {0} my room is {2}", "could you bring {1} more {0} to {2}", "!room {2} could use {1} {0}", "!have {1} {0} sent up to {2}"],
        vague: &["bring {1} to room {2}"],
        done: &["I've asked for {1} {0} to be brought to room {2}."],
    },
    Family {
        names: &["reserve_facility", "book_facility", "reserve", "book_slot", "facility_booking", "!hold_facility"],
        about: &["Reserve a facility for a time", "Books a facility", "Facility reservation"],
        params: &[p(Slot::Facility, &["facility", "resource", "what", "name", "!venue"], "What would you like to book?"), p(Slot::Time, &["time", "start", "at", "start_time", "!when"], "For what time?")],
        says: &["book the {0} at {1}", "reserve the {0} for {1}", "i'd like to book the {0} at {1}", "can i have the {0} at {1}", "is it possible to reserve the {0} at {1}", "we want the {0} at {1} please", "book {1} for the {0}", "get me the {0} at {1}", "!put us down for the {0} at {1}", "!could you hold the {0} for us at {1}"],
        vague: &["i'd like to book something at {1}"],
        done: &["The {0} is reserved for {1}."],
    },
    Family {
        names: &["report_issue", "report_problem", "create_ticket", "maintenance_request", "log_issue", "!file_complaint"],
        about: &["Report something broken", "Creates a maintenance ticket", "Tells the technicians about a problem"],
        params: &[p(Slot::Broken, &["item", "object", "problem", "what", "!thing"], "What is broken?"), p(Slot::Number, &["room", "room_number", "number", "!room_no"], "What is your room number?")],
        says: &["the {0} in room {1} is broken", "the {0} doesn't work in room {1}", "my {0} is broken i'm in room {1}", "there's a problem with the {0} in {1}", "can someone fix the {0} in room {1}", "{0} not working room {1}", "the {0} in {1} stopped working", "!something is wrong with the {0} in room {1}", "!we have trouble with the {0} up in {1}"],
        vague: &["something is broken in room {1}"],
        done: &["I've reported the {0} in room {1}. A technician will come."],
    },
    Family {
        names: &["set_channel", "tv_channel", "change_channel", "tv", "switch_channel", "!tune_tv"],
        about: &["Change the TV channel", "Sets the channel of the television", "Television"],
        params: &[p(Slot::Channel, &["channel", "number", "station", "!program"], "Which channel?")],
        says: &["switch to channel {0}", "put the tv on channel {0}", "channel {0} please", "change the channel to {0}", "can you put on channel {0}", "tv channel {0}", "turn the television to channel {0}", "!let me watch channel {0}", "!i'd like to see channel {0}"],
        vague: &["change the channel", "switch the tv to another channel"],
        done: &["The TV is on channel {0} now."],
    },
    Family {
        names: &["get_weather", "weather", "weather_forecast", "current_weather", "!fetch_weather"],
        about: &["Get the weather of a city", "Current weather", "Weather information"],
        params: &[p(Slot::City, &["city", "location", "place", "!town"], "For which city?")],
        says: &["what's the weather in {0}", "how is the weather in {0}", "weather in {0}", "is it warm in {0}", "do i need an umbrella in {0}", "what's it like in {0} weather wise", "is it raining in {0}", "tell me the weather for {0}", "!what's the forecast for {0}", "!how cold is it in {0} right now"],
        vague: &["how is the weather"],
        done: &[],
    },
];

const ROOMS: &[&str] = &["lobby", "lounge", "bedroom", "bathroom", "kitchen", "living room", "meeting room", "conference room", "hallway", "restaurant", "bar", "spa", "gym", "library", "office", "reading room", "dining room", "studio", "terrace", "corridor", "entrance", "reception", "ballroom", "suite", "gallery", "waiting room", "treatment room", "garage", "sauna", "cinema", "classroom", "basement", "attic", "garden", "playroom", "workshop", "auditorium", "foyer", "cafe", "locker room"];
const ITEMS: &[&str] = &["towels", "pillows", "blankets", "bottles of water", "bathrobes", "hangers", "coffee capsules", "tea bags", "slippers", "toothbrushes", "cups", "glasses", "chairs", "bars of soap", "rolls of toilet paper", "sandwiches", "umbrellas", "bottles of wine", "extra keys", "bath mats", "plates", "candles", "yoga mats", "razors"];
const FACILITIES: &[&str] = &["tennis court", "meeting room", "sauna", "massage room", "conference room", "podcast studio", "squash court", "boat", "phone booth", "music room", "golf simulator", "karaoke room", "barbecue area", "hot tub", "game room", "study room", "private dining room", "climbing wall", "badminton court", "film room", "kayak", "projector"];
const PLACES: &[&str] = &["airport", "train station", "city centre", "museum", "hospital", "beach", "harbour", "opera", "stadium", "university", "old town", "bus station", "zoo", "castle", "conference centre", "ferry terminal", "shopping mall", "cathedral", "embassy", "theatre", "market", "exhibition hall"];
const GENRES: &[&str] = &["jazz", "classical", "rock", "pop", "blues", "techno", "country", "folk", "lounge", "reggae", "salsa", "soul", "opera", "piano", "hip hop", "bossa nova", "disco", "funk", "ambient", "chill", "swing", "metal", "eighties", "indie"];
const TEAMS: &[&str] = &["housekeeping", "maintenance", "security", "a doctor", "the manager", "a nurse", "reception", "room service", "a technician", "the concierge", "the kitchen", "a waiter", "the night porter", "a trainer", "first aid", "the cleaning team", "a librarian", "the lifeguard", "IT support", "a guide", "the bartender", "the valet"];
const BROKEN: &[&str] = &["shower", "toilet", "heating", "television", "lamp", "sink", "door lock", "air conditioning", "window", "fridge", "phone", "safe", "hair dryer", "kettle", "radiator", "bed", "coffee machine", "light switch", "remote control", "internet", "minibar", "drain", "projector", "printer"];
const CITIES: &[&str] = &["Paris", "London", "Berlin", "Oslo", "Madrid", "Rome", "Vienna", "Lisbon", "Tokyo", "Sydney", "Toronto", "Boston", "Geneva", "Dublin", "Prague", "Athens", "Cairo", "Mumbai", "Lima", "Helsinki", "Zurich", "Munich", "Chicago", "Seoul", "Warsaw", "Porto", "Nairobi", "Hamburg"];

impl Slot {
    fn schema(self) -> Value {
        match self {
            Self::Percent | Self::Count | Self::Channel => json!({"type": "integer"}),
            Self::Degrees => json!({"type": "number"}),
            Self::OnOff => json!({"type": "string", "enum": ["on", "off"]}),
            Self::OpenClose => json!({"type": "string", "enum": ["open", "close"]}),
            _ => json!({"type": "string"}),
        }
    }

    /// What the guest says and what the call carries.
    fn sample(self, rng: &mut Rng, split: Split, clock: Clock) -> (String, Value) {
        let number = |rng: &mut Rng, n: usize| if rng.chance(0.2) { spell(n) } else { n.to_string() };
        let text = |s: String| (s.clone(), Value::String(s));
        match self {
            Self::Room => text(draw(split, rng, |rng| if rng.chance(0.3) { format!("{} {}", rng.pick(&["room", "suite", "hall", "studio", "cabin"]), rng.range(1, 400)) } else if rng.chance(0.3) { format!("{} {}", rng.pick(&["upper", "small", "big", "blue", "east", "west", "main", "second", "old", "green"]), rng.pick(ROOMS)) } else { (*rng.pick(ROOMS)).to_owned() })),
            Self::Percent => {
                let n = if rng.chance(0.7) { rng.range(0, 20) * 5 } else { rng.range(1, 100) };
                (number(rng, n), json!(n))
            }
            Self::Degrees => {
                let n = rng.range(15, 29);
                if rng.chance(0.15) { (format!("{n}.5"), json!(n as f64 + 0.5)) } else { (number(rng, n), json!(n)) }
            }
            Self::OnOff => text((*rng.pick(&["on", "off"])).to_owned()),
            Self::OpenClose => text((*rng.pick(&["open", "close"])).to_owned()),
            Self::Time => text(clock.between(rng, split, 5, 23)),
            Self::Count => {
                let n = rng.range(2, 12);
                (number(rng, n), json!(n))
            }
            Self::Person => text(values::surname(rng, split)),
            Self::Facility => text((*rng.pick(FACILITIES)).to_owned()),
            Self::Item => text((*rng.pick(ITEMS)).to_owned()),
            Self::Place => text((*rng.pick(PLACES)).to_owned()),
            Self::Genre => text((*rng.pick(GENRES)).to_owned()),
            Self::Team => {
                let s = (*rng.pick(TEAMS)).to_owned();
                let bare = s.trim_start_matches("the ").trim_start_matches("a ").to_owned();
                (s, Value::String(bare))
            }
            Self::Broken => text((*rng.pick(BROKEN)).to_owned()),
            Self::Number => text(draw(split, rng, |rng| rng.range(1, 999).to_string())),
            Self::Channel => {
                let n = rng.range(1, 99);
                (number(rng, n), json!(n))
            }
            Self::City => text((*rng.pick(CITIES)).to_owned()),
        }
    }
}

/// A number from 0 to 100 in words.
pub fn spell(n: usize) -> String {
    const ONES: &[&str] = &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"];
    const TENS: &[&str] = &["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match n {
        0..=19 => ONES[n].to_owned(),
        100 => "a hundred".to_owned(),
        _ if n.is_multiple_of(10) => TENS[n / 10].to_owned(),
        _ => format!("{} {}", TENS[n / 10 % 10], ONES[n % 10]),
    }
}

/// A tool as one prompt offers it.
#[derive(Debug, Clone)]
pub struct Offer {
    family: usize,
    /// The tool's name.
    pub name: String,
    params: Vec<String>,
    /// The OpenAI-shaped definition.
    pub definition: Value,
}

/// A request, the call it needs and what comes after.
#[derive(Debug, Clone)]
pub struct Job {
    /// What the guest says (with [`KEEP`] marks).
    pub says: String,
    /// The tool's name and arguments.
    pub call: (String, Value),
    /// The tool's result as text.
    pub result: String,
    /// What the desk says after it.
    pub spoken: String,
    /// What must stand in that answer.
    pub values: Vec<String>,
}

impl Offer {
    /// Some tools of different families.
    pub fn some(rng: &mut Rng, split: Split, count: usize) -> Vec<Self> {
        let mut order: Vec<usize> = (0..FAMILIES.len()).collect();
        rng.shuffle(&mut order);
        order.truncate(count);
        order.into_iter().map(|f| Self::of(rng, split, f)).collect()
    }

    fn of(rng: &mut Rng, split: Split, family: usize) -> Self {
        let it = &FAMILIES[family];
        // Held-out requests use a held-out name half of the time; parameters likewise.
        let side = |rng: &mut Rng| if rng.chance(0.5) { split } else { Split::Train };
        let s = side(rng);
        let name = phrase(s, rng, it.names).to_owned();
        let mut params: Vec<String> = Vec::new();
        let mut properties = Map::new();
        for param in it.params {
            let s = side(rng);
            let mut key = phrase(s, rng, param.names).to_owned();
            if params.contains(&key) {
                key = param.names[0].to_owned();
            }
            let mut schema = param.slot.schema();
            if rng.chance(0.25)
                && let Value::Object(map) = &mut schema
            {
                map.insert("description".to_owned(), json!(param.ask.trim_end_matches('?')));
            }
            properties.insert(key.clone(), schema);
            params.push(key);
        }
        let mut function = json!({"name": name});
        if rng.chance(0.85) {
            function["description"] = json!(rng.pick(it.about));
        }
        function["parameters"] = json!({"type": "object", "properties": properties});
        if rng.chance(0.85) {
            function["parameters"]["required"] = json!(params);
        }
        Self { family, name, params, definition: json!({"type": "function", "function": function}) }
    }

    /// A request for this tool.
    pub fn job(&self, rng: &mut Rng, split: Split, clock: Clock) -> Job {
        let it = &FAMILIES[self.family];
        let filled: Vec<(String, Value)> = it.params.iter().map(|p| p.slot.sample(rng, split, clock)).collect();
        let says = put(phrase(split, rng, it.says), &filled, true);
        let mut arguments = Map::new();
        for (key, (_, value)) in self.params.iter().zip(&filled) {
            arguments.insert(key.clone(), value.clone());
        }
        let (result, spoken, values) = self.outcome(rng, &filled);
        Job { says, call: (self.name.clone(), Value::Object(arguments)), result, spoken, values }
    }

    /// The request without its first parameter, what the desk then asks and what the guest adds.
    /// The rest of the job is as `job` gives it.
    pub fn vague_job(&self, rng: &mut Rng, split: Split, clock: Clock) -> (String, String, Job) {
        let it = &FAMILIES[self.family];
        let mut job = self.job(rng, split, clock);
        let filled: Vec<(String, Value)> = it.params.iter().map(|p| p.slot.sample(rng, split, clock)).collect();
        let mut arguments = Map::new();
        for (key, (_, value)) in self.params.iter().zip(&filled) {
            arguments.insert(key.clone(), value.clone());
        }
        job.call.1 = Value::Object(arguments);
        (job.result, job.spoken, job.values) = self.outcome(rng, &filled);
        let vague = put(rng.pick(it.vague), &filled, true);
        let said = &filled[0].0;
        job.says = match it.params[0].slot {
            Slot::Room | Slot::Place | Slot::Facility => rng.pick(&["the {}", "in the {}", "{}"]).replace("{}", &format!("{KEEP}{said}{KEEP}")),
            Slot::Time => rng.pick(&["at {}", "{}", "{} please", "make it {}"]).replace("{}", &format!("{KEEP}{said}{KEEP}")),
            _ => format!("{KEEP}{said}{KEEP}"),
        };
        (vague, it.params[0].ask.to_owned(), job)
    }

    fn outcome(&self, rng: &mut Rng, filled: &[(String, Value)]) -> (String, String, Vec<String>) {
        let it = &FAMILIES[self.family];
        if it.done.is_empty() {
            let degrees = rng.range(0, 35);
            let sky = *rng.pick(&["sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear"]);
            let city = &filled[0].0;
            let result = json!({"temperature": degrees, "conditions": sky});
            return (python(&result), format!("It is {degrees} degrees and {sky} in {city}."), vec![degrees.to_string(), sky.to_owned()]);
        }
        if rng.chance(0.15) {
            let result = (*rng.pick(&[r#"{"ok": false}"#, r#"{"error": "unavailable"}"#, r#"{"status": "failed"}"#, "error: timeout", r#"{"success": false, "reason": "busy"}"#])).to_owned();
            return (result, "I'm sorry, that didn't work. Shall I ask the staff?".to_owned(), vec!["didn't work".to_owned()]);
        }
        let result = (*rng.pick(&[r#"{"ok": true}"#, r#"{"status": "ok"}"#, r#"{"success": true}"#, "ok", "done", r#"{"status": "confirmed"}"#, r#"{"result": "success"}"#])).to_owned();
        let shown: Vec<(String, Value)> = filled.iter().map(|(_, v)| (v.as_str().map_or_else(|| v.to_string(), str::to_owned), v.clone())).collect();
        let spoken = put(rng.pick(it.done), &shown, false);
        let values = shown.into_iter().map(|(s, _)| s).collect();
        (result, spoken, values)
    }

    /// A request that no offered tool serves.
    pub fn foreign(rng: &mut Rng, split: Split, clock: Clock, offers: &[Self]) -> String {
        loop {
            let family = rng.below(FAMILIES.len());
            // Lights and music come in pairs that could serve each other; a weather question is
            // answered with "no information".
            let near = |a: usize| (a < 2 && family < 2) || a == family || (a == 2 && family == 8) || (a == 8 && family == 2) || (a == 5 && family == 11) || (a == 11 && family == 5);
            if offers.iter().any(|o| near(o.family)) || offers.iter().any(|o| FAMILIES[o.family].names.contains(&"call_staff")) || FAMILIES[family].done.is_empty() {
                if offers.iter().any(|o| FAMILIES[o.family].names.contains(&"call_staff")) {
                    return String::new();
                }
                continue;
            }
            let it = &FAMILIES[family];
            let filled: Vec<(String, Value)> = it.params.iter().map(|p| p.slot.sample(rng, split, clock)).collect();
            return put(phrase(split, rng, it.says), &filled, true);
        }
    }
}

fn put(template: &str, filled: &[(String, Value)], keep: bool) -> String {
    let mut out = template.to_owned();
    for (i, (said, _)) in filled.iter().enumerate() {
        let said = if keep { format!("{KEEP}{said}{KEEP}") } else { said.clone() };
        out = out.replace(&format!("{{{i}}}"), &said);
    }
    out
}

/// JSON as Python's `json.dumps` writes it, which chat templates rely on.
pub fn python(value: &Value) -> String {
    match value {
        Value::Object(map) => format!("{{{}}}", map.iter().map(|(k, v)| format!("{}: {}", Value::String(k.clone()), python(v))).collect::<Vec<_>>().join(", ")),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fit_their_schema_and_requests_are_filled() {
        for seed in 0..1000 {
            let mut rng = Rng::new(seed);
            let split = if seed % 2 == 0 { Split::Train } else { Split::HeldOut };
            let offers = Offer::some(&mut rng, split, 3);
            let clock = Clock::any(&mut rng);
            let job = offers[0].job(&mut rng, split, clock);
            assert!(!job.says.contains('{'), "{}", job.says);
            let properties = &offers[0].definition["function"]["parameters"]["properties"];
            assert_eq!(job.call.1.as_object().map(Map::len), properties.as_object().map(Map::len));
            assert!(job.values.iter().all(|v| job.spoken.contains(v.as_str())), "{job:?}");
        }
    }

    #[test]
    fn json_is_written_like_python() {
        assert_eq!(python(&json!({"a": [1, "x"], "b": true})), r#"{"a": [1, "x"], "b": true}"#);
    }

    #[test]
    fn numbers_are_spelled() {
        assert_eq!((spell(45), spell(30), spell(100)), ("forty five".into(), "thirty".into(), "a hundred".into()));
    }
}
