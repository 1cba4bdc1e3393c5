//! Models from outside: other programs' stores, downloads, and the list of known ones.

use nearfar_domain::frames::DownloadEvent;
use nearfar_domain::ids::JobId;

use super::*;

#[test]
fn ollama_models_are_found_and_adopted_without_a_copy() {
    let place = Place::new();
    let bytes = gguf(1);
    let digest = sha256(&bytes);
    let root = place.dir.path().join("ollama");
    place.file(&format!("ollama/blobs/sha256-{digest}"), &bytes);
    let layer = |kind: &str, digest: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{digest}","size":9}}"#
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{}},"layers":[{},{}]}}"#,
        layer("template", &sha256(b"t")),
        layer("model", &digest)
    );
    place.file(
        "ollama/manifests/registry.ollama.ai/library/tiny/latest",
        manifest.as_bytes(),
    );
    place.file(
        "ollama/manifests/hf.co/owner/repo/Q8_0",
        manifest.as_bytes(),
    );
    let caches = Caches {
        ollama: vec![place.dir.path().join("none"), root.clone()],
        hugging_face: vec![],
    };
    let (file, said) = find_ollama(&caches, "tiny", "latest").unwrap();
    assert_eq!(said.as_ref(), Some(&digest));
    assert!(find_ollama(&caches, "hf.co/owner/repo", "Q8_0").is_ok());
    let added = place
        .add(&NewModel {
            name: Some("tiny".into()),
            link: true,
            digest: said,
            ..new(&file)
        })
        .unwrap();
    assert!(added.adopted.is_some());
    let error = find_ollama(&caches, "huge", "latest")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&root.display().to_string()) && error.contains("OLLAMA_MODELS"),
        "{error}"
    );
    for bad in [
        "{",
        r#"{"layers":[]}"#,
        &format!(r#"{{"layers":[{}]}}"#, layer("model", "../../x")),
    ] {
        place.file(
            "ollama/manifests/registry.ollama.ai/library/tiny/bad",
            bad.as_bytes(),
        );
        assert!(matches!(
            find_ollama(&caches, "tiny", "bad"),
            Err(CatalogError::Spec(_))
        ));
    }
}

#[test]
fn a_hugging_face_cache_is_looked_at_first() {
    let place = Place::new();
    let bytes = gguf(1);
    let digest = sha256(&bytes);
    let base = "hub/models--Owner--Repo-GGUF";
    let blob = place.file(&format!("{base}/blobs/{digest}"), &bytes);
    place.file(&format!("{base}/refs/main"), b"abc123\n");
    let snapshot = place.dir.path().join(base).join("snapshots/abc123");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{digest}"), snapshot.join("tiny.gguf"))
        .unwrap();
    let caches = Caches {
        ollama: vec![],
        hugging_face: vec![place.dir.path().join("hub")],
    };
    let found = |text: &str| find_hf(&caches, &HfFile::parse(text).unwrap()).unwrap();
    let expected = Some((blob.canonicalize().unwrap(), Some(digest)));
    assert_eq!(found("Owner/Repo-GGUF/tiny.gguf"), expected);
    assert_eq!(found("Owner/Repo-GGUF/tiny.gguf@abc123"), expected);
    assert_eq!(found("Owner/Repo-GGUF/tiny.gguf@def456"), None);
    assert_eq!(found("Owner/Repo-GGUF/other.gguf"), None);
    assert_eq!(found("Owner/Else/tiny.gguf"), None);
}

#[test]
fn specs_are_read_and_bad_ones_mended() {
    let hf = |text: &str| match Spec::parse(text).unwrap() {
        Spec::Hf(file) => file.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hf("hf:o/r/f.gguf"), "hf:o/r/f.gguf@main");
    assert_eq!(hf("hf:o/r/dir/f.gguf@v1"), "hf:o/r/dir/f.gguf@v1");
    let ollama = |model: &str, tag: &str| Spec::Ollama {
        model: model.into(),
        tag: tag.into(),
    };
    assert_eq!(
        Spec::parse("ollama:llama3.2").unwrap(),
        ollama("llama3.2", "latest")
    );
    assert_eq!(Spec::parse("ollama:me/x:1b").unwrap(), ollama("me/x", "1b"));
    assert_eq!(
        Spec::parse("./x.gguf").unwrap(),
        Spec::File("./x.gguf".into())
    );
    assert_eq!(Spec::parse("x.gguf").unwrap(), Spec::File("x.gguf".into()));
    assert!(matches!(Spec::parse("qwen3-0.6b").unwrap(), Spec::Known(_)));
    let bad = [
        "hf:o/r",
        "hf:o/r/f.bin",
        "hf:o/../f.gguf",
        "hf:o/r/../f.gguf",
        "hf:o/r//f.gguf",
        "hf:o/r/f.gguf@",
        "hf:o/r/f.gguf@..",
        "hf:o/r/f g.gguf",
        "hf:o/r?x/f.gguf",
        "hf:",
        "ollama:",
        "ollama:../x",
        "ollama:a/b/c/d",
        "ollama:x:",
        "qwen9",
        "",
    ];
    for text in bad {
        let error = Spec::parse(text).unwrap_err();
        assert!(matches!(error, CatalogError::Spec(_)), "{text}");
        let text = error.to_string();
        assert!(text.contains("hf:") || text.contains("ollama:"), "{text}");
    }
}

fn pull(hf: &str) -> PullSpec {
    PullSpec {
        hf: hf.into(),
        name: None,
        sha256: None,
    }
}

