//! What a request says about caching: `Cache-Control` (RFC 9111, section 5.2.1)
//! or the tag `cache`, in the same words.

/// A request's wish. The default is none: the cache does what it is set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The answer is neither looked for nor kept.
    pub no_store: bool,
    /// The answer is made anew, and may be kept.
    pub no_cache: bool,
    /// Only a kept answer will do.
    pub only_if_cached: bool,
    /// A kept answer that is older than this, in seconds, will not do.
    pub max_age_s: Option<u64>,
}

impl Wish {
    /// Adds directives, separated by commas; of two, the stricter holds. Returns
    /// the first one that is none of ours, which RFC 9111 has ignored.
    pub fn add<'a>(&mut self, directives: &'a str) -> Option<&'a str> {
        let mut unknown = None;
        for directive in directives.split(',') {
            let directive = directive.trim();
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim())),
                None => (directive, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("no-store", None) => self.no_store = true,
                ("no-cache", None) => self.no_cache = true,
                ("only-if-cached", None) => self.only_if_cached = true,
                ("max-age", Some(value)) => {
                    // What is not a number is as strict as can be.
                    let age = value.trim_matches('"').parse().unwrap_or(0);
                    self.max_age_s = Some(self.max_age_s.map_or(age, |least| least.min(age)));
                }
                ("", None) => {}
                _ => {
                    unknown.get_or_insert(directive);
                }
            }
        }
        unknown
    }

    /// Whether it says anything.
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_add_up_and_the_stricter_holds() {
        let mut wish = Wish::default();
        assert_eq!(wish.add(""), None);
        assert!(!wish.is_said());
        assert_eq!(wish.add("Max-Age=60, ONLY-IF-CACHED"), None);
        assert_eq!(wish.add("max-age = \"30\", max-age=90"), None);
        assert_eq!((wish.max_age_s, wish.only_if_cached), (Some(30), true));
        assert_eq!(wish.add("max-stale=5, no-transform"), Some("max-stale=5"));
        assert_eq!(wish.add("max-age=soon"), None);
        assert_eq!(wish.max_age_s, Some(0), "what cannot be read is strict");
        assert_eq!(wish.add("no-store,no-cache"), None);
        assert!(wish.no_store && wish.no_cache);
    }
}
