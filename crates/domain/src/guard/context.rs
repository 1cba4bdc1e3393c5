//! Words that say what a number nearby is. Of each class only the last place
//! is kept, so that asking costs nothing.

/// What a word speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    Phone,
    /// Behind a number it speaks of telephones, in front of it of a place.
    Desk,
    Card,
    Ssn,
    Id,
    /// Something that has numbers of its own: an order, a street, a licence.
    Other,
    Place,
    Version,
    Mac,
    /// A password or a token follows.
    Secret,
}

const CLASSES: usize = 10;

/// Longer words are none of these.
const MAX_WORD: usize = 24;

/// Where each class was spoken of last.
pub(super) struct Context {
    /// The byte after the word; 0 is nowhere, for no word ends there.
    ends: [usize; CLASSES],
}

impl Context {
    pub(super) fn new() -> Self {
        Self { ends: [0; CLASSES] }
    }

    /// A word that ends at `end`. `before` is the word before it, if it is close,
    /// `after` what follows.
    pub(super) fn note(&mut self, word: &[u8], before: &[u8], after: &[u8], end: usize) {
        if let Some(class) = class_of(word, before, after) {
            self.ends[class as usize] = end;
        }
    }

    /// Whether a class was spoken of within `reach` bytes before `at`.
    pub(super) fn near(&self, class: Class, at: usize, reach: usize) -> bool {
        let end = self.ends[class as usize];
        end != 0 && at.saturating_sub(end) <= reach
    }

    /// The same, and nothing that has other numbers was spoken of since.
    pub(super) fn speaks(&self, class: Class, at: usize, reach: usize) -> bool {
        self.near(class, at, reach) && self.ends[class as usize] > self.ends[Class::Other as usize]
    }
}

/// The class of a word, in whatever case. `before` is the word in front of it,
/// `after` what follows.
pub(super) fn class_of(word: &[u8], before: &[u8], after: &[u8]) -> Option<Class> {
    let (Some(first), Some(last)) = (word.first(), word.last()) else {
        return None;
    };
    if word.len() > MAX_WORD {
        return None;
    }
    if *first >= 0xE0 {
        return foreign(word);
    }
    if POSSIBLE[ends(*first, *last)] & length_bit(word.len()) != 0
        && let Some(class) = listed(word)
    {
        return Some(class);
    }
    let named = match after {
        [b':' | b'=' | b'"' | b'\'' | b'`' | b'\\', ..] | [b' ', b':' | b'=', ..] => {
            secret_name(word, before)
        }
        _ => false,
    };
    named.then_some(Class::Secret)
}

fn listed(word: &[u8]) -> Option<Class> {
    let same = |known: &&[u8]| known.eq_ignore_ascii_case(word);
    let found = WORDS.iter().find(|(_, words)| words.iter().any(same));
    found.map(|(class, _)| *class)
}

/// The place of a first and a last byte in [`POSSIBLE`], in whatever case.
const fn ends(first: u8, last: u8) -> usize {
    (first as usize & 31) << 5 | last as usize & 31
}

const fn length_bit(length: usize) -> u32 {
    1 << length
}

/// The lengths of all words with these ends: most words of a text are told
/// from [`WORDS`] by one look here.
static POSSIBLE: [u32; 1024] = {
    let mut possible = [0; 1024];
    let mut list = 0;
    while list < WORDS.len() {
        let words = WORDS[list].1;
        let mut at = 0;
        while at < words.len() {
            let word = words[at];
            possible[ends(word[0], word[word.len() - 1])] |= length_bit(word.len());
            at += 1;
        }
        list += 1;
    }
    possible
};

