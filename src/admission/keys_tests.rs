//! Keys against a real file.

#![allow(clippy::unwrap_used)]

use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::{Ceiling, Say, Zone};
use nearfar_domain::scope::{Grant, Pattern};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;

fn keys(dir: &tempfile::TempDir, tenants: &[(&str, Tenant)]) -> Keys {
    let store = KeyStore::new(dir.path());
    let all = store.all().unwrap();
    let tenants = tenants
        .iter()
        .map(|(name, t)| ((*name).to_owned(), t.clone()));
    Keys::new(store, all, tenants.collect())
}

fn named(name: &str) -> NewKey {
    NewKey {
        name: name.into(),
        ..NewKey::default()
    }
}

fn let_in(keys: &Keys, token: &str, now_ms: i64) -> Result<Arc<Identity>, Denied> {
    keys.identify([token].into_iter(), "openai", false, now_ms)
}

#[test]
fn a_key_lets_in_until_it_is_revoked_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let (key, token) = keys.create(&named("kiosk"), NOW).unwrap();
    let identity = let_in(&keys, token.reveal(), NOW).unwrap();
    assert_eq!(identity.key().unwrap().as_ref(), key.id);
    assert_eq!(identity.tenant().as_ref(), DEFAULT_TENANT);
    let again = self::keys(&dir, &[]);
    assert!(let_in(&again, token.reveal(), NOW).is_ok());
    keys.revoke("kiosk", NOW + 1).unwrap();
    assert_eq!(let_in(&keys, token.reveal(), NOW), Err(Denied::Revoked));
    let again = self::keys(&dir, &[]);
    assert_eq!(let_in(&again, token.reveal(), NOW), Err(Denied::Revoked));
    assert!(matches!(
        keys.rotate(&key.id, None, NOW),
        Err(KeyProblem::NotGood)
    ));
    assert!(matches!(keys.find("kiosk"), Err(KeyProblem::NoSuchKey)));
    assert_eq!(keys.find(&key.id).unwrap().revoked_ms, Some(NOW + 1));
}

#[test]
fn what_is_not_ours_is_a_placeholder_and_what_looks_like_ours_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let (_, token) = keys.create(&named("a"), NOW).unwrap();
    let (_, other) = keys.create(&named("b"), NOW).unwrap();
    for placeholder in ["unused", "sk-proj-1", "", "ollama"] {
        assert_eq!(
            let_in(&keys, placeholder, NOW),
            Ok(Arc::clone(keys.nobody()))
        );
        let required = keys.identify([placeholder].into_iter(), "openai", true, NOW);
        assert_eq!(required, Err(Denied::Missing));
    }
    assert_eq!(
        keys.identify([].into_iter(), "openai", true, NOW),
        Err(Denied::Missing)
    );
    let mut forged = token.reveal().to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == 'x' { 'y' } else { 'x' });
    for wrong in [
        "nf_",
        "nf_zzzzzzzzzzzz_00000000000000000000000000000000",
        &forged,
    ] {
        assert_eq!(let_in(&keys, wrong, NOW), Err(Denied::Unknown), "{wrong}");
    }
    let both = [token.reveal(), other.reveal()];
    assert_eq!(
        keys.identify(both.into_iter(), "openai", true, NOW),
        Err(Denied::Several)
    );
    let twice = [token.reveal(), "unused", token.reveal()];
    assert!(
        keys.identify(twice.into_iter(), "openai", true, NOW)
            .is_ok()
    );
}

#[test]
fn keys_expire_and_rotation_leaves_a_time_of_grace() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let hour = NewKey {
        expires_in_s: Some(3_600),
        ..named("short")
    };
    let (_, token) = keys.create(&hour, NOW).unwrap();
    assert!(let_in(&keys, token.reveal(), NOW + HOUR - 1).is_ok());
    assert_eq!(
        let_in(&keys, token.reveal(), NOW + HOUR),
        Err(Denied::Expired)
    );
    let late = keys.rotate("short", None, NOW + HOUR);
    assert!(matches!(late, Err(KeyProblem::NotGood)));

    let (key, old) = keys.create(&named("long"), NOW).unwrap();
    let (rotated, new) = keys.rotate("long", Some(60), NOW).unwrap();
    assert_eq!(rotated.id, key.id);
    assert!(let_in(&keys, old.reveal(), NOW + 59_999).is_ok());
    assert_eq!(
        let_in(&keys, old.reveal(), NOW + 60_000),
        Err(Denied::Expired)
    );
    assert!(let_in(&keys, new.reveal(), NOW + 60_000).is_ok());
    let (_, newest) = keys.rotate("long", Some(0), NOW).unwrap();
    assert!(let_in(&keys, new.reveal(), NOW).is_err());
    assert!(let_in(&keys, newest.reveal(), NOW).is_ok());
    // The last but one is forgotten altogether.
    assert_eq!(let_in(&keys, old.reveal(), NOW), Err(Denied::Unknown));
    assert!(matches!(
        keys.rotate("long", Some(u64::MAX), NOW),
        Err(KeyProblem::Field("grace_s", _))
    ));
    keys.revoke("long", NOW).unwrap();
    assert_eq!(let_in(&keys, newest.reveal(), NOW), Err(Denied::Revoked));
}