#[test]
fn a_download_is_planned_checked_and_installed() {
    let place = Place::new();
    let spec = pull("hf:Owner/Repo/Tiny.Q8_0.gguf");
    let plan = plan_download(&place.store, JobId(7), &spec).unwrap();
    assert_eq!(
        (plan.repo.as_str(), plan.revision.as_str()),
        ("Owner/Repo", "main")
    );
    assert_eq!((plan.file.as_str(), plan.job), ("Tiny.Q8_0.gguf", JobId(7)));
    assert!(plan.sha256.is_none() && plan.max_bytes > 0);
    assert!(Path::new(&plan.into).is_absolute());
    let again = plan_download(&place.store, JobId(8), &spec).unwrap();
    assert_eq!(
        plan.save_as, again.save_as,
        "so that it can be gone on with"
    );
    let elsewhere = plan_download(
        &place.store,
        JobId(9),
        &pull("Owner/Repo/Tiny.Q8_0.gguf@dev"),
    )
    .unwrap();
    assert_ne!(plan.save_as, elsewhere.save_as);

    let bytes = gguf(1);
    let file = Path::new(&plan.into).join(&plan.save_as);
    std::fs::write(&file, &bytes).unwrap();
    let lie = install_downloaded(&place.store, &file, &spec, &sha256(b"x"), false);
    assert!(matches!(lie, Err(CatalogError::WrongDigest { .. })));
    assert!(!file.exists(), "what is wrong is not kept");
    std::fs::write(&file, b"not a model").unwrap();
    let junk = install_downloaded(&place.store, &file, &spec, &sha256(b"not a model"), true);
    assert!(matches!(junk, Err(CatalogError::Unusable { .. })));
    assert!(!file.exists() && place.names().is_empty());
    std::fs::write(&file, &bytes).unwrap();
    let model = install_downloaded(&place.store, &file, &spec, &sha256(&bytes), false).unwrap();
    assert_eq!(model.name, "tiny.q8_0");
    assert!(model.pinned_at_first_pull && !file.exists());
    assert_eq!(
        model.origin.to_string(),
        "hf:Owner/Repo/Tiny.Q8_0.gguf@main"
    );
    let taken = plan_download(&place.store, JobId(1), &spec);
    assert!(matches!(taken, Err(CatalogError::NameTaken(_))));
    let bad = PullSpec {
        sha256: Some("zz".into()),
        ..pull("o/r/f.gguf")
    };
    assert!(matches!(
        plan_download(&place.store, JobId(1), &bad),
        Err(CatalogError::Spec(_))
    ));
}

#[test]
fn a_known_model_brings_its_name_and_digest() {
    let place = Place::new();
    let plan = plan_download(&place.store, JobId(1), &pull("qwen3-0.6b")).unwrap();
    let known = known::find("qwen3-0.6b").unwrap();
    assert_eq!(plan.repo, known.source.repository);
    assert_eq!(plan.sha256, known.source.sha256);
    assert!(plan.sha256.is_some());
}

#[test]
fn progress_lines_read_as_they_were_written() {
    let line = PullLine::from(DownloadEvent::Progress {
        have: 1,
        total: None,
    });
    let text = serde_json::to_string(&line).unwrap();
    assert_eq!(text, r#"{"event":"progress","have":1,"total":null}"#);
    assert_eq!(serde_json::from_str::<PullLine>(&text).unwrap(), line);
}

#[test]
fn every_known_model_is_whole() {
    let mut files = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"));
    files.retain(|name| name.ends_with(".toml"));
    assert_eq!(
        known::all().len(),
        files.len(),
        "each file is parsed and listed"
    );
    assert!(known::all().len() >= 10);
    for model in known::all() {
        let name = &model.name;
        assert!(files.contains(&format!("{name}.toml")));
        manifest::check_name(name).unwrap();
        assert!(
            model.hf_file().to_string()
                == format!(
                    "hf:{}",
                    HfFile::parse(&format!(
                        "{}/{}@{}",
                        model.source.repository, model.source.file, model.source.revision
                    ))
                    .unwrap()
                    .to_string()
                    .trim_start_matches("hf:")
                ),
            "{name}"
        );
        assert_eq!(
            model.runs,
            model.why_not.is_none(),
            "{name}: says why not, or runs"
        );
        let engine = match model.capabilities.embeddings {
            true => &["bert", "nomic-bert"][..],
            false => &[
                "llama", "qwen2", "qwen3", "gemma3", "phi3", "smollm3", "granite",
            ],
        };
        assert!(
            model.embedding.is_none() || model.capabilities.embeddings,
            "{name}"
        );
        assert!(
            !model.runs || engine.contains(&model.architecture.as_str()),
            "{name}"
        );
        assert!(
            model.capabilities.chat != model.capabilities.embeddings,
            "{name}"
        );
        assert!(
            !model.summary.is_empty() && model.summary.ends_with('.'),
            "{name}"
        );
        assert!(!model.licence.is_empty() && !model.maker.is_empty() && !model.title.is_empty());
        assert!(
            (20_000_000..10_000_000_000).contains(&model.parameters),
            "{name}"
        );
        let least = if model.capabilities.chat { 4_096 } else { 512 };
        assert!(model.context_tokens >= least, "{name}");
        if let Some(bytes) = model.source.bytes {
            assert!(u64::from(model.memory.estimate_mib) << 20 > bytes, "{name}");
        }
        if let Some(digest) = &model.source.sha256 {
            assert!(manifest::is_digest(digest), "{name}");
        }
    }
    assert!(known::find("lfm2-1.2b").is_some_and(|m| !m.runs));
    assert!(known::all().iter().filter(|m| m.runs).count() >= 8);
}
