//! The things a venue can have facts about.
//!
//! One line per thing: its names (the first is the usual one; the prompt and the guest may each use
//! another), `*` after a name list for a plural, `^` for one that takes no article.

/// What sort of thing it is; decides which facts it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A room or facility with opening hours.
    Place,
    /// Something served between two times.
    Meal,
    /// Something with a price.
    Item,
    /// Something that happens at a time, led by someone.
    Event,
    /// A person by their role.
    Role,
    /// A single time of day.
    Moment,
    /// Allowed or not.
    Policy,
    /// The wireless network.
    Wifi,
    /// Somewhere outside, at a distance.
    Nearby,
    /// A door, gate or locker code.
    Code,
    /// The venue itself.
    Venue,
    /// Something with a title or a dish for a value.
    Title,
    /// A length of time that limits something.
    Limit,
}

/// One thing, as a venue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its sort.
    pub kind: Kind,
    /// Its names, the usual one first.
    pub names: Vec<&'static str>,
    /// Takes `are` and `do`.
    pub plural: bool,
    /// Takes `the`.
    pub article: bool,
}

const PLACES: &[&str] = &[
    "pool|swimming pool", "gym|fitness room|fitness centre", "sauna", "spa|wellness area", "restaurant|dining room",
    "bar|hotel bar", "cafe|coffee shop|coffee bar", "rooftop terrace|roof terrace", "library", "reading room",
    "reception|front desk^", "gift shop|souvenir shop", "cloakroom|coat check", "business centre|business center",
    "meeting room|conference room", "laundry room|laundry|laundromat", "playground", "kids club|children's club",
    "car park|parking garage|garage", "bike shed|bicycle storage", "yoga studio", "climbing wall", "tennis court",
    "steam room|steam bath", "hot tub|jacuzzi|whirlpool", "massage room", "pharmacy", "laboratory|lab|blood lab",
    "x-ray department|x-ray", "waiting room", "emergency room|ER", "vaccination desk", "children's ward", "planetarium",
    "main gallery", "sculpture garden", "cinema|movie theatre", "auditorium|lecture hall", "archive", "study rooms*",
    "makerspace|workshop", "print shop|copy shop", "phone booths|call booths*", "podcast studio|recording studio",
    "shared kitchen|kitchen", "lounge", "quiet zone|quiet area", "showers|shower block*", "nap room|sleep pods area",
    "buffet", "smoking area", "boat dock|jetty", "kiosk", "beach|lake beach", "ticket office|box office",
    "left luggage|luggage storage^", "prayer room", "chapel", "bakery", "wine cellar", "game room|arcade", "canteen|cafeteria",
    "locker room|changing room", "golf course", "bowling alley", "petting zoo", "butterfly house", "map room",
    "information desk|info point", "lost and found|lost property^", "optician", "cardiology ward|cardiology", "dog park",
    "ski room|ski storage", "bookshop|book store", "toddler pool|kids pool", "visitor centre|visitor center", "salad bar",
    "mini market|camp store|shop", "radiology", "snack bar", "roof garden", "dialysis unit", "post office", "observation deck",
];
const MEALS: &[&str] = &[
    "breakfast^", "lunch^", "dinner^", "brunch^", "afternoon tea^", "happy hour^", "supper^", "the lunch buffet^",
    "room service^", "coffee and cake^", "the dinner menu^", "the kids menu^",
];
const ITEMS: &[&str] = &[
    "day pass|day ticket", "adult ticket", "child ticket|kids ticket", "student ticket", "family ticket", "audio guide",
    "bike rental|bicycle rental", "towel|bath towel", "bathrobe", "locker|locker rental", "extra bed|rollaway bed",
    "late checkout|late check-out^", "airport shuttle|shuttle bus", "parking space|parking spot", "city tax|tourist tax",
    "wash cycle|laundry load", "coffee^", "bottle of water|water bottle", "monthly membership|membership", "massage",
    "guided tour", "kayak rental|kayak", "tent pitch|tent site", "bundle of firewood|firewood", "electric hookup|power hookup",
    "umbrella", "replacement key|lost key|key card replacement", "lunch box|packed lunch", "hot desk", "private office",
    "day bed", "ski pass|lift ticket", "beer|glass of beer", "glass of wine|house wine", "baby cot|crib", "breakfast box",
    "haircut", "library card", "photocopy|copy", "swim cap", "yoga mat", "sunbed|deck chair", "welcome drink", "cleaning fee",
    "flu shot|flu vaccine", "check-up|checkup", "season ticket|annual pass", "private lesson", "safe|room safe", "minibar beer",
];
const EVENTS: &[&str] = &[
    "yoga class|yoga", "wine tasting", "city walk|walking tour", "live music|concert^", "story hour|story time",
    "cooking class", "aqua fitness|water aerobics", "spin class|cycling class", "film night|movie night", "bingo night|bingo",
    "meditation session|meditation", "pilates class|pilates", "book club", "quiz night|pub quiz", "kids disco", "craft workshop",
    "networking lunch", "dance class|salsa class", "feeding of the penguins|penguin feeding", "farmers market", "poetry reading",
    "boat trip|boat tour", "sunrise hike|morning hike", "first aid course", "chess club", "opening concert", "choir practice",
    "blood donation", "karaoke night|karaoke", "campfire evening|campfire", "magic show", "planetarium show",
];
const ROLES: &[&str] = &[
    "manager|general manager", "head chef|chef", "head nurse|nurse on duty", "doctor on duty|doctor", "personal trainer|trainer",
    "tour guide|guide", "librarian", "dentist", "physiotherapist|physio", "curator", "housekeeper|head of housekeeping",
    "receptionist", "night porter", "technician|IT technician", "owner", "security guard|head of security", "duty manager",
    "pool attendant|lifeguard", "event planner|events manager", "caretaker|janitor", "community manager", "barista", "masseuse",
    "bartender", "surgeon", "midwife", "pharmacist", "director", "swim coach|coach", "sommelier", "campsite warden|warden", "pianist",
];
const MOMENTS: &[&str] = &[
    "check-in|checkin^", "check-out|checkout^", "last admission|last entry^", "last orders|last order for food^",
    "the last bus|the last shuttle^", "the first shuttle|the first bus^", "the next ferry^", "visiting time start^",
    "the kitchen closing time^", "the morning round|the doctor's round^", "boarding^", "the shuttle to the airport^", "sunset closing^",
];
const POLICIES: &[&str] = &[
    "pets|animals*", "dogs*", "smoking^", "photography|taking photos^", "outside food|bringing your own food^", "visitors|guests*",
    "children|kids*", "parties*", "shoes*", "drones*", "candles*", "phone calls|calls*", "flash photography|flash^", "vaping^",
    "barbecues|grilling*", "open fires|campfires*", "loud music^", "food and drinks*", "large bags|backpacks*", "bikes|bicycles*",
    "strollers|prams*", "alcohol^", "balloons|flowers*", "glass bottles*", "cooking in the rooms^", "tripods*", "cats*", "e-scooters|scooters*",
];
const NEARBY: &[&str] = &[
    "train station|railway station", "airport", "beach", "supermarket|grocery store", "nearest pharmacy", "bus stop",
    "cash machine|ATM", "city centre|downtown area", "hospital", "ski lift", "metro station|subway station", "old town", "harbour|port",
    "castle", "petrol station|gas station", "park", "nearest bakery", "cathedral", "zoo", "football stadium", "tram stop", "police station",
    "nearest bank", "shopping centre|shopping mall", "lake", "charging station", "taxi stand|taxi rank", "ferry terminal",
];
const CODES: &[&str] = &[
    "door code|code for the door", "gate code|code for the gate", "locker code", "garage code|code for the garage", "alarm code",
    "lift code|elevator code", "printer PIN|printer code", "key box code|code for the key box", "bathroom code|toilet code", "safe code", "night entrance code",
];
const TITLES: &[&str] = &[
    "dish of the day|daily special", "soup of the day|today's soup", "vegan dish|vegan option", "current exhibition|exhibition",
    "film tonight|tonight's film", "book of the month", "wine of the month|house wine of the month", "dessert of the day|today's dessert",
    "radio station|house radio", "loyalty program|rewards program", "theme of the week", "signature cocktail|house cocktail", "house band|band tonight",
];
const LIMITS: &[&str] = &[
    "loan period|lending period", "cancellation period|cancellation notice", "maximum stay", "parking time limit|parking limit",
    "sauna time limit", "booking window", "average waiting time|waiting time", "tour length|length of the tour", "charging time limit",
    "loan period for films", "computer time limit|computer slot", "visiting limit|visit length", "free Wi-Fi time", "grace period",
];