#[test]
fn tenants_narrow_their_keys_and_one_that_is_gone_shuts_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let acme = Tenant {
        tier: Some("gold".into()),
        feature: Some("kiosk".into()),
        privacy: Some(Zone::Site),
        grant: Grant {
            targets: Some(vec![Pattern::parse("local/*").unwrap()]),
            zones: None,
        },
        ..Tenant::default()
    };
    let keys = keys(&dir, &[("acme", acme)]);
    let new = NewKey {
        tenant: Some("acme".into()),
        targets: Some(vec!["*".into()]),
        ..named("a")
    };
    let (_, token) = keys.create(&new, NOW).unwrap();
    let identity = let_in(&keys, token.reveal(), NOW).unwrap();
    assert_eq!(identity.tier().unwrap().as_ref(), "gold");
    assert_eq!(identity.feature(None).unwrap().as_deref(), Some("kiosk"));
    let far = TargetId::remote("openai", "gpt").unwrap();
    assert!(
        !identity.scope().allows(&far, Zone::Cloud),
        "a key cannot widen"
    );
    let says: Vec<Say> = identity.says().collect();
    assert_eq!(Ceiling::of(&says).zone, Zone::Site);
    assert!(keys.nobody().scope().is_open());

    let without = self::keys(&dir, &[]);
    assert_eq!(let_in(&without, token.reveal(), NOW), Err(Denied::NoTenant));
    let Err(KeyProblem::Field("tenant", mend)) = without.create(&new, NOW) else {
        panic!("nobody configured the tenant");
    };
    assert!(mend.contains("[tenants.acme]"), "{mend}");
}

#[test]
fn wrong_fields_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let list = |text: &str| Some(vec![text.to_owned()]);
    for (new, field) in [
        (named(""), "name"),
        (named(&"x".repeat(200)), "name"),
        (
            NewKey {
                tenant: Some("a b".into()),
                ..named("a")
            },
            "tenant",
        ),
        (
            NewKey {
                targets: list("gpt-4o"),
                ..named("a")
            },
            "targets",
        ),
        (
            NewKey {
                targets: Some(Vec::new()),
                ..named("a")
            },
            "targets",
        ),
        (
            NewKey {
                zones: list("moon"),
                ..named("a")
            },
            "zones",
        ),
        (
            NewKey {
                features: list("\n"),
                ..named("a")
            },
            "features",
        ),
        (
            NewKey {
                features: list("x"),
                feature: Some("y".into()),
                ..named("a")
            },
            "feature",
        ),
        (
            NewKey {
                expires_in_s: Some(u64::MAX),
                ..named("a")
            },
            "expires_in_s",
        ),
    ] {
        let error = keys.create(&new, NOW).err().unwrap();
        let KeyProblem::Field(wrong, _) = &error else {
            panic!("{error}");
        };
        assert_eq!(*wrong, field, "{error}");
    }
    assert_eq!(keys.list(), []);
}

#[test]
fn a_key_for_some_fronts_is_not_let_in_at_others() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let new = NewKey {
        fronts: Some(vec!["ollama".into(), "anthropic".into()]),
        ..named("a")
    };
    let (_, token) = keys.create(&new, NOW).unwrap();
    for (dialect, fine) in [("ollama", true), ("anthropic", true), ("openai", false)] {
        let outcome = keys.identify([token.reveal()].into_iter(), dialect, false, NOW);
        assert_eq!(outcome.is_ok(), fine, "{dialect}");
        assert!(fine || outcome == Err(Denied::Front));
    }
    let wrong = NewKey {
        fronts: Some(vec!["gemini".into()]),
        ..named("a")
    };
    let error = keys.create(&wrong, NOW).err().unwrap().to_string();
    assert!(error.contains("openai, anthropic, ollama"), "{error}");
}

