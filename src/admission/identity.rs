//! Who asks: the tenant that pays, the key, and what both may use.

use std::sync::Arc;

use nearfar_domain::privacy::{Say, Source, Zone};
use nearfar_domain::scope::{Grant, Scope};

/// Who pays where nobody else was told.
pub const DEFAULT_TENANT: &str = "default";

/// Who asks. Made by authentication; every request carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    tenant: Arc<str>,
    tier: Option<Arc<str>>,
    key: Option<Arc<str>>,
    scope: Arc<Scope>,
    /// The tenant's ceiling.
    ceiling: Option<Zone>,
    feature: Option<Arc<str>>,
    /// The features that it may name; `None` for any.
    features: Option<Arc<[String]>>,
    /// The dialects that it may speak; `None` for all.
    fronts: Option<Arc<[String]>>,
}

/// A feature that the caller may not name, or must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongFeature {
    /// Those that it may.
    pub allowed: Arc<[String]>,
}

impl Default for Identity {
    /// The default tenant without a key, which may use everything.
    fn default() -> Self {
        Self::tenant_of(Arc::from(DEFAULT_TENANT))
    }
}

impl Identity {
    /// A tenant without a key, which may use everything.
    pub fn tenant_of(tenant: Arc<str>) -> Self {
        Self {
            tenant,
            tier: None,
            key: None,
            scope: Arc::default(),
            ceiling: None,
            feature: None,
            features: None,
            fronts: None,
        }
    }

    /// The same, of a tier.
    #[must_use]
    pub fn of_tier(mut self, tier: Option<Arc<str>>) -> Self {
        self.tier = tier;
        self
    }

    /// The same, under the tenant's ceiling and no farther than before.
    #[must_use]
    pub fn within(mut self, ceiling: Option<Zone>) -> Self {
        self.ceiling = [self.ceiling, ceiling].into_iter().flatten().min();
        self
    }

    /// The same, with no more than `grant` allows.
    #[must_use]
    pub fn narrowed(mut self, grant: Grant) -> Self {
        if !grant.is_open() {
            self.scope = Arc::new(Scope::clone(&self.scope).narrowed(grant));
        }
        self
    }

    /// The same, with a feature for requests that name none.
    #[must_use]
    pub fn for_feature(mut self, feature: Option<Arc<str>>) -> Self {
        self.feature = feature.or(self.feature);
        self
    }

    /// The same, with a key, which may name these features only.
    #[must_use]
    pub fn with_key(mut self, id: Arc<str>, features: Option<Arc<[String]>>) -> Self {
        self.key = Some(id);
        self.features = features;
        self
    }

    /// The same, for the fronts of these dialects only.
    #[must_use]
    pub fn at_fronts(mut self, fronts: Option<Arc<[String]>>) -> Self {
        self.fronts = fronts;
        self
    }

    /// Whether it may call the front of a dialect.
    pub fn may_speak(&self, dialect: &str) -> bool {
        let allowed = self.fronts.as_ref();
        allowed.is_none_or(|fronts| fronts.iter().any(|front| front == dialect))
    }

    /// Who pays.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// The tenant's tier, where the configuration says one.
    pub fn tier(&self) -> Option<&Arc<str>> {
        self.tier.as_ref()
    }

    /// The key's id; `None` for a request without a key.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// What it may use.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// What a request is accounted to, where it names `asked`.
    ///
    /// # Errors
    /// The caller may not name this feature, or has to name one.
    pub fn feature(&self, asked: Option<String>) -> Result<Option<String>, WrongFeature> {
        let feature = asked.or_else(|| self.feature.as_deref().map(str::to_owned));
        let Some(allowed) = &self.features else {
            return Ok(feature);
        };
        match (feature, &allowed[..]) {
            (Some(feature), allowed) if allowed.contains(&feature) => Ok(Some(feature)),
            // There is nothing to choose.
            (None, [only]) => Ok(Some(only.clone())),
            _ => Err(WrongFeature {
                allowed: Arc::clone(allowed),
            }),
        }
    }

    /// What tenant and key say about privacy.
    pub fn says(&self) -> impl Iterator<Item = Say> + use<> {
        let tenant = self.ceiling.map(|zone| Say {
            source: Source::Tenant,
            zone,
        });
        let farthest = self.scope.farthest();
        let key = (farthest < Zone::Cloud).then_some(Say {
            source: Source::Key,
            zone: farthest,
        });
        tenant.into_iter().chain(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nearfar_domain::privacy::Ceiling;

    use super::*;

    fn keyed(features: &[&str]) -> Identity {
        let features = features.iter().map(|name| (*name).to_owned()).collect();
        Identity::default().with_key("key_1".into(), Some(features))
    }

    #[test]
    fn a_feature_is_the_requests_or_the_default_and_among_the_allowed() {
        let open = Identity::default().for_feature(Some("kiosk".into()));
        assert_eq!(open.feature(None), Ok(Some("kiosk".to_owned())));
        assert_eq!(open.feature(Some("x".into())), Ok(Some("x".to_owned())));
        assert_eq!(keyed(&["a"]).feature(None), Ok(Some("a".to_owned())));
        assert!(keyed(&["a"]).feature(Some("b".into())).is_err());
        assert!(keyed(&["a", "b"]).feature(None).is_err());
        let with_default = keyed(&["a", "b"]).for_feature(Some("b".into()));
        assert_eq!(with_default.feature(None), Ok(Some("b".to_owned())));
        let out = keyed(&["a"]).for_feature(Some("z".into()));
        assert!(out.feature(None).is_err(), "a default gives no right");
    }

    #[test]
    fn ceilings_of_tenant_and_key_narrow() {
        let zone = |identity: &Identity| {
            let says: Vec<Say> = identity.says().collect();
            (!says.is_empty()).then(|| Ceiling::of(&says).zone)
        };
        assert_eq!(zone(&Identity::default()), None);
        let site = Identity::default().within(Some(Zone::Site));
        assert_eq!(zone(&site), Some(Zone::Site));
        assert_eq!(
            zone(&site.clone().within(Some(Zone::Cloud))),
            Some(Zone::Site)
        );
        let near = site.narrowed(Grant {
            targets: None,
            zones: Some(vec![Zone::Device]),
        });
        assert_eq!(zone(&near), Some(Zone::Device));
    }
}