fn parse(line: &'static str, kind: Kind) -> Entity {
    let plural = line.ends_with('*');
    let article = !plural && !line.ends_with('^');
    Entity { kind, names: line.trim_end_matches(['*', '^']).split('|').collect(), plural, article }
}

/// Every thing of the generator, in a fixed order; the venue itself is not among them.
pub fn all() -> Vec<Entity> {
    let tables = [
        (Kind::Place, PLACES),
        (Kind::Meal, MEALS),
        (Kind::Item, ITEMS),
        (Kind::Event, EVENTS),
        (Kind::Role, ROLES),
        (Kind::Moment, MOMENTS),
        (Kind::Policy, POLICIES),
        (Kind::Nearby, NEARBY),
        (Kind::Code, CODES),
        (Kind::Title, TITLES),
        (Kind::Limit, LIMITS),
        (Kind::Wifi, &["Wi-Fi|wifi|internet|wireless|WLAN"]),
    ];
    tables.iter().flat_map(|(kind, lines)| lines.iter().map(|l| parse(l, *kind))).collect()
}

/// The venue as a thing with an address, a phone and hours of its own.
pub fn venue(kind_noun: &'static str) -> Entity {
    Entity { kind: Kind::Venue, names: vec![kind_noun], plural: false, article: true }
}

impl Entity {
    /// The name with its article, as in the middle of a sentence.
    pub fn with_article(&self, name: &str) -> String {
        if self.article && !name.starts_with("the ") { format!("the {name}") } else { name.to_owned() }
    }

    /// Whether another thing answers to one of this one's names.
    pub fn clashes(&self, other: &Entity) -> bool {
        self.names.iter().any(|n| other.names.iter().any(|m| m == n || m.contains(n) || n.contains(m)))
    }
}