#[test]
fn the_last_use_is_known_to_the_minute_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let (key, token) = keys.create(&named("a"), NOW).unwrap();
    assert_eq!(keys.find("a").unwrap().last_used_ms, None);
    let_in(&keys, token.reveal(), NOW + 90_000).unwrap();
    let used = keys.find("a").unwrap().last_used_ms.unwrap();
    assert!(used <= NOW + 90_000 && NOW + 90_000 - used < USE_MS);
    keys.note_use();
    assert_eq!(
        self::keys(&dir, &[]).find(&key.id).unwrap().last_used_ms,
        Some(used)
    );
}

#[test]
fn several_of_one_name_are_told_apart_by_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let (first, _) = keys.create(&named("a"), NOW).unwrap();
    let (second, _) = keys.create(&named("a"), NOW).unwrap();
    let Err(KeyProblem::SeveralKeys(ids)) = keys.revoke("a", NOW) else {
        panic!("both have the name");
    };
    assert!(ids.contains(&first.id) && ids.contains(&second.id));
    keys.revoke(&first.id, NOW).unwrap();
    assert_eq!(keys.find("a").unwrap().id, second.id);
}

#[test]
fn a_disk_that_does_not_take_a_revocation_keeps_no_key_alive() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir, &[]);
    let (_, token) = keys.create(&named("a"), NOW).unwrap();
    let file = dir.path().join(crate::store::KEYS_FILE);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(keys.revoke("a", NOW), Err(KeyProblem::NotKept(_))));
    assert_eq!(let_in(&keys, token.reveal(), NOW), Err(Denied::Revoked));
    assert!(keys.create(&named("b"), NOW).is_err());
    assert_eq!(keys.list().len(), 1, "what is not on the disk is not there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a key says, it may use no more than its tenant.
    #[test]
    fn a_key_never_widens_its_tenant(
        tenant_targets in prop::option::of(prop::collection::vec(pattern(), 1..4)),
        tenant_zones in prop::option::of(prop::collection::vec(zone(), 1..3)),
        privacy in prop::option::of(zone()),
        key_targets in prop::option::of(prop::collection::vec(pattern(), 1..4)),
        key_zones in prop::option::of(prop::collection::vec(zone(), 1..3)),
        target in prop::sample::select(vec!["local/x", "local/y", "a/x", "b/y"]),
        at in zone(),
    ) {
        let parse = |all: Vec<&str>| all.into_iter().map(|p| Pattern::parse(p).unwrap()).collect();
        let tenant_says = Tenant {
            privacy,
            grant: Grant { targets: tenant_targets.map(parse), zones: tenant_zones },
            ..Tenant::default()
        };
        let tenants = BTreeMap::from([("t".to_owned(), tenant_says)]);
        let wide = tenant(&tenants, "t").unwrap();
        let key = Key {
            id: "key_1".into(),
            name: "k".into(),
            tenant: "t".into(),
            feature: None,
            scope: KeyScope {
                targets: key_targets.map(parse),
                zones: key_zones,
                features: None,
                fronts: None,
            },
            created_ms: 0,
            expires_ms: None,
            last_used_ms: None,
            revoked_ms: None,
            hash: token::hash("x"),
            previous: None,
        };
        let entry = entry(&tenants, key, Arc::default());
        let narrow = entry.identity.as_ref().unwrap();
        let target = TargetId::parse(target).unwrap();
        prop_assert!(!narrow.scope().allows(&target, at) || wide.scope().allows(&target, at));
        let ceiling = |identity: &Identity| {
            let says: Vec<Say> = identity.says().collect();
            if says.is_empty() { Zone::Cloud } else { Ceiling::of(&says).zone }
        };
        prop_assert!(ceiling(narrow) <= ceiling(&wide));
    }

    #[test]
    fn no_text_panics_or_is_let_in(text in "(nf_)?\\PC{0,60}") {
        let keys = Keys::new(KeyStore::new(std::path::Path::new("/nowhere")), Vec::new(), BTreeMap::new());
        let outcome = let_in(&keys, &text, NOW);
        prop_assert_eq!(outcome.is_ok(), !text.starts_with(token::PREFIX));
    }
}

fn pattern() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["*", "local/*", "a/*", "*/x", "b/y"])
}

fn zone() -> impl Strategy<Value = Zone> {
    prop::sample::select(vec![Zone::Device, Zone::Site, Zone::Cloud])
}
