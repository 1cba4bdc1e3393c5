//! Files that belong to others, and files that went bad.

use super::*;

#[test]
fn linked_files_are_used_where_they_are_and_watched() {
    let place = Place::new();
    let file = place.file("a.gguf", &gguf(1));
    let manifest = place
        .add(&NewModel {
            link: true,
            ..new(&file)
        })
        .unwrap();
    let adopted = manifest.adopted.clone().unwrap();
    assert!(adopted.hard_link, "the same file system");
    assert_eq!(adopted.path, file.canonicalize().unwrap());
    assert!(place.store.outside_files().is_empty());
    let good = |name| {
        place.store.verify(Some(name), &mut |_, _| {}).unwrap()[0]
            .verdict
            .clone()
    };
    assert_eq!(good("a"), Verdict::Good);
    // Touched: left out until it is verified again.
    let touched = std::fs::File::options().write(true).open(&file).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    let there = || {
        Catalog::open(&place.state())
            .models()
            .iter()
            .any(|m| m.name == "a")
    };
    assert!(!there());
    assert_eq!(good("a"), Verdict::Touched);
    assert!(there());
    assert_eq!(good("a"), Verdict::Good);
    // Overwritten in place.
    std::fs::write(&file, gguf(2)).unwrap();
    assert!(matches!(good("a"), Verdict::Changed { .. }));
    assert!(!there());
    // The owner's name may go; the store's stays.
    place.store.remove("a").unwrap();
    let file = place.file("b.gguf", &gguf(3));
    place
        .add(&NewModel {
            link: true,
            ..new(&file)
        })
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(good("b"), Verdict::Good);
}

#[test]
fn a_blob_has_one_owner_whoever_names_it() {
    let place = Place::new();
    let bytes = gguf(1);
    let [first, second] = ["1/a.gguf", "2/b.gguf"].map(|name| place.file(name, &bytes));
    let linked = |file: &Path| NewModel {
        link: true,
        ..new(file)
    };
    let a = place.add(&linked(&first)).unwrap();
    let b = place.add(&linked(&second)).unwrap();
    assert!(a.adopted.is_some());
    assert_eq!(b.adopted, a.adopted, "the blob is the first one's file");
    // A copy takes the link's place, for all.
    place
        .add(&NewModel {
            name: Some("c".into()),
            ..new(&second)
        })
        .unwrap();
    std::fs::write(&first, gguf(2)).unwrap();
    for name in ["a", "b", "c"] {
        let manifest = place.store.get(name).unwrap();
        assert_eq!(manifest.adopted, None, "{name}");
        place.store.check_place(&manifest).unwrap();
    }
    let findings = place.store.verify(None, &mut |_, _| {}).unwrap();
    assert!(findings.iter().all(|f| f.verdict == Verdict::Good));
}

#[test]
fn verify_finds_rot_in_the_stores_own_files_and_adding_again_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    for (name, salt) in [("a", 1), ("b", 2)] {
        place
            .add(&new(&place.file(&format!("{name}.gguf"), &gguf(salt))))
            .unwrap();
    }
    let blob = place.store.weights(&place.store.get("a").unwrap());
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = gguf(1);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let mut hashed = Vec::new();
    let findings = place
        .store
        .verify(None, &mut |name, at| {
            if at.done == at.total {
                hashed.push(name.to_owned());
            }
        })
        .unwrap();
    assert_eq!(hashed, ["a", "b"]);
    assert_eq!(
        findings[0].verdict,
        Verdict::Changed {
            found: sha256(&bytes)
        }
    );
    assert_eq!(findings[1].verdict, Verdict::Good);
    place.add(&new(&place.dir.path().join("a.gguf"))).unwrap();
    let findings = place.store.verify(None, &mut |_, _| {}).unwrap();
    assert!(findings.iter().all(|f| f.verdict == Verdict::Good));
    std::fs::remove_file(&blob).unwrap();
    let findings = place.store.verify(Some("a"), &mut |_, _| {}).unwrap();
    assert!(matches!(findings[0].verdict, Verdict::Unreadable { .. }));
    assert!(matches!(
        place.store.verify(Some("zz"), &mut |_, _| {}),
        Err(CatalogError::NoSuchModel(_))
    ));
}