/// In lower case.
const WORDS: [(Class, &[&[u8]]); 9] = [
    (
        Class::Phone,
        &[
            b"anrufen",
            b"answer",
            b"answering",
            b"appelez",
            b"call",
            b"called",
            b"caller",
            b"calling",
            b"calls",
            b"cell",
            b"cellphone",
            b"cellular",
            b"cellulare",
            b"celular",
            b"contact",
            b"desk",
            b"dial",
            b"dialed",
            b"dialled",
            b"extension",
            b"faks",
            b"fax",
            b"fon",
            b"handy",
            b"helpline",
            b"hotline",
            b"landline",
            b"m\xc3\xb3vil",
            b"message",
            b"messages",
            b"mob",
            b"mobiel",
            b"mobil",
            b"mobile",
            b"movil",
            b"pager",
            b"phone",
            b"phones",
            b"phoning",
            b"portable",
            b"puhelin",
            b"reach",
            b"reached",
            b"ring",
            b"signal",
            b"sms",
            b"t\xc3\xa9l",
            b"t\xc3\xa9l\xc3\xa9phone",
            b"tel",
            b"tel\xc3\xa9fono",
            b"telefax",
            b"telefon",
            b"telefone",
            b"telefono",
            b"telefoon",
            b"telephone",
            b"text",
            b"texted",
            b"texting",
            b"viber",
            b"voicemail",
            b"whatsapp",
        ],
    ),
    (Class::Desk, &[b"office"]),
    (
        Class::Card,
        &[
            b"amex",
            b"card",
            b"cards",
            b"cart\xc3\xa3o",
            b"carta",
            b"carte",
            b"cc",
            b"credit",
            b"creditcard",
            b"debit",
            b"diners",
            b"discover",
            b"karte",
            b"kort",
            b"kreditkarte",
            b"maestro",
            b"mastercard",
            b"tarjeta",
            b"tarjetas",
            b"visa",
        ],
    ),
    (Class::Ssn, &[b"itin", b"social", b"ssn", b"ssns"]),
    (
        Class::Id,
        &[
            b"aadhaar",
            b"aadhar",
            b"ahv",
            b"bsn",
            b"burgerservicenummer",
            b"citizen",
            b"codice",
            b"cpf",
            b"cpr",
            b"curp",
            b"dni",
            b"dnr",
            b"f\xc3\xb8dselsnummer",
            b"fiscal",
            b"fiscale",
            b"fodselsnummer",
            b"henkil\xc3\xb6tunnus",
            b"hetu",
            b"identification",
            b"identity",
            b"insee",
            b"insurance",
            b"national",
            b"nhs",
            b"nie",
            b"nif",
            b"nino",
            b"nir",
            b"nric",
            b"personnummer",
            b"pesel",
            b"registration",
            b"resident",
            b"sin",
            b"sozialversicherungsnummer",
            b"steuer",
            b"steuerid",
            b"tax",
            b"taxpayer",
            b"tfn",
            b"tin",
        ],
    ),
    (
        Class::Other,
        &[
            b"address",
            b"adresse",
            b"amount",
            b"apt",
            b"avenue",
            b"batch",
            b"born",
            b"box",
            b"case",
            b"date",
            b"dob",
            b"driver",
            b"drivers",
            b"invoice",
            b"isbn",
            b"licence",
            b"license",
            b"model",
            b"order",
            b"orders",
            b"part",
            b"passport",
            b"plz",
            b"po",
            b"policy",
            b"postal",
            b"postcode",
            b"price",
            b"receipt",
            b"ref",
            b"reference",
            b"release",
            b"rev",
            b"serial",
            b"shipment",
            b"sku",
            b"street",
            b"suite",
            b"ticket",
            b"total",
            b"tracking",
            b"zip",
            b"zipcode",
        ],
    ),
    (
        Class::Place,
        &[
            b"geo",
            b"gps",
            b"lat",
            b"latitude",
            b"lng",
            b"location",
            b"lon",
            b"long",
            b"longitude",
            b"position",
        ],
    ),
    (Class::Version, &[b"firmware", b"oid", b"ver", b"version"]),
    (Class::Mac, &[b"mac"]),
];

/// Scripts without spaces: the word may stand at the end of a run.
fn foreign(word: &[u8]) -> Option<Class> {
    let has = |part: &str| word.windows(part.len()).any(|w| w == part.as_bytes());
    if ["电话", "手机", "電話", "телефон", "전화", "هاتف"]
        .into_iter()
        .any(has)
    {
        Some(Class::Phone)
    } else if ["身份证", "주민"].into_iter().any(has) {
        Some(Class::Id)
    } else {
        None
    }
}

/// Whether a name is one of a secret.
fn secret_name(word: &[u8], before: &[u8]) -> bool {
    const ENDS: [&[u8]; 9] = [
        b"password",
        b"passwd",
        b"secret",
        b"token",
        b"apikey",
        b"accesskey",
        b"secretkey",
        b"passphrase",
        b"authkey",
    ];
    const WHOLE: [&[u8]; 5] = [b"pwd", b"passwort", b"pass", b"credential", b"creds"];
    const BEFORE_KEY: [&[u8]; 8] = [
        b"api",
        b"access",
        b"secret",
        b"auth",
        b"signing",
        b"encryption",
        b"account",
        b"master",
    ];
    let is = |name: &&[u8]| word.eq_ignore_ascii_case(name);
    let ends = |end: &&[u8]| {
        let from = word.len().checked_sub(end.len());
        from.is_some_and(|from| word[from..].eq_ignore_ascii_case(end))
    };
    WHOLE.iter().any(is)
        || ENDS.iter().any(ends)
        || (is(&&b"key"[..]) && BEFORE_KEY.iter().any(|b| before.eq_ignore_ascii_case(b)))
}
